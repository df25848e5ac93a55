//! One optimizer step over completions that were judged alone, and what held-out ones say.
//!
//! What rewards are compared with is one number of the whole step, so it is estimated before the step and given to it: a step
//! in several micro-batches is then the step in one.

use burn::tensor::Tensor;
use fthost_data::Batch;
use fthost_kernels::TokenLogps;

use super::evaluate::summed;
use super::logps::{Figure, batch_logps, step_of_logps};
use super::state::TrainState;
use super::step::{StepConfig, StepMetrics};
use crate::error::Result;
use crate::models::CausalLm;
use crate::objectives::kto::kto_kl;
use crate::objectives::segments::{constant, floats};
use crate::objectives::{KtoConfig, PreferenceMetrics, kto_loss, segments};
use crate::parallel::Ranks;

/// What the judged completions of a step are held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KtoReference<'a> {
    /// What the reference says of each micro-batch's supervised tokens, as [`reference_logps`](super::reference_logps) does.
    pub logps: &'a [Vec<f32>],
    /// The divergence of the whole step, [`kto_divergence`]; `None` where the loss has none.
    pub kl: Option<f32>,
}

/// The divergence of a policy from a reference, estimated from `mismatched` completions, which do not belong to their
/// prompts; 0 where there are none. `policy` and `references` have what each says of each batch, as [`reference_logps`](super::reference_logps) does.
pub fn kto_divergence(mismatched: &[Batch], of_policy: &[Vec<f32>], of_reference: &[Vec<f32>]) -> f32 {
    let (mut policy, mut reference) = (Vec::new(), Vec::new());
    for (batch, (of_policy, of_reference)) in mismatched.iter().zip(of_policy.iter().zip(of_reference)) {
        let lengths = batch.supervised_tokens();
        let sums = |values: &[f32]| segments::parts(values, &lengths).map(|it| it.iter().sum()).collect();
        policy.extend::<Vec<f32>>(sums(of_policy));
        reference.extend::<Vec<f32>>(sums(of_reference));
    }
    kto_kl(&policy, &reference)
}

/// A micro-batch's part of the loss of `completions` completions, `[1]`.
fn share(
    batch: &Batch,
    logps: Tensor<1>,
    reference: &[f32],
    kl: f32,
    completions: usize,
    objective: &KtoConfig,
    metrics: &mut PreferenceMetrics,
) -> Tensor<1> {
    let lengths = batch.supervised_tokens();
    let reference = constant(reference, &logps);
    let (policy, reference) = (segments::sums(logps, &lengths), segments::sums(reference, &lengths));
    let desirable: Vec<bool> = batch.judgements.iter().map(|it| *it > 0.0).collect();
    let found = kto_loss(&policy, &reference, &desirable, kl, completions, objective);
    metrics.add_unpaired(&floats(&found.rewards), &floats(&policy), &desirable);
    found.loss
}

/// Figures by TRL's names, the divergence before them where there is one.
fn figures(kl: Option<f32>, metrics: &PreferenceMetrics) -> Vec<(String, f64)> {
    let kl = kl.map(|it| ("kl", f64::from(it)));
    let named = kl.into_iter().chain(metrics.metrics());
    named.map(|(name, value)| (name.to_string(), value)).collect()
}

/// One optimizer step over `micro_batches`, whose sequences are judged in [`Batch::judgements`].
///
/// Metrics are TRL's: `entropy`, `kl`, `rewards/{chosen,rejected,margins}`, `logps/{chosen,rejected}`.
///
/// # Errors
/// As [`step_of_logps`].
pub fn kto_step(
    state: &mut TrainState,
    micro_batches: &[Batch],
    reference: KtoReference<'_>,
    objective: &KtoConfig,
    config: &StepConfig,
) -> Result<StepMetrics> {
    let completions = micro_batches.iter().map(|it| it.origins.len()).sum();
    let KtoReference { logps: references, kl } = reference;
    let mut metrics = PreferenceMetrics::default();
    let mut done = step_of_logps(state, micro_batches, config, 1.0, &mut |index, found| {
        let TokenLogps { logps, entropy } = found;
        let entropy = Figure::mean("entropy", floats(&entropy).into_iter().map(f64::from));
        let (batch, of_reference) = (&micro_batches[index], &references[index]);
        let kl = kl.unwrap_or_default();
        let loss = share(batch, logps, of_reference, kl, completions, objective, &mut metrics);
        (loss, vec![entropy])
    })?;
    done.figures.extend(figures(kl, &state.ranks.merged(metrics)?));
    Ok(done)
}

/// Loss and metrics of held-out completions, as [`kto_step`] has them, `loss` first; `None` where there are none.
pub fn evaluate_kto(
    model: &CausalLm,
    batches: &[Batch],
    reference: KtoReference<'_>,
    objective: &KtoConfig,
    ranks: &Ranks,
) -> Result<Option<Vec<(String, f64)>>> {
    let completions: usize = batches.iter().map(|it| it.origins.len()).sum();
    if completions == 0 {
        return Ok(None);
    }
    let KtoReference { logps: references, kl } = reference;
    let found = ranks.each(batches, |index, batch| {
        let (logps, mut metrics) = (batch_logps(model, batch, 1.0).logps, PreferenceMetrics::default());
        let (of_reference, kl) = (&references[index], kl.unwrap_or_default());
        let share = share(batch, logps, of_reference, kl, completions, objective, &mut metrics);
        (share.into_scalar::<f64>(), metrics)
    })?;
    let (sum, metrics) = summed(found);
    Ok(Some(std::iter::once(("loss".to_string(), sum)).chain(figures(kl, &metrics)).collect()))
}
