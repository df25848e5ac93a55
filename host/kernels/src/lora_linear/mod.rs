//! A linear layer with a low-rank adapter: <https://arxiv.org/abs/2106.09685>, in PEFT's layout.

use burn::tensor::Tensor;

use crate::linear::linear;

/// `x weight^T + bias + scaling * (x a^T) b^T`.
///
/// The product `b a` is never formed, and a frozen `weight` costs no gradient.
///
/// # Shapes
/// - `x`: `[T, in]`, `weight`: `[out, in]`, `bias`: `[out]`, `a`: `[rank, in]`, `b`: `[out, rank]`
/// - result: `[T, out]`
pub fn lora_linear(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    a: Tensor<2>,
    b: Tensor<2>,
    scaling: f64,
) -> Tensor<2> {
    let base = linear(x.clone(), weight);
    let base = match bias {
        Some(bias) => base + bias.unsqueeze(),
        None => base,
    };
    base + linear(linear(x, a).mul_scalar(scaling), b)
}

/// [`lora_linear`] in plain tensor operations.
pub fn lora_linear_reference(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    a: Tensor<2>,
    b: Tensor<2>,
    scaling: f64,
) -> Tensor<2> {
    let base = x.clone().matmul(weight.transpose());
    let base = match bias {
        Some(bias) => base + bias.unsqueeze(),
        None => base,
    };
    base + x.matmul(a.transpose()).mul_scalar(scaling).matmul(b.transpose())
}
