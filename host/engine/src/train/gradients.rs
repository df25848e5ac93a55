//! Gradients of the trained parameters, summed over micro-batches.

use burn::tensor::Tensor;
use fthost_data::Batch;
use fthost_kernels::LinearCrossEntropy;

use super::executor::{ActivationCheckpointing, Trunk};
use super::sums::Sums;
use crate::models::{CausalLm, Heads};
use crate::objectives::sft::sft_loss;

/// Summed over micro-batches.
#[derive(Debug, Default)]
pub struct Gradients {
    /// Of what is trained.
    pub sums: Sums,
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
        let loss = accumulate(&mut self.sums, model, batch, checkpointing, |hidden, heads| {
            let loss = sft_loss(hidden, heads.tokens, &targets);
            (loss.loss_sum.clone(), LinearCrossEntropy { loss_sum: loss.loss_sum.inner(), ..loss })
        });
        self.loss_sum += loss.loss_sum.into_scalar::<f64>();
        self.correct += loss.correct.into_scalar::<f64>();
        self.entropy_sum += loss.entropy_sum.into_scalar::<f64>();
        self.supervised_tokens += targets.positions.len();
    }
}

/// Adds the gradients of a `loss` of one micro-batch to `sums`.
///
/// `loss` is given the trunk's output after the final norm, `[T, D]`, and what stands on it; it returns the scalar to
/// differentiate and what else it found.
pub(super) fn accumulate<R>(
    sums: &mut Sums,
    model: &CausalLm,
    batch: &Batch,
    checkpointing: ActivationCheckpointing,
    loss: impl FnOnce(Tensor<2>, Heads) -> (Tensor<1>, R),
) -> R {
    let trunk_of = &mut model.clone();
    let trunk = Trunk::forward(trunk_of, batch, checkpointing);
    trunk.backward(loss, &mut |model, part, gradients| sums.add(model, part, gradients))
}

/// Does with the other ranks what they do for a micro-batch, and adds nothing: this one has none left.
pub(super) fn accompany(
    sums: &mut Sums,
    model: &CausalLm,
    batch: &Batch,
    checkpointing: ActivationCheckpointing,
) {
    // A pass over one that is another rank's: what is lost by it would be waited for.
    accumulate(sums, model, batch, checkpointing, |hidden, _| (hidden.sum().mul_scalar(0.0), ()));
}
