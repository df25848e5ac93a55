//! One optimizer step of a reward model over pairs, what held-out pairs say, and what a reward model says of sequences.

use burn::tensor::Tensor;
use fthost_data::{Batch, Place};

use super::evaluate::summed;
use super::logps::{Figure, step_of_states};
use super::state::TrainState;
use super::step::{StepConfig, StepMetrics};
use crate::error::Result;
use crate::models::causal_lm::ids_tensor;
use crate::models::{CausalLm, Heads, ScoreHead, ScoreRole};
use crate::objectives::reward::RewardMetrics;
use crate::objectives::segments::floats;
use crate::objectives::{RewardConfig, reward_loss};
use crate::parallel::Ranks;

/// Makes `model` a reward model that has learned nothing: everything is worth 0. One that is a reward model stays as it is.
pub fn attach_reward_head(model: &mut CausalLm) {
    if model.score.is_none() {
        let head = ScoreHead::zeros(ScoreRole::Reward, model.config.hidden_size, &model.device());
        model.score = Some(head);
    }
}

/// The reward of each sequence, `[sequences]`: the head's score at its last token, as in Hugging Face's models for sequence
/// classification.
///
/// # Shapes
/// - `hidden`: `[T, D]`
fn rewards(hidden: Tensor<2>, head: &ScoreHead, batch: &Batch) -> Tensor<1> {
    let last: Vec<u32> = batch.sequences().iter().filter_map(Place::last).map(|it| it as u32).collect();
    let device = hidden.device().inner();
    head.forward(hidden.select(0, ids_tensor(&last, &device)))
}

/// The rewards of the chosen and of the rejected answers, `[pairs]` each: sequences are so in turn.
fn pairs(rewards: &Tensor<1>) -> [Tensor<1>; 2] {
    let pairs = rewards.clone().reshape([rewards.dims()[0] / 2, 2]);
    [0, 1].map(|side| pairs.clone().narrow(1, side, 1).squeeze_dim::<1>(1))
}

/// The rewards of a `model` that has a scalar head.
fn forward(model: &CausalLm, batch: &Batch) -> Tensor<1> {
    let (hidden, heads) = model.forward(batch);
    rewards(hidden, &heads.score.expect("the model has a head"), batch)
}

/// What a reward `model` says of the sequences of `batch`; `None` of a model that has no scalar head.
pub fn sequence_rewards(model: &CausalLm, batch: &Batch) -> Option<Vec<f32>> {
    // As a training step: on a worker of the pool.
    model.score.is_some().then(|| rayon::scope(|_| floats(&forward(model, batch))))
}

/// A micro-batch's part of the loss of `pairs_of_step`, `[1]`.
fn share(
    rewards: &Tensor<1>,
    batch: &Batch,
    pairs_of_step: usize,
    objective: &RewardConfig,
    metrics: &mut RewardMetrics,
) -> Tensor<1> {
    let [chosen, rejected] = pairs(rewards);
    let margins: Vec<f32> = batch.judgements.iter().step_by(2).copied().collect();
    metrics.add(&floats(&chosen), &floats(&rejected));
    reward_loss(&chosen, &rejected, Some(&margins), pairs_of_step, objective)
}

/// One optimizer step over `micro_batches` of pairs, whose sequences are chosen and rejected in turn.
///
/// Metrics are TRL's: `accuracy`, `margin`, `{min,mean,max}_reward`.
///
/// # Errors
/// A loss or gradient that is not finite, the state being as before.
pub fn reward_step(
    state: &mut TrainState,
    micro_batches: &[Batch],
    objective: &RewardConfig,
    config: &StepConfig,
) -> Result<StepMetrics> {
    attach_reward_head(&mut state.model);
    let pairs = micro_batches.iter().map(|it| it.origins.len() / 2).sum();
    let mut metrics = RewardMetrics::default();
    let mut done = step_of_states(state, micro_batches, config, &mut |asked, hidden, heads: Heads| {
        let batch = &micro_batches[asked.micro_batch];
        let head = heads.score.as_ref().expect("the model has a head");
        let share = share(&rewards(hidden, head, batch), batch, pairs, objective, &mut metrics);
        (share, Vec::<Figure>::new())
    })?;
    let metrics = state.ranks.merged(metrics)?;
    done.figures.extend(metrics.metrics().into_iter().map(|(name, value)| (name.to_string(), value)));
    Ok(done)
}

/// Loss and metrics of held-out pairs, as [`reward_step`] has them, `loss` first; `None` where there are none, and of a
/// model that has no scalar head.
pub fn evaluate_rewards(
    model: &CausalLm,
    batches: &[Batch],
    objective: &RewardConfig,
    ranks: &Ranks,
) -> Result<Option<Vec<(String, f64)>>> {
    let pairs: usize = batches.iter().map(|it| it.origins.len() / 2).sum();
    if pairs == 0 || model.score.is_none() {
        return Ok(None);
    }
    let found = ranks.each(batches, |_, batch| {
        let (rewards, mut metrics) = (rayon::scope(|_| forward(model, batch)), RewardMetrics::default());
        (share(&rewards, batch, pairs, objective, &mut metrics).into_scalar::<f64>(), metrics)
    })?;
    let (sum, metrics) = summed(found);
    let named = metrics.metrics().into_iter().map(|(name, value)| (name.to_string(), value));
    Ok(Some(std::iter::once(("loss".to_string(), sum)).chain(named).collect()))
}
