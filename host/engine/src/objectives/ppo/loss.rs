//! PPO's losses, and what a step tells of itself. Shapes: `T` = tokens of the micro-batch's completions, end to end.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::PpoConfig;
use crate::parallel::Merge;

/// The clipped surrogate with the ratios it was made of.
#[derive(Debug, Clone)]
pub struct PolicyLoss {
    /// This micro-batch's part of the step's loss, `[1]`.
    pub loss: Tensor<1>,
    /// `log` of new to old policy, `[T]`, without a graph.
    pub log_ratios: Tensor<1>,
}

/// `-min(ratio * A, clip(ratio, 1 - cliprange, 1 + cliprange) * A)`: <https://arxiv.org/abs/1707.06347>, eq. 7. The mean over
/// the `tokens` of the step.
///
/// # Shapes
/// - `logps`, `old_logps`, `advantages`: `[T]`
pub fn policy_loss(
    logps: &Tensor<1>,
    old_logps: &Tensor<1>,
    advantages: &Tensor<1>,
    cliprange: f64,
    tokens: usize,
) -> PolicyLoss {
    let log_ratios = logps.clone() - old_logps.clone().inner();
    let (ratios, advantages) = (log_ratios.clone().exp(), advantages.clone().inner());
    let clipped = ratios.clone().clamp(1.0 - cliprange, 1.0 + cliprange) * advantages.clone();
    let surrogate = (ratios * advantages).min_pair(clipped);
    PolicyLoss { loss: mean_of(surrogate, tokens).neg(), log_ratios: log_ratios.inner() }
}

/// `max((V - R)^2, (clip(V, V_old ± cliprange_value) - R)^2) / 2`, the mean over the `states` of the step: as in OpenAI's
/// baselines and TRL; the paper does not clip values. `[1]`
///
/// # Shapes
/// - `values`, `old_values`, `returns`: `[T]`
pub fn value_loss(
    values: &Tensor<1>,
    old_values: &Tensor<1>,
    returns: &Tensor<1>,
    cliprange_value: f64,
    states: usize,
) -> Tensor<1> {
    let (old_values, returns) = (old_values.clone().inner(), returns.clone().inner());
    let moved = (values.clone() - old_values.clone()).clamp(-cliprange_value, cliprange_value);
    let clipped = (old_values + moved - returns.clone()).square();
    let errors = (values.clone() - returns).square();
    mean_of(errors.max_pair(clipped), states).mul_scalar(0.5)
}

/// The policy's entropy, the mean over the `tokens` of the step, `[1]`.
///
/// # Shapes
/// - `entropies`: `[T]`, of the distribution each token was drawn from
pub fn entropy_bonus(entropies: Tensor<1>, tokens: usize) -> Tensor<1> {
    mean_of(entropies, tokens)
}

/// `policy + vf_coef * value - entropy_coef * entropy`: <https://arxiv.org/abs/1707.06347>, eq. 9. The entropy may be absent where
/// its coefficient is 0.
///
/// # Shapes
/// - all `[1]`
pub fn ppo_loss(
    policy: Tensor<1>,
    value: Tensor<1>,
    entropy: Option<Tensor<1>>,
    config: &PpoConfig,
) -> Tensor<1> {
    let loss = policy + value.mul_scalar(config.vf_coef);
    match entropy.filter(|_| config.entropy_coef > 0.0) {
        Some(entropy) => loss - entropy.mul_scalar(config.entropy_coef),
        None => loss,
    }
}

/// Whether a rollout has taught enough: `approxkl > 1.5 * target_kl`, as in TRL up to 0.11 and OpenAI's Spinning Up.
pub fn kl_is_too_large(approxkl: f64, target_kl: Option<f64>) -> bool {
    target_kl.is_some_and(|target| approxkl > 1.5 * target)
}

fn mean_of(values: Tensor<1>, count: usize) -> Tensor<1> {
    values.sum().div_scalar(count.max(1) as f64)
}

/// What steps tell of themselves, summed until it is asked for. All means are over tokens or states, never over padding;
/// TRL's `approxkl` and `ratio` take padding in.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct StepStatistics {
    tokens: usize,
    squared_log_ratios: f64,
    ratios: f64,
    clipped: usize,
    entropy: f64,
    states: usize,
    clipped_values: usize,
}

