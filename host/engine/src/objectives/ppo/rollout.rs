//! From a rollout to advantages: plain numbers, before any gradient.
//!
//! Everything of tokens lies end to end, with the length of each completion. TRL gives a completion that ended one place more,
//! the padding after its last token, which takes the score; here the last token takes it, as in
//! <https://arxiv.org/abs/1909.08593>. Whoever wants TRL's states passes rewards and values that have that place.

use super::PpoConfig;
use crate::objectives::kl::KlEstimator;
use crate::objectives::{segments, statistics};

/// Scores as they are trained on: clipped to `±score_clip`, then less `missing_eos_penalty` where a completion did not end.
///
/// `ended`: whether the end-of-sequence token was drawn.
pub fn shape_scores(scores: &[f32], ended: &[bool], config: &PpoConfig) -> Vec<f32> {
    let penalty = config.missing_eos_penalty.unwrap_or(0.0) as f32;
    let bound = config.score_clip.map_or(f32::INFINITY, |it| it as f32);
    let shaped = |(score, ended): (&f32, &bool)| {
        let clipped = score.clamp(-bound, bound);
        if *ended { clipped } else { clipped - penalty }
    };
    scores.iter().zip(ended).map(shaped).collect()
}

/// What each token earns.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRewards {
    /// The penalty, and at the last token of a completion its score as well.
    pub rewards: Vec<f32>,
    /// Estimated divergence from the reference, in nats.
    pub kl: Vec<f32>,
}

/// `-kl_coef * KL` at each token, and the score at a completion's last one: <https://arxiv.org/abs/1909.08593>, eq. 2, spread
/// over tokens. A completion without tokens takes no score.
///
/// `reference` may be absent where `kl_coef` is 0; the divergence is then told as 0. `logps` are those of the rollout's policy.
pub fn token_rewards(
    logps: &[f32],
    reference: Option<&[f32]>,
    lengths: &[usize],
    scores: &[f32],
    kl_coef: f64,
    estimator: KlEstimator,
) -> TokenRewards {
    let kl: Vec<f32> = match reference {
        Some(reference) => logps.iter().zip(reference).map(|(a, b)| estimator.of(*a, *b)).collect(),
        None => vec![0.0; logps.len()],
    };
    let mut rewards: Vec<f32> = kl.iter().map(|it| (-kl_coef * f64::from(*it)) as f32).collect();
    for (range, score) in segments::ranges(lengths).zip(scores).filter(|it| !it.0.is_empty()) {
        rewards[range.end - 1] += score;
    }
    TokenRewards { rewards, kl }
}

/// What an action was better than expected by, and what followed it.
#[derive(Debug, Clone, PartialEq)]
pub struct Advantages {
    /// At each place.
    pub advantages: Vec<f32>,
    /// Advantage and value together, before any whitening: what the value model is to learn.
    pub returns: Vec<f32>,
}

/// Generalised advantage estimation: <https://arxiv.org/abs/1506.02438>, eq. 16. Each completion ends its episode: what would
/// follow is worth 0, also where it was cut off, as in TRL.
///
/// With `lam = 1` the returns are the discounted sums of rewards, whatever the values are.
pub fn gae(rewards: &[f32], values: &[f32], lengths: &[usize], gamma: f64, lam: f64) -> Advantages {
    let mut advantages = vec![0.0; rewards.len()];
    for range in segments::ranges(lengths) {
        let (mut next_value, mut next_advantage) = (0.0, 0.0);
        for at in range.rev() {
            let value = f64::from(values[at]);
            let error = f64::from(rewards[at]) + gamma * next_value - value;
            next_advantage = error + gamma * lam * next_advantage;
            next_value = value;
            advantages[at] = next_advantage as f32;
        }
    }
    let returns = advantages.iter().zip(values).map(|(a, b)| a + b).collect();
    Advantages { advantages, returns }
}

