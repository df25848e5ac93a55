//! Oracle: TRL 1.16's `ORPOTrainer`, `CPOTrainer`, `KTOTrainer` and `RewardTrainer`: `tests/golden/generate/preference.py`.

use burn::tensor::Tensor;
use fthost_engine::objectives::kto::kto_kl;
use fthost_engine::objectives::{
    CpoConfig, KtoConfig, OrpoConfig, PairLengths, PairTotals, PolicyPairs, PreferenceOutput, RewardConfig,
    SimPoConfig, cpo_loss, kto_loss, orpo_loss, reward_loss, simpo_loss,
};
use serde::de::DeserializeOwned;

use super::{Goldens, read};

/// Runs `objective` on the golden's pairs for every configuration whose name begins with `prefix`.
fn of_pairs<C: DeserializeOwned>(
    prefix: &str,
    problems: impl Fn(&C) -> Vec<String>,
    objective: impl Fn(&Goldens, &str, &PolicyPairs, &PairLengths, &PairTotals, &C) -> PreferenceOutput,
) {
    let goldens = Goldens::open("preference");
    let (chosen, rejected) = (goldens.numbers("/lengths/chosen"), goldens.numbers("/lengths/rejected"));
    let lengths = PairLengths { chosen: &chosen, rejected: &rejected };
    let totals = PairTotals::default().with(&lengths);
    for (name, config) in goldens.configurations::<C>("/configurations", prefix) {
        assert_eq!(problems(&config), Vec::<String>::new(), "{name}");
        let leaves = [goldens.leaf("in.chosen"), goldens.leaf("in.rejected")];
        let [chosen, rejected] = leaves.clone();
        let policy = PolicyPairs::of_tokens(chosen, rejected, &lengths, None);
        let output = objective(&goldens, &name, &policy, &lengths, &totals, &config);
        goldens.assert_tensor(&format!("{name}.loss"), output.loss.clone());
        goldens.assert_tensor(&format!("{name}.chosen_rewards"), output.chosen_rewards);
        goldens.assert_tensor(&format!("{name}.rejected_rewards"), output.rejected_rewards);
        let gradients = output.loss.backward();
        goldens.assert_gradient(&format!("{name}.grad.chosen"), &leaves[0], &gradients);
        goldens.assert_gradient(&format!("{name}.grad.rejected"), &leaves[1], &gradients);
    }
}

#[test]
fn orpo_matches_trl() {
    of_pairs("orpo", OrpoConfig::problems, |goldens, name, policy, lengths, totals, config| {
        let output = orpo_loss(policy, lengths, totals, config);
        let mean = |it: Tensor<1>| it.mean();
        goldens.assert_tensor(&format!("{name}.log_odds_ratio"), mean(output.log_odds_ratio));
        goldens.assert_tensor(&format!("{name}.log_odds_chosen"), mean(output.log_odds_chosen));
        output.preference
    });
}

#[test]
fn cpo_matches_trl() {
    of_pairs("cpo", CpoConfig::problems, |_, _, policy, lengths, totals, config| {
        cpo_loss(policy, lengths, totals, config)
    });
}

#[test]
fn simpo_matches_trl() {
    of_pairs("simpo", SimPoConfig::problems, |_, _, policy, lengths, totals, config| {
        simpo_loss(policy, lengths, totals, config)
    });
}

#[test]
fn kto_matches_trl() {
    let goldens = Goldens::open("preference");
    let desirable: Vec<bool> = goldens.read("/desirable");
    let kl = kto_kl(&goldens.values("in.kto.kl.policy"), &goldens.values("in.kto.kl.reference"));
    assert!(kl > 0.0);
    let reference = goldens.constant("in.kto.reference");
    for (name, config) in goldens.configurations::<KtoConfig>("/configurations", "kto") {
        assert_eq!(config.problems(), Vec::<String>::new(), "{name}");
        if !name.contains("unpaired") {
            goldens.assert_values(&format!("{name}.kl"), &[kl]);
        }
        let policy = goldens.leaf("in.kto.policy");
        let output = kto_loss(&policy, &reference, &desirable, kl, desirable.len(), &config);
        goldens.assert_tensor(&format!("{name}.loss"), output.loss.clone());
        let rewards = read(output.rewards);
        for (side, good) in [("chosen", true), ("rejected", false)] {
            let of_side: Vec<f32> =
                rewards.iter().zip(&desirable).filter(|it| *it.1 == good).map(|it| *it.0).collect();
            goldens.assert_values(&format!("{name}.{side}_rewards"), &of_side);
        }
        goldens.assert_gradient(&format!("{name}.grad.policy"), &policy, &output.loss.backward());
    }
}

#[test]
fn reward_models_match_trl() {
    let goldens = Goldens::open("preference");
    let margins = goldens.values("in.reward.margin");
    for (name, config) in goldens.configurations::<RewardConfig>("/configurations", "reward") {
        let with_margin = matches!(name.as_str(), "reward_margin" | "reward_both");
        let (chosen, rejected) = (goldens.leaf("in.reward.chosen"), goldens.leaf("in.reward.rejected"));
        let loss =
            reward_loss(&chosen, &rejected, with_margin.then_some(&margins[..]), margins.len(), &config);
        goldens.assert_tensor(&format!("{name}.loss"), loss.clone());
        let gradients = loss.backward();
        goldens.assert_gradient(&format!("{name}.grad.chosen"), &chosen, &gradients);
        goldens.assert_gradient(&format!("{name}.grad.rejected"), &rejected, &gradients);
    }
}
