//! One optimizer step of a policy on completions that were sampled from it.

use fthost_data::Batch;
use fthost_kernels::TokenLogps;
use serde::{Deserialize, Serialize};

use super::logps::{Figure, batch_logps, step_of_logps};
use super::state::TrainState;
use super::step::{StepConfig, StepMetrics};
use crate::error::Result;
use crate::models::CausalLm;
use crate::objectives::GrpoConfig;
use crate::objectives::grpo::{GroupStatistics, GroupTotals, GrpoOutput, RolloutLogps, grpo_loss};
use crate::objectives::segments::{constant, floats};
use crate::parallel::Merge;

/// Completions of one micro-batch, a sequence each, with what is known of them.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyBatch {
    /// Prompt and completion; the completion's tokens are supervised.
    pub batch: Batch,
    /// Log-probabilities of the completions' tokens as they were sampled, end to end.
    pub old: Vec<f32>,
    /// Those of a reference; nothing where the objective has none.
    pub reference: Option<Vec<f32>>,
    /// Advantage of each completion.
    pub advantages: Vec<f32>,
}

/// How the new log-probabilities of a step differ from those that were sampled.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Difference {
    sum: f64,
    count: usize,
    most: f64,
}

impl Merge for Difference {
    fn merge(&mut self, other: Self) {
        self.sum += other.sum;
        self.count += other.count;
        self.most = self.most.max(other.most);
    }
}

impl Difference {
    pub(super) fn add(&mut self, new: &[f32], old: &[f32]) {
        for (new, old) in new.iter().zip(old) {
            let difference = f64::from((new - old).abs());
            self.sum += difference;
            self.count += 1;
            self.most = self.most.max(difference);
        }
    }

    /// Mean and greatest, by TRL's names; nothing of nothing.
    pub(super) fn figures(self) -> Vec<(String, f64)> {
        if self.count == 0 {
            return Vec::new();
        }
        let named = [("mean", self.sum / self.count as f64), ("max", self.most)];
        named.map(|(of, value)| (format!("sampling/sampling_logp_difference/{of}"), value)).to_vec()
    }
}

/// The log-probabilities of the completions' tokens under another model, at the sampling temperature.
pub fn completion_logps(model: &CausalLm, batch: &Batch, temperature: f64) -> Vec<f32> {
    floats(&batch_logps(model, batch, temperature).logps)
}

/// One optimizer step over `micro_batches`, of which the step has `totals`. Log-probabilities are those under logits
/// divided by `temperature`, at which completions were sampled.
///
/// Metrics are TRL's: `entropy`, `clip_ratio/*`, `kl`; with `is_first`, the first update after a rollout, the difference
/// between log-probabilities as sampled and as computed again, `sampling/sampling_logp_difference/{mean,max}`.
///
/// # Errors
/// As [`step_of_logps`].
pub fn policy_step(
    state: &mut TrainState,
    micro_batches: &[PolicyBatch],
    totals: &GroupTotals,
    objective: &GrpoConfig,
    temperature: f64,
    is_first: bool,
    config: &StepConfig,
) -> Result<StepMetrics> {
    let batches: Vec<Batch> = micro_batches.iter().map(|it| it.batch.clone()).collect();
    let (mut statistics, mut difference) = (GroupStatistics::default(), Difference::default());
    let mut done = step_of_logps(state, &batches, config, temperature, &mut |index, found| {
        let TokenLogps { logps, entropy } = found;
        let PolicyBatch { batch, old, reference, advantages } = &micro_batches[index];
        let lengths = batch.supervised_tokens();
        difference.add(&floats(&logps), old);
        let logps = RolloutLogps {
            old: Some(constant(old, &logps)),
            reference: reference.as_deref().map(|it| constant(it, &logps)),
            policy: logps,
        };
        let GrpoOutput { loss, log_ratios, kl } = grpo_loss(&logps, advantages, &lengths, totals, objective);
        let (log_ratios, kl) = (floats(&log_ratios), kl.as_ref().map(floats));
        statistics.add(&log_ratios, kl.as_deref(), advantages, &lengths, objective);
        (loss, vec![Figure::mean("entropy", floats(&entropy).into_iter().map(f64::from))])
    })?;
    let statistics = state.ranks.merged(statistics)?;
    let difference = state.ranks.merged(difference)?;
    done.figures.extend(statistics.metrics().into_iter().map(|(name, value)| (name.to_string(), value)));
    if is_first {
        done.figures.extend(difference.figures());
    }
    Ok(done)
}
