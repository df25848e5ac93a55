//! One row of logits: its loss, its entropy, and its exponentials in place.

use super::Softcap;
use crate::simd::{LANES, exp, tanh, vectorized};
use crate::softmax::{BLOCK, largest as largest_of};

/// What a row says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Negative log-likelihood of the target, in nats.
    pub loss: f64,
    /// Whether the target is the first of the most likely.
    pub correct: bool,
    /// Entropy of the distribution, in nats.
    pub entropy: f64,
    /// The largest logit.
    pub largest: f32,
    /// Sum of the exponentials of logits less the largest.
    pub sum: f64,
}

impl Found {
    /// Logarithm of the sum of all exponentials.
    pub fn log_sum(&self) -> f32 {
        (f64::from(self.largest) + self.sum.ln()) as f32
    }
}

/// Looks at a row. With `keep` its logits become the exponentials of themselves less the largest.
///
/// A logit that is NaN makes all of it NaN.
pub(super) fn loss(row: &mut [f32], target: u32, keep: bool) -> Found {
    let target = target as usize;
    let largest = largest_of(row);
    let at_target = row[target];
    let correct = at_target == largest && !row[..target].contains(&largest);
    let [sum, weighted] = if keep { exponentials(row, largest) } else { sums(row, largest) };
    let log_sum = sum.ln();
    Found {
        loss: f64::from(largest) - f64::from(at_target) + log_sum,
        correct,
        entropy: log_sum - weighted / sum,
        largest,
        sum,
    }
}

vectorized! {
    /// Sum of `e = exp(x - largest)`, and sum of `e (x - largest)`; `e` takes the place of `x`.
    fn exponentials(row: &mut [f32], largest: f32) -> [f64; 2] {
        let mut total = [0.0f64; 2];
        for block in row.chunks_mut(BLOCK) {
            let mut lanes = [[0.0f32; LANES]; 2];
            let (whole, rest) = block.as_chunks_mut::<LANES>();
            for values in whole {
                let e = exponentials_of(values, largest);
                add(values, &e, largest, &mut lanes);
                *values = e;
            }
            for value in rest {
                let e = exp(*value - largest);
                lanes[0][0] += e;
                lanes[1][0] += e * (*value - largest);
                *value = e;
            }
            add_lanes(&mut total, &lanes);
        }
        total
    }

    /// As [`exponentials`], of a row that stays as it is.
    fn sums(row: &[f32], largest: f32) -> [f64; 2] {
        let mut total = [0.0f64; 2];
        for block in row.chunks(BLOCK) {
            let mut lanes = [[0.0f32; LANES]; 2];
            let (whole, rest) = block.as_chunks::<LANES>();
            for values in whole {
                add(values, &exponentials_of(values, largest), largest, &mut lanes);
            }
            for value in rest {
                let e = exp(*value - largest);
                lanes[0][0] += e;
                lanes[1][0] += e * (*value - largest);
            }
            add_lanes(&mut total, &lanes);
        }
        total
    }

    /// `p (upstream + of_entropy (ln p + entropy))` in place of each logit, with `p = exp(x - log_sum)`.
    pub(super) fn gradient(row: &mut [f32], log_sum: f32, upstream: f32, entropy: f32, of_entropy: f32) {
        for value in row {
            let logp = *value - log_sum;
            *value = exp(logp) * of_entropy.mul_add(logp + entropy, upstream);
        }
    }

    /// `scale cap tanh(x / cap)` in place of each logit.
    pub(super) fn bound(row: &mut [f32], softcap: Softcap) {
        let (inverse, factor) = ((1.0 / softcap.cap) as f32, (softcap.cap * softcap.scale) as f32);
        for value in row {
            *value = factor * tanh(*value * inverse);
        }
    }

    /// As [`gradient`], of logits that [`bound`] has made, by what they were before.
    pub(super) fn bound_gradient(row: &mut [f32], log_sum: f32, upstream: f32, entropy: f32, of_entropy: f32, softcap: Softcap) {
        let (inverse, scale) = ((1.0 / (softcap.cap * softcap.scale)) as f32, softcap.scale as f32);
        for value in row {
            let (logp, tanh) = (*value - log_sum, *value * inverse);
            let of_bound = exp(logp) * of_entropy.mul_add(logp + entropy, upstream);
            *value = of_bound * scale * (1.0 - tanh * tanh);
        }
    }

    /// `exp(x - log_sum)` in place of each logit.
    pub(super) fn probabilities(row: &mut [f32], log_sum: f32) {
        for value in row {
            *value = exp(*value - log_sum);
        }
    }
}

/// What a gradient of a logit that [`bound`] has made is times before it.
pub(super) fn slope(bounded: f32, softcap: Softcap) -> f32 {
    let tanh = f64::from(bounded) / (softcap.cap * softcap.scale);
    (softcap.scale * (1.0 - tanh * tanh)) as f32
}

#[inline(always)]
fn exponentials_of(values: &[f32; LANES], largest: f32) -> [f32; LANES] {
    let mut found = [0.0; LANES];
    for (found, value) in found.iter_mut().zip(values) {
        *found = exp(value - largest);
    }
    found
}

#[inline(always)]
fn add(values: &[f32; LANES], e: &[f32; LANES], largest: f32, lanes: &mut [[f32; LANES]; 2]) {
    for lane in 0..LANES {
        lanes[0][lane] += e[lane];
        lanes[1][lane] = e[lane].mul_add(values[lane] - largest, lanes[1][lane]);
    }
}

#[inline(always)]
fn add_lanes(total: &mut [f64; 2], lanes: &[[f32; LANES]; 2]) {
    for (total, lanes) in total.iter_mut().zip(lanes) {
        *total += lanes.iter().map(|it| f64::from(*it)).sum::<f64>();
    }
}
