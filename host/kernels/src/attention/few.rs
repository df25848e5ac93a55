//! A block of few queries, as in decoding, and the keys and values of a page: a general product would pack what it
//! multiplies. Written with the machine's vectors, since the compiler does not find them in sums of two dimensions.

use pulp::{Arch, Simd, WithSimd};

use super::layout::Heads;
use crate::simd::{LINE, expect, vector_dot};

/// Vectors of a value that are summed at a time.
const VECTORS: usize = 8;

/// Asks for a row that is read soon: pages are short runs, whose beginnings the machine does not foresee.
#[inline(always)]
fn expect_row(soon: Heads<'_>, column: usize) {
    for at in (0..soon.width).step_by(LINE) {
        expect(soon.values, column * soon.token_stride + at);
    }
}

/// `scores[row][column]`: each query, `[rows, width]`, times each of the first keys. As many rows of `soon` are asked for.
pub(super) fn few_scores(queries: &[f32], keys: Heads<'_>, soon: Heads<'_>, scores: &mut [f32]) {
    struct Scores<'a>(&'a [f32], Heads<'a>, Heads<'a>, &'a mut [f32]);
    impl WithSimd for Scores<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self(queries, keys, soon, scores) = self;
            let width = keys.width;
            let count = scores.len() / (queries.len() / width);
            for column in 0..count {
                let key = keys.row(0, column);
                expect_row(soon, column);
                for (row, query) in queries.chunks_exact(width).enumerate() {
                    // A head is short: two sums have enough to add.
                    scores[row * count + column] = vector_dot::<S, 2>(simd, key, query);
                }
            }
        }
    }
    Arch::new().dispatch(Scores(queries, keys, soon, scores));
}

/// Adds the first values, weighted, to `mixed`, `[rows, width]`; `weights` is `[rows, columns]`. As many rows of `soon` are
/// asked for.
pub(super) fn few_mixed(weights: &[f32], values: Heads<'_>, soon: Option<Heads<'_>>, mixed: &mut [f32]) {
    struct Mixed<'a>(&'a [f32], Heads<'a>, Option<Heads<'a>>, &'a mut [f32]);
    impl WithSimd for Mixed<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self(weights, values, soon, mixed) = self;
            let width = values.width;
            let count = weights.len() / (mixed.len() / width);
            let at_a_time = VECTORS * S::F32_LANES;
            if let Some(soon) = soon {
                (0..count).for_each(|column| expect_row(soon, column));
            }
            for (weights, mixed) in weights.chunks_exact(count).zip(mixed.chunks_exact_mut(width)) {
                let whole = width - width % at_a_time;
                for first in (0..whole).step_by(at_a_time) {
                    let sums = S::as_mut_simd_f32s(&mut mixed[first..][..at_a_time]).0;
                    let sums = sums.first_chunk_mut::<VECTORS>().expect("as many as are summed at a time");
                    let mut kept = *sums;
                    for (column, weight) in weights.iter().enumerate() {
                        let weight = simd.splat_f32s(*weight);
                        let value = S::as_simd_f32s(&values.row(0, column)[first..][..at_a_time]).0;
                        let value = value.first_chunk::<VECTORS>().expect("as many");
                        for it in 0..VECTORS {
                            kept[it] = simd.mul_add_f32s(weight, value[it], kept[it]);
                        }
                    }
                    *sums = kept;
                }
                for (column, weight) in weights.iter().enumerate() {
                    let rest = mixed[whole..].iter_mut().zip(&values.row(0, column)[whole..]);
                    rest.for_each(|(mixed, value)| *mixed = weight.mul_add(*value, *mixed));
                }
            }
        }
    }
    Arch::new().dispatch(Mixed(weights, values, soon, mixed));
}
