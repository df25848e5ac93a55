//! Advantages of completions from the scores of their groups: plain numbers, over the whole optimizer step.

use super::{Baseline, GrpoConfig, ScaleRewards};
use crate::objectives::statistics::{mean, variance};

/// TRL adds it to every standard deviation.
const EPS: f64 = 1e-4;

/// Advantages with TRL's metrics of the scores they came from.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupAdvantages {
    /// Of each completion; 0 without a score.
    pub advantages: Vec<f32>,
    /// Groups.
    pub groups: usize,
    /// Groups with two scores or more that are all the same.
    pub zero_std_groups: usize,
    /// Groups with fewer than two scores.
    pub unscored_groups: usize,
    /// Mean of all scores; `None` without any.
    pub reward: Option<f64>,
    /// Standard deviation of all scores, with Bessel's correction; `None` of fewer than two.
    pub reward_std: Option<f64>,
}

impl GroupAdvantages {
    /// By TRL's names. `frac_reward_zero_std` is the share of groups, whatever advantages are divided by; TRL's is of
    /// completions, and with `scale_rewards = "batch"` of the batch, so 0 or 1.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let share = |count: usize| Some(count as f64 / self.groups.max(1) as f64);
        let named = [
            ("reward", self.reward),
            ("reward_std", self.reward_std),
            ("frac_reward_zero_std", share(self.zero_std_groups)),
            ("frac_unscored_groups", share(self.unscored_groups)),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Whether a group teaches anything: two of its scores differ. DAPO's dynamic sampling
/// (<https://arxiv.org/abs/2503.14476>, eq. 11) draws another group where not.
pub fn group_has_signal(scores: &[Option<f32>]) -> bool {
    let mut scored = scores.iter().flatten();
    scored.next().is_some_and(|first| scored.any(|it| it != first))
}

/// Scores less `beta` times the divergence of each completion: how RLOO and REINFORCE++ keep to the reference.
fn penalised(scores: &[Option<f32>], kl: &[f32], beta: f64) -> Vec<Option<f32>> {
    let less = |score: f32, kl: f32| (f64::from(score) - beta * f64::from(kl)) as f32;
    scores.iter().zip(kl).map(|(score, kl)| score.map(|it| less(it, *kl))).collect()
}

/// Advantages of the completions of all groups of a step: the score less its baseline, over the standard deviation that
/// `scale_rewards` names, plus 1e-4; <https://arxiv.org/abs/2402.03300>, section 4.1.2.
///
/// A completion without a score is left out of every mean and deviation and has advantage 0. So have all completions of a
/// group with fewer than two scores or none that differ, unless `baseline` is `none`. With `normalize_advantages` all of the
/// step's are brought to zero mean and unit variance, as TRL's `RLOOTrainer` does: per completion, where the code of
/// REINFORCE++'s authors does it per token, so that long completions weigh more.
///
/// - `scores`: the groups one after another, `group_sizes` completions each
/// - `kl`: divergence of each completion from the reference, summed over its tokens, TRL with the estimator k1. With
///   `kl_in_reward`, `beta` times it is taken off the score before all else; the metric `reward` is without it, as in TRL.
///
/// # Panics
/// Without `kl`, where it belongs into the reward.
pub fn group_advantages(
    scores: &[Option<f32>],
    group_sizes: &[usize],
    kl: Option<&[f32]>,
    config: &GrpoConfig,
) -> GroupAdvantages {
    let given: Vec<f32> = scores.iter().flatten().copied().collect();
    let less = config.reward_beta();
    let trained = (less > 0.0).then(|| {
        let kl = kl.expect("a divergence in the reward needs that of each completion");
        penalised(scores, kl, less)
    });
    let scores = trained.as_deref().unwrap_or(scores);
    let all: Vec<f32> = scores.iter().flatten().copied().collect();
    let batch_std = variance(&all).sqrt();
    let mut found = GroupAdvantages {
        advantages: Vec::with_capacity(scores.len()),
        groups: group_sizes.len(),
        zero_std_groups: 0,
        unscored_groups: 0,
        reward: (!given.is_empty()).then(|| mean(&given)),
        reward_std: (given.len() > 1).then(|| variance(&given).sqrt()),
    };
    // What counts for the normalisation: of no group that has no baseline.
    let mut counted = Vec::with_capacity(scores.len());
    let mut rest = scores;
    for size in group_sizes {
        let (group, others) = rest.split_at(*size);
        rest = others;
        let scored: Vec<f32> = group.iter().flatten().copied().collect();
        let (few, signal) = (scored.len() < 2, group_has_signal(group));
        found.unscored_groups += usize::from(few);
        found.zero_std_groups += usize::from(!few && !signal);
        let relative = config.baseline != Baseline::None;
        let scale = match config.scale_rewards {
            ScaleRewards::Group => variance(&scored).sqrt() + EPS,
            ScaleRewards::Batch => batch_std + EPS,
            ScaleRewards::None => 1.0,
        };
        for score in group {
            let advantage = match score {
                Some(score) if signal || !relative => {
                    (f64::from(*score) - baseline(*score, &scored, config)) / scale
                }
                _ => 0.0,
            };
            found.advantages.push(advantage as f32);
            counted.push(score.is_some() && !(relative && few));
        }
    }
    if config.normalize_advantages {
        normalise(&mut found.advantages, &counted);
    }
    found
}

fn baseline(score: f32, scored: &[f32], config: &GrpoConfig) -> f64 {
    let total = mean(scored) * scored.len() as f64;
    match config.baseline {
        Baseline::None => 0.0,
        Baseline::GroupMean => mean(scored),
        Baseline::LeaveOneOut => (total - f64::from(score)) / (scored.len() - 1) as f64,
    }
}

fn normalise(advantages: &mut [f32], counted: &[bool]) {
    let kept: Vec<f32> = advantages.iter().zip(counted).filter(|it| *it.1).map(|it| *it.0).collect();
    let (mean, scale) = (mean(&kept), variance(&kept).sqrt() + EPS);
    for (advantage, counted) in advantages.iter_mut().zip(counted) {
        *advantage = if *counted { ((f64::from(*advantage) - mean) / scale) as f32 } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_signal_where_two_scores_differ() {
        assert!(group_has_signal(&[Some(1.0), None, Some(0.0)]));
        assert!(!group_has_signal(&[Some(1.0), Some(1.0), None]));
        assert!(!group_has_signal(&[None, Some(1.0)]));
        assert!(!group_has_signal(&[None, None]));
        assert!(!group_has_signal(&[]));
    }

    #[test]
    fn a_failed_score_changes_nothing_for_the_others() {
        let config = GrpoConfig::default();
        let whole = group_advantages(&[Some(1.0), Some(0.0), Some(0.5)], &[3], None, &config);
        let failed = group_advantages(&[Some(1.0), None, Some(0.0), Some(0.5)], &[4], None, &config);
        let [a, b, c] = whole.advantages[..] else { panic!() };
        assert_eq!(failed.advantages, [a, 0.0, b, c]);
        assert_eq!((failed.reward, failed.reward_std), (whole.reward, whole.reward_std));
    }

    #[test]
    fn groups_without_signal_are_zero_and_counted() {
        let scores = [Some(0.1), Some(0.1), Some(0.1), Some(2.0), None, Some(1.0), Some(3.0)];
        let found = group_advantages(&scores, &[3, 2, 2], None, &GrpoConfig::default());
        assert_eq!(found.advantages[..5], [0.0; 5]);
        assert!(found.advantages[5] < 0.0 && found.advantages[6] > 0.0);
        assert_eq!((found.groups, found.zero_std_groups, found.unscored_groups), (3, 1, 1));
        let metrics = found.metrics();
        assert!(metrics.contains(&("frac_reward_zero_std", 1.0 / 3.0)));
    }

    #[test]
    fn a_divergence_is_taken_off_scores_that_there_are() {
        assert_eq!(penalised(&[Some(1.0), None], &[2.0, 3.0], 0.5), [Some(0.0), None]);
    }
}
