//! DoRA: <https://arxiv.org/abs/2402.09353>, as PEFT computes it. Of a weight and its low-rank share together, direction and length of
//! each row are told apart, and the length is trained by itself: `m (W + s B A) / ||W + s B A||`, row by row.
//!
//! Gradients do not flow through the norm, as in the paper (4.3). It is found without a second weight: of
//! `||w + s b A||^2 = ||w||^2 + 2 s (w A^T) b + s^2 b (A A^T) b`, row by row, the first does not change and nothing else is wider than the
//! rank.

use burn::tensor::{DType, Device, Tensor};
use fthost_kernels::{LoraLinear, Weight, lora_linear};

use super::linear::LoraWeights;
use super::precision::cast;

/// The lengths of a linear's rows.
#[derive(Debug, Clone)]
pub struct Magnitude {
    /// `m`, `[out]`.
    pub length: Tensor<1>,
    /// `||w||^2`, `[out]`: the weight is frozen.
    pub base: Tensor<1>,
    /// `||W + s B A||`, `[out]`, where it does not change any more: in decoding.
    pub norm: Option<Tensor<1>>,
}

impl Magnitude {
    /// Of rows as long as `length` says, or as they are in `weight`.
    pub fn new(weight: &Weight, length: Option<Tensor<1>>, device: &Device) -> Self {
        let base = weight.to_dense(device).square().sum_dim(1).squeeze_dim::<1>(1);
        Self { length: length.unwrap_or_else(|| base.clone().sqrt()), base, norm: None }
    }
}

/// `||W + s B A||` of each row, `[out]`, detached.
fn norms(weight: &Weight, lora: &LoraWeights, base: &Tensor<1>) -> Tensor<1> {
    let [a, b] = [&lora.a, &lora.b].map(|it| cast(it.clone().inner(), DType::F32));
    let weight = LoraLinear { weight: weight.clone(), bias: None, lora: None };
    let along = (lora_linear(a.clone(), &weight).transpose() * b.clone()).sum_dim(1);
    let own = (b.clone().matmul(a.clone().matmul(a.transpose())) * b).sum_dim(1);
    let added = along.mul_scalar(2.0 * lora.scaling) + own.mul_scalar(lora.scaling * lora.scaling);
    (base.clone() + added.squeeze_dim::<1>(1)).sqrt()
}

impl LoraWeights {
    /// `||W + s B A||` of each row, `[out]`, detached, where lengths are trained.
    pub fn norms(&self, weight: &Weight) -> Option<Tensor<1>> {
        let magnitude = self.magnitude.as_deref()?;
        Some(magnitude.norm.clone().unwrap_or_else(|| norms(weight, self, &magnitude.base)))
    }

    /// What each output of weight and share together is times, `[out]`, where lengths are trained.
    pub(super) fn factor(&self, weight: &Weight) -> Option<Tensor<1>> {
        let (magnitude, norm) = (self.magnitude.as_deref()?, self.norms(weight)?);
        // A tensor with a graph and one without can't meet.
        let norm = if magnitude.length.is_autodiff() { norm.autodiff() } else { norm };
        Some(magnitude.length.clone() / norm)
    }
}
