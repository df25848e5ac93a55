//! One optimizer step of proximal policy optimisation: the policy's loss and the values' together.

use burn::tensor::Tensor;
use fthost_data::Batch;
use fthost_kernels::TokenLogps;

use super::logps::{states, step_of_states};
use super::policy::Difference;
use super::state::TrainState;
use super::step::{StepConfig, StepMetrics};
use crate::error::Result;
use crate::models::{CausalLm, ScoreHead, ScoreRole};
use crate::objectives::PpoConfig;
use crate::objectives::ppo::{
    PolicyLoss, StepStatistics, ValueModel, entropy_bonus, policy_loss, ppo_loss, value_loss,
};
use crate::objectives::segments::{constant, floats};

/// Completions of one micro-batch, a sequence each, with what is known of each of their tokens, end to end.
#[derive(Debug, Clone, PartialEq)]
pub struct PpoBatch {
    /// Prompt and completion; the completion's tokens are supervised.
    pub batch: Batch,
    /// Log-probabilities as they were sampled.
    pub old: Vec<f32>,
    /// How much better than expected each token was.
    pub advantages: Vec<f32>,
    /// What was expected of the state before each token when it was sampled.
    pub values: Vec<f32>,
    /// What the state turned out to be worth.
    pub returns: Vec<f32>,
}

/// Gives `state` a value model of `kind` that has learned nothing: every state is worth 0.
pub fn attach_value_model(state: &mut TrainState, kind: ValueModel) {
    let width = state.model.config.hidden_size;
    let head = Some(ScoreHead::zeros(ScoreRole::Value, width, &state.model.device()));
    match kind {
        ValueModel::Shared | ValueModel::SharedDetached => state.model.score = head,
        ValueModel::Copy => state.value_model = Some(CausalLm { score: head, ..state.model.clone() }),
    }
}

/// The values of the states before the supervised tokens of `batch`, end to end; 0 without a value model.
pub fn state_values(state: &TrainState, batch: &Batch) -> Vec<f32> {
    let targets = batch.targets();
    let model = state.value_model.as_ref().unwrap_or(&state.model);
    if model.score.is_none() {
        return vec![0.0; targets.positions.len()];
    }
    // As a training step: on a worker of the pool.
    rayon::scope(|_| {
        let (hidden, heads) = model.forward(batch);
        let head = heads.score.expect("it was there");
        floats(&head.forward(states(hidden, &targets)))
    })
}

/// One optimizer step over `micro_batches`. Log-probabilities are those under logits divided by `temperature`, at which
/// completions were sampled.
///
/// Metrics are TRL's: `policy/*`, `val/*`, `loss/*`; with `is_first`, the first update after a rollout, the difference between
/// log-probabilities as sampled and as computed again, `sampling/sampling_logp_difference/{mean,max}`.
///
/// # Errors
/// A loss or gradient that is not finite, the state being as before.
pub fn ppo_step(
    state: &mut TrainState,
    micro_batches: &[PpoBatch],
    objective: &PpoConfig,
    temperature: f64,
    is_first: bool,
    config: &StepConfig,
) -> Result<StepMetrics> {
    let batches: Vec<Batch> = micro_batches.iter().map(|it| it.batch.clone()).collect();
    let tokens = micro_batches.iter().map(|it| it.old.len()).sum();
    let (told, difference) = (StepStatistics::default(), Difference::default());
    let mut losses = Losses { micro_batches, objective, tokens, told, difference, sums: [0.0; 2] };
    let has_value_model = state.value_model.is_some();
    let mut done = step_of_states(state, &batches, config, &mut |asked, hidden, heads| {
        let hidden = states(hidden, asked.targets);
        let zero = || Tensor::zeros([1], &hidden.device());
        let head = heads.score.as_ref().filter(|_| asked.of_value_model || !has_value_model);
        let value = head.map_or_else(zero, |head| {
            let is_detached = objective.value_model == ValueModel::SharedDetached;
            let seen = if is_detached { hidden.clone().detach() } else { hidden.clone() };
            losses.value(asked.micro_batch, &head.forward(seen))
        });
        let (policy, entropy) = match asked.of_value_model {
            true => (zero(), None),
            false => {
                let found = heads.tokens.token_logps(hidden.clone(), &asked.targets.token_ids, temperature);
                let (policy, entropy) = losses.policy(asked.micro_batch, found);
                (policy, Some(entropy))
            }
        };
        (ppo_loss(policy, value, entropy, objective), Vec::new())
    })?;
    let Losses { told, difference, sums, .. } = losses;
    let difference = state.ranks.merged(difference)?;
    let told = state.ranks.merged(told)?;
    let [policy, value] = state.ranks.sum(sums)?;
    done.figures.extend(told.metrics().map(|(name, value)| (name.to_string(), value)));
    if is_first {
        done.figures.extend(difference.figures());
    }
    done.figures.extend([("loss/policy_avg".to_string(), policy), ("loss/value_avg".to_string(), value)]);
    Ok(done)
}

/// The losses of a step, micro-batch by micro-batch, and what they tell.
struct Losses<'a> {
    micro_batches: &'a [PpoBatch],
    objective: &'a PpoConfig,
    /// Of the whole step.
    tokens: usize,
    told: StepStatistics,
    difference: Difference,
    /// The policy's loss and the values', so far.
    sums: [f64; 2],
}

impl Losses<'_> {
    /// The policy's loss and its entropy.
    fn policy(&mut self, micro_batch: usize, found: TokenLogps) -> (Tensor<1>, Tensor<1>) {
        let (PpoBatch { old, advantages, .. }, TokenLogps { logps, entropy }) =
            (&self.micro_batches[micro_batch], found);
        self.difference.add(&floats(&logps), old);
        let constants = [old, advantages].map(|it| constant(it, &logps));
        let PolicyLoss { loss, log_ratios } =
            policy_loss(&logps, &constants[0], &constants[1], self.objective.cliprange, self.tokens);
        self.told.add_policy(&floats(&log_ratios), advantages, &floats(&entropy), self.objective);
        self.sums[0] += loss.clone().inner().into_scalar::<f64>();
        (loss, entropy_bonus(entropy, self.tokens))
    }

    /// The loss of `values`.
    fn value(&mut self, micro_batch: usize, values: &Tensor<1>) -> Tensor<1> {
        let PpoBatch { values: old, returns, .. } = &self.micro_batches[micro_batch];
        let constants = [old, returns].map(|it| constant(it, values));
        let bound = self.objective.cliprange_value;
        let loss = value_loss(values, &constants[0], &constants[1], bound, self.tokens);
        self.told.add_values(&floats(values), old, returns, self.objective);
        self.sums[1] += loss.clone().inner().into_scalar::<f64>();
        loss
    }
}
