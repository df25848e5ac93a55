//! What is done to one tensor of several adapters: sums, trimming, dropping, elected signs, angles. Files, names and ranks
//! are not known here.
//!
//! Tensors are flat; those of one call have one length.

use rayon::prelude::*;

use super::MajoritySign;

/// `sum_i weights[i] * tensors[i]`.
pub(super) fn weighted_sum(tensors: &[Vec<f32>], weights: &[f32]) -> Vec<f32> {
    let at = |index: usize| tensors.iter().zip(weights).map(|(tensor, weight)| tensor[index] * weight).sum();
    (0..tensors[0].len()).map(at).collect()
}

/// Zeroes all but the `density * len` values, rounded down, of the largest magnitude; of equal ones the first are kept,
/// where torch's `topk` promises no order.
pub(super) fn trim(values: &mut [f32], density: f64) {
    let kept = (density * values.len() as f64) as usize;
    if kept >= values.len() {
        return;
    }
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.select_nth_unstable_by(kept, |a, b| {
        values[*b].abs().total_cmp(&values[*a].abs()).then_with(|| a.cmp(b))
    });
    for index in &order[kept..] {
        values[*index] = 0.0;
    }
}

/// DARE, <https://arxiv.org/abs/2311.03099>: what `keep` refuses becomes zero, the rest is divided by `density`, so that the
/// expected value stays. `keep` is asked once a value, in order.
pub(super) fn drop_and_rescale(values: &mut [f32], density: f64, mut keep: impl FnMut() -> bool) {
    for value in values {
        *value = if keep() { *value / density as f32 } else { 0.0 };
    }
}

/// TIES' election and merge, <https://arxiv.org/abs/2306.01708>: each value's sign is elected among the tensors as they
/// are, without their weights, and those of that sign are weighted, summed, and divided by their number.
pub(super) fn elected_mean(tensors: &[Vec<f32>], weights: &[f32], method: MajoritySign) -> Vec<f32> {
    let at = |index: usize| {
        let values = || tensors.iter().map(|it| it[index]);
        let vote: f32 = match method {
            MajoritySign::Total => values().sum(),
            MajoritySign::Frequency => values().map(sign).sum(),
        };
        let elected = if vote >= 0.0 { 1.0 } else { -1.0 };
        let agreeing = values().zip(weights).filter(|it| sign(it.0) == elected);
        let (sum, count) =
            agreeing.fold((0.0, 0), |(sum, count), (value, weight)| (sum + value * weight, count + 1));
        sum / count.max(1) as f32
    };
    (0..tensors[0].len()).map(at).collect()
}

/// Unlike `signum`, zero has none.
fn sign(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { value.signum() }
}

/// Cosines above this are taken for parallel, as mergekit does.
const PARALLEL: f64 = 0.9995;

/// Factors of the two ends of a spherical interpolation at `t`, from the cosine between them. Vectors that are nearly
/// parallel, or nearly opposite, are interpolated linearly: the arc between them is straight, or not defined.
pub(super) fn slerp_factors(t: f64, cosine: f64) -> [f64; 2] {
    if cosine.abs() > PARALLEL {
        return [1.0 - t, t];
    }
    let angle = cosine.acos();
    [((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin()]
}

/// One low-rank pair: `a` is `[rank, in]`, `b` is `[out, rank]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    pub rank: usize,
}

/// The sum of the products of the entries of `b a` of both pairs, without forming either: `sum (b1' b2) * (a1 a2')`.
pub(super) fn delta_dot(first: &Pair, second: &Pair) -> f64 {
    let (rows, columns) = (first.rank, second.rank);
    let mut of_b = vec![0.0; rows * columns];
    for (one, two) in first.b.chunks_exact(rows).zip(second.b.chunks_exact(columns)) {
        for (sums, one) in of_b.chunks_exact_mut(columns).zip(one) {
            sums.iter_mut().zip(two).for_each(|(sum, two)| *sum += f64::from(*one) * f64::from(*two));
        }
    }
    let width = first.a.len() / rows;
    let of_row = |(one, of_b): (&[f32], &[f64])| -> f64 {
        let dots = second.a.chunks_exact(width).map(|two| dot(one, two));
        dots.zip(of_b).map(|(a, b)| a * b).sum()
    };
    let of_rows: Vec<f64> =
        first.a.par_chunks_exact(width).zip(of_b.par_chunks_exact(columns)).map(of_row).collect();
    of_rows.iter().sum()
}

fn dot(one: &[f32], two: &[f32]) -> f64 {
    one.iter().zip(two).map(|(one, two)| f64::from(*one) * f64::from(*two)).sum()
}
