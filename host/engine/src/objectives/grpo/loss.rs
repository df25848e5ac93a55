//! The clipped surrogate over groups. Shapes: `T` = tokens of the micro-batch's completions end to end, `N` = its completions.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{GrpoConfig, GrpoLossType, ImportanceSamplingLevel};
use crate::objectives::segments;
use crate::parallel::Merge;

/// Log-probabilities of the drawn tokens, `[T]` each.
#[derive(Debug, Clone)]
pub struct RolloutLogps {
    /// By the policy that is trained.
    pub policy: Tensor<1>,
    /// By the policy that drew them; the same as `policy`, without its gradient, if absent: the first update after a rollout.
    pub old: Option<Tensor<1>>,
    /// By the reference; needed where the divergence is in the loss.
    pub reference: Option<Tensor<1>>,
}

/// What losses are divided by: counts of the whole optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupTotals {
    /// Completions.
    pub completions: usize,
    /// Their tokens.
    pub tokens: usize,
    /// Micro-batches; for `bnpo` alone.
    pub micro_batches: usize,
    /// Tokens a completion can have; for `dr_grpo` alone.
    pub max_completion_length: usize,
}

/// The loss and what its metrics are made of.
#[derive(Debug, Clone)]
pub struct GrpoOutput {
    /// This micro-batch's part of the step's loss, `[1]`.
    pub loss: Tensor<1>,
    /// `log` of the ratios that were clipped: `[T]` at the level of tokens, otherwise `[N]`; without a graph.
    pub log_ratios: Tensor<1>,
    /// Estimated divergence from the reference (k3), `[T]`, without a graph; before any correction.
    pub kl: Option<Tensor<1>>,
}

/// `-min(ratio * A, clip(ratio, 1 - epsilon, 1 + epsilon_high) * A) + beta * KL`, divided as `loss_type` says:
/// <https://arxiv.org/abs/2402.03300>, eq. 3, its divergence (eq. 4) the estimator k3; DAPO's is
/// <https://arxiv.org/abs/2503.14476>, eq. 8, GSPO's <https://arxiv.org/abs/2507.18071>, eq. 5.
///
/// A ratio of a whole completion counts at each of its tokens, except that `grpo` takes the mean over them. In the first update
/// after a rollout every ratio is 1, and the gradient is that of `-A log policy`.
///
/// `advantages` and `lengths` are those of the `N` completions.
///
/// # Panics
/// Without `reference`, where the divergence is in the loss.
pub fn grpo_loss(
    logps: &RolloutLogps,
    advantages: &[f32],
    lengths: &[usize],
    totals: &GroupTotals,
    config: &GrpoConfig,
) -> GrpoOutput {
    let policy = &logps.policy;
    let old = logps.old.as_ref().unwrap_or(policy).clone().inner();
    let log_ratios = of_level(policy.clone() - old, lengths, config.importance_sampling_level);
    let ratios = log_ratios.clone().exp();
    let by_token = config.importance_sampling_level == ImportanceSamplingLevel::Token;
    let surrogates = if by_token {
        let advantages = segments::constant(&segments::spread(advantages, lengths), policy);
        segments::sums(surrogate(ratios.clone(), advantages, config), lengths)
    } else {
        let tokens: Vec<f32> = lengths.iter().map(|it| *it as f32).collect();
        let once = surrogate(ratios.clone(), segments::constant(advantages, policy), config);
        once * segments::constant(&tokens, policy)
    };
    let mut of_completions = surrogates.neg();
    let mut kl = None;
    if config.loss_beta() > 0.0 {
        let reference = logps
            .reference
            .as_ref()
            .expect("a divergence in the loss needs the reference's log-probabilities");
        let estimates = k3(policy, reference);
        kl = Some(estimates.clone().inner());
        let sums = match (config.use_bias_correction_kl, by_token) {
            (false, _) => segments::sums(estimates, lengths),
            (true, true) => segments::sums(estimates * ratios, lengths),
            (true, false) => segments::sums(estimates, lengths) * ratios,
        };
        of_completions = of_completions + sums.mul_scalar(config.loss_beta());
    }
    let shares = segments::constant(&shares(lengths, totals, config.loss_type), policy);
    GrpoOutput { loss: (of_completions * shares).sum(), log_ratios: log_ratios.inner(), kl }
}

/// Log-ratios of tokens, `[T]`, or of completions, `[N]`.
fn of_level(log_ratios: Tensor<1>, lengths: &[usize], level: ImportanceSamplingLevel) -> Tensor<1> {
    match level {
        ImportanceSamplingLevel::Token => log_ratios,
        ImportanceSamplingLevel::Trajectory => segments::sums(log_ratios, lengths),
        ImportanceSamplingLevel::Sequence => {
            let shares: Vec<f32> = lengths.iter().map(|it| 1.0 / (*it).max(1) as f32).collect();
            let shares = segments::constant(&shares, &log_ratios);
            segments::sums(log_ratios, lengths) * shares
        }
    }
}

