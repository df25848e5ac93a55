//! Supervised fine-tuning: the negative log-likelihood of the supervised tokens.

use burn::tensor::Tensor;
use fthost_data::Targets;
use fthost_kernels::LinearCrossEntropy;

use crate::models::TokenHead;
use crate::models::causal_lm::ids_tensor;

/// Negative log-likelihood, summed; dividing is left to whoever knows the tokens of the whole optimizer step.
///
/// Rows without a target are left out before the head: their logits are never computed.
///
/// # Shapes
/// - `hidden`: `[T, D]`
pub fn sft_loss(hidden: Tensor<2>, head: TokenHead, targets: &Targets) -> LinearCrossEntropy {
    let device = hidden.device().inner();
    let supervised = hidden.select(0, ids_tensor(&targets.positions, &device));
    head.cross_entropy(supervised, &targets.token_ids)
}
