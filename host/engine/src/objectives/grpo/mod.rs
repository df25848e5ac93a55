//! Group-relative policy optimization: one objective, whose keys make the methods of this family.
//!
//! | method | keys that differ from the defaults |
//! |---|---|
//! | GRPO, <https://arxiv.org/abs/2402.03300> | `loss_type = "grpo"`, `beta = 0.04`, `use_bias_correction_kl = false` |
//! | DAPO, <https://arxiv.org/abs/2503.14476> | `epsilon_high = 0.28`, `overlong`, `dynamic_sampling` |
//! | Dr. GRPO, <https://arxiv.org/abs/2503.20783> | `loss_type = "dr_grpo"`, `scale_rewards = "none"` |
//! | GSPO, <https://arxiv.org/abs/2507.18071> | `loss_type = "grpo"`, `importance_sampling_level = "sequence"`, `epsilon = 3e-4`, `epsilon_high = 4e-4` |
//! | RLOO, <https://arxiv.org/abs/2402.14740> | `loss_type = "grpo"`, `importance_sampling_level = "trajectory"`, `baseline = "leave_one_out"`, `scale_rewards = "none"`, `beta = 0.05`, `kl_in_reward = true` |
//! | REINFORCE++, <https://arxiv.org/abs/2501.03262> | `baseline = "none"`, `scale_rewards = "none"`, `normalize_advantages = true`, `kl_in_reward = true` |
//! | the same with a baseline | `scale_rewards = "none"`, `normalize_advantages = true` |
//!
//! Defaults are those of TRL 1.16's `GRPOConfig`, DAPO's loss among them.

pub mod advantages;
pub mod loss;
pub mod overlong;

use serde::{Deserialize, Serialize};

pub use self::advantages::{GroupAdvantages, group_advantages, group_has_signal};
pub use self::loss::{GroupStatistics, GroupTotals, GrpoOutput, RolloutLogps, grpo_loss};
pub use self::overlong::OverlongConfig;
use super::check::Check;

/// What losses of tokens are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum GrpoLossType {
    /// The tokens of each completion, then the completions: <https://arxiv.org/abs/2402.03300>, eq. 3.
    Grpo,
    /// The tokens of the micro-batch, then the micro-batches. The only one that depends on how a step is cut, as in TRL.
    Bnpo,
    /// `completions * max_completion_length`, a constant: <https://arxiv.org/abs/2503.20783>.
    DrGrpo,
    /// The tokens of the step: <https://arxiv.org/abs/2503.14476>, eq. 8.
    #[default]
    Dapo,
}

/// What the ratio of new to old policy is taken of, and clipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ImportanceSamplingLevel {
    /// Each token.
    #[default]
    Token,
    /// A completion, the geometric mean over its tokens: GSPO, <https://arxiv.org/abs/2507.18071>, eq. 7.
    Sequence,
    /// A completion as one action, the product over its tokens: TRL's `RLOOTrainer`.
    Trajectory,
}

/// What a score is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// The mean of its group.
    #[default]
    GroupMean,
    /// The mean of the others in its group: <https://arxiv.org/abs/2402.14740>.
    LeaveOneOut,
    /// Nothing; meant for `normalize_advantages`.
    None,
}

/// By which standard deviation advantages are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    /// That of the group's scores.
    #[default]
    Group,
    /// That of all scores.
    Batch,
    /// None.
    None,
}

/// `[objective.grpo]` of a run file; names and defaults are TRL's, `baseline`, `kl_in_reward`, `overlong` and what dynamic
/// sampling has apart: these are ours, the last by verl's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpoConfig {
    /// What losses of tokens are divided by.
    pub loss_type: GrpoLossType,
    /// What ratios are taken of.
    pub importance_sampling_level: ImportanceSamplingLevel,
    /// What a score is compared with.
    pub baseline: Baseline,
    /// By which standard deviation advantages are divided.
    pub scale_rewards: ScaleRewards,
    /// Bring the advantages of the whole step to zero mean and unit variance, after all else.
    pub normalize_advantages: bool,
    /// Coefficient of the divergence from the reference; 0 needs no reference model.
    pub beta: f64,
    /// Take the divergence off the scores, a completion's sum, instead of adding it to the loss.
    pub kl_in_reward: bool,
    /// Multiply the loss's divergence by the ratio of new to old policy, which makes its gradient unbiased:
    /// <https://arxiv.org/abs/2512.02556>.
    pub use_bias_correction_kl: bool,
    /// By how much a ratio may fall below 1.
    pub epsilon: f64,
    /// By how much a ratio may rise above 1; as `epsilon` if absent. Greater is DAPO's "clip-higher", eq. 10.
    pub epsilon_high: Option<f64>,
    /// Bound of a ratio where the advantage is negative; none if absent. <https://arxiv.org/abs/2505.07291>
    pub delta: Option<f64>,
    /// Punishment of completions near the greatest length; none if absent.
    pub overlong: Option<OverlongConfig>,
    /// Leave out groups whose rewards do not differ, and roll out further prompts in their place:
    /// <https://arxiv.org/abs/2503.14476>, eq. 11. verl's `filter_groups.enable`.
    pub dynamic_sampling: bool,
    /// Batches of prompts at most that are rolled out before a step; then it goes on with what there is.
    pub max_num_gen_batches: usize,
}

