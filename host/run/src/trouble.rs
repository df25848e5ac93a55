//! Signs that learning from rewards goes wrong, named when they appear: what practitioners look for in curves.
//!
//! Each sign is told once, and again only after it was gone.

use std::collections::{BTreeSet, VecDeque};

use fthost_data::Outcome;
use serde::Serialize;

use crate::event::Stepped;
use crate::scores::Scores;

/// Steps that are looked back over.
const WINDOW: usize = 8;
/// Share of groups without a difference, or of completions that were cut off, from which on it is told.
const MOST: f64 = 0.75;
/// Nats a token below which a policy hardly draws any more.
const LEAST_ENTROPY: f64 = 0.05;
/// Divergence from the reference a token, in nats.
const MOST_KL: f64 = 10.0;
/// Share of tokens that were clipped.
const MOST_CLIPPED: f64 = 0.3;
/// Part of the spread of the summed reward that one component may have.
const MOST_OF_SPREAD: f64 = 0.95;
/// Correlation of length and reward, and growth of lengths over the window, that together are a drift.
const DRIFT: (f64, f64) = (0.6, 1.3);

/// One sign, at a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trouble {
    /// Optimizer steps done.
    pub step: u64,
    /// What is wrong.
    pub sign: &'static str,
    /// The figure that says so.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// What it may mean, or what to do.
    pub hint: &'static str,
}

/// Looks at every rollout of a run.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    told: BTreeSet<&'static str>,
    /// Mean length of completions, newest last.
    lengths: VecDeque<f64>,
}

impl Watch {
    /// The signs that are new at this step.
    pub fn look(&mut self, stepped: &Stepped, sampled: &Scores) -> Vec<Trouble> {
        let mut found = signs(stepped);
        if let Some(length) = self.drift(stepped.metrics.figure("completions/mean_length"), sampled) {
            found.push((
                "lengths drift with the reward",
                "completions/mean_length".to_string(),
                length,
                "longer answers score more: is that meant? `length-band` and `overlong` bound lengths",
            ));
        }
        if let Some((metric, value)) = dominating(sampled) {
            let hint = "the others hardly differ: look at the weights of `[plugins.<name>.reward]`";
            found.push(("one reward decides alone", metric, value, hint));
        }
        let now = found.iter().map(|it| it.0).collect();
        let told = std::mem::replace(&mut self.told, now);
        let trouble = |(sign, metric, value, hint)| Trouble { step: stepped.step, sign, metric, value, hint };
        found.into_iter().filter(|it| !told.contains(it.0)).map(trouble).collect()
    }

    /// The mean length, where it has grown and long completions have more reward.
    fn drift(&mut self, length: Option<f64>, sampled: &Scores) -> Option<f64> {
        let length = length?;
        self.lengths.push_back(length);
        if self.lengths.len() > WINDOW {
            self.lengths.pop_front();
        }
        let (correlation, growth) = DRIFT;
        let grown = self.lengths.len() == WINDOW && length > growth * self.lengths.front()?;
        let pairs: Vec<(f64, f64)> = sampled
            .groups
            .iter()
            .zip(&sampled.sums)
            .flat_map(|(group, sums)| group.group.completions.iter().zip(sums))
            .filter_map(|(completion, sum)| Some((f64::from(completion.token_count), (*sum)?)))
            .collect();
        let with_reward = crate::replay::correlation(&pairs).is_some_and(|it| it > correlation);
        (grown && with_reward).then_some(length)
    }
}

/// Sign, metric, value and hint.
type Found = (&'static str, String, f64, &'static str);

/// What a step's own figures say.
fn signs(stepped: &Stepped) -> Vec<Found> {
    type Bad = fn(f64) -> bool;
    let all: [(&'static str, &str, Bad, &'static str); 6] = [
        (
            "rewards no longer differ",
            "reward_std",
            |it| it < 1e-6,
            "there is nothing to learn from: is the task too hard, too easy, or the reward constant?",
        ),
        (
            "most groups have one reward",
            "frac_reward_zero_std",
            |it| it >= MOST,
            "larger groups, a higher temperature, or prompts of another difficulty would differ more",
        ),
        (
            "entropy collapses",
            "entropy",
            |it| it < LEAST_ENTROPY,
            "the policy hardly draws any more: lower the learning rate, or raise `epsilon_high`",
        ),
        ("far from the reference", "kl", |it| it > MOST_KL, "raise `beta`, or lower the learning rate"),
        (
            "updates are clipped",
            "clip_ratio/region_mean",
            |it| it > MOST_CLIPPED,
            "fewer `rollout.num_iterations`, or a lower learning rate",
        ),
        (
            "completions are cut off",
            "completions/clipped_ratio",
            |it| it >= MOST,
            "raise `rollout.max_completion_length`, or give `rollout.stop`",
        ),
    ];
    let look = |(sign, metric, is_bad, hint): (&'static str, &str, Bad, &'static str)| {
        let value = stepped.metrics.figure(metric).filter(|it| is_bad(*it))?;
        Some((sign, metric.to_string(), value, hint))
    };
    all.into_iter().filter_map(look).collect()
}

