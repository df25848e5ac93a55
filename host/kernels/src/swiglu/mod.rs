//! SwiGLU: <https://arxiv.org/abs/2002.05202>.

use burn::tensor::{Tensor, activation};

use crate::extension::{apply, is_ours};
use crate::gate::{Activation, Gate};

/// `silu(gate) * up`, element by element.
///
/// # Shapes
/// - all: `[T, F]`
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    if is_ours(&gate) && is_ours(&up) {
        return apply(vec![gate.into(), up.into()], Gate { activation: Activation::Silu });
    }
    swiglu_reference(gate, up)
}

/// [`swiglu`] in plain tensor operations.
pub fn swiglu_reference(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation::silu(gate) * up
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{compare, random};

    /// Each value is a handful of f32 operations: 2e-6 of the largest.
    #[test]
    fn values_and_gradients_equal_the_reference() {
        for shape in [[1, 3], [5, 40], [90, 400]] {
            compare(
                &[random(shape, 1).into(), random(shape, 2).into()],
                |it| swiglu(it[0].matrix(), it[1].matrix()),
                |it| swiglu_reference(it[0].matrix(), it[1].matrix()),
                2e-6,
            );
        }
    }
}
