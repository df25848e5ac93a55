//! Oracle: `DPOTrainer._compute_loss` of TRL 1.16, and 0.24's for what 1.16 no longer has: `tests/golden/generate/dpo.py`.

use fthost_engine::objectives::{
    DpoConfig, DpoLossType, PairLengths, PairLogps, PairTotals, PolicyPairs, dpo_loss,
};

use super::{Goldens, read, tensor};

#[test]
fn dpo_matches_trl() {
    let goldens = Goldens::open("dpo");
    let (chosen, rejected) = (goldens.numbers("/lengths/chosen"), goldens.numbers("/lengths/rejected"));
    let lengths = PairLengths { chosen: &chosen, rejected: &rejected };
    let totals = PairTotals::default().with(&lengths);
    let cases = goldens.configurations::<DpoConfig>("/configurations", "");
    assert!(cases.len() > 50, "{}", cases.len());
    for (name, config) in cases {
        assert_eq!(config.problems(), Vec::<String>::new(), "{name}");
        let leaves = [goldens.leaf("in.chosen"), goldens.leaf("in.rejected")];
        let [chosen, rejected] = leaves.clone();
        let policy = PolicyPairs::of_tokens(chosen, rejected, &lengths, config.ld_alpha);
        let (chosen, rejected) = (goldens.constant("in.ref.chosen"), goldens.constant("in.ref.rejected"));
        let reference = PairLogps::of_tokens(chosen, rejected, &lengths, config.ld_alpha);
        let output = dpo_loss(&policy, &reference, &lengths, &totals, &config);
        goldens.assert_tensor(&format!("{name}.loss"), output.loss.clone());
        goldens.assert_tensor(&format!("{name}.rewards.chosen"), output.chosen_rewards);
        goldens.assert_tensor(&format!("{name}.rewards.rejected"), output.rejected_rewards);
        let gradients = output.loss.backward();
        goldens.assert_gradient(&format!("{name}.grad.chosen"), &leaves[0], &gradients);
        goldens.assert_gradient(&format!("{name}.grad.rejected"), &leaves[1], &gradients);
    }
}

/// Every loss type that can be named is in the golden.
#[test]
fn every_loss_type_has_a_golden() {
    let goldens = Goldens::open("dpo");
    let cases = goldens.configurations::<DpoConfig>("/configurations", "");
    let mut seen: Vec<String> =
        cases.iter().flat_map(|it| &it.1.loss_type).map(|it| format!("{it:?}")).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 15, "{seen:?}");
}

/// The fact that the documentation states, for several `beta` and smoothings.
#[test]
fn policy_equal_to_reference_costs_ln_2() {
    let lengths = PairLengths { chosen: &[3, 2], rejected: &[1, 4] };
    let totals = PairTotals::default().with(&lengths);
    let chosen = tensor(&[-1.0, -0.3, -2.0, -0.7, -0.1]);
    let rejected = tensor(&[-0.2, -3.0, -1.5, -0.4, -0.9]);
    for (beta, label_smoothing) in [(0.01, 0.0), (0.1, 0.0), (5.0, 0.0), (0.1, 0.3)] {
        let config = DpoConfig { beta, label_smoothing, ..DpoConfig::default() };
        let policy = PolicyPairs::of_tokens(chosen.clone(), rejected.clone(), &lengths, None);
        let reference = policy.logps.clone();
        let loss = dpo_loss(&policy, &reference, &lengths, &totals, &config).loss;
        assert!((read(loss)[0] - std::f32::consts::LN_2).abs() < 1e-6, "{beta} {label_smoothing}");
    }
}

/// Log-probabilities of long completions: hundreds of nats apart, where a naive sigmoid overflows.
#[test]
fn losses_and_gradients_stay_finite_far_from_the_reference() {
    let lengths = PairLengths { chosen: &[1, 1], rejected: &[1, 1] };
    let totals = PairTotals::default().with(&lengths);
    let reference = PairLogps { chosen: tensor(&[-900.0, -1.0]), rejected: tensor(&[-1.0, -900.0]) };
    use DpoLossType::{Aot, ApoDown, ApoZero, BcoPair, ExoPair, Hinge, NcaPair, Robust, Sigmoid};
    for loss_type in [Sigmoid, Hinge, NcaPair, BcoPair, Robust, ExoPair, Aot, ApoZero, ApoDown] {
        let smoothing = if matches!(loss_type, ExoPair | Robust) { 0.1 } else { 0.0 };
        let config = DpoConfig {
            loss_type: vec![loss_type],
            beta: 1.0,
            label_smoothing: smoothing,
            ..DpoConfig::default()
        };
        let leaf = tensor(&[-1.0, -900.0]).autodiff().require_grad();
        let policy = PolicyPairs::of_tokens(leaf.clone(), tensor(&[-900.0, -1.0]), &lengths, None);
        let loss = dpo_loss(&policy, &reference, &lengths, &totals, &config).loss;
        let gradients = loss.backward();
        assert!(read(loss)[0].is_finite(), "{loss_type:?}");
        assert!(read(leaf.grad(&gradients).unwrap()).iter().all(|it| it.is_finite()), "{loss_type:?}");
    }
}
