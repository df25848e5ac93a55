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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::checkpoint::safetensors::TensorFiles;

    const WEIGHTS: [f32; 3] = [0.7, -0.4, 0.5];

    #[track_caller]
    fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(got.len(), expected.len());
        let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= tolerance, "differs by {worst:e}");
    }

    /// Oracle: PEFT 0.21 with the masks that torch drew, `tests/golden/generate/combine.py`; sums of three terms of order 5
    /// in f32 on both sides, so 1e-6.
    #[test]
    fn dare_matches_peft_with_its_masks() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/combine");
        let files = TensorFiles::open(&folder, vec![folder.join("dare.safetensors")]).unwrap();
        let read = |name: &str| files.read(name, [300]).unwrap().try_into_vec::<f32>().unwrap();
        let dropped = |index: usize| {
            let mut values = read(&format!("tensor.{index}"));
            let mut mask = read(&format!("mask.{index}")).into_iter();
            drop_and_rescale(&mut values, 0.6, || mask.next().unwrap() == 1.0);
            values
        };
        let tensors: Vec<Vec<f32>> = (0..3).map(dropped).collect();
        assert_close(&weighted_sum(&tensors, &WEIGHTS), &read("dare_linear"), 1e-6);
        assert_close(&elected_mean(&tensors, &WEIGHTS, MajoritySign::Total), &read("dare_ties"), 1e-6);
    }

    #[test]
    fn what_is_dropped_at_random_keeps_its_share_and_its_expected_value() {
        let values: Vec<f32> = (0..2000).map(|it| (it as f32 * 0.37).sin() + 2.0).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (mut sums, mut kept, rounds) = (vec![0.0; values.len()], 0, 400);
        for _ in 0..rounds {
            let mut dropped = values.clone();
            drop_and_rescale(&mut dropped, 0.3, || rng.random_bool(0.3));
            kept += dropped.iter().filter(|it| **it != 0.0).count();
            sums.iter_mut().zip(&dropped).for_each(|(sum, it)| *sum += it / rounds as f32);
        }
        // 800,000 draws: the share's deviation is 0.0005.
        let share = kept as f64 / (rounds * values.len()) as f64;
        assert!((share - 0.3).abs() < 0.003, "{share}");
        // Of one mean of 400: at most 3 * sqrt(0.7 / 0.3 / 400) = 0.23; six of them bound 2000 means.
        assert_close(&sums, &values, 1.4);
        let bias: f32 = sums.iter().zip(&values).map(|(a, b)| a - b).sum::<f32>() / values.len() as f32;
        assert!(bias.abs() < 0.03, "{bias}");
    }

    #[test]
    fn trimming_keeps_the_largest_and_the_first_of_equals() {
        let trimmed = |density| {
            let mut values = vec![0.5, -3.0, 2.0, -0.5, 0.5];
            trim(&mut values, density);
            values
        };
        assert_eq!(trimmed(0.4), [0.0, -3.0, 2.0, 0.0, 0.0]);
        assert_eq!(trimmed(0.6), [0.5, -3.0, 2.0, 0.0, 0.0]);
        assert_eq!(trimmed(0.79), [0.5, -3.0, 2.0, 0.0, 0.0], "rounded down");
        assert_eq!(trimmed(1.0), [0.5, -3.0, 2.0, -0.5, 0.5]);
    }

    /// By hand: signs are elected without weights, a tie of signs is positive, zeros have no voice and no share in a mean.
    #[test]
    fn signs_are_elected_by_sum_or_by_number() {
        let tensors = [vec![4.0, 1.0, 0.0], vec![-1.0, -1.0, 0.0], vec![-2.0, 0.0, -3.0]];
        let merged = |method| elected_mean(&tensors, &[1.0, 10.0, 100.0], method);
        assert_eq!(merged(MajoritySign::Total), [4.0, 1.0, -300.0]);
        assert_eq!(merged(MajoritySign::Frequency), [(-10.0 - 200.0) / 2.0, 1.0, -300.0]);
    }

    #[test]
    fn an_arc_has_its_ends_its_middle_and_its_length() {
        let right = slerp_factors(0.5, 0.0);
        assert!(right.iter().all(|it| (it - 0.5f64.sqrt()).abs() < 1e-12), "{right:?}");
        for cosine in [-0.9f64, 0.0, 0.7] {
            for t in [0.0, 0.2, 0.8, 1.0] {
                let [one, two] = slerp_factors(t, cosine);
                let length = one * one + two * two + 2.0 * one * two * cosine;
                assert!((length - 1.0).abs() < 1e-12, "of unit vectors: {length}");
                // The angle from the first end is the share `t` of the whole.
                let from_first = (one + two * cosine).clamp(-1.0, 1.0).acos();
                assert!((from_first - t * cosine.acos()).abs() < 1e-6, "{from_first}");
            }
        }
        for nearly in [0.9996, -0.9996, 1.0, -1.0] {
            assert_eq!(slerp_factors(0.25, nearly), [0.75, 0.25]);
        }
    }

    #[test]
    fn the_dot_of_two_products_needs_neither() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let (out, width) = (7, 5);
        let mut pair = |rank: usize| {
            let mut some =
                |count: usize| (0..count).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
            Pair { a: some(rank * width), b: some(out * rank), rank }
        };
        let (first, second) = (pair(2), pair(3));
        let entry = |it: &Pair, row: usize, column: usize| -> f64 {
            let terms =
                (0..it.rank).map(|k| it.b[row * it.rank + k] as f64 * it.a[k * width + column] as f64);
            terms.sum()
        };
        let places = (0..out).flat_map(|row| (0..width).map(move |column| (row, column)));
        let expected: f64 = places.map(|(r, c)| entry(&first, r, c) * entry(&second, r, c)).sum();
        assert!((delta_dot(&first, &second) - expected).abs() < 1e-12);
    }
}
