//! One optimizer step of supervised fine-tuning.

use fthost_data::Batch;

use super::gradients::{Gradients, accompany};
use super::release;
use super::state::TrainState;
use super::step::{StepConfig, StepMetrics, dropped, finish, supervised_tokens, turns};
use super::sums::{Sums, summed};
use crate::error::{EngineError, Result};
use crate::parallel::Turn;

/// One optimizer step over `micro_batches`.
///
/// The loss is divided by the supervised tokens of all micro-batches together, so accumulation and a partial last
/// window change nothing; nor do ranks, which share the micro-batches of one step and sum up what they find.
///
/// # Errors
/// A row without a supervised token, and a loss or gradient that is not finite; the state is then as before.
pub fn step(state: &mut TrainState, micro_batches: &[Batch], config: &StepConfig) -> Result<StepMetrics> {
    // On a worker of the pool: from outside of it each of a step's thousands of parallel loops would wake one.
    rayon::scope(|_| step_on_worker(state, micro_batches, config))
}

fn step_on_worker(
    state: &mut TrainState,
    micro_batches: &[Batch],
    config: &StepConfig,
) -> Result<StepMetrics> {
    micro_batches.iter().try_for_each(every_row_is_supervised)?;
    state.reserve_moments()?;
    if config.gradient_release {
        if state.ranks.are_many() {
            let problem =
                "`gradient_release` is not known on several ranks: their gradients are summed first";
            return Err(EngineError::Invalid { what: "train".into(), problems: vec![problem.into()] });
        }
        let [batch] = micro_batches else {
            let problem = format!(
                "`gradient_release` takes one micro-batch a step, got {}: they share one update",
                micro_batches.len()
            );
            return Err(EngineError::Invalid { what: "train".into(), problems: vec![problem] });
        };
        let dropped = dropped(state, 0);
        return release::step(state, batch, config, dropped);
    }
    let mut gradients = Gradients::default();
    for Turn { index, counts } in turns(state, micro_batches) {
        let batch = &micro_batches[index];
        if !counts {
            accompany(&mut gradients.sums, &state.model, batch, config.activation_checkpointing);
            continue;
        }
        let dropped = dropped(state, index);
        let model = dropped.as_ref().unwrap_or(&state.model);
        gradients.add(model, batch, config.activation_checkpointing);
    }
    let Gradients { sums, loss_sum, correct, entropy_sum, .. } = gradients;
    let [loss_sum, correct, entropy_sum] = state.ranks.sum([loss_sum, correct, entropy_sum])?;
    let values = summed(state, [sums, Sums::default()])?;
    let supervised_tokens = supervised_tokens(micro_batches);
    let tokens = supervised_tokens as f64;
    let loss = loss_sum / tokens;
    let grad_norm = finish(state, micro_batches, config, loss, values, tokens)?;
    Ok(StepMetrics {
        loss,
        grad_norm,
        learning_rate: config.learning_rate,
        figures: figures(entropy_sum / tokens, correct / tokens),
        num_tokens: micro_batches.iter().map(Batch::sequence_tokens).sum(),
        supervised_tokens,
    })
}

/// Mean entropy of the predictions in nats, and share of supervised tokens predicted right.
pub(super) fn figures(entropy: f64, mean_token_accuracy: f64) -> Vec<(String, f64)> {
    vec![("entropy".to_string(), entropy), ("mean_token_accuracy".to_string(), mean_token_accuracy)]
}

/// A row whose labels are all ignored teaches nothing: more likely a broken template than a wish.
fn every_row_is_supervised(batch: &Batch) -> Result<()> {
    let mut rows = batch.supervised_tokens().into_iter().zip(&batch.origins);
    match rows.find(|it| it.0 == 0) {
        Some((_, row)) => Err(EngineError::NothingSupervised { row: row.to_string() }),
        None => Ok(()),
    }
}
