//! Confidence intervals by bootstrap: Efron and Tibshirani 1993, chapter 13 (percentiles); for BLEU Koehn 2004,
//! <https://aclanthology.org/W04-3250>.

use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng;

/// How 95% confidence intervals are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bootstrap {
    /// How many times the samples are drawn anew; 0 for no interval.
    pub resamples: u32,
    /// Decides the draws: the same samples and seed give the same interval.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 1000, seed: 12345 }
    }
}

impl Bootstrap {
    /// The 2.5th and 97.5th percentile of `score` over samples drawn with replacement, as many as there are.
    /// `score` gets the positions drawn. `None` for fewer than two samples and without resamples.
    pub fn draws(&self, samples: usize, mut score: impl FnMut(&[usize]) -> f64) -> Option<(f64, f64)> {
        let mut scores = Vec::new();
        self.resample(samples, |drawn| scores.push(score(drawn)));
        interval(scores)
    }

    /// As [`Self::draws`], moved by what drawing with replacement does to `score` itself: for figures that count what is
    /// different, which the same sample drawn twice makes smaller.
    pub fn centred_draws(
        &self,
        samples: usize,
        mut score: impl FnMut(&[usize]) -> f64,
    ) -> Option<(f64, f64)> {
        let all: Vec<usize> = (0..samples).collect();
        let mut scores = Vec::new();
        self.resample(samples, |drawn| scores.push(score(drawn)));
        scores.retain(|it| it.is_finite());
        let moved = score(&all) - scores.iter().sum::<f64>() / scores.len() as f64;
        interval(scores).map(|(low, high)| (low + moved, high + moved))
    }

    /// The intervals of metrics that are functions of the sum of their samples' statistics, all of one length.
    pub fn sums<const N: usize>(
        &self,
        rows: &[Vec<f64>],
        mut score: impl FnMut(&[f64]) -> [f64; N],
    ) -> [Option<(f64, f64)>; N] {
        let mut sums = vec![0.0; rows.first().map_or(0, Vec::len)];
        let mut scores = [const { Vec::new() }; N];
        self.resample(rows.len(), |drawn| {
            sums.fill(0.0);
            for row in drawn {
                add(&mut sums, &rows[*row]);
            }
            for (all, score) in scores.iter_mut().zip(score(&sums)) {
                all.push(score);
            }
        });
        scores.map(interval)
    }

    /// The interval of a mean.
    pub fn mean(&self, values: &[f64]) -> Option<(f64, f64)> {
        self.draws(values.len(), |drawn| {
            drawn.iter().map(|it| values[*it]).sum::<f64>() / values.len() as f64
        })
    }

    fn resample(&self, samples: usize, mut each: impl FnMut(&[usize])) {
        if samples < 2 {
            return;
        }
        let mut random = Pcg32::new(self.seed, 0);
        let mut drawn = vec![0; samples];
        for _ in 0..self.resamples {
            // The high half of the product is uniform in 0..samples, but for one part in 2^32 of `samples`.
            drawn.fill_with(|| ((u64::from(random.next_u32()) * samples as u64) >> 32) as usize);
            each(&drawn);
        }
    }
}

/// What is no number, as a share of nothing, is left out.
fn interval(mut scores: Vec<f64>) -> Option<(f64, f64)> {
    scores.retain(|it| it.is_finite());
    scores.sort_by(f64::total_cmp);
    (!scores.is_empty()).then(|| (percentile(&scores, 0.025), percentile(&scores, 0.975)))
}

/// The value below which this share of the ascending values lies, between two neighbours in proportion.
///
/// # Panics
/// Without values.
pub fn percentile(ascending: &[f64], share: f64) -> f64 {
    let position = share * (ascending.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(ascending.len() - 1);
    ascending[below] + (ascending[above] - ascending[below]) * (position - below as f64)
}

/// The sum of statistics of one length; empty without rows.
pub fn summed(rows: &[Vec<f64>]) -> Vec<f64> {
    let mut sums = vec![0.0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        add(&mut sums, row);
    }
    sums
}

fn add(sums: &mut [f64], row: &[f64]) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sample_has_no_interval() {
        assert_eq!(Bootstrap::default().mean(&[1.0]), None);
        assert_eq!(Bootstrap { resamples: 0, seed: 1 }.mean(&[1.0, 2.0]), None);
    }

    /// By the central limit theorem the interval of a mean is 1.96 standard errors to each side.
    #[test]
    fn the_interval_of_a_mean_is_that_of_the_normal_distribution() {
        let values: Vec<f64> = (0..2000).map(|it| f64::from(it % 10)).collect();
        let (low, high) = Bootstrap::default().mean(&values).unwrap();
        let half = 1.96 * (8.25f64 / 2000.0).sqrt();
        assert!((low - (4.5 - half)).abs() < 0.02 && (high - (4.5 + half)).abs() < 0.02, "{low} {high}");
    }

    #[test]
    fn what_counts_differences_lies_in_its_centred_interval() {
        let different = |drawn: &[usize]| {
            drawn.iter().collect::<std::collections::HashSet<_>>().len() as f64 / drawn.len() as f64
        };
        let plain = Bootstrap::default().draws(100, different).unwrap();
        let centred = Bootstrap::default().centred_draws(100, different).unwrap();
        assert!(plain.1 < 0.8, "drawing with replacement repeats a third: {plain:?}");
        assert!(centred.0 <= 1.0 && centred.1 >= 1.0, "{centred:?}");
    }
}
