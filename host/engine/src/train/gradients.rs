//! Gradients of the trained parameters, summed over micro-batches.

use burn::tensor::Tensor;
use fthost_data::Batch;
use fthost_kernels::LinearCrossEntropy;

use super::executor::{ActivationCheckpointing, Heads, Part, Trunk};
use crate::models::CausalLm;
use crate::objectives::sft::sft_loss;

/// Summed over micro-batches, in the order of [`CausalLm::visit_trained`].
#[derive(Debug, Clone, Default)]
pub struct Gradients {
    /// Flat, `[len]` each.
    pub values: Vec<Tensor<1>>,
    /// Negative log-likelihood in nats over all supervised tokens.
    pub loss_sum: f64,
    /// Supervised tokens whose most likely prediction was right.
    pub correct: f64,
    /// Entropy in nats, summed over supervised tokens.
    pub entropy_sum: f64,
    /// Supervised tokens.
    pub supervised_tokens: usize,
}

impl Gradients {
    /// Adds the gradients of one micro-batch's summed loss.
    pub fn add(&mut self, model: &CausalLm, batch: &Batch, checkpointing: ActivationCheckpointing) {
        let targets = batch.targets();
        let loss = accumulate(&mut self.values, model, batch, checkpointing, |hidden, heads| {
            let loss = sft_loss(hidden, heads.tokens, &targets);
            (loss.loss_sum.clone(), LinearCrossEntropy { loss_sum: loss.loss_sum.inner(), ..loss })
        });
        self.loss_sum += loss.loss_sum.into_scalar::<f64>();
        self.correct += loss.correct.into_scalar::<f64>();
        self.entropy_sum += loss.entropy_sum.into_scalar::<f64>();
        self.supervised_tokens += targets.positions.len();
    }
}

/// Adds the gradients of a `loss` of one micro-batch to `sums`, which stand in the order of [`CausalLm::visit_trained`].
///
/// `loss` is given the trunk's output after the final norm, `[T, D]`, and what stands on it; it returns the scalar to
/// differentiate and what else it found.
pub(super) fn accumulate<R>(
    sums: &mut Vec<Tensor<1>>,
    model: &CausalLm,
    batch: &Batch,
    checkpointing: ActivationCheckpointing,
    loss: impl FnOnce(Tensor<2>, Heads) -> (Tensor<1>, R),
) -> R {
    let (mut of_embedding, mut of_head) = (Vec::new(), Vec::new());
    let mut of_blocks = vec![Vec::new(); model.blocks.len()];
    let found =
        Trunk::forward(&mut model.clone(), batch, checkpointing).backward(loss, &mut |_, part, gradients| {
            match part {
                Part::Head => of_head = gradients,
                Part::Block(index) => of_blocks[index] = gradients,
                Part::Embedding => of_embedding = gradients,
            }
        });
    let values = of_embedding.into_iter().chain(of_blocks.into_iter().flatten()).chain(of_head);
    *sums = match sums.is_empty() {
        true => values.collect(),
        false => std::mem::take(sums).into_iter().zip(values).map(|(sum, value)| sum + value).collect(),
    };
    found
}
