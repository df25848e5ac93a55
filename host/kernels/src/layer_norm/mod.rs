//! Layer normalisation: <https://arxiv.org/abs/1607.06450>, as `torch.nn.LayerNorm` computes it.

mod cpu;

use burn::tensor::{DType, Tensor};

use crate::extension::{apply, is_ours};

/// `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias` over the last axis; the variance is the biased one.
///
/// Normalised in f32 and cast back before weight and bias are applied.
///
/// # Shapes
/// - `x`: `[T, D]`, `weight`, `bias`: `[D]`, result: `[T, D]`
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<2> {
    if is_ours(&x) && is_ours(&weight) && is_ours(&bias) {
        return apply(vec![x.into(), weight.into(), bias.into()], cpu::LayerNorm { eps: eps as f32 });
    }
    layer_norm_reference(x, weight, bias, eps)
}

/// [`layer_norm`] in plain tensor operations.
pub fn layer_norm_reference(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<2> {
    let dtype = x.dtype();
    let x = if dtype == DType::F32 { x } else { x.cast(DType::F32) };
    let centered = x.clone() - x.mean_dim(1);
    let scale = (centered.clone().square().mean_dim(1) + eps).sqrt().recip();
    let normed = centered * scale;
    let normed = if dtype == DType::F32 { normed } else { normed.cast(dtype) };
    normed * weight.unsqueeze() + bias.unsqueeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{compare, random};

    /// Sums of at most 576 terms in f32, in two orders: 1e-5 of the largest value.
    #[test]
    fn values_and_gradients_equal_the_reference() {
        for [rows, width] in [[1, 8], [3, 17], [130, 64], [65, 576]] {
            compare(
                &[random([rows, width], 1).into(), random([width], 2).into(), random([width], 3).into()],
                |it| layer_norm(it[0].matrix(), it[1].vector(), it[2].vector(), 1e-5),
                |it| layer_norm_reference(it[0].matrix(), it[1].vector(), it[2].vector(), 1e-5),
                1e-5,
            );
        }
    }
}
