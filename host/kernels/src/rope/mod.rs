//! Rotary position embedding: <https://arxiv.org/abs/2104.09864>, in the rotate-half layout of Hugging Face.

mod cpu;

use burn::tensor::Tensor;

use crate::extension::{apply, is_ours};
pub(crate) use cpu::rotate_row;

/// Rotates the pair (`x[i]`, `x[i + head_dim / 2]`) of every head by the angle of its token.
///
/// No gradient reaches `cos` and `sin`.
///
/// # Shapes
/// - `x`: `[T, heads, head_dim]`; `cos`, `sin`: `[T, head_dim / 2]`; result: as `x`
pub fn rope(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<3> {
    if is_ours(&x) && is_ours(&cos) && is_ours(&sin) {
        let [_, heads, head_dim] = x.dims();
        return apply(vec![x.into(), cos.into(), sin.into()], cpu::Rotation { heads, head_dim });
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{compare, random};

    /// Two products and a sum: 2e-6 of the largest value.
    #[test]
    fn values_and_gradients_equal_the_reference() {
        for [tokens, heads, head_dim] in [[1, 1, 2], [5, 3, 6], [70, 9, 64]] {
            let tables: [Tensor<2>; 2] =
                [random([tokens, head_dim / 2], 2), random([tokens, head_dim / 2], 3)];
            let [cos, sin] = &tables;
            compare(
                &[random([tokens, heads * head_dim], 1).into()],
                |it| {
                    let x = it[0].matrix().reshape([tokens, heads, head_dim]);
                    rope(x, cos.clone(), sin.clone()).reshape([tokens, heads * head_dim])
                },
                |it| {
                    let x = it[0].matrix().reshape([tokens, heads, head_dim]);
                    rope_reference(x, cos.clone(), sin.clone()).reshape([tokens, heads * head_dim])
                },
                2e-6,
            );
        }
    }
}
