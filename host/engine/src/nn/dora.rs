//! DoRA: <https://arxiv.org/abs/2402.09353>, as PEFT computes it. Of a weight and its low-rank share together, direction and length of
//! each row are told apart, and the length is trained by itself: `m (W + s B A) / ||W + s B A||`, row by row.
//!
//! Gradients do not flow through the norm, as in the paper (4.3). It is found without a second weight: of
//! `||w + s b A||^2 = ||w||^2 + 2 s (w A^T) b + s^2 b (A A^T) b`, row by row, nothing is wider than the rank.

use burn::tensor::{DType, Tensor};

use super::linear::LoraWeights;
use super::precision::cast;

/// The lengths of a linear's rows.
#[derive(Debug, Clone)]
pub struct Magnitude {
    /// `m`, `[out]`.
    pub length: Tensor<1>,
    /// `||W + s B A||`, `[out]`, where it does not change any more: in decoding.
    pub norm: Option<Tensor<1>>,
}

/// `||w||` of each row of `weight`, `[out, in]`.
pub fn row_norms(weight: Tensor<2>) -> Tensor<1> {
    plain(weight).square().sum_dim(1).sqrt().squeeze_dim::<1>(1)
}

/// `||W + s B A||` of each row, `[out]`, detached.
pub fn norms(weight: &Tensor<2>, lora: &LoraWeights) -> Tensor<1> {
    let (weight, a, b) = (plain(weight.clone()), plain(lora.a.clone()), plain(lora.b.clone()));
    let along = (weight.clone().matmul(a.clone().transpose()) * b.clone()).sum_dim(1);
    let own = (b.clone().matmul(a.clone().matmul(a.transpose())) * b).sum_dim(1);
    let square = weight.square().sum_dim(1)
        + along.mul_scalar(2.0 * lora.scaling)
        + own.mul_scalar(lora.scaling * lora.scaling);
    square.sqrt().squeeze_dim::<1>(1)
}

/// A weight in f32, without a graph.
fn plain(tensor: Tensor<2>) -> Tensor<2> {
    let tensor = tensor.inner();
    let tensor = if matches!(tensor.dtype(), DType::QFloat(_)) { tensor.dequantize() } else { tensor };
    cast(tensor, DType::F32)
}

impl LoraWeights {
    /// What each output of weight and share together is times, `[out]`, where lengths are trained.
    pub(super) fn factor(&self, weight: &Tensor<2>) -> Option<Tensor<1>> {
        let magnitude = self.magnitude.as_deref()?;
        let norm = magnitude.norm.clone().unwrap_or_else(|| norms(weight, self));
        // A tensor with a graph and one without can't meet.
        let norm = if magnitude.length.is_autodiff() { norm.autodiff() } else { norm };
        Some(magnitude.length.clone() / norm)
    }
}