fn surrogate(ratios: Tensor<1>, advantages: Tensor<1>, config: &GrpoConfig) -> Tensor<1> {
    let clipped = ratios.clone().clamp(1.0 - config.epsilon, 1.0 + config.epsilon_high());
    let bounded = match config.delta {
        Some(delta) => ratios.clamp_max(delta),
        None => ratios,
    };
    (bounded * advantages.clone()).min_pair(clipped * advantages)
}

/// `exp(r) - r - 1` with `r = log reference - log policy`.
fn k3(policy: &Tensor<1>, reference: &Tensor<1>) -> Tensor<1> {
    let ratio = reference.clone().inner() - policy.clone();
    ratio.clone().exp() - ratio.add_scalar(1.0)
}

/// What the sum over a completion's tokens is multiplied by.
fn shares(lengths: &[usize], totals: &GroupTotals, loss_type: GrpoLossType) -> Vec<f32> {
    let here = lengths.iter().sum::<usize>().max(1);
    let divisor = |length: usize| match loss_type {
        GrpoLossType::Grpo => length.max(1) * totals.completions,
        GrpoLossType::Bnpo => here * totals.micro_batches,
        GrpoLossType::DrGrpo => totals.completions * totals.max_completion_length,
        GrpoLossType::Dapo => totals.tokens,
    };
    lengths.iter().map(|it| (1.0 / divisor(*it).max(1) as f64) as f32).collect()
}

/// TRL's metrics of the loss, summed until they are asked for: means over all tokens of the step, or over its completions
/// where ratios are of whole ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GroupStatistics {
    ratios: usize,
    low: usize,
    high: usize,
    low_min: f64,
    high_max: f64,
    kl: f64,
    kl_tokens: usize,
}

impl Default for GroupStatistics {
    fn default() -> Self {
        Self {
            ratios: 0,
            low: 0,
            high: 0,
            low_min: f64::INFINITY,
            high_max: f64::NEG_INFINITY,
            kl: 0.0,
            kl_tokens: 0,
        }
    }
}

impl Merge for GroupStatistics {
    fn merge(&mut self, other: Self) {
        self.ratios += other.ratios;
        self.low += other.low;
        self.high += other.high;
        self.low_min = self.low_min.min(other.low_min);
        self.high_max = self.high_max.max(other.high_max);
        self.kl += other.kl;
        self.kl_tokens += other.kl_tokens;
    }
}

impl GroupStatistics {
    /// Adds a micro-batch: what [`grpo_loss`] gave, read from the device, with the advantages and lengths it was given.
    pub fn add(
        &mut self,
        log_ratios: &[f32],
        kl: Option<&[f32]>,
        advantages: &[f32],
        lengths: &[usize],
        config: &GrpoConfig,
    ) {
        let by_token = config.importance_sampling_level == ImportanceSamplingLevel::Token;
        let ones = vec![1; lengths.len()];
        let parts = segments::parts(log_ratios, if by_token { lengths } else { &ones });
        for (ratios, advantage) in parts.zip(advantages).filter(|it| !it.0.is_empty()) {
            let count =
                |is: &dyn Fn(f64) -> bool| ratios.iter().filter(|it| is(f64::from(**it).exp())).count();
            let low = count(&|ratio| *advantage < 0.0 && ratio < 1.0 - config.epsilon);
            let high = count(&|ratio| *advantage > 0.0 && ratio > 1.0 + config.epsilon_high());
            self.low += low;
            self.high += high;
            self.ratios += ratios.len();
            self.low_min = self.low_min.min(low as f64 / ratios.len() as f64);
            self.high_max = self.high_max.max(high as f64 / ratios.len() as f64);
        }
        let Some(kl) = kl else { return };
        let spread = if by_token { log_ratios.to_vec() } else { segments::spread(log_ratios, lengths) };
        let weight = |it: f32| if config.use_bias_correction_kl { f64::from(it).exp() } else { 1.0 };
        self.kl += kl.iter().zip(spread).map(|(kl, it)| f64::from(*kl) * weight(it)).sum::<f64>();
        self.kl_tokens += kl.len();
    }

    /// By TRL's names; `kl` only where it is in the loss.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        if self.ratios == 0 {
            return Vec::new();
        }
        let ratios = self.ratios as f64;
        let mut metrics = vec![
            ("clip_ratio/low_mean", self.low as f64 / ratios),
            ("clip_ratio/high_mean", self.high as f64 / ratios),
            ("clip_ratio/region_mean", (self.low + self.high) as f64 / ratios),
            ("clip_ratio/low_min", self.low_min),
            ("clip_ratio/high_max", self.high_max),
        ];
        if self.kl_tokens > 0 {
            metrics.push(("kl", self.kl / self.kl_tokens as f64));
        }
        metrics
    }
}
