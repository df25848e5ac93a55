//! Signs that learning from rewards goes wrong, named when they appear: what practitioners look for in curves.
//!
//! Each sign is told once, and again only after it was gone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fthost_data::{Outcome, RewardTerm};
use serde::Serialize;

use crate::event::Stepped;
use crate::scores::Scores;

/// Steps that are looked back over.
const WINDOW: usize = 8;
/// Share of groups without a difference, or of completions that were cut off, from which on it is told.
const MOST: f64 = 0.75;
/// Nats a token below which a policy hardly draws any more.
const LEAST_ENTROPY: f64 = 0.05;
/// Divergence from the reference a token, in nats: a policy that has gone this far speaks another language.
const MOST_KL: f64 = 1.0;
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

/// Looks at every step of a run that learns from rollouts.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// What the score of each reward counts for, by its name.
    terms: BTreeMap<String, RewardTerm>,
    told: BTreeSet<&'static str>,
    /// Mean length of completions, newest last.
    lengths: VecDeque<f64>,
}

impl Watch {
    /// Of a run whose rewards count as `terms` say.
    pub fn new(terms: BTreeMap<String, RewardTerm>) -> Self {
        Self { terms, ..Self::default() }
    }

    /// The signs that are new at this step, before which `sampled` was rolled out where a rollout was.
    ///
    /// A sign of a rollout stays as it was until the next one.
    pub fn look(&mut self, stepped: &Stepped, sampled: Option<&Scores>) -> Vec<Trouble> {
        let mut found = of_step(stepped, sampled.is_some());
        if let Some(sampled) = sampled {
            found.extend(self.of_rollout(stepped, sampled));
        }
        let mut new = Vec::new();
        for Found { sign, metric, value, hint } in found {
            match value {
                None => {
                    self.told.remove(sign);
                }
                Some(value) if self.told.insert(sign) => {
                    new.push(Trouble { step: stepped.step, sign, metric, value, hint });
                }
                Some(_) => {}
            }
        }
        new
    }

    /// What was sampled, and what rewards said of it.
    fn of_rollout(&mut self, stepped: &Stepped, sampled: &Scores) -> Vec<Found> {
        let figure = |name: &str| stepped.metrics.figure(name);
        let sums: Vec<f64> = sampled.sums.iter().flatten().filter_map(|it| *it).collect();
        let spread = (sums.len() > 1).then(|| crate::judge::deviation(&sums));
        let length = figure("completions/mean_length");
        let mut found = vec![
            Found::of(
                "rewards no longer differ",
                "reward_std",
                spread.filter(|it| *it < 1e-6),
                "there is nothing to learn from: is the task too hard, too easy, or the reward constant?",
            ),
            Found::of(
                "lengths drift with the reward",
                "completions/mean_length",
                self.drift(length, sampled),
                "longer answers score more: is that meant? `length-band` and `overlong` bound lengths",
            ),
            Found::of(
                "completions are cut off",
                "completions/clipped_ratio",
                figure("completions/clipped_ratio").filter(|it| *it >= MOST),
                "raise `rollout.max_completion_length`, or give `rollout.stop`",
            ),
        ];
        // Of one that learns from groups.
        found.extend(figure("frac_reward_zero_std").map(|it| {
            Found::of(
                "most groups have one reward",
                "frac_reward_zero_std",
                Some(it).filter(|it| *it >= MOST),
                "larger groups, a higher temperature, or prompts of another difficulty would differ more",
            )
        }));
        let (metric, most) = self.dominating(sampled).unzip();
        let metric = metric.unwrap_or_default();
        let hint = "the others hardly differ: look at the weights of `[plugins.<name>.reward]`";
        found.push(Found::of("one reward decides alone", &metric, most, hint));
        // PPO's divergence is that of a whole completion.
        let kl = figure("objective/kl").zip(length).map(|(kl, length)| kl / length.max(1.0));
        found.extend(kl.map(|it| Found::far("objective/kl", it)));
        found
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

    /// The reward whose part in the sum explains almost all of its spread, with the spread of that part.
    fn dominating(&self, sampled: &Scores) -> Option<(String, f64)> {
        if sampled.rewards.len() < 2 {
            return None;
        }
        let spreads = sampled.rewards.iter().map(|reward| {
            let name = reward.plugin.name.as_str();
            let term = self.terms.get(name).copied().unwrap_or_default();
            let parts = reward.outcomes.iter().flatten().filter_map(Outcome::value).map(|it| term.part(it));
            (name, crate::judge::deviation(&parts.collect::<Vec<f64>>()).powi(2))
        });
        let spreads: Vec<(&str, f64)> = spreads.collect();
        let all: f64 = spreads.iter().map(|it| it.1).sum();
        let (name, most) = spreads.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        (all > 0.0 && most / all > MOST_OF_SPREAD).then(|| (format!("rewards/{name}/std"), most.sqrt()))
    }
}

/// A sign that was looked for: its value where it is there.
struct Found {
    sign: &'static str,
    metric: String,
    value: Option<f64>,
    hint: &'static str,
}

impl Found {
    fn of(sign: &'static str, metric: &str, value: Option<f64>, hint: &'static str) -> Self {
        Self { sign, metric: metric.to_string(), value, hint }
    }

