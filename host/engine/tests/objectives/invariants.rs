//! What holds whatever the numbers are.

use burn::tensor::Tensor;
use fthost_engine::objectives::grpo::{GroupTotals, RolloutLogps, grpo_loss};
use fthost_engine::objectives::{
    DpoConfig, DpoLossType, GrpoConfig, PairLengths, PairLogps, PairTotals, PolicyPairs, dpo_loss,
};

use super::{Goldens, assert_near, read, tensor};

/// The parts of two micro-batches add up to the loss of one large batch, and so do the gradients: all but the losses that
/// compare pairs with each other.
#[test]
fn accumulation_equals_one_large_batch_of_pairs() {
    let goldens = Goldens::open("dpo");
    let (chosen, rejected) = (goldens.numbers("/lengths/chosen"), goldens.numbers("/lengths/rejected"));
    let whole = PairLengths { chosen: &chosen, rejected: &rejected };
    let totals = PairTotals::default().with(&whole);
    use DpoLossType::{BcoPair, Ipo, Sft, Sigmoid, SigmoidNorm};
    let config = DpoConfig {
        loss_type: vec![Sigmoid, BcoPair, Ipo, Sft, SigmoidNorm],
        rpo_alpha: Some(0.5),
        ld_alpha: Some(0.3),
        ..DpoConfig::default()
    };
    let part = |pairs: std::ops::Range<usize>| -> [Vec<f32>; 3] {
        let tokens = |lengths: &[usize]| {
            let start: usize = lengths[..pairs.start].iter().sum();
            start..start + lengths[pairs.clone()].iter().sum::<usize>()
        };
        let (of_chosen, of_rejected) = (tokens(&chosen), tokens(&rejected));
        let lengths = PairLengths { chosen: &chosen[pairs.clone()], rejected: &rejected[pairs.clone()] };
        let value = |name: &str, range: &std::ops::Range<usize>| tensor(&goldens.values(name)[range.clone()]);
        let leaves = [("in.chosen", &of_chosen), ("in.rejected", &of_rejected)]
            .map(|(name, range)| value(name, range).autodiff().require_grad());
        let [a, b] = leaves.clone();
        let policy = PolicyPairs::of_tokens(a, b, &lengths, config.ld_alpha);
        let (a, b) = (value("in.ref.chosen", &of_chosen), value("in.ref.rejected", &of_rejected));
        let reference = PairLogps::of_tokens(a, b, &lengths, config.ld_alpha);
        let loss = dpo_loss(&policy, &reference, &lengths, &totals, &config).loss;
        let gradients = loss.backward();
        let [a, b] = leaves.map(|it| read(it.grad(&gradients).unwrap()));
        [read(loss), a, b]
    };
    let [loss, a, b] = part(0..chosen.len());
    let (first, second) = (part(0..2), part(2..chosen.len()));
    assert_near("loss", &[first[0][0] + second[0][0]], &loss, 1e-6);
    assert_near("chosen", &[&first[1][..], &second[1]].concat(), &a, 1e-6);
    assert_near("rejected", &[&first[2][..], &second[2]].concat(), &b, 1e-6);
}

fn group_loss(
    policy: &Tensor<1>,
    advantages: &[f32],
    lengths: &[usize],
    totals: &GroupTotals,
    loss_type: &str,
) -> f32 {
    let config: GrpoConfig =
        serde_json::from_value(serde_json::json!({ "loss_type": loss_type, "beta": 0.04 })).unwrap();
    let (old, reference) = (policy.clone().add_scalar(0.1), policy.clone().sub_scalar(0.2));
    let logps = RolloutLogps { policy: policy.clone(), old: Some(old), reference: Some(reference) };
    read(grpo_loss(&logps, advantages, lengths, totals, &config).loss)[0]
}

/// `bnpo` is the exception, and says so.
#[test]
fn accumulation_equals_one_large_batch_of_groups() {
    let policy = [-1.0, -0.5, -2.0, -0.3, -1.5, -0.7];
    let (advantages, lengths) = ([1.0, -0.5, 0.25], [2, 3, 1]);
    let totals = GroupTotals { completions: 3, tokens: 6, micro_batches: 1, max_completion_length: 4 };
    for loss_type in ["grpo", "dr_grpo", "dapo"] {
        let whole = group_loss(&tensor(&policy), &advantages, &lengths, &totals, loss_type);
        let first = group_loss(&tensor(&policy[..2]), &advantages[..1], &lengths[..1], &totals, loss_type);
        let rest = group_loss(&tensor(&policy[2..]), &advantages[1..], &lengths[1..], &totals, loss_type);
        assert!((first + rest - whole).abs() < 1e-6, "{loss_type}: {first} + {rest} is not {whole}");
    }
}

/// A completion without tokens weighs nothing and breaks nothing, at any level.
#[test]
fn a_completion_without_tokens_is_harmless() {
    let policy = tensor(&[-1.0, -0.5]).autodiff().require_grad();
    let totals = GroupTotals { completions: 3, tokens: 2, micro_batches: 1, max_completion_length: 4 };
    for level in ["token", "sequence", "trajectory"] {
        let config: GrpoConfig =
            serde_json::from_value(serde_json::json!({ "importance_sampling_level": level })).unwrap();
        let logps = RolloutLogps { policy: policy.clone(), old: None, reference: None };
        let loss = grpo_loss(&logps, &[1.0, 1.0, -2.0], &[1, 0, 1], &totals, &config).loss;
        let gradient = read(policy.grad(&loss.backward()).unwrap());
        assert_near(level, &gradient, &[-0.5, 1.0], 1e-6);
    }
}

/// In the first update after a rollout the gradient is that of `-A log policy`, at every level of ratios, by hand.
#[test]
fn the_first_update_is_reinforce() {
    let policy = tensor(&[-1.0, -0.5, -2.0]).autodiff().require_grad();
    let totals = GroupTotals { completions: 2, tokens: 3, micro_batches: 1, max_completion_length: 4 };
    for (level, expected) in [
        // -A / (tokens of the completion) / completions, at each token ...
        ("token", [-0.25, -0.25, 1.0]),
        ("sequence", [-0.25, -0.25, 1.0]),
        // ... and -A / completions where a completion is one action.
        ("trajectory", [-0.5, -0.5, 1.0]),
    ] {
        let config: GrpoConfig = serde_json::from_value(
            serde_json::json!({ "importance_sampling_level": level, "loss_type": "grpo" }),
        )
        .unwrap();
        let logps = RolloutLogps { policy: policy.clone(), old: None, reference: None };
        let loss = grpo_loss(&logps, &[1.0, -2.0], &[2, 1], &totals, &config).loss;
        assert_near(level, &read(policy.grad(&loss.backward()).unwrap()), &expected, 1e-6);
    }
}
