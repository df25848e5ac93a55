//! Contrastive Preference Optimization: <https://arxiv.org/abs/2401.08417>. No reference model.
//! Pure functions of log-probabilities; shapes: `P` = pairs in the micro-batch.

use burn::tensor::activation::relu;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::preference::{PairLengths, PairTotals, PolicyPairs, PreferenceOutput, smoothed_logistic};

/// What is made of the difference of log-probabilities, `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum CpoLossType {
    /// `-(1-s) log sigmoid(beta d) - s log sigmoid(-beta d)`: the paper's eq. 3 where `s = 0`.
    #[default]
    Sigmoid,
    /// `max(0, 1 - beta d)`.
    Hinge,
    /// `(d - 1 / (2 beta))^2` with log-probabilities a token: <https://arxiv.org/abs/2310.12036>, eq. 17.
    Ipo,
}

/// `[objective.cpo]` of a run file; names and defaults are TRL's. SimPO is an objective of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CpoConfig {
    /// What is made of a pair.
    pub loss_type: CpoLossType,
    /// Factor of the difference of log-probabilities.
    pub beta: f64,
    /// Probability that a pair is the wrong way round; for `sigmoid` alone.
    pub label_smoothing: f64,
    /// Factor of the chosen completions' negative log-likelihood; 0 leaves it out.
    pub cpo_alpha: f64,
}

impl Default for CpoConfig {
    fn default() -> Self {
        Self { loss_type: CpoLossType::Sigmoid, beta: 0.1, label_smoothing: 0.0, cpo_alpha: 1.0 }
    }
}

impl CpoConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let smoothing = self.label_smoothing;
        let mut check = Check::default();
        check
            .number("beta", self.beta, self.beta > 0.0, "> 0")
            .number("label_smoothing", smoothing, (0.0..0.5).contains(&smoothing), "in [0, 0.5)")
            .number("cpo_alpha", self.cpo_alpha, self.cpo_alpha >= 0.0, ">= 0")
            .refuse(smoothing > 0.0 && self.loss_type != CpoLossType::Sigmoid, || {
                format!("`label_smoothing` must be 0, got `{smoothing}`: `loss_type` is not smoothed")
            })
            .problems()
    }
}

/// The mean over the step's pairs, and `cpo_alpha` times the mean negative log-likelihood of the chosen completions'
/// tokens. Rewards are `beta` times the log-probabilities.
///
/// The paper's second term is that of a sequence; TRL's, and so ours, is the mean over tokens.
pub fn cpo_loss(
    policy: &PolicyPairs,
    lengths: &PairLengths,
    totals: &PairTotals,
    config: &CpoConfig,
) -> PreferenceOutput {
    let CpoConfig { loss_type, beta, label_smoothing, cpo_alpha } = *config;
    let logps = match loss_type {
        CpoLossType::Ipo => policy.logps.averages(lengths),
        CpoLossType::Sigmoid | CpoLossType::Hinge => policy.logps.clone(),
    };
    let difference = logps.chosen.clone() - logps.rejected.clone();
    let of_pairs = match loss_type {
        CpoLossType::Sigmoid => smoothed_logistic(difference.mul_scalar(beta), label_smoothing),
        CpoLossType::Hinge => relu(difference.mul_scalar(-beta).add_scalar(1.0)),
        CpoLossType::Ipo => difference.sub_scalar(0.5 / beta).square(),
    };
    let nll = totals.mean_of_chosen_tokens(&policy.chosen_nll);
    PreferenceOutput {
        loss: totals.mean_of_pairs(of_pairs) + nll.mul_scalar(cpo_alpha),
        chosen_rewards: logps.chosen.inner().mul_scalar(beta),
        rejected_rewards: logps.rejected.inner().mul_scalar(beta),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_impossible_value_is_named() {
        assert!(CpoConfig::default().problems().is_empty());
        let config =
            CpoConfig { loss_type: CpoLossType::Hinge, beta: 0.0, label_smoothing: 0.6, cpo_alpha: -1.0 };
        insta::assert_snapshot!(config.problems().join("\n"), @r"
        `beta` must be > 0, got `0`
        `label_smoothing` must be in [0, 0.5), got `0.6`
        `cpo_alpha` must be >= 0, got `-1`
        `label_smoothing` must be 0, got `0.6`: `loss_type` is not smoothed
        ");
    }
}
