//! Proximal Policy Optimization of a language model: <https://arxiv.org/abs/1707.06347>, with the penalty of
//! <https://arxiv.org/abs/1909.08593>.
//!
//! What comes before a gradient is plain numbers ([`rollout`]), what a gradient flows through is tensors ([`loss`]).
//! Compared with TRL 0.24, the last that has PPO, line by line; differences are told at each function.

pub mod loss;
pub mod rollout;

use serde::{Deserialize, Serialize};

pub use self::loss::{
    PolicyLoss, StepStatistics, entropy_bonus, kl_is_too_large, policy_loss, ppo_loss, value_loss,
};
pub use self::rollout::{
    Advantages, RolloutStatistics, TokenRewards, advantages, gae, shape_scores, token_rewards,
};
use super::check::Check;
use super::kl::{AdaptiveKlConfig, KlController, KlEstimator};

/// Where values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ValueModel {
    /// A scalar head on the policy's trunk, which learns of both losses: as in TRL up to 0.11.
    Shared,
    /// The same, but its loss stays in the head.
    SharedDetached,
    /// A trunk of its own, begun as the policy and trained in the same way (the frozen weights are shared), with a head:
    /// as in TRL 0.24.
    #[default]
    Copy,
}

/// `[objective.ppo]` of a run file; names and defaults are TRL 0.24's where it has them.
///
/// TRL's `num_ppo_epochs` and `num_mini_batches` are `rollout.num_iterations` and `rollout.steps_per_generation` here, as
/// for every objective that samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PpoConfig {
    /// Where values come from.
    pub value_model: ValueModel,
    /// Coefficient of the divergence in the reward; where it starts if it adapts. 0 needs no reference model.
    pub kl_coef: f64,
    /// How the coefficient follows the divergence; it stays as it is if absent.
    pub adaptive_kl: Option<AdaptiveKlConfig>,
    /// Estimator of the divergence in the reward.
    pub kl_estimator: KlEstimator,
    /// Discount of rewards a token.
    pub gamma: f64,
    /// Decay of the advantage estimate's memory.
    pub lam: f64,
    /// By how much the ratio of new to old policy may differ from 1.
    pub cliprange: f64,
    /// By how much a value may differ from what it was at the rollout.
    pub cliprange_value: f64,
    /// Factor of the value loss.
    pub vf_coef: f64,
    /// Learning rate of the value model, or of the head alone where it has no trunk of its own; that of the policy if absent.
    /// It follows the same schedule. OpenRLHF's `critic_learning_rate`; not in TRL.
    pub value_learning_rate: Option<f64>,
    /// Factor of the policy's entropy, which is rewarded; not in TRL, where it is 0.
    pub entropy_coef: f64,
    /// Bring rewards to unit variance, with their mean kept.
    pub whiten_rewards: bool,
    /// Bring advantages to zero mean and unit variance; TRL always does.
    pub whiten_advantages: bool,
    /// Subtracted from the score of a completion that did not end.
    pub missing_eos_penalty: Option<f64>,
    /// Bound of a score's magnitude, as in TRL up to 0.11.
    pub score_clip: Option<f64>,
    /// Epochs over a rollout stop where the approximate divergence passes 1.5 times this; never if absent. As in TRL up to 0.11.
    pub target_kl: Option<f64>,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            value_model: ValueModel::default(),
            kl_coef: 0.05,
            adaptive_kl: None,
            kl_estimator: KlEstimator::K1,
            gamma: 1.0,
            lam: 0.95,
            cliprange: 0.2,
            cliprange_value: 0.2,
            vf_coef: 0.1,
            value_learning_rate: None,
            entropy_coef: 0.0,
            whiten_rewards: false,
            whiten_advantages: true,
            missing_eos_penalty: None,
            score_clip: None,
            target_kl: None,
        }
    }
}

impl PpoConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut check = Check::default();
        check
            .number("kl_coef", self.kl_coef, self.kl_coef >= 0.0, ">= 0")
            .number("gamma", self.gamma, (0.0..=1.0).contains(&self.gamma), "in [0, 1]")
            .number("lam", self.lam, (0.0..=1.0).contains(&self.lam), "in [0, 1]")
            .number("cliprange", self.cliprange, self.cliprange > 0.0, "> 0")
            .number("cliprange_value", self.cliprange_value, self.cliprange_value > 0.0, "> 0")
            .number("vf_coef", self.vf_coef, self.vf_coef >= 0.0, ">= 0")
            .optional("value_learning_rate", self.value_learning_rate, |it| it > 0.0, "> 0")
            .number("entropy_coef", self.entropy_coef, self.entropy_coef >= 0.0, ">= 0")
            .optional("missing_eos_penalty", self.missing_eos_penalty, |it| it > 0.0, "> 0")
            .optional("score_clip", self.score_clip, |it| it > 0.0, "> 0")
            .optional("target_kl", self.target_kl, |it| it > 0.0, "> 0");
        let adaptive = self.adaptive_kl.as_ref();
        check.refuse(adaptive.is_some() && self.kl_coef == 0.0, || {
            "`kl_coef` must be > 0 where `adaptive_kl` is set, got `0`: it is multiplied, so it would stay 0".into()
        });
        let mut problems = check.problems();
        let below = adaptive.map(AdaptiveKlConfig::problems).unwrap_or_default();
        problems.extend(below.iter().map(|it| it.replacen('`', "`adaptive_kl.", 1)));
        problems
    }

    /// The penalty's coefficient before the first rollout.
    pub fn kl_controller(&self) -> KlController {
        KlController::new(self.kl_coef, self.adaptive_kl.clone())
    }

    /// Whether log-probabilities of a reference are used.
    pub fn needs_reference(&self) -> bool {
        self.kl_coef > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_impossible_value_is_named() {
        assert!(PpoConfig::default().problems().is_empty());
        let config = PpoConfig {
            kl_coef: -1.0,
            adaptive_kl: Some(AdaptiveKlConfig { target: 0.0, horizon: f64::NAN }),
            gamma: 1.1,
            lam: -0.1,
            cliprange: 0.0,
            cliprange_value: 0.0,
            vf_coef: -1.0,
            value_learning_rate: Some(0.0),
            entropy_coef: -1.0,
            missing_eos_penalty: Some(-1.0),
            score_clip: Some(0.0),
            target_kl: Some(0.0),
            ..PpoConfig::default()
        };
        insta::assert_snapshot!(config.problems().join("\n"), @r"
        `kl_coef` must be >= 0, got `-1`
        `gamma` must be in [0, 1], got `1.1`
        `lam` must be in [0, 1], got `-0.1`
        `cliprange` must be > 0, got `0`
        `cliprange_value` must be > 0, got `0`
        `vf_coef` must be >= 0, got `-1`
        `value_learning_rate` must be > 0, got `0`
        `entropy_coef` must be >= 0, got `-1`
        `missing_eos_penalty` must be > 0, got `-1`
        `score_clip` must be > 0, got `0`
        `target_kl` must be > 0, got `0`
        `adaptive_kl.target` must be > 0, got `0`
        `adaptive_kl.horizon` must be > 0, got `NaN`
        ");
        let stuck = PpoConfig { kl_coef: 0.0, adaptive_kl: Some(Default::default()), ..PpoConfig::default() };
        assert_eq!(stuck.problems().len(), 1);
    }
}
