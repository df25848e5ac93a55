//! A row of logits where it is to be sampled from: its normaliser, and the most likely token.

use crate::simd::{LANES, exp, max, sum, vectorized};

/// Logits whose exponentials are summed in f32; those sums are added in f64.
pub(crate) const BLOCK: usize = 256 * LANES;

/// `ln(sum(exp(scale * logits)))`, with `scale` > 0; NaN where a logit is, infinite where one is positive infinity.
pub fn log_sum_exp(logits: &[f32], scale: f32) -> f64 {
    let largest = largest(logits);
    if !largest.is_finite() {
        return f64::from(largest);
    }
    let blocks = logits.chunks(BLOCK).map(|it| f64::from(sum_of_exponentials(it, largest, scale)));
    f64::from(largest) * f64::from(scale) + blocks.sum::<f64>().ln()
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
        sum(logits.len(), |it| exp((logits[it] - largest) * scale))
    }
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
                let (got, expected) = (log_sum_exp(&logits, scale), terms.sum::<f64>().ln());
                assert!((got - expected).abs() < 2e-6 * expected.abs().max(1.0), "{got} is not {expected}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        let mut logits = [1.0f32; 40];
        logits[37] = f32::INFINITY;
        assert_eq!(log_sum_exp(&logits, 1.0), f64::INFINITY);
        logits[3] = f32::NAN;
        assert!(log_sum_exp(&logits, 1.0).is_nan());
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY, 2.0], 1.0), 2.0);
    }

    #[test]
    fn of_equal_logits_the_first_is_taken() {
        let mut logits = [0.0f32; 100];
        (logits[41], logits[83]) = (2.0, 2.0);
        assert_eq!(most_likely(&logits), 41);
    }
}
