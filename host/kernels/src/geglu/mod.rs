//! GEGLU: <https://arxiv.org/abs/2002.05202>, with the tanh approximation of GELU as Gemma uses it
//! (`gelu_pytorch_tanh`).

use burn::tensor::Tensor;

use crate::extension::{apply, is_ours};
use crate::gate::{Activation, Gate};

/// `gelu(gate) * up`, element by element; `gelu(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`.
///
/// # Shapes
/// - all: `[T, F]`
pub fn geglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    if is_ours(&gate) && is_ours(&up) {
        return apply(vec![gate.into(), up.into()], Gate { activation: Activation::GeluTanh });
    }
    geglu_reference(gate, up)
}

/// [`geglu`] in plain tensor operations.
pub fn geglu_reference(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    let cubed = gate.clone().powf_scalar(3.0).mul_scalar(0.044715);
    let inner = (gate.clone() + cubed).mul_scalar((2.0 / std::f64::consts::PI).sqrt());
    gate.mul_scalar(0.5) * (inner.tanh() + 1.0) * up
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{compare, random};

    /// Each value is a handful of f32 operations; `1 + tanh` cancels below -2, so 1e-5 of the largest.
    #[test]
    fn values_and_gradients_equal_the_reference() {
        for shape in [[1, 3], [5, 40], [90, 400]] {
            compare(
                &[random(shape, 1).into(), random(shape, 2).into()],
                |it| geglu(it[0].matrix(), it[1].matrix()),
                |it| geglu_reference(it[0].matrix(), it[1].matrix()),
                1e-5,
            );
        }
    }
}
