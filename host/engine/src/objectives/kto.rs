//! Kahneman-Tversky Optimization: <https://arxiv.org/abs/2402.01306>. Completions judged alone, good or bad.
//! Pure functions of log-probabilities; shapes: `N` = completions in the micro-batch.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::segments::constant;
use super::statistics;

/// What a completion's reward is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum KtoLossType {
    /// The divergence of policy and reference, [`kto_kl`].
    #[default]
    Kto,
    /// Nothing: APO-zero without pairs, <https://arxiv.org/abs/2408.06266>, eq. 7. No estimate is needed.
    ApoZeroUnpaired,
}

/// `[objective.kto]` of a run file; names and defaults are TRL's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KtoConfig {
    /// What a reward is compared with.
    pub loss_type: KtoLossType,
    /// How much moving away from the reference costs.
    pub beta: f64,
    /// Factor of a good completion's loss.
    pub desirable_weight: f64,
    /// Factor of a bad completion's loss.
    pub undesirable_weight: f64,
    /// Ask the reference once of all rows, before the first step, and keep what it says on disk for later runs. What the
    /// divergence is estimated from is of each step and still asked then.
    pub precompute_ref_log_probs: bool,
}

impl Default for KtoConfig {
    fn default() -> Self {
        Self {
            loss_type: KtoLossType::Kto,
            beta: 0.1,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
            precompute_ref_log_probs: false,
        }
    }
}

impl KtoConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut check = Check::default();
        check
            .number("beta", self.beta, self.beta > 0.0, "> 0")
            .number("desirable_weight", self.desirable_weight, self.desirable_weight >= 0.0, ">= 0")
            .number("undesirable_weight", self.undesirable_weight, self.undesirable_weight >= 0.0, ">= 0")
            .problems()
    }

    /// Whether rewards are compared with a divergence, [`kto_kl`].
    pub fn needs_divergence(&self) -> bool {
        self.loss_type == KtoLossType::Kto
    }
}

/// KTO's loss with the implicit rewards of the completions.
#[derive(Debug, Clone)]
pub struct KtoOutput {
    /// This micro-batch's part of the step's loss, `[1]`.
    pub loss: Tensor<1>,
    /// `beta` times the log-ratio of each completion, `[N]`, without a graph.
    pub rewards: Tensor<1>,
}

/// The divergence that rewards are compared with, from completions that do not belong to their prompts: the mean log-ratio,
/// not below 0. No gradient flows through it. Section 4.1 of the paper (`z_0`); TRL's metric `kl`.
pub fn kto_kl(policy: &[f32], reference: &[f32]) -> f32 {
    let ratios: Vec<f32> = policy.iter().zip(reference).map(|(a, b)| a - b).collect();
    statistics::mean(&ratios).max(0.0) as f32
}

/// `w (1 - sigmoid(± beta (log-ratio - kl)))`, the sign being that of the judgement: eq. 7 and 8. The mean over the
/// `completions` of the step; the sum of the weights does not enter it.
///
/// While policy equals reference and `kl = 0`, a completion's loss is half its weight.
///
/// # Shapes
/// - `policy`, `reference`, `desirable`: `[N]`, log-probabilities summed over a completion
pub fn kto_loss(
    policy: &Tensor<1>,
    reference: &Tensor<1>,
    desirable: &[bool],
    kl: f32,
    completions: usize,
    config: &KtoConfig,
) -> KtoOutput {
    let logratios = policy.clone() - reference.clone().inner();
    let kl = match config.loss_type {
        KtoLossType::Kto => kl,
        KtoLossType::ApoZeroUnpaired => 0.0,
    };
    let each = |good: f64, bad: f64| {
        let values: Vec<f32> = desirable.iter().map(|it| if *it { good } else { bad } as f32).collect();
        constant(&values, policy)
    };
    let margins = logratios.clone().sub_scalar(kl) * each(config.beta, -config.beta);
    let losses =
        sigmoid(margins).neg().add_scalar(1.0) * each(config.desirable_weight, config.undesirable_weight);
    KtoOutput {
        loss: losses.sum().div_scalar(completions.max(1) as f64),
        rewards: logratios.inner().mul_scalar(config.beta),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_impossible_value_is_named() {
        assert!(KtoConfig::default().problems().is_empty());
        let config = KtoConfig {
            beta: 0.0,
            desirable_weight: -1.0,
            undesirable_weight: f64::NAN,
            ..Default::default()
        };
        insta::assert_snapshot!(config.problems().join("\n"), @r"
        `beta` must be > 0, got `0`
        `desirable_weight` must be >= 0, got `-1`
        `undesirable_weight` must be >= 0, got `NaN`
        ");
    }

    #[test]
    fn the_estimate_is_a_mean_that_is_not_below_zero() {
        assert_eq!(kto_kl(&[-1.0, -2.0], &[-2.0, -4.0]), 1.5);
        assert_eq!(kto_kl(&[-3.0], &[-2.0]), 0.0);
        assert_eq!(kto_kl(&[], &[]), 0.0);
    }
}
