//! `y = x weight^T` for few rows of `x`: decoding, where each weight is read once for little arithmetic.
//!
//! A general product packs the weight first, which for few rows costs more than the product. Here a task takes some
//! rows of the weight as they lie and meets them with all of `x`: one or two rows of `x` by sums over their
//! length, more of them side by side in the lanes of a vector, where a weight's value is spread over all lanes. A result does not
//! depend on the number of threads, and that of a row on no other row, but on how many there are.
//!
//! The weight comes from memory, and few rows are done as fast as it comes: it is read in long runs, which the machine
//! foresees.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::stored::Stored;
use crate::flex::unfilled;
use crate::simd::{LINE, expect, vector_dot};

/// Rows of `x` up to which a weight is taken this way; from there on a packed product is faster.
pub(crate) const FEW_ROWS: usize = 48;

/// Rows of the weight that are widened at a time for one or two rows of `x`.
const OUTPUTS: usize = 4;
/// Sums of one row of the weight with the only row of `x`: as many as hide the time that an addition takes.
const SUMS: usize = 4;
/// How many values ahead memory is asked for.
const AHEAD: usize = 576;
/// Rows of the weight that are met at a time by one and by two vectors of `x`: their sums stay in registers. With three
/// vectors the compiler does not keep them there.
const OF_ONE: usize = 8;
const OF_TWO: usize = 6;
/// Tasks a thread, so that none waits long for another, and values of the weight that a task reads at least: of one or two
/// rows of `x`, which wait for memory and are done soonest in long runs, and of more, which compute.
const TASKS: [usize; 2] = [8, 16];
const VALUES: [usize; 2] = [16 * 1024, 8 * 1024];
/// Results of a task at most, so that they stay in the cache.
const FOUND: usize = 16 * 1024;

