//! GELU: <https://arxiv.org/abs/1606.08415>, by tanh, as GPT-2 uses it (`gelu_new`; `gelu_pytorch_tanh` is the same).

mod cpu;

use burn::tensor::Tensor;

use crate::extension::{apply, is_ours};

/// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, element by element.
///
/// # Shapes
/// - both: `[T, F]`
pub fn gelu(x: Tensor<2>) -> Tensor<2> {
    if is_ours(&x) {
        return apply(vec![x.into()], cpu::Gelu);
    }
    gelu_reference(x)
}

/// [`gelu`] in plain tensor operations.
pub fn gelu_reference(x: Tensor<2>) -> Tensor<2> {
    let cubed = x.clone().powf_scalar(3.0).mul_scalar(0.044715);
    let inner = (x.clone() + cubed).mul_scalar((2.0 / std::f64::consts::PI).sqrt());
    x.mul_scalar(0.5) * (inner.tanh() + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{compare, random};

    /// Each value is a handful of f32 operations; `1 + tanh` cancels below -2, so 1e-5 of the largest. Of the second
    /// shape a task takes the most values it may, and of the third the last takes few.
    #[test]
    fn values_and_gradients_equal_the_reference() {
        for (shape, scale) in [([1, 3], 1.0), ([64, 256], 3.0), ([90, 400], 1.0), ([5, 40], 10.0)] {
            compare(
                &[(random(shape, 1) * scale).into()],
                |it| gelu(it[0].matrix()),
                |it| gelu_reference(it[0].matrix()),
                1e-5,
            );
        }
    }
}
