//! Loss over held-out rows, without a graph.

use fthost_data::Batch;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};
use crate::models::CausalLm;
use crate::objectives::sft::sft_loss;
use crate::parallel::{Merge, Ranks};

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

/// What is found of a batch.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Found {
    loss: f64,
    entropy: f64,
    correct: f64,
    tokens: usize,
}

/// Evaluates `model` on `batches`, of which each rank takes a share; the mean is over tokens, however they are batched. `None` where
/// there are none.
///
/// # Errors
/// A loss that is not finite, with the rows of its batch; `step` is the step after which it was measured. Ranks that can't be reached.
pub fn evaluate(
    model: &CausalLm,
    batches: &[Batch],
    step: u64,
    ranks: &Ranks,
) -> Result<Option<EvalMetrics>> {
    let judged: Vec<&Batch> = batches.iter().filter(|it| !it.targets().positions.is_empty()).collect();
    // As a training step: on a worker of the pool.
    let found = ranks.each(judged.iter().copied(), |_, it| rayon::scope(|_| of_batch(model, it)))?;
    let mut all = Found { loss: 0.0, entropy: 0.0, correct: 0.0, tokens: 0 };
    for (it, batch) in found.into_iter().zip(judged) {
        if !it.loss.is_finite() {
            let rows = batch.origins.iter().map(ToString::to_string).collect();
            let what = "eval_loss";
            return Err(EngineError::NotFiniteStep {
                what,
                value: it.loss,
                step,
                rows,
                last_checkpoint: None,
            });
        }
        all.loss += it.loss;
        all.entropy += it.entropy;
        all.correct += it.correct;
        all.tokens += it.tokens;
    }
    let count = all.tokens as f64;
    Ok((all.tokens > 0).then_some(EvalMetrics {
        eval_loss: all.loss / count,
        eval_entropy: all.entropy / count,
        eval_mean_token_accuracy: all.correct / count,
        supervised_tokens: all.tokens,
    }))
}

fn of_batch(model: &CausalLm, batch: &Batch) -> Found {
    let targets = batch.targets();
    let (hidden, heads) = model.forward(batch);
    let sums = sft_loss(hidden, heads.tokens, &targets);
    Found {
        loss: sums.loss_sum.into_scalar::<f64>(),
        entropy: sums.entropy_sum.into_scalar::<f64>(),
        correct: sums.correct.into_scalar::<f64>(),
        tokens: targets.positions.len(),
    }
}

/// Losses of batches with what is told of each, in their order: the sum, and all of it together.
pub(super) fn summed<M: Merge + Default>(found: Vec<(f64, M)>) -> (f64, M) {
    found.into_iter().fold((0.0, M::default()), |(sum, mut all), (loss, it)| {
        all.merge(it);
        (sum + loss, all)
    })
}