impl Default for GrpoConfig {
    fn default() -> Self {
        Self {
            loss_type: GrpoLossType::Dapo,
            importance_sampling_level: ImportanceSamplingLevel::Token,
            baseline: Baseline::GroupMean,
            scale_rewards: ScaleRewards::Group,
            normalize_advantages: false,
            beta: 0.0,
            kl_in_reward: false,
            use_bias_correction_kl: true,
            epsilon: 0.2,
            epsilon_high: None,
            delta: None,
            overlong: None,
            dynamic_sampling: false,
            max_num_gen_batches: 10,
        }
    }
}

impl GrpoConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let high = self.epsilon_high();
        let mut check = Check::default();
        check
            .number("beta", self.beta, self.beta >= 0.0, ">= 0")
            .number("epsilon", self.epsilon, self.epsilon > 0.0, "> 0")
            .optional("epsilon_high", self.epsilon_high, |it| it > 0.0, "> 0");
        if let Some(delta) = self.delta {
            let bound = format!("> 1 + `epsilon_high` = {}", 1.0 + high);
            check.number("delta", delta, delta > 1.0 + high, &bound);
        }
        check.refuse(self.baseline == Baseline::None && self.scale_rewards == ScaleRewards::Group, || {
            "`scale_rewards` must be `batch` or `none` where `baseline` is `none`: nothing is relative to a group".into()
        });
        check
            .refuse(self.baseline == Baseline::None && self.dynamic_sampling, || {
                "`dynamic_sampling` must be false where `baseline` is `none`: a group whose scores are one teaches as well".into()
            })
            .refuse(self.max_num_gen_batches == 0, || "`max_num_gen_batches` must be > 0, got `0`".into());
        let mut problems = check.problems();
        let below = self.overlong.as_ref().map(OverlongConfig::problems).unwrap_or_default();
        problems.extend(below.iter().map(|it| it.replacen('`', "`overlong.", 1)));
        problems
    }

    /// By how much a ratio may rise above 1.
    pub fn epsilon_high(&self) -> f64 {
        self.epsilon_high.unwrap_or(self.epsilon)
    }

    /// Whether log-probabilities of a reference are used, in the loss or in the reward.
    pub fn needs_reference(&self) -> bool {
        self.beta > 0.0
    }

    /// Coefficient of the divergence in the loss.
    pub fn loss_beta(&self) -> f64 {
        if self.kl_in_reward { 0.0 } else { self.beta }
    }

    /// Coefficient of the divergence in the reward.
    pub fn reward_beta(&self) -> f64 {
        if self.kl_in_reward { self.beta } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_impossible_value_is_named() {
        assert!(GrpoConfig::default().problems().is_empty());
        let config = GrpoConfig {
            baseline: Baseline::None,
            beta: -1.0,
            epsilon: 0.0,
            epsilon_high: Some(-0.1),
            delta: Some(0.5),
            overlong: Some(OverlongConfig { max_completion_length: 10, soft_punish_cache: 11 }),
            dynamic_sampling: true,
            max_num_gen_batches: 0,
            ..GrpoConfig::default()
        };
        insta::assert_snapshot!(config.problems().join("\n"), @r"
        `beta` must be >= 0, got `-1`
        `epsilon` must be > 0, got `0`
        `epsilon_high` must be > 0, got `-0.1`
        `delta` must be > 1 + `epsilon_high` = 0.9, got `0.5`
        `scale_rewards` must be `batch` or `none` where `baseline` is `none`: nothing is relative to a group
        `dynamic_sampling` must be false where `baseline` is `none`: a group whose scores are one teaches as well
        `max_num_gen_batches` must be > 0, got `0`
        `overlong.soft_punish_cache` must be at most `max_completion_length` = 10, got `11`
        ");
    }
}
