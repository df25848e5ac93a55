//! SwiGLU: <https://arxiv.org/abs/2002.05202>.

use burn::tensor::{Tensor, activation};

/// `silu(gate) * up`, element by element.
///
/// # Shapes
/// - all: `[T, F]`
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    swiglu_reference(gate, up)
}

/// [`swiglu`] in plain tensor operations.
pub fn swiglu_reference(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation::silu(gate) * up
}
