//! Root mean square layer normalisation: <https://arxiv.org/abs/1910.07467>, as `LlamaRMSNorm` computes it.

use burn::tensor::{DType, Tensor};

/// `x / sqrt(mean(x^2) + eps) * weight` over the last axis.
///
/// Normalised in f32 and cast back before the weight is applied, as Hugging Face does.
///
/// # Shapes
/// - `x`: `[T, D]`, `weight`: `[D]`, result: `[T, D]`
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    rms_norm_reference(x, weight, eps)
}

/// [`rms_norm`] in plain tensor operations.
pub fn rms_norm_reference(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let dtype = x.dtype();
    let x = if dtype == DType::F32 { x } else { x.cast(DType::F32) };
    let scale = (x.clone().square().mean_dim(1) + eps).sqrt().recip();
    let normed = x * scale;
    let normed = if dtype == DType::F32 { normed } else { normed.cast(dtype) };
    normed * weight.unsqueeze()
}
