//! Loss over held-out rows, without a graph.

use fthost_data::Batch;

use crate::error::{EngineError, Result};
use crate::models::CausalLm;
use crate::objectives::sft::sft_loss;

/// Means over the supervised tokens of all batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvalMetrics {
    /// Negative log-likelihood in nats.
    pub eval_loss: f64,
    /// Entropy of the predictions in nats.
    pub eval_entropy: f64,
    /// Share of tokens predicted right.
    pub eval_mean_token_accuracy: f64,
    /// Tokens that were judged.
    pub supervised_tokens: usize,
}

/// Evaluates `model` on `batches`; the mean is over tokens, however they are batched. `None` where there are none.
///
/// # Errors
/// A loss that is not finite, with the rows of its batch; `step` is the step after which it was measured.
pub fn evaluate(model: &CausalLm, batches: &[Batch], step: u64) -> Result<Option<EvalMetrics>> {
    // As a training step: on a worker of the pool.
    rayon::scope(|_| evaluate_on_worker(model, batches, step))
}

fn evaluate_on_worker(model: &CausalLm, batches: &[Batch], step: u64) -> Result<Option<EvalMetrics>> {
    let (mut loss, mut entropy, mut correct, mut tokens) = (0.0, 0.0, 0.0, 0);
    for batch in batches {
        let targets = batch.targets();
        if targets.positions.is_empty() {
            continue;
        }
        let (hidden, heads) = model.forward(batch);
        let sums = sft_loss(hidden, heads.tokens, &targets);
        let value = sums.loss_sum.into_scalar::<f64>();
        if !value.is_finite() {
            let rows = batch.origins.iter().map(ToString::to_string).collect();
            let what = "eval_loss";
            return Err(EngineError::NotFiniteStep { what, value, step, rows, last_checkpoint: None });
        }
        loss += value;
        entropy += sums.entropy_sum.into_scalar::<f64>();
        correct += sums.correct.into_scalar::<f64>();
        tokens += targets.positions.len();
    }
    let count = tokens as f64;
    Ok((tokens > 0).then_some(EvalMetrics {
        eval_loss: loss / count,
        eval_entropy: entropy / count,
        eval_mean_token_accuracy: correct / count,
        supervised_tokens: tokens,
    }))
}