/// [`gae`] between the whitenings that `config` asks for: rewards keep their mean, advantages do not.
pub fn advantages(rewards: &[f32], values: &[f32], lengths: &[usize], config: &PpoConfig) -> Advantages {
    let whitened = config.whiten_rewards.then(|| statistics::whiten(rewards, false));
    let mut found = gae(whitened.as_deref().unwrap_or(rewards), values, lengths, config.gamma, config.lam);
    if config.whiten_advantages {
        found.advantages = statistics::whiten(&found.advantages, true);
    }
    found
}

/// TRL's metrics of a rollout: means over its completions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RolloutStatistics {
    /// Divergence of a completion, in nats: what the controller follows.
    pub kl: f64,
    /// Negative log-probability of a completion, in nats.
    pub entropy: f64,
    /// The penalties of a completion.
    pub non_score_reward: f64,
    /// Its score.
    pub scores: f64,
}

impl RolloutStatistics {
    /// Of one rollout. TRL's entropy takes in places of padding, at -1 each; ours does not.
    pub fn of(earned: &TokenRewards, logps: &[f32], lengths: &[usize], scores: &[f32], kl_coef: f64) -> Self {
        let count = lengths.len().max(1) as f64;
        let per_completion = |values: &[f32]| statistics::mean(values) * values.len() as f64 / count;
        let kl = per_completion(&earned.kl);
        Self {
            kl,
            entropy: -per_completion(logps),
            non_score_reward: -kl_coef * kl,
            scores: statistics::mean(scores),
        }
    }

    /// By TRL's names.
    pub fn metrics(&self) -> [(&'static str, f64); 5] {
        [
            ("objective/kl", self.kl),
            ("objective/entropy", self.entropy),
            ("objective/non_score_reward", self.non_score_reward),
            ("objective/rlhf_reward", self.non_score_reward + self.scores),
            ("objective/scores", self.scores),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} is not {expected:?}");
    }

    /// By hand, backwards: 1 - 0.3 = 0.7; 0.99 * 0.3 - 0.2 + 0.99 * 0.95 * 0.7 = 0.75535; and once more.
    #[test]
    fn gae_is_the_recursion_of_the_paper() {
        let found = gae(&[0.0, 0.0, 1.0], &[0.1, 0.2, 0.3], &[3], 0.99, 0.95);
        close(&found.advantages, &[0.808_406_7, 0.755_35, 0.7]);
        close(&found.returns, &[0.908_406_7, 0.955_35, 1.0]);
    }

    #[test]
    fn completions_do_not_see_each_other() {
        let (rewards, values) = ([0.5, -1.0, 2.0, 0.0, 1.0], [0.3, 0.1, -0.2, 0.4, 0.9]);
        let together = gae(&rewards, &values, &[2, 0, 3], 0.9, 0.8);
        let first = gae(&rewards[..2], &values[..2], &[2], 0.9, 0.8);
        let last = gae(&rewards[2..], &values[2..], &[3], 0.9, 0.8);
        assert_eq!(together.advantages, [first.advantages, last.advantages].concat());
    }

    #[test]
    fn with_full_memory_returns_are_the_rewards_to_come() {
        let found = gae(&[1.0, 2.0, 4.0], &[9.0, -3.0, 5.0], &[3], 0.5, 1.0);
        close(&found.returns, &[3.0, 4.0, 4.0]);
    }

    #[test]
    fn a_score_stands_at_the_last_token_and_is_clipped_before_the_penalty() {
        let config =
            PpoConfig { score_clip: Some(2.0), missing_eos_penalty: Some(1.0), ..PpoConfig::default() };
        let scores = shape_scores(&[5.0, -5.0, 0.5], &[true, false, false], &config);
        close(&scores, &[2.0, -3.0, -0.5]);
        let logps = [-1.0, -1.0, -2.0];
        let earned = token_rewards(&logps, None, &[2, 0, 1], &scores, 0.0, KlEstimator::K1);
        close(&earned.rewards, &[0.0, 2.0, -0.5]);
        close(&earned.kl, &[0.0; 3]);
    }
}
