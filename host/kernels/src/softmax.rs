//! A row of logits where it is to be sampled from: its softmax, and the most likely token.

use crate::simd::{LANES, exp, max, sum, vectorized};

/// Logits whose exponentials are summed in f32; those sums are added in f64.
pub(crate) const BLOCK: usize = 256 * LANES;

/// Logits of a chunk, whose exponentials are summed again where the token that is drawn may be one of them.
const CHUNK: usize = 8 * LANES;

/// The softmax of `scale * logits`, to be drawn from.
#[derive(Debug)]
pub struct Softmax<'a> {
    logits: &'a [f32],
    scale: f32,
    largest: f32,
    /// Of each [`BLOCK`] logits, `sum(exp(scale * (logits - largest)))`.
    blocks: Vec<f32>,
}

impl<'a> Softmax<'a> {
    /// Of `logits`, with `scale` > 0.
    pub fn of(logits: &'a [f32], scale: f32) -> Self {
        let largest = largest(logits);
        let mut blocks = Vec::new();
        if largest.is_finite() {
            blocks.extend(logits.chunks(BLOCK).map(|it| sum_of_exponentials(it, largest, scale)));
        }
        Self { logits, scale, largest, blocks }
    }

    /// `ln(sum(exp(scale * logits)))`; NaN where a logit is, infinite where one is positive infinity.
    pub fn normalizer(&self) -> f64 {
        if !self.largest.is_finite() {
            return f64::from(self.largest);
        }
        f64::from(self.largest) * f64::from(self.scale) + self.total().ln()
    }

    /// The token in whose share the point `u` of `[0, 1)` falls, in the order of ids; none whose logit is negative
    /// infinity. 0 where the normaliser is not finite.
    pub fn at(&self, u: f64) -> usize {
        let point = u * self.total();
        let mut below = 0.0;
        for (logits, (block, sum)) in self.logits.chunks(BLOCK).zip(self.blocks.iter().enumerate()) {
            if point < below + f64::from(*sum) {
                let token = token_at(logits, self.largest, self.scale, point - below);
                // Sums are rounded: those of its parts may end before that of the block.
                if let Some(token) = token.or_else(|| last_possible(logits)) {
                    return block * BLOCK + token;
                }
            }
            below += f64::from(*sum);
        }
        last_possible(self.logits).unwrap_or(0)
    }

    fn total(&self) -> f64 {
        self.blocks.iter().map(|it| f64::from(*it)).sum()
    }
}

/// The first of the highest logits; 0 where there is none, or one is NaN.
pub fn most_likely(logits: &[f32]) -> usize {
    let largest = largest(logits);
    logits.iter().position(|it| *it == largest).unwrap_or(0)
}

vectorized! {
    /// NaN where one is.
    pub(crate) fn largest(logits: &[f32]) -> f32 {
        max(logits)
    }

    fn sum_of_exponentials(logits: &[f32], largest: f32, scale: f32) -> f32 {
        sum([logits], |[it]| exp((it - largest) * scale))
    }

    /// The first token up to which the exponentials sum to more than `point`.
    fn token_at(logits: &[f32], largest: f32, scale: f32, point: f64) -> Option<usize> {
        let share = |it: f32| exp((it - largest) * scale);
        let mut below = 0.0;
        for (chunk, logits) in logits.chunks(CHUNK).enumerate() {
            let of_chunk = below + f64::from(sum([logits], |[it]| share(it)));
            if point < of_chunk {
                let mut up_to = below;
                for (place, logit) in logits.iter().enumerate().filter(|it| *it.1 > f32::NEG_INFINITY) {
                    up_to += f64::from(share(*logit));
                    if point < up_to {
                        return Some(chunk * CHUNK + place);
                    }
                }
            }
            below = of_chunk;
        }
        None
    }
}

fn last_possible(logits: &[f32]) -> Option<usize> {
    logits.iter().rposition(|it| *it > f32::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exponentials within 2 units in the last place, summed in f32 over 4096 of them at most: 2e-6.
    #[test]
    fn equals_the_sum_in_f64() {
        for length in [1usize, 15, 16, 17, 5000, 49_152] {
            let logits: Vec<f32> = (0..length).map(|it| ((it * 7919) % 1000) as f32 / 50.0 - 7.0).collect();
            for scale in [0.25f32, 1.0, 3.0] {
                let terms = logits.iter().map(|it| (f64::from(*it) * f64::from(scale)).exp());
                let (got, expected) = (Softmax::of(&logits, scale).normalizer(), terms.sum::<f64>().ln());
                assert!((got - expected).abs() < 2e-6 * expected.abs().max(1.0), "{got} is not {expected}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        let mut logits = [1.0f32; 40];
        logits[37] = f32::INFINITY;
        let normalizer = |logits: &[f32]| Softmax::of(logits, 1.0).normalizer();
        assert_eq!(normalizer(&logits), f64::INFINITY);
        logits[3] = f32::NAN;
        assert!(normalizer(&logits).is_nan());
        assert_eq!(normalizer(&[f32::NEG_INFINITY, 2.0]), 2.0);
    }

    /// Each token by the middle of its share, over several blocks, and none that is impossible by any point.
    #[test]
    fn a_point_falls_in_the_share_of_its_token() {
        let mut logits: Vec<f32> =
            (0..3 * BLOCK + 37).map(|it| ((it * 7919) % 1000) as f32 / 200.0).collect();
        logits[..CHUNK + 3].fill(f32::NEG_INFINITY);
        logits[2 * BLOCK..][..BLOCK].fill(f32::NEG_INFINITY);
        *logits.last_mut().unwrap() = f32::NEG_INFINITY;
        let softmax = Softmax::of(&logits, 0.5);
        let shares: Vec<f64> = logits.iter().map(|it| (f64::from(*it) * 0.5).exp()).collect();
        let total: f64 = shares.iter().sum();
        let mut below = 0.0;
        for (token, share) in shares.iter().enumerate() {
            // What f32 leaves uncertain of a sum is less than half a share.
            if token % 97 == 0 && *share > 0.0 {
                assert_eq!(softmax.at((below + share / 2.0) / total), token);
            }
            below += share;
        }
        assert_eq!(softmax.at(0.0), CHUNK + 3);
        assert_eq!(softmax.at(1.0 - f64::EPSILON / 2.0), logits.len() - 2);
    }

    #[test]
    fn of_equal_logits_the_first_is_taken() {
        let mut logits = [0.0f32; 100];
        (logits[41], logits[83]) = (2.0, 2.0);
        assert_eq!(most_likely(&logits), 41);
    }
}
