//! Reward models: a run that makes one, and a run that is rewarded by it.

use std::sync::Arc;

use fthost_data::Then;
use fthost_run::packages::Packages;
use fthost_run::replay::{others, replay, rescore};
use fthost_run::train::RunOptions;
use fthost_run::{DeviceKind, Plugins, RunError};
use fthost_sandbox::{LogSink, SearchPath};
use serde_json::{Value, json};

use crate::policy::{letters, played};
use crate::support::{Workplace, figures};

/// Pairs of which the longer answer is the better one.
fn workplace(margin: &Value) -> Workplace {
    let workplace = Workplace::new(1);
    let row = |it: usize| {
        let prompt = format!("What is {it} + 1?");
        let (chosen, rejected) = (format!(" It is {}.", it + 1), format!(" {}", it + 2));
        json!({"prompt": prompt, "chosen": chosen, "rejected": rejected, "margin": margin}).to_string()
    };
    let rows: Vec<String> = (0..16).map(row).collect();
    std::fs::write(workplace.path("rows.jsonl"), rows.join("\n")).unwrap();
    workplace
}

const REWARD: &[&str] =
    &["objective.reward.center_rewards_coefficient=0.01", "train.steps=60", "data.held_out.rows=4"];

#[test]
fn a_reward_model_learns_and_rewards_a_policy() {
    let workplace = workplace(&Value::Null);
    let summary = workplace.run(REWARD);
    let last = summary.evaluations.last().unwrap();
    assert_eq!(last.value("eval_accuracy"), Some(1.0), "{last:?}");
    assert!(last.value("eval_margin").unwrap() > 0.5, "{last:?}");
    let config = std::fs::read_to_string(workplace.path("out/adapter/adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!((&config["task_type"], &config["modules_to_save"]), (&json!("SEQ_CLS"), &json!(["score"])));

    let overrides = [
        "objective.ppo.kl_coef=0.0",
        "rewards.longer.path=out/adapter",
        "rewards.longer.weight=2.0",
        "rollout.num_generations=2",
        "rollout.max_completion_length=4",
        "train.steps=3",
        "output.dir=policy",
    ];
    workplace.run(&overrides);
    let [mean, scores] =
        ["rewards/longer/mean", "objective/scores"].map(|it| figures(&workplace.path("policy"), it));
    assert_eq!(mean.len(), 3);
    for (mean, scores) in mean.iter().zip(&scores) {
        assert!((2.0 * mean.1 - scores.1).abs() < 1e-5, "the weight counts: {mean:?}, {scores:?}");
    }
    // Beside a plugin: both are in the sum, each with its weight.
    let beside = [&overrides[..6], &["output.dir=both"]].concat();
    let mut plugins = played(Then::Stop, letters);
    workplace.watch_with(&mut plugins, &beside, &RunOptions::default(), &mut |_| ()).unwrap();
    let [longer, played, scores] = ["rewards/longer/mean", "rewards/played/mean", "objective/scores"]
        .map(|it| figures(&workplace.path("both"), it));
    assert!(played.iter().any(|it| it.1 != 0.0), "{played:?}");
    for ((longer, played), scores) in longer.iter().zip(&played).zip(&scores) {
        assert!((2.0 * longer.1 + played.1 - scores.1).abs() < 1e-5, "{longer:?}, {played:?}, {scores:?}");
    }
    scores_again(&workplace);
    let fails = |overrides: &[&str]| {
        let error = workplace.watch(overrides, &RunOptions::default(), &mut |_| ()).unwrap_err();
        error.to_string().replace(&format!("{}/", workplace.path("").display()).replace("//", "/"), "")
    };
    insta::assert_snapshot!(fails(&["objective.ppo.kl_coef=0.0", "rollout.num_generations=2", "rewards.longer.path=model"]), @r"
    `rewards.longer.path` = `model` is no reward model: it has no `score.weight`
    hint: give what a run of `[objective.reward]` left, `adapter` or `model` in its `output.dir`
    ");
    insta::assert_snapshot!(fails(&["objective.ppo.kl_coef=0.0", "rollout.num_generations=2"]), @r"
    `objective.ppo` learns from rewards, and the run has none
    hint: add `[plugins.<name>]` of a plugin that plays the role `reward`, which `fthost plugin list` names, or `[rewards.<name>]` with the `path` of a reward model
    ");
}

/// The policy's completions scored by the model that scored them, by another, and by one that took its place.
fn scores_again(workplace: &Workplace) {
    let run = workplace.path("policy");
    let (nowhere, log): (_, LogSink) = (SearchPath(Vec::new()), Arc::new(|_, _, _| ()));
    let replayed = || replay(&run, &nowhere, DeviceKind::Cpu, log.clone());
    let same = replayed().unwrap().remove(0);
    assert_eq!((same.scored, same.changed), (12, 0), "{same:?}");

    workplace.run(&[REWARD, &["train.seed=5", "output.dir=other"]].concat());
    let given = [format!("other={}", workplace.path("other/adapter").display())];
    let packages = Packages::around(&run).unwrap();
    let given = others(&given, &packages, &nowhere).unwrap();
    let other = rescore(&run, &given, DeviceKind::Cpu, log.clone()).unwrap().remove(0);
    assert_eq!((other.before.name.as_str(), other.after.name.as_str()), ("longer", "other"));
    assert_eq!((other.scored, other.changed), (12, 12), "{other:?}");
    assert!(
        other.correlation.is_some_and(|it| it > 0.0),
        "both learned that the longer is better: {other:?}"
    );

    let weights = "adapter/adapter_model.safetensors";
    let kept = std::fs::read(workplace.path("out").join(weights)).unwrap();
    std::fs::copy(workplace.path("other").join(weights), workplace.path("out").join(weights)).unwrap();
    let error = replayed().unwrap_err().to_string();
    let (text, now) = error.split_once(": it was sha256:").unwrap();
    assert!(text.ends_with("out/adapter` is not the model that scored"), "{error}");
    assert!(now.contains(" and is sha256:") && now.contains("\nhint: `fthost rescore`"), "{error}");
    std::fs::write(workplace.path("out").join(weights), kept).unwrap();
}

/// A pair that is to be told apart by much costs more until it is.
#[test]
fn a_margin_counts_and_must_be_a_number() {
    let first = |margin: Value| {
        figures(
            &{
                let workplace = workplace(&margin);
                workplace.run(&["objective.reward.center_rewards_coefficient=0.01", "train.steps=1"]);
                workplace
            }
            .path("out"),
            "loss",
        )[0]
        .1
    };
    let near = |got: f64, margin: f64| assert!((got - (1.0 + margin.exp()).ln()).abs() < 1e-6, "{got}");
    near(first(Value::Null), 0.0);
    near(first(json!(0.75)), 0.75);
    let workplace = workplace(&json!("much"));
    let config = workplace.config(REWARD);
    let error = fthost_run::prepare::plan(&config, &mut Plugins::none(), Default::default()).unwrap_err();
    let RunError::Data(error) = error else { panic!("{error}") };
    assert!(error.to_string().contains("`margin` must be a number, got `\"much\"`"), "{error}");
}
