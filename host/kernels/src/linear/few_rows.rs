//! `y = x weight^T` for few rows of `x`: decoding, where each weight is read once for little arithmetic.
//!
//! A general product packs the weight first, which for few rows costs more than the product. Here a task takes some
//! rows of the weight as they lie, and meets each with every row of `x`, which stays in the cache. What is computed for
//! a row of `x` does not depend on the other rows, and not on the number of threads.

use burn::tensor::bf16;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Rows of `x` up to which a weight is taken this way; from there on a packed product is faster.
pub(crate) const FEW_ROWS: usize = 24;

/// Rows of the weight that meet a row of `x` at a time.
const OUTPUTS: usize = 4;
/// Values of the weight that a task reads.
const VALUES: usize = 32 * 1024;

/// A weight as it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stored<'a> {
    /// Four bytes a value.
    F32(&'a [f32]),
    /// Two.
    Bf16(&'a [bf16]),
}

impl Stored<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(it) => it.len(),
            Self::Bf16(it) => it.len(),
        }
    }
}

/// Where outputs go: of each row of `x`, `count` values from `first` on, in rows of `stride` values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub first: usize,
    pub stride: usize,
}

/// Writes `x weight^T`, or adds it, to `y`; `x` has rows of `width` values, at most [`FEW_ROWS`].
pub(crate) fn few_rows(x: &[f32], weight: Stored<'_>, width: usize, y: &mut [f32], place: Place, add: bool) {
    let rows = x.len() / width;
    let outputs = weight.len() / width;
    // `[outputs, rows]`: a task's results lie together, whatever the rows of `y`.
    let mut products = vec![0.0f32; outputs * rows];
    let of_task = (VALUES / width).max(1).next_multiple_of(OUTPUTS);
    products.par_chunks_mut(of_task * rows).enumerate().for_each(|(task, products)| {
        let begin = task * of_task * width;
        let end = begin + products.len() / rows * width;
        match weight {
            Stored::F32(weight) => {
                Arch::new().dispatch(Task { x, weight: &weight[begin..end], width, products })
            }
            Stored::Bf16(weight) => {
                Arch::new().dispatch(Task { x, weight: &weight[begin..end], width, products })
            }
        }
    });
    for (row, y) in y.chunks_mut(place.stride).take(rows).enumerate() {
        let y = &mut y[place.first..][..outputs];
        for (y, products) in y.iter_mut().zip(products.chunks_exact(rows)) {
            *y = if add { *y + products[row] } else { products[row] };
        }
    }
}

/// What a task does: some rows of a weight, all of `x`.
struct Task<'a, W> {
    x: &'a [f32],
    weight: &'a [W],
    width: usize,
    products: &'a mut [f32],
}

/// A stored value as it is multiplied.
trait Widen: Copy {
    /// `stored` in f32: itself, or `room`, filled.
    fn widen<'a>(stored: &'a [Self], room: &'a mut [f32]) -> &'a [f32];
}

impl Widen for f32 {
    #[inline(always)]
    fn widen<'a>(stored: &'a [Self], _: &'a mut [f32]) -> &'a [f32] {
        stored
    }
}

impl Widen for bf16 {
    #[inline(always)]
    fn widen<'a>(stored: &'a [Self], room: &'a mut [f32]) -> &'a [f32] {
        for (room, stored) in room.iter_mut().zip(stored) {
            *room = f32::from_bits(u32::from(stored.to_bits()) << 16);
        }
        &room[..stored.len()]
    }
}

impl<W: Widen> WithSimd for Task<'_, W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, weight, width, products } = self;
        let rows = x.len() / width;
        let mut room = vec![0.0; OUTPUTS * width];
        let blocks = weight.chunks(OUTPUTS * width).zip(products.chunks_mut(OUTPUTS * rows));
        for (weight, products) in blocks {
            let weight = W::widen(weight, &mut room);
            if weight.len() < OUTPUTS * width {
                for (weight, products) in weight.chunks_exact(width).zip(products.chunks_exact_mut(rows)) {
                    for (x, product) in x.chunks_exact(width).zip(products) {
                        *product = meet::<S, 1, 1>(simd, [weight], [x])[0][0];
                    }
                }
                continue;
            }
            let (a, rest) = weight.split_at(width);
            let (b, rest) = rest.split_at(width);
            let (c, d) = rest.split_at(width);
            let mut pairs = x.chunks_exact(2 * width);
            for (pair, both) in pairs.by_ref().enumerate() {
                let (first, second) = both.split_at(width);
                let found = meet::<S, OUTPUTS, 2>(simd, [a, b, c, d], [first, second]);
                for (output, found) in found.iter().enumerate() {
                    products[output * rows + 2 * pair..][..2].copy_from_slice(found);
                }
            }
            if !pairs.remainder().is_empty() {
                let found = meet::<S, OUTPUTS, 1>(simd, [a, b, c, d], [pairs.remainder()]);
                for (output, [found]) in found.iter().enumerate() {
                    products[output * rows + rows - 1] = *found;
                }
            }
        }
    }
}

/// Sums of products of each weight row with each row of `x`, all of one length.
///
/// Written with the machine's vectors, not left to the compiler: it does not find them in sums of two dimensions.
#[inline(always)]
fn meet<S: Simd, const N: usize, const M: usize>(
    simd: S,
    weights: [&[f32]; N],
    x: [&[f32]; M],
) -> [[f32; M]; N] {
    let mut weight_vectors: [&[S::f32s]; N] = [&[]; N];
    let mut x_vectors: [&[S::f32s]; M] = [&[]; M];
    let count = S::as_simd_f32s(x[0]).0.len();
    for output in 0..N {
        weight_vectors[output] = &S::as_simd_f32s(weights[output]).0[..count];
    }
    for row in 0..M {
        x_vectors[row] = &S::as_simd_f32s(x[row]).0[..count];
    }
    let mut sums = [[simd.splat_f32s(0.0); M]; N];
    for step in 0..count {
        for output in 0..N {
            let weight = weight_vectors[output][step];
            for row in 0..M {
                sums[output][row] = simd.mul_add_f32s(weight, x_vectors[row][step], sums[output][row]);
            }
        }
    }
    let mut totals = [[0.0; M]; N];
    for output in 0..N {
        let weight_rest = S::as_simd_f32s(weights[output]).1;
        for row in 0..M {
            let rest = S::as_simd_f32s(x[row]).1.iter().zip(weight_rest);
            let rest: f32 = rest.map(|(x, weight)| x * weight).sum();
            totals[output][row] = simd.reduce_sum_f32s(sums[output][row]) + rest;
        }
    }
    totals
}
