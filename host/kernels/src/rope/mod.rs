//! Rotary position embedding: <https://arxiv.org/abs/2104.09864>, in the rotate-half layout of Hugging Face.

use burn::tensor::Tensor;

/// Rotates the pair (`x[i]`, `x[i + head_dim / 2]`) of every head by the angle of its token.
///
/// # Shapes
/// - `x`: `[T, heads, head_dim]`; `cos`, `sin`: `[T, head_dim / 2]`; result: as `x`
pub fn rope(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<3> {
    rope_reference(x, cos, sin)
}

/// [`rope`] in plain tensor operations.
pub fn rope_reference(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<3> {
    let half = x.dims()[2] / 2;
    let (first, second) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
    let (cos, sin) = (cos.unsqueeze_dim::<3>(1), sin.unsqueeze_dim::<3>(1));
    Tensor::cat(
        vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin],
        2,
    )
}
