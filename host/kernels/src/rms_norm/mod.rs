//! Root mean square layer normalisation: <https://arxiv.org/abs/1910.07467>, as `LlamaRMSNorm` computes it.

mod cpu;

use burn::tensor::{DType, Tensor};

use crate::extension::{apply, is_ours};
pub(crate) use cpu::{add_in_order, backward_rows, forward_rows, weight_gradient};

/// `x / sqrt(mean(x^2) + eps) * weight` over the last axis.
///
/// Normalised in f32 and cast back before the weight is applied, as Hugging Face does.
///
/// # Shapes
/// - `x`: `[T, D]`, `weight`: `[D]`, result: `[T, D]`
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    if is_ours(&x) && is_ours(&weight) {
        return apply(vec![x.into(), weight.into()], cpu::RmsNorm { eps: eps as f32 });
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{compare, random};

    /// Sums of at most 576 terms in f32, in two orders: 1e-5 of the largest value.
    #[test]
    fn values_and_gradients_equal_the_reference() {
        for [rows, width] in [[1, 8], [3, 17], [130, 64], [65, 576]] {
            compare(
                &[random([rows, width], 1).into(), random([width], 2).into()],
                |it| rms_norm(it[0].matrix(), it[1].vector(), 1e-5),
                |it| rms_norm_reference(it[0].matrix(), it[1].vector(), 1e-5),
                1e-5,
            );
        }
    }

    #[test]
    fn a_nan_stays_in_its_row() {
        let mut values = vec![1.0f32; 4 * 20];
        values[25] = f32::NAN;
        let x = Tensor::<1>::from_floats(values.as_slice(), &burn::tensor::Device::flex()).reshape([4, 20]);
        let y = rms_norm(x, random([20], 1), 1e-5).try_into_vec_as::<f32>().unwrap();
        for (row, values) in y.chunks(20).enumerate() {
            assert_eq!(values.iter().all(|it| it.is_nan()), row == 1, "row {row}");
        }
    }
}
