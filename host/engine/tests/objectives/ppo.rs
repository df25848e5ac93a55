//! Oracle: the lines of TRL 0.24's `PPOTrainer.train`: `tests/golden/generate/ppo.py`.

use std::collections::BTreeMap;

use fthost_engine::objectives::ppo::{
    RolloutStatistics, StepStatistics, advantages, entropy_bonus, token_rewards,
};
use fthost_engine::objectives::segments::{parts, ranges};
use fthost_engine::objectives::statistics::masked_whiten;
use fthost_engine::objectives::{PpoConfig, gae, policy_loss, ppo_loss, statistics, value_loss};

use super::{Goldens, assert_near};

fn configurations(goldens: &Goldens) -> Vec<(String, PpoConfig)> {
    let configurations = goldens.configurations::<PpoConfig>("/configurations", "");
    assert!(configurations.iter().all(|it| it.1.problems().is_empty()));
    configurations
}

fn by_name(metrics: &[(&'static str, f64)]) -> BTreeMap<&'static str, f32> {
    metrics.iter().map(|(name, value)| (*name, *value as f32)).collect()
}

/// Completions of one length, where TRL has no place after the last token: rewards, advantages and metrics are the same.
/// Whitening divides by a deviation of order 1e-1, so 1e-5.
#[test]
fn advantages_of_a_rollout_match_trl() {
    let goldens = Goldens::open("ppo");
    let lengths = goldens.numbers("/sets/full/tokens");
    let [logps, reference, values, scores] =
        ["logps", "reference", "values", "scores"].map(|it| goldens.values(&format!("full.in.{it}")));
    for (name, config) in configurations(&goldens) {
        let earned =
            token_rewards(&logps, Some(&reference), &lengths, &scores, config.kl_coef, config.kl_estimator);
        goldens.assert_values(&format!("full.{name}.kl"), &earned.kl);
        let rewards = match config.whiten_rewards {
            true => statistics::whiten(&earned.rewards, false),
            false => earned.rewards.clone(),
        };
        let expected = |it: &str| goldens.values(&format!("full.{name}.{it}"));
        assert_near(&name, &rewards, &expected("rewards"), 1e-5);
        let found = advantages(&earned.rewards, &values, &lengths, &config);
        assert_near(&name, &found.returns, &expected("returns"), 1e-5);
        assert_near(&name, &found.advantages, &expected("advantages"), 1e-5);
        let told = RolloutStatistics::of(&earned, &logps, &lengths, &scores, config.kl_coef);
        let metrics = by_name(&told.metrics());
        for (ours, theirs) in [
            ("objective/kl", "mean_kl"),
            ("objective/entropy", "mean_entropy"),
            ("objective/non_score_reward", "mean_non_score_reward"),
            ("objective/rlhf_reward", "rlhf_reward"),
        ] {
            goldens.assert_values(&format!("full.{name}.{theirs}"), &[metrics[ours]]);
        }
    }
}

/// Completions of several lengths in TRL's own way: one that ended has a place more, and the score stands there.
#[test]
fn advantages_with_trls_state_after_the_end_match_trl() {
    let goldens = Goldens::open("ppo");
    let (tokens, states) = (goldens.numbers("/sets/ragged/tokens"), goldens.numbers("/sets/ragged/states"));
    assert_ne!(tokens, states);
    let [logps, reference, values, scores] =
        ["logps", "reference", "values", "scores"].map(|it| goldens.values(&format!("ragged.in.{it}")));
    // In the place that a completion has more, policy and reference are made equal.
    let widened = |values: &[f32]| -> Vec<f32> {
        let each = parts(values, &tokens).zip(&states);
        each.flat_map(|(part, states)| part.iter().copied().chain(vec![1.0; states - part.len()])).collect()
    };
    let is_token: Vec<bool> = tokens
        .iter()
        .zip(&states)
        .flat_map(|(tokens, states)| (0..*states).map(move |it| it < *tokens))
        .collect();
    for (name, config) in configurations(&goldens) {
        let (policy, reference) = (widened(&logps), widened(&reference));
        let earned =
            token_rewards(&policy, Some(&reference), &states, &scores, config.kl_coef, config.kl_estimator);
        let rewards = match config.whiten_rewards {
            true => statistics::whiten(&earned.rewards, false),
            false => earned.rewards,
        };
        let expected = |it: &str| goldens.values(&format!("ragged.{name}.{it}"));
        assert_near(&name, &rewards, &expected("rewards"), 1e-5);
        let found = gae(&rewards, &values, &states, config.gamma, config.lam);
        assert_near(&name, &found.returns, &expected("returns"), 1e-5);
        let whitened = masked_whiten(&found.advantages, &is_token, true);
        let of_tokens: Vec<f32> = whitened.iter().zip(&is_token).filter(|it| *it.1).map(|it| *it.0).collect();
        assert_near(&name, &of_tokens, &expected("advantages"), 1e-5);
    }
    assert_eq!(ranges(&states).last().unwrap().end, values.len());
}

#[test]
fn losses_and_statistics_match_trl() {
    let goldens = Goldens::open("ppo");
    let config = &configurations(&goldens).into_iter().find(|it| it.0 == "k1").unwrap().1;
    for set in ["full", "ragged"] {
        let input = |it: &str| format!("{set}.in.{it}");
        let leaves = ["new_logps", "new_values", "entropy"].map(|it| goldens.leaf(&input(it)));
        let [logps, values, entropies] = leaves.clone();
        let (old_logps, old_values) = (goldens.constant(&input("logps")), goldens.constant(&input("values")));
        let (kept, returns) = (
            goldens.constant(&format!("{set}.k1.advantages")),
            goldens.constant(&format!("{set}.k1.returns")),
        );
        let (tokens, states) = (logps.dims()[0], values.dims()[0]);
        let policy = policy_loss(&logps, &old_logps, &kept, config.cliprange, tokens);
        let value = value_loss(&values, &old_values, &returns, config.cliprange_value, states);
        goldens.assert_tensor(&format!("{set}.loss.pg_loss"), policy.loss.clone());
        goldens.assert_tensor(&format!("{set}.loss.vf_loss"), value.clone());
        let loss = ppo_loss(policy.loss, value, Some(entropy_bonus(entropies, tokens)), config);
        goldens.assert_tensor(&format!("{set}.loss.loss"), loss.clone());
        let gradients = loss.backward();
        for (leaf, name) in leaves.iter().zip(["logps", "values", "entropy"]) {
            goldens.assert_gradient(&format!("{set}.loss.grad.{name}"), leaf, &gradients);
        }
        let mut statistics = StepStatistics::default();
        let host = |it: &str| goldens.values(it);
        statistics.add_policy(
            &super::read(policy.log_ratios),
            &host(&format!("{set}.k1.advantages")),
            &host(&input("entropy")),
            config,
        );
        statistics.add_values(
            &host(&input("new_values")),
            &host(&input("values")),
            &host(&format!("{set}.k1.returns")),
            config,
        );
        let metrics = by_name(&statistics.metrics());
        goldens.assert_values(&format!("{set}.loss.pg_clipfrac"), &[metrics["policy/clipfrac_avg"]]);
        goldens.assert_values(&format!("{set}.loss.vf_clipfrac"), &[metrics["val/clipfrac_avg"]]);
        assert!(metrics["policy/clipfrac_avg"] > 0.0 && metrics["val/clipfrac_avg"] > 0.0);
        if set == "full" {
            goldens.assert_values("full.loss.approxkl", &[metrics["policy/approxkl_avg"]]);
            goldens.assert_values("full.loss.ratio", &[metrics["val/ratio"]]);
        }
    }
}
