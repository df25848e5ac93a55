//! Rotary position embedding: <https://arxiv.org/abs/2104.09864>, in the rotate-half layout of Hugging Face.

mod cpu;

use burn::tensor::Tensor;

use crate::extension::{apply, is_ours};
pub(crate) use cpu::rotate_row;

/// Rotates the pair (`x[i]`, `x[i + pairs]`) of every head by the angle of its token. What stands behind the pairs, where
/// they are less than the head, is left as it is, as with `partial_rotary_factor` in transformers.
///
/// No gradient reaches `cos` and `sin`.
///
/// # Shapes
/// - `x`: `[T, heads, head_dim]`; `cos`, `sin`: `[T, pairs]`, `1 <= pairs <= head_dim / 2`; result: as `x`
///
/// # Panics
/// Where the tables are not of these shapes.
pub fn rope(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<3> {
    let [tokens, heads, head_dim] = x.dims();
    check_tables(&cos, &sin, tokens, head_dim);
    if is_ours(&x) && is_ours(&cos) && is_ours(&sin) {
        return apply(vec![x.into(), cos.into(), sin.into()], cpu::Rotation { heads, head_dim });
    }
    rope_reference(x, cos, sin)
}

/// [`rope`] in plain tensor operations.
pub fn rope_reference(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<3> {
    let ([tokens, _, head_dim], pairs) = (x.dims(), cos.dims()[1]);
    check_tables(&cos, &sin, tokens, head_dim);
    let (first, second) = (x.clone().narrow(2, 0, pairs), x.clone().narrow(2, pairs, pairs));
    let (cos, sin) = (cos.unsqueeze_dim::<3>(1), sin.unsqueeze_dim::<3>(1));
    let mut parts =
        vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin];
    if 2 * pairs < head_dim {
        parts.push(x.narrow(2, 2 * pairs, head_dim - 2 * pairs));
    }
    Tensor::cat(parts, 2)
}

/// Panics where the tables are not `[tokens, pairs]`, or have more pairs than a head or none: they are the caller's own.
pub(crate) fn check_tables(cos: &Tensor<2>, sin: &Tensor<2>, tokens: usize, head_dim: usize) {
    let [rows, pairs] = cos.dims();
    assert_eq!(cos.dims(), sin.dims(), "a cosine and a sine");
    assert_eq!(rows, tokens, "an angle a token");
    assert!((1..=head_dim / 2).contains(&pairs), "{pairs} pairs of {head_dim} values");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{compare, random};

    /// Two products and a sum: 2e-6 of the largest value.
    #[test]
    fn values_and_gradients_equal_the_reference() {
        let cases =
            [[1, 1, 2, 1], [5, 3, 6, 3], [70, 9, 64, 32], [5, 3, 6, 1], [70, 9, 64, 8], [40, 2, 7, 3]];
        for [tokens, heads, head_dim, pairs] in cases {
            let tables: [Tensor<2>; 2] = [2, 3].map(|it| random([tokens, pairs], it));
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

    #[test]
    fn values_behind_the_pairs_are_left_as_they_are() {
        let (x, [cos, sin]) = (random([9, 2, 10], 1), [2, 3].map(|it| random([9, 3], it)));
        let behind =
            |it: Tensor<3>| it.narrow(2, 6, 4).reshape([9 * 2 * 4]).try_into_vec_as::<f32>().unwrap();
        for f in [rope, rope_reference] {
            let y = f(x.clone(), cos.clone(), sin.clone());
            assert_eq!(behind(y), behind(x.clone()));
        }
    }

    #[test]
    fn tables_of_another_shape_are_refused() {
        for [cos, sin] in [[[4, 3], [4, 3]], [[3, 2], [3, 2]], [[4, 2], [4, 1]]] {
            let call = || rope(random([4, 1, 5], 1), random(cos, 2), random(sin, 3));
            assert!(std::panic::catch_unwind(call).is_err(), "{cos:?}, {sin:?}");
        }
    }
}
