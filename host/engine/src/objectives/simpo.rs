//! SimPO: <https://arxiv.org/abs/2405.14734>. No reference model; the reward is the log-probability a token.
//! Pure functions of log-probabilities; shapes: `P` = pairs in the micro-batch.

use serde::{Deserialize, Serialize};

use super::check::Check;
use super::preference::{PairLengths, PairTotals, PolicyPairs, PreferenceOutput, smoothed_logistic};

/// `[objective.simpo]` of a run file.
///
/// `beta` and `gamma` are what the authors' code starts from. TRL's `CPOConfig(loss_type="simpo")` leaves `beta` at CPO's 0.1,
/// and calls `gamma` `simpo_gamma`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimPoConfig {
    /// Factor of the log-probability a token.
    pub beta: f64,
    /// By how much the chosen completion's reward is to be the greater.
    pub gamma: f64,
    /// Probability that a pair is the wrong way round.
    pub label_smoothing: f64,
}

impl Default for SimPoConfig {
    fn default() -> Self {
        Self { beta: 2.0, gamma: 1.0, label_smoothing: 0.0 }
    }
}

impl SimPoConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let smoothing = self.label_smoothing;
        let mut check = Check::default();
        check
            .number("beta", self.beta, self.beta > 0.0, "> 0")
            .number("gamma", self.gamma, self.gamma >= 0.0, ">= 0")
            .number("label_smoothing", smoothing, (0.0..0.5).contains(&smoothing), "in [0, 0.5)")
            .problems()
    }
}

/// `-(1-s) log sigmoid(m) - s log sigmoid(-m)` with `m` the difference of rewards less `gamma`: eq. 6 where `s = 0`. The mean
/// over the step's pairs.
pub fn simpo_loss(
    policy: &PolicyPairs,
    lengths: &PairLengths,
    totals: &PairTotals,
    config: &SimPoConfig,
) -> PreferenceOutput {
    let averages = policy.logps.averages(lengths);
    let (chosen, rejected) =
        (averages.chosen.mul_scalar(config.beta), averages.rejected.mul_scalar(config.beta));
    let margins = (chosen.clone() - rejected.clone()).sub_scalar(config.gamma);
    PreferenceOutput {
        loss: totals.mean_of_pairs(smoothed_logistic(margins, config.label_smoothing)),
        chosen_rewards: chosen.inner(),
        rejected_rewards: rejected.inner(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_impossible_value_is_named() {
        assert!(SimPoConfig::default().problems().is_empty());
        let config = SimPoConfig { beta: 0.0, gamma: -1.0, label_smoothing: 0.5 };
        insta::assert_snapshot!(config.problems().join("\n"), @r"
        `beta` must be > 0, got `0`
        `gamma` must be >= 0, got `-1`
        `label_smoothing` must be in [0, 0.5), got `0.5`
        ");
    }
}
