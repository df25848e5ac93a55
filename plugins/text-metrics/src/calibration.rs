//! Whether confidence means what it says: expected and maximum calibration error over bins of equal width (Guo et al.
//! 2017, <https://arxiv.org/abs/1706.04599>) and the Brier score (Brier 1950).

/// How many bins of equal width [0, 1] falls into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bins(pub usize);

/// Figures of calibration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// Mean distance between confidence and accuracy of bins, weighted by their samples: 0 to 1.
    pub expected_error: f64,
    /// The largest such distance.
    pub maximum_error: f64,
    /// Mean squared distance between confidence and outcome: 0 to 1.
    pub brier: f64,
    /// Share of right answers.
    pub accuracy: f64,
    /// Mean confidence.
    pub confidence: f64,
}

impl Bins {
    /// What one answer adds to the sums: squared distance, and of each bin samples, confidence and right answers. Bins are
    /// open below and closed above; the first holds 0 too.
    pub fn statistics(self, confidence: f64, right: bool) -> Vec<f64> {
        let confidence = confidence.clamp(0.0, 1.0);
        let outcome = f64::from(u8::from(right));
        let bin = ((confidence * self.0 as f64).ceil() as usize).clamp(1, self.0) - 1;
        let mut statistics = vec![0.0; 1 + 3 * self.0];
        statistics[0] = (confidence - outcome) * (confidence - outcome);
        statistics[1 + 3 * bin..4 + 3 * bin].copy_from_slice(&[1.0, confidence, outcome]);
        statistics
    }

    /// The figures of summed statistics.
    pub fn score(self, sums: &[f64]) -> Calibration {
        let bins = || sums[1..].chunks_exact(3).filter(|it| it[0] > 0.0);
        let samples: f64 = bins().map(|it| it[0]).sum();
        let distance = |bin: &[f64]| (bin[1] - bin[2]).abs();
        Calibration {
            expected_error: bins().map(distance).sum::<f64>() / samples,
            maximum_error: bins().map(|it| distance(it) / it[0]).fold(0.0, f64::max),
            brier: sums[0] / samples,
            accuracy: bins().map(|it| it[2]).sum::<f64>() / samples,
            confidence: bins().map(|it| it[1]).sum::<f64>() / samples,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::summed;

    #[test]
    fn a_bin_is_closed_above() {
        let at = |confidence| {
            let statistics = Bins(10).statistics(confidence, true);
            statistics[1..].iter().position(|it| *it == 1.0).unwrap() / 3
        };
        assert_eq!([at(0.0), at(0.1), at(0.11), at(0.5), at(1.0)], [0, 0, 1, 4, 9]);
    }

    #[test]
    fn half_sure_and_half_right_is_calibrated() {
        let rows = [Bins(10).statistics(0.5, true), Bins(10).statistics(0.5, false)];
        let found = Bins(10).score(&summed(&rows));
        assert_eq!((found.expected_error, found.brier, found.accuracy), (0.0, 0.25, 0.5));
    }
}
