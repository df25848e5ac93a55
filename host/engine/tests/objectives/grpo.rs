//! Oracle: TRL 1.16's `GRPOTrainer` and `RLOOTrainer`: `tests/golden/generate/grpo.py`.

use fthost_engine::objectives::GrpoConfig;
use fthost_engine::objectives::grpo::{
    GroupStatistics, GroupTotals, OverlongConfig, RolloutLogps, group_advantages, grpo_loss,
};
use serde_json::Value;

use super::{Goldens, assert_near, read};

#[test]
fn losses_and_clip_ratios_match_trl() {
    let goldens = Goldens::open("grpo");
    let lengths = goldens.numbers("/lengths");
    let totals = GroupTotals {
        // The step's other micro-batches are as large.
        completions: lengths.len() * goldens.read::<usize>("/micro_batches"),
        tokens: goldens.read("/step_tokens"),
        micro_batches: goldens.read("/micro_batches"),
        max_completion_length: goldens.read("/max_completion_length"),
    };
    let advantages = goldens.values("in.advantages");
    let cases = goldens.configurations::<Value>("/losses", "");
    assert!(cases.len() > 25, "{}", cases.len());
    for (name, mut config) in cases {
        let on_policy = config.as_object_mut().unwrap().remove("on_policy").is_some();
        let config: GrpoConfig = serde_json::from_value(config).unwrap();
        assert_eq!(config.problems(), Vec::<String>::new(), "{name}");
        let policy = goldens.leaf("in.new");
        let logps = RolloutLogps {
            policy: policy.clone(),
            old: (!on_policy).then(|| goldens.constant("in.old")),
            reference: config.needs_reference().then(|| goldens.constant("in.reference")),
        };
        let output = grpo_loss(&logps, &advantages, &lengths, &totals, &config);
        goldens.assert_tensor(&format!("{name}.loss"), output.loss.clone());
        goldens.assert_gradient(&format!("{name}.grad"), &policy, &output.loss.backward());
        let kl = output.kl.map(read);
        let mut statistics = GroupStatistics::default();
        statistics.add(&read(output.log_ratios), kl.as_deref(), &advantages, &lengths, &config);
        let metrics: Vec<f32> = statistics.metrics().iter().map(|it| it.1 as f32).collect();
        goldens.assert_values(&format!("{name}.clip_ratio"), &metrics[..5]);
        if kl.is_some() {
            let expected = goldens.values(&format!("{name}.kl"));
            let mean = expected.iter().sum::<f32>() / expected.len() as f32;
            assert_near(&name, &metrics[5..], &[mean], 2e-6);
        }
    }
}

/// A deviation is of order 1e-1 at least, so 1e-5.
#[test]
fn advantages_of_groups_match_trl() {
    let goldens = Goldens::open("grpo");
    let scores: Vec<Option<f32>> =
        goldens.values("in.scores").into_iter().map(|it| (!it.is_nan()).then_some(it)).collect();
    let groups = vec![goldens.read::<usize>("/group"); scores.len() / goldens.read::<usize>("/group")];
    let kl = goldens.values("in.kl");
    for (name, config) in goldens.configurations::<GrpoConfig>("/advantages", "") {
        assert_eq!(config.problems(), Vec::<String>::new(), "{name}");
        let found = group_advantages(&scores, &groups, config.kl_in_reward.then_some(&kl[..]), &config);
        assert_near(&name, &found.advantages, &goldens.values(&format!("{name}.advantages")), 1e-5);
        goldens.assert_values(&format!("{name}.reward"), &[found.reward.unwrap() as f32]);
        goldens.assert_values(&format!("{name}.reward_std"), &[found.reward_std.unwrap() as f32]);
        if config.kl_in_reward {
            // Divergences differ where scores do not.
            assert_eq!((found.zero_std_groups, found.unscored_groups), (0, 2), "{name}");
            continue;
        }
        let metrics = found.metrics();
        let zero = metrics.iter().find(|it| it.0 == "frac_reward_zero_std").unwrap();
        goldens.assert_values("frac_reward_zero_std", &[zero.1 as f32]);
        assert_eq!((found.zero_std_groups, found.unscored_groups), (1, 2), "{name}");
    }
}

#[test]
fn punishments_of_length_match_trl() {
    let goldens = Goldens::open("grpo");
    let config = OverlongConfig { max_completion_length: 100, soft_punish_cache: 20 };
    let got: Vec<f32> = goldens.numbers("/overlong").into_iter().map(|it| config.punishment(it)).collect();
    goldens.assert_values("overlong", &got);
    let hard = OverlongConfig { max_completion_length: 100, soft_punish_cache: 0 };
    assert_eq!([hard.punishment(100), hard.punishment(101)], [0.0, -1.0]);
}