impl Merge for StepStatistics {
    fn merge(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.squared_log_ratios += other.squared_log_ratios;
        self.ratios += other.ratios;
        self.clipped += other.clipped;
        self.entropy += other.entropy;
        self.states += other.states;
        self.clipped_values += other.clipped_values;
    }
}

impl StepStatistics {
    /// Adds tokens: [`PolicyLoss::log_ratios`], their advantages, and their entropies where they are known.
    pub fn add_policy(
        &mut self,
        log_ratios: &[f32],
        advantages: &[f32],
        entropies: &[f32],
        config: &PpoConfig,
    ) {
        let bounds = (1.0 - config.cliprange, 1.0 + config.cliprange);
        for (log_ratio, advantage) in log_ratios.iter().zip(advantages) {
            let ratio = f64::from(*log_ratio).exp();
            self.squared_log_ratios += f64::from(*log_ratio).powi(2);
            self.ratios += ratio;
            // The clipped loss is the greater one.
            self.clipped +=
                usize::from((advantage > &0.0 && ratio > bounds.1) || (advantage < &0.0 && ratio < bounds.0));
        }
        self.tokens += log_ratios.len();
        self.entropy += entropies.iter().map(|it| f64::from(*it)).sum::<f64>();
    }

    /// Adds states: new values, those of the rollout, and returns.
    pub fn add_values(&mut self, values: &[f32], old: &[f32], returns: &[f32], config: &PpoConfig) {
        for ((value, old), target) in values.iter().zip(old).zip(returns) {
            let (value, old, target) = (f64::from(*value), f64::from(*old), f64::from(*target));
            let clipped = old + (value - old).clamp(-config.cliprange_value, config.cliprange_value);
            self.clipped_values += usize::from((clipped - target).powi(2) > (value - target).powi(2));
        }
        self.states += values.len();
    }

    /// `mean((log ratio)^2) / 2` over the tokens, in nats: what [`kl_is_too_large`] takes.
    pub fn approxkl(&self) -> f64 {
        0.5 * self.squared_log_ratios / self.tokens.max(1) as f64
    }

    /// By TRL's names; `loss/policy_avg` and `loss/value_avg` are the losses' own values.
    pub fn metrics(&self) -> [(&'static str, f64); 5] {
        let (tokens, states) = (self.tokens.max(1) as f64, self.states.max(1) as f64);
        [
            ("policy/approxkl_avg", self.approxkl()),
            ("policy/clipfrac_avg", self.clipped as f64 / tokens),
            ("policy/entropy_avg", self.entropy / tokens),
            ("val/ratio", self.ratios / tokens),
            ("val/clipfrac_avg", self.clipped_values as f64 / states),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_left_where_the_policy_has_moved_too_far() {
        assert!(kl_is_too_large(0.16, Some(0.1)));
        assert!(!kl_is_too_large(0.15, Some(0.1)));
        assert!(!kl_is_too_large(1e9, None));
    }

    /// By hand: ratios 1, e^0.5 (clipped upwards for a positive advantage), e^-0.5 (not clipped for a positive one).
    #[test]
    fn clipping_counts_only_where_it_changes_the_loss() {
        let (mut statistics, config) = (StepStatistics::default(), PpoConfig::default());
        statistics.add_policy(&[0.0, 0.5], &[1.0, 1.0], &[1.0, 2.0], &config);
        statistics.add_policy(&[-0.5, -0.5], &[1.0, -1.0], &[3.0, 2.0], &config);
        let metrics: std::collections::BTreeMap<_, _> = statistics.metrics().into_iter().collect();
        assert!((metrics["policy/approxkl_avg"] - 0.09375).abs() < 1e-9);
        assert_eq!(metrics["policy/clipfrac_avg"], 0.5);
        assert_eq!(metrics["policy/entropy_avg"], 2.0);
        let ratio = (1.0 + 0.5_f64.exp() + 2.0 * (-0.5_f64).exp()) / 4.0;
        assert!((metrics["val/ratio"] - ratio).abs() < 1e-9);
    }
}
