//! Reward models from pairs: Bradley-Terry, <https://arxiv.org/abs/2203.02155>, eq. 1.
//! Pure functions of rewards; shapes: `P` = pairs in the micro-batch.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::segments::constant;
use crate::parallel::Merge;

/// `[objective.reward]` of a run file; names and defaults are TRL's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct RewardConfig {
    /// Factor of the squared sum of a pair's rewards, which keeps their mean near 0; absent leaves it out. A loss that
    /// only knows differences leaves the mean free. <https://arxiv.org/abs/2312.09244>, which has 0.01.
    pub center_rewards_coefficient: Option<f64>,
}

impl RewardConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let key = "center_rewards_coefficient";
        Check::default().optional(key, self.center_rewards_coefficient, |it| it >= 0.0, ">= 0").problems()
    }
}

/// `-log sigmoid(chosen - rejected - margin)` and the centring term, each the mean over the step's `pairs`. This
/// micro-batch's part, `[1]`.
///
/// The margin, how much better the chosen completion was judged, is that of <https://arxiv.org/abs/2307.09288>, eq. 2.
///
/// # Shapes
/// - `chosen`, `rejected`, `margins`: `[P]`
pub fn reward_loss(
    chosen: &Tensor<1>,
    rejected: &Tensor<1>,
    margins: Option<&[f32]>,
    pairs: usize,
    config: &RewardConfig,
) -> Tensor<1> {
    let mut difference = chosen.clone() - rejected.clone();
    if let Some(margins) = margins {
        difference = difference - constant(margins, chosen);
    }
    let mut losses = log_sigmoid(difference).neg();
    if let Some(coefficient) = config.center_rewards_coefficient {
        losses = losses + (chosen.clone() + rejected.clone()).square().mul_scalar(coefficient);
    }
    losses.sum().div_scalar(pairs.max(1) as f64)
}

/// TRL's metrics of a reward model, kept until they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RewardMetrics {
    least: f32,
    greatest: f32,
    sum: f64,
    margins: f64,
    ordered: usize,
    pairs: usize,
}

impl Default for RewardMetrics {
    fn default() -> Self {
        Self {
            least: f32::INFINITY,
            greatest: f32::NEG_INFINITY,
            sum: 0.0,
            margins: 0.0,
            ordered: 0,
            pairs: 0,
        }
    }
}

impl Merge for RewardMetrics {
    fn merge(&mut self, other: Self) {
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
        self.sum += other.sum;
        self.margins += other.margins;
        self.ordered += other.ordered;
        self.pairs += other.pairs;
    }
}

impl RewardMetrics {
    /// Adds pairs.
    pub fn add(&mut self, chosen: &[f32], rejected: &[f32]) {
        for (chosen, rejected) in chosen.iter().zip(rejected) {
            self.least = self.least.min(*chosen).min(*rejected);
            self.greatest = self.greatest.max(*chosen).max(*rejected);
            self.sum += f64::from(*chosen) + f64::from(*rejected);
            self.margins += f64::from(*chosen) - f64::from(*rejected);
            self.ordered += usize::from(chosen > rejected);
            self.pairs += 1;
        }
    }

    /// By TRL's names; empty before a pair was added.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        if self.pairs == 0 {
            return Vec::new();
        }
        let pairs = self.pairs as f64;
        vec![
            ("min_reward", f64::from(self.least)),
            ("mean_reward", self.sum / (2.0 * pairs)),
            ("max_reward", f64::from(self.greatest)),
            ("accuracy", self.ordered as f64 / pairs),
            ("margin", self.margins / pairs),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_impossible_value_is_named() {
        assert!(RewardConfig::default().problems().is_empty());
        let config = RewardConfig { center_rewards_coefficient: Some(-0.1) };
        assert_eq!(config.problems(), ["`center_rewards_coefficient` must be >= 0, got `-0.1`"]);
    }

    /// By hand.
    #[test]
    fn metrics_are_those_of_every_pair() {
        let mut metrics = RewardMetrics::default();
        assert!(metrics.metrics().is_empty());
        metrics.add(&[2.0], &[-1.0]);
        metrics.add(&[0.0], &[1.0]);
        let expected = [
            ("min_reward", -1.0),
            ("mean_reward", 0.5),
            ("max_reward", 2.0),
            ("accuracy", 0.5),
            ("margin", 1.0),
        ];
        assert_eq!(metrics.metrics(), expected);
    }
}
