//! One optimizer step over preference pairs, and what held-out pairs say.

use burn::tensor::{Int, Tensor, TensorData};
use fthost_data::Batch;
use fthost_kernels::TokenLogps;

use super::evaluate::summed;
use super::logps::{Figure, batch_logps, step_of_logps};
use super::state::TrainState;
use super::step::{StepConfig, StepMetrics};
use crate::error::Result;
use crate::models::CausalLm;
use crate::objectives::segments::{constant, floats};
use crate::objectives::{
    CpoConfig, DpoConfig, OrpoConfig, PairLengths, PairLogps, PairTotals, PolicyPairs, PreferenceMetrics,
    PreferenceOutput, SimPoConfig, cpo_loss, dpo_loss, orpo_loss, simpo_loss,
};
use crate::parallel::Ranks;

/// An objective over pairs.
#[derive(Debug, Clone, PartialEq)]
pub enum PreferenceLoss {
    /// Against a reference.
    Dpo(DpoConfig),
    /// By odds.
    Orpo(OrpoConfig),
    /// By averages.
    Simpo(SimPoConfig),
    /// By the policy alone.
    Cpo(CpoConfig),
}

/// Where the two answers of each pair of a micro-batch lie among its supervised tokens.
struct Pairs {
    chosen: Vec<usize>,
    rejected: Vec<usize>,
    of_chosen: Vec<i32>,
    of_rejected: Vec<i32>,
}

impl Pairs {
    fn of(batch: &Batch) -> Self {
        let mut pairs =
            Self { chosen: Vec::new(), rejected: Vec::new(), of_chosen: Vec::new(), of_rejected: Vec::new() };
        let mut end = 0;
        for (index, count) in batch.supervised_tokens().into_iter().enumerate() {
            let places = end..end + count as i32;
            end = places.end;
            let (lengths, of) = match index % 2 {
                0 => (&mut pairs.chosen, &mut pairs.of_chosen),
                _ => (&mut pairs.rejected, &mut pairs.of_rejected),
            };
            lengths.push(count);
            of.extend(places);
        }
        pairs
    }

    fn lengths(&self) -> PairLengths<'_> {
        PairLengths { chosen: &self.chosen, rejected: &self.rejected }
    }

    /// The values of the chosen answers' tokens, and of the rejected ones'.
    fn apart(&self, values: Tensor<1>) -> [Tensor<1>; 2] {
        let device = values.device().inner();
        [&self.of_chosen, &self.of_rejected].map(|places| {
            let places =
                Tensor::<1, Int>::from_data(TensorData::new(places.clone(), [places.len()]), &device);
            values.clone().select(0, places)
        })
    }
}

fn totals(all: &[Pairs]) -> PairTotals {
    all.iter().fold(PairTotals::default(), |totals, it| totals.with(&it.lengths()))
}

impl PreferenceLoss {
    /// Whether it holds the policy against a reference.
    pub fn needs_reference(&self) -> bool {
        matches!(self, Self::Dpo(_))
    }

    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Dpo(config) => config.problems(),
            Self::Orpo(config) => config.problems(),
            Self::Simpo(config) => config.problems(),
            Self::Cpo(config) => config.problems(),
        }
    }

    /// A micro-batch's part of the step's loss, `[1]`.
    fn share(
        &self,
        pairs: &Pairs,
        logps: Tensor<1>,
        reference: &[f32],
        totals: &PairTotals,
        metrics: &mut PreferenceMetrics,
    ) -> Tensor<1> {
        let lengths = pairs.lengths();
        let ld_alpha = match self {
            Self::Dpo(config) => config.ld_alpha,
            Self::Orpo(_) | Self::Simpo(_) | Self::Cpo(_) => None,
        };
        let [chosen, rejected] = pairs.apart(logps);
        let policy = PolicyPairs::of_tokens(chosen, rejected, &lengths, ld_alpha);
        let PreferenceOutput { loss, chosen_rewards, rejected_rewards } = match self {
            Self::Dpo(config) => {
                let [chosen, rejected] = pairs.apart(constant(reference, &policy.logps.chosen));
                let reference = PairLogps::of_tokens(chosen, rejected, &lengths, ld_alpha);
                dpo_loss(&policy, &reference, &lengths, totals, config)
            }
            Self::Orpo(config) => orpo_loss(&policy, &lengths, totals, config).preference,
            Self::Simpo(config) => simpo_loss(&policy, &lengths, totals, config),
            Self::Cpo(config) => cpo_loss(&policy, &lengths, totals, config),
        };
        let rewards = [chosen_rewards, rejected_rewards].map(|it| floats(&it));
        let logps = [&policy.logps.chosen, &policy.logps.rejected].map(floats);
        metrics.add_pairs((&rewards[0], &rewards[1]), (&logps[0], &logps[1]));
        loss
    }
}

/// The log-probabilities of the supervised tokens of `batch` under a `reference`, end to end: for [`preference_step`].
pub fn reference_logps(reference: &CausalLm, batch: &Batch) -> Vec<f32> {
    floats(&batch_logps(reference, batch, 1.0).logps)
}

/// One optimizer step over `micro_batches` of pairs, whose sequences are chosen and rejected in turn. `references` has what
/// the reference says of each micro-batch's supervised tokens; nothing where the loss has none.
///
/// Metrics are TRL's: `entropy`, `rewards/*`, `logps/*`.
///
/// # Errors
/// As [`step_of_logps`].
pub fn preference_step(
    state: &mut TrainState,
    micro_batches: &[Batch],
    references: &[Vec<f32>],
    loss: &PreferenceLoss,
    config: &StepConfig,
) -> Result<StepMetrics> {
    let pairs: Vec<Pairs> = micro_batches.iter().map(Pairs::of).collect();
    let totals = totals(&pairs);
    let mut metrics = PreferenceMetrics::default();
    let mut done = step_of_logps(state, micro_batches, config, 1.0, &mut |index, found| {
        let TokenLogps { logps, entropy } = found;
        let entropy = Figure::mean("entropy", floats(&entropy).into_iter().map(f64::from));
        let reference = references.get(index).map_or(&[][..], Vec::as_slice);
        (loss.share(&pairs[index], logps, reference, &totals, &mut metrics), vec![entropy])
    })?;
    let metrics = state.ranks.merged(metrics)?;
    done.figures.extend(metrics.metrics().into_iter().map(|(name, value)| (name.to_string(), value)));
    Ok(done)
}

/// Loss and metrics of held-out pairs, as [`preference_step`] has them, `loss` first; `None` where there are none.
pub fn evaluate_preferences(
    model: &CausalLm,
    batches: &[Batch],
    references: &[Vec<f32>],
    loss: &PreferenceLoss,
    ranks: &Ranks,
) -> Result<Option<Vec<(String, f64)>>> {
    let pairs: Vec<Pairs> = batches.iter().map(Pairs::of).collect();
    let totals = totals(&pairs);
    if totals.pairs == 0 {
        return Ok(None);
    }
    let found = ranks.each(batches, |index, batch| {
        let reference = references.get(index).map_or(&[][..], Vec::as_slice);
        let (logps, mut metrics) = (batch_logps(model, batch, 1.0).logps, PreferenceMetrics::default());
        let share = loss.share(&pairs[index], logps, reference, &totals, &mut metrics);
        (share.into_scalar::<f64>(), metrics)
    })?;
    let (sum, metrics) = summed(found);
    let named = metrics.metrics().into_iter().map(|(name, value)| (name.to_string(), value));
    Ok(Some(std::iter::once(("loss".to_string(), sum)).chain(named).collect()))
}