/// Writes `x weight^T` of each weight, or adds it, to its columns of `y`: they lie side by side, in the weights' order.
///
/// `x` has rows of `width` values, at most [`FEW_ROWS`]; `y` has as many.
pub(crate) fn few_rows(x: &[f32], width: usize, weights: &[Stored<'_>], y: &mut [f32], add: bool) {
    let packed = Packing::of(x.len() / width).map(|it| it.packed(x, width));
    few_rows_packed(x, packed.as_deref(), width, weights, y, add);
}

/// As [`few_rows`], of an `x` that has been packed as [`Packing`] says, if it is to be.
pub(crate) fn few_rows_packed(
    x: &[f32],
    packed: Option<&[f32]>,
    width: usize,
    weights: &[Stored<'_>],
    y: &mut [f32],
    add: bool,
) {
    let (rows, outputs) = (x.len() / width, weights.iter().map(|it| it.outputs(width)).sum::<usize>());
    assert_eq!(y.len(), rows * outputs, "outputs of {rows} rows");
    let computes = usize::from(packed.is_some());
    let shares = TASKS[computes] * rayon::current_num_threads();
    let share = outputs.div_ceil(shares).max(VALUES[computes] / width);
    let of_task = share.min(FOUND / rows).next_multiple_of(OF_ONE * OF_TWO / 2);
    let mut rest: Vec<&mut [f32]> = y.chunks_exact_mut(outputs).collect();
    let mut tasks = Vec::with_capacity(shares + weights.len());
    for weight in weights {
        let outputs = weight.outputs(width);
        for first in (0..outputs).step_by(of_task) {
            let count = of_task.min(outputs - first);
            let y = rest.iter_mut().map(|rest| rest.split_off_mut(..count).expect("one column an output"));
            let (y, weight) = (y.collect(), weight.rows(width, first, count));
            tasks.push(Task { x: packed.unwrap_or(x), width, weight, y, add });
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each(|it| Arch::new().dispatch(it));
}

/// How the rows of `x` lie in vectors: `[rows / lanes, width, lanes]`, with zeros in the lanes of the last that have no
/// row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packing {
    rows: usize,
    /// Rows of a group: each is packed on its own.
    pub lanes: usize,
}

impl Packing {
    /// `None` where so few rows are taken as they lie.
    pub(crate) fn of(rows: usize) -> Option<Self> {
        struct Lanes;
        impl WithSimd for Lanes {
            type Output = usize;

            fn with_simd<S: Simd>(self, _: S) -> usize {
                S::F32_LANES
            }
        }
        (rows > 2).then(|| Self { rows, lanes: Arch::new().dispatch(Lanes) })
    }

    /// Values of rows of `width` when they are packed.
    pub(crate) fn length(self, width: usize) -> usize {
        self.rows.div_ceil(self.lanes) * width * self.lanes
    }

    /// All rows, packed.
    pub(crate) fn packed(self, x: &[f32], width: usize) -> Vec<f32> {
        let mut packed = unfilled(self.length(width));
        let groups = packed.par_chunks_mut(self.lanes * width).zip(x.par_chunks(self.lanes * width));
        groups.for_each(|(packed, x)| self.pack(x, width, packed));
        packed
    }

    /// Packs the rows of one group.
    pub(crate) fn pack(self, x: &[f32], width: usize, packed: &mut [f32]) {
        /// Steps at a time, so that what is written to stays in the cache.
        const STEPS: usize = 256;
        if x.len() < width * self.lanes {
            packed.fill(0.0);
        }
        for (first, packed) in (0..width).step_by(STEPS).zip(packed.chunks_mut(STEPS * self.lanes)) {
            let last = (first + STEPS).min(width);
            for (lane, x) in x.chunks_exact(width).enumerate() {
                let to = packed[lane..].iter_mut().step_by(self.lanes);
                to.zip(&x[first..last]).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// What a task does: some rows of a weight, all of `x`, which is packed where it has more than two rows.
struct Task<'a> {
    x: &'a [f32],
    width: usize,
    weight: Stored<'a>,
    /// Of each row, the columns of this task's outputs.
    y: Vec<&'a mut [f32]>,
    add: bool,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        if self.y.len() == 1 {
            return self.one_row(simd);
        }
        if self.y.len() == 2 {
            return self.two_rows(simd);
        }
        let (vectors, mut first) = (self.y.len().div_ceil(S::F32_LANES), 0);
        while first < vectors {
            first += match vectors - first {
                1 => self.vectors::<S, OF_ONE, 1>(simd, first),
                _ => self.vectors::<S, OF_TWO, 2>(simd, first),
            }
        }
    }
}

impl Task<'_> {
    #[inline(always)]
    fn one_row<S: Simd>(&mut self, simd: S) {
        let (width, outputs) = (self.width, self.y[0].len());
        let mut room = unfilled(self.weight.room(OUTPUTS * width));
        for first in (0..outputs).step_by(OUTPUTS) {
            let count = OUTPUTS.min(outputs - first);
            let weight = self.weight.widened(width, first, count, &mut room);
            let y = self.y[0][first..][..count].iter_mut().zip(weight.chunks_exact(width));
            for (y, weight) in y {
                let found = vector_dot::<S, SUMS>(simd, weight, self.x);
                *y = if self.add { *y + found } else { found };
            }
        }
    }

    #[inline(always)]
    fn two_rows<S: Simd>(&mut self, simd: S) {
        let (width, outputs) = (self.width, self.y[0].len());
        let mut room = unfilled(self.weight.room(OUTPUTS * width));
        let (first_row, second_row) = self.x.split_at(width);
        for first in (0..outputs).step_by(OUTPUTS) {
            let count = OUTPUTS.min(outputs - first);
            let weights = self.weight.widened(width, first, count, &mut room);
            for (output, weight) in weights.chunks_exact(width).enumerate() {
                let found = two_sums(simd, weight, [first_row, second_row]);
                for (y, found) in self.y.iter_mut().zip(found) {
                    let y = &mut y[first + output];
                    *y = if self.add { *y + found } else { found };
                }
            }
        }
    }

    /// `M` vectors of `x`, from the one at `from` on, with all of the task's weight; returns `M`.
    #[inline(always)]
    fn vectors<S: Simd, const N: usize, const M: usize>(&mut self, simd: S, from: usize) -> usize {
        let (width, lanes, outputs) = (self.width, S::F32_LANES, self.y[0].len());
        let packed = S::as_simd_f32s(self.x).0;
        let x: [&[S::f32s]; M] = std::array::from_fn(|it| &packed[(from + it) * width..][..width]);
        let mut room = unfilled(self.weight.room(N * width));
        // `[outputs, M, lanes]`: written to `y` in the end, a row at a time, since the rows of `y` stand far apart.
        let mut found = unfilled(outputs * M * lanes);
        let found_vectors = S::as_mut_simd_f32s(&mut found).0;
        // Rows far from each other: each is followed in memory by the one that comes after it, so that there are N long
        // runs, which the machine foresees, and not many short ones.
        let run = outputs / N;
        for first in 0..run {
            let weights = self.weight.widened_runs::<N>(width, first, run, &mut room);
            for (output, sums) in spread(simd, weights, x).into_iter().enumerate() {
                found_vectors[(first + output * run) * M..][..M].copy_from_slice(&sums);
            }
        }
        for output in run * N..outputs {
            let weights = self.weight.widened_runs::<1>(width, output, 1, &mut room);
            found_vectors[output * M..][..M].copy_from_slice(&spread(simd, weights, x)[0]);
        }
        for (row, y) in self.y[from * lanes..].iter_mut().take(M * lanes).enumerate() {
            let of_row = found[row..].iter().step_by(M * lanes);
            let y = y.iter_mut().zip(of_row);
            if self.add { y.for_each(|(y, found)| *y += found) } else { y.for_each(|(y, found)| *y = *found) }
        }
        M
    }
}

/// Sums of products of a weight row with both rows of `x`.
#[inline(always)]
fn two_sums<S: Simd>(simd: S, weight: &[f32], x: [&[f32]; 2]) -> [f32; 2] {
    let (weight, weight_rest) = S::as_simd_f32s(weight);
    let rows = x.map(|it| &S::as_simd_f32s(it).0[..weight.len()]);
    let mut sums = [simd.splat_f32s(0.0); 2];
    for (step, weight) in weight.iter().enumerate() {
        for row in 0..2 {
            sums[row] = simd.mul_add_f32s(*weight, rows[row][step], sums[row]);
        }
    }
    std::array::from_fn(|row| {
        let rest = S::as_simd_f32s(x[row]).1.iter().zip(weight_rest);
        simd.reduce_sum_f32s(sums[row]) + rest.map(|(x, weight)| x * weight).sum::<f32>()
    })
}

/// Sums of products of each weight row with the rows that lie in the lanes of `x`.
#[inline(always)]
fn spread<S: Simd, const N: usize, const M: usize>(
    simd: S,
    weights: [&[f32]; N],
    x: [&[S::f32s]; M],
) -> [[S::f32s; M]; N] {
    let width = x[0].len();
    let x: [&[S::f32s]; M] = x.map(|it| &it[..width]);
    let weights: [&[f32]; N] = weights.map(|it| &it[..width]);
    let lines: [&[[f32; LINE]]; N] = weights.map(|it| it.as_chunks::<LINE>().0);
    let x_lines: [&[[S::f32s; LINE]]; M] = x.map(|it| it.as_chunks::<LINE>().0);
    let mut sums = [[simd.splat_f32s(0.0); M]; N];
    let step = |sums: &mut [[S::f32s; M]; N], weights: [f32; N], x: [S::f32s; M]| {
        for (sums, weight) in sums.iter_mut().zip(weights) {
            let weight = simd.splat_f32s(weight);
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = simd.mul_add_f32s(weight, x, *sum);
            }
        }
    };
    // Whole lines: their places are then found once, not at every step.
    for line in 0..width / LINE {
        let weights: [&[f32; LINE]; N] = std::array::from_fn(|it| &lines[it][line]);
        let x: [&[S::f32s; LINE]; M] = std::array::from_fn(|it| &x_lines[it][line]);
        weights.iter().for_each(|it| expect(&it[..], AHEAD));
        for at in 0..LINE {
            step(&mut sums, weights.map(|it| it[at]), x.map(|it| it[at]));
        }
    }
    for at in width - width % LINE..width {
        step(&mut sums, weights.map(|it| it[at]), x.map(|it| it[at]));
    }
    sums
}