    /// Whether `kl`, nats a token, is a sign.
    fn far(metric: &str, kl: f64) -> Self {
        let hint = "raise `beta` or `kl_coef`, or lower the learning rate";
        Self::of("far from the reference", metric, Some(kl).filter(|it| *it > MOST_KL), hint)
    }
}

/// What a step's own figures say, by the names that a group-relative objective has for them, or PPO's.
fn of_step(stepped: &Stepped, is_first: bool) -> Vec<Found> {
    let any = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| Some((name, stepped.metrics.figure(name)?)))
    };
    let entropy = any(["entropy", "policy/entropy_avg"]).map(|(metric, it)| {
        Found::of(
            "entropy collapses",
            metric,
            Some(it).filter(|it| *it < LEAST_ENTROPY),
            "the policy hardly draws any more: lower the learning rate, raise `epsilon_high` or `entropy_coef`",
        )
    });
    // The first update after a rollout finds the policy that sampled: nothing is clipped then, whatever comes.
    let clipped = any(["clip_ratio/region_mean", "policy/clipfrac_avg"]).filter(|_| !is_first);
    let clipped = clipped.map(|(metric, it)| {
        Found::of(
            "updates are clipped",
            metric,
            Some(it).filter(|it| *it > MOST_CLIPPED),
            "fewer `rollout.num_iterations`, or a lower learning rate",
        )
    });
    let kl = stepped.metrics.figure("kl").map(|it| Found::far("kl", it));
    [entropy, clipped, kl].into_iter().flatten().collect()
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
        let mut watch = Watch::default();
        let (plain, constant) =
            (sampled(&[3, 4], &[("a", &[0.0, 1.0])]), sampled(&[3, 4], &[("a", &[1.0, 1.0])]));
        let mut at = |step: u64, entropy: f64, sampled: Option<&Scores>| {
            let found = watch.look(&stepped(step, &[("entropy", entropy)]), sampled);
            found.into_iter().map(|it| (it.step, it.sign)).collect::<Vec<_>>()
        };
        assert_eq!(at(1, 0.5, Some(&plain)), []);
        assert_eq!(at(2, 0.01, Some(&constant)), [(2, "entropy collapses"), (2, "rewards no longer differ")]);
        // Steps of one rollout say nothing new of it.
        assert_eq!(at(3, 0.01, None), []);
        assert_eq!(at(4, 0.5, None), []);
        assert_eq!(at(5, 0.01, Some(&constant)), [(5, "entropy collapses")]);
        assert_eq!(at(6, 0.5, Some(&plain)), []);
        assert_eq!(at(7, 0.5, Some(&constant)), [(7, "rewards no longer differ")]);
    }

    fn told(watch: &mut Watch, figures: &[(&str, f64)], sampled: Option<&Scores>) -> String {
        let found = watch.look(&stepped(7, figures), sampled);
        let told = found.iter().map(|it| format!("{}: {} {:.2}", it.sign, it.metric, it.value));
        told.collect::<Vec<String>>().join("\n")
    }

    #[test]
    fn every_sign_names_its_metric() {
        let scores = sampled(&[3, 4], &[("a", &[0.0, 10.0]), ("b", &[0.1, 0.2])]);
        let figures = [
            ("frac_reward_zero_std", 1.0),
            ("entropy", 0.0),
            ("kl", 1.1),
            ("clip_ratio/region_mean", 0.5),
            ("completions/clipped_ratio", 0.9),
        ];
        let mut watch = Watch::default();
        insta::assert_snapshot!(told(&mut watch, &figures, Some(&scores)), @r"
        entropy collapses: entropy 0.00
        far from the reference: kl 1.10
        completions are cut off: completions/clipped_ratio 0.90
        most groups have one reward: frac_reward_zero_std 1.00
        one reward decides alone: rewards/a/std 7.07
        ");
        // After the first update of a rollout.
        insta::assert_snapshot!(told(&mut watch, &figures, None), @"updates are clipped: clip_ratio/region_mean 0.50");

        // As PPO names them.
        let figures = [
            ("policy/entropy_avg", 0.0),
            ("policy/clipfrac_avg", 0.5),
            ("objective/kl", 22.0),
            ("completions/mean_length", 11.0),
        ];
        let constant = sampled(&[3, 4], &[("a", &[1.0, 1.0])]);
        let mut watch = Watch::default();
        insta::assert_snapshot!(told(&mut watch, &figures, Some(&constant)), @r"
        entropy collapses: policy/entropy_avg 0.00
        rewards no longer differ: reward_std 0.00
        far from the reference: objective/kl 2.00
        ");
        insta::assert_snapshot!(told(&mut watch, &figures, None), @"updates are clipped: policy/clipfrac_avg 0.50");
    }

    /// What counts is the part in the sum.
    #[test]
    fn a_reward_that_counts_little_decides_nothing() {
        let scores = sampled(&[3, 4], &[("a", &[0.0, 10.0]), ("b", &[0.1, 0.9])]);
        let of = |weight: f64, clip: Option<[f64; 2]>| {
            let terms = BTreeMap::from([("a".to_string(), RewardTerm { weight, clip, gate: None })]);
            told(&mut Watch::new(terms), &[], Some(&scores))
        };
        assert_eq!(of(1.0, None), "one reward decides alone: rewards/a/std 7.07");
        assert_eq!(of(0.1, None), "");
        assert_eq!(of(1.0, Some([0.0, 1.0])), "");
        assert_eq!(of(0.0, None), "one reward decides alone: rewards/b/std 0.57");
    }

    #[test]
    fn lengths_that_grow_with_the_reward_are_a_drift() {
        let mut watch = Watch::default();
        let rewarded = sampled(&[3, 9, 20], &[("a", &[0.1, 0.5, 0.9])]);
        let mut found = Vec::new();
        for step in 0..WINDOW as u64 {
            let length = 10.0 + 2.0 * step as f64;
            found = watch.look(&stepped(step, &[("completions/mean_length", length)]), Some(&rewarded));
        }
        assert_eq!(found.iter().map(|it| it.sign).collect::<Vec<_>>(), ["lengths drift with the reward"]);
        // The same growth without a reward for it is no sign.
        let mut watch = Watch::default();
        let plain = sampled(&[3, 9, 20], &[("a", &[0.9, 0.1, 0.5])]);
        for step in 0..WINDOW as u64 {
            let length = 10.0 + 2.0 * step as f64;
            let found = watch.look(&stepped(step, &[("completions/mean_length", length)]), Some(&plain));
            assert!(found.is_empty());
        }
    }
}