/// The reward whose values explain almost all of the spread of several rewards' values, with its share.
fn dominating(sampled: &Scores) -> Option<(String, f64)> {
    if sampled.rewards.len() < 2 {
        return None;
    }
    let spreads: Vec<(&str, f64)> = sampled
        .rewards
        .iter()
        .map(|reward| {
            let values = reward.outcomes.iter().flatten().filter_map(Outcome::value);
            let values: Vec<f64> = values.collect();
            (reward.plugin.name.as_str(), crate::judge::deviation(&values).powi(2))
        })
        .collect();
    let all: f64 = spreads.iter().map(|it| it.1).sum();
    let (name, most) = spreads.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    (all > 0.0 && most / all > MOST_OF_SPREAD).then(|| (format!("rewards/{name}/std"), most.sqrt()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fthost_data::{Candidate, Columns, Finish, Group, PluginIdentity, Prompt, Score};
    use fthost_engine::train::StepMetrics;

    use super::*;
    use crate::scores::RewardScores;

    fn stepped(step: u64, figures: &[(&str, f64)]) -> Stepped {
        let figures = figures.iter().map(|(name, value)| ((*name).to_string(), *value)).collect();
        Stepped {
            step,
            steps: 100,
            epoch: 0.0,
            metrics: StepMetrics {
                loss: 0.0,
                grad_norm: 0.0,
                learning_rate: 0.0,
                figures,
                num_tokens: 0,
                supervised_tokens: 0,
            },
            num_tokens: 0,
            tokens_per_second: 0.0,
            left: Duration::ZERO,
            elapsed: Duration::ZERO,
            data_loading: Duration::ZERO,
            rollout: None,
            peak_rss_bytes: None,
        }
    }

    /// One group whose completions have these lengths, and by reward these values.
    fn sampled(lengths: &[u32], rewards: &[(&str, &[f64])]) -> Scores {
        let completion = |it: &u32| Candidate { text: "a".into(), token_count: *it, finish: Finish::Stop };
        let group = Group {
            id: 0,
            step: 0,
            occasion: Default::default(),
            prompt: Prompt::Text("p".into()),
            completions: lengths.iter().map(completion).collect(),
            columns: Columns::new(),
        };
        let mut scores = Scores::of_rollout(0, &[group]);
        for (name, values) in rewards {
            let plugin =
                PluginIdentity { name: (*name).into(), version: "1.0.0".into(), digest: String::new() };
            let ok = |value: &f64| Outcome::Ok(Score { value: *value, components: Vec::new() });
            scores.rewards.push(RewardScores { plugin, outcomes: vec![values.iter().map(ok).collect()] });
        }
        scores.sums =
            vec![(0..lengths.len()).map(|at| Some(rewards.iter().map(|it| it.1[at]).sum())).collect()];
        scores
    }

    #[test]
    fn a_sign_is_told_once_and_again_after_it_was_gone() {
        let (mut watch, plain) = (Watch::default(), sampled(&[3, 4], &[("a", &[0.0, 1.0])]));
        let signs = |found: Vec<Trouble>| found.into_iter().map(|it| (it.step, it.sign)).collect::<Vec<_>>();
        assert_eq!(signs(watch.look(&stepped(1, &[("entropy", 0.5)]), &plain)), []);
        assert_eq!(signs(watch.look(&stepped(2, &[("entropy", 0.01)]), &plain)), [(2, "entropy collapses")]);
        assert_eq!(signs(watch.look(&stepped(3, &[("entropy", 0.01)]), &plain)), []);
        assert_eq!(signs(watch.look(&stepped(4, &[("entropy", 0.5)]), &plain)), []);
        assert_eq!(signs(watch.look(&stepped(5, &[("entropy", 0.01)]), &plain)), [(5, "entropy collapses")]);
    }

    #[test]
    fn every_sign_names_its_metric() {
        let figures = [
            ("reward_std", 0.0),
            ("frac_reward_zero_std", 1.0),
            ("entropy", 0.0),
            ("kl", 11.0),
            ("clip_ratio/region_mean", 0.5),
            ("completions/clipped_ratio", 0.9),
        ];
        let scores = sampled(&[3, 4], &[("a", &[0.0, 10.0]), ("b", &[0.1, 0.2])]);
        let found = Watch::default().look(&stepped(7, &figures), &scores);
        let told: Vec<String> =
            found.iter().map(|it| format!("{}: {} {:.2}", it.sign, it.metric, it.value)).collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        rewards no longer differ: reward_std 0.00
        most groups have one reward: frac_reward_zero_std 1.00
        entropy collapses: entropy 0.00
        far from the reference: kl 11.00
        updates are clipped: clip_ratio/region_mean 0.50
        completions are cut off: completions/clipped_ratio 0.90
        one reward decides alone: rewards/a/std 7.07
        ");
    }

    #[test]
    fn lengths_that_grow_with_the_reward_are_a_drift() {
        let mut watch = Watch::default();
        let rewarded = sampled(&[3, 9, 20], &[("a", &[0.1, 0.5, 0.9])]);
        let mut found = Vec::new();
        for step in 0..WINDOW as u64 {
            let length = 10.0 + 2.0 * step as f64;
            found = watch.look(&stepped(step, &[("completions/mean_length", length)]), &rewarded);
        }
        assert_eq!(found.iter().map(|it| it.sign).collect::<Vec<_>>(), ["lengths drift with the reward"]);
        // The same growth without a reward for it is no sign.
        let mut watch = Watch::default();
        let plain = sampled(&[3, 9, 20], &[("a", &[0.9, 0.1, 0.5])]);
        for step in 0..WINDOW as u64 {
            let length = 10.0 + 2.0 * step as f64;
            assert!(watch.look(&stepped(step, &[("completions/mean_length", length)]), &plain).is_empty());
        }
    }
}
