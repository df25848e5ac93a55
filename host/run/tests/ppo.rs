//! Whole runs of proximal policy optimisation, rewarded in process.

use fthost_data::{Group, Outcome, PluginIdentity, Reward, Score};
use fthost_run::summary::Summary;
use fthost_run::train::RunOptions;
use fthost_run::{Event, Interrupt, Plugins, RunError};

use crate::support::{Workplace, figures, tensors};

const SIGTERM: i32 = 15;

/// Rewards a share of letters.
struct Letters(PluginIdentity);

impl Reward for Letters {
    fn identity(&self) -> &PluginIdentity {
        &self.0
    }

    fn score(&mut self, groups: &[Group]) -> Vec<Vec<Outcome>> {
        let score = |text: &str| {
            let letters = text.chars().filter(|it| it.is_alphabetic()).count();
            Outcome::Ok(Score { value: letters as f64 / text.len().max(1) as f64, components: Vec::new() })
        };
        groups.iter().map(|group| group.completions.iter().map(|it| score(&it.text)).collect()).collect()
    }
}

fn plugins() -> Plugins {
    let identity = PluginIdentity { name: "letters".into(), version: "0.0.0".into(), digest: String::new() };
    Plugins { rewards: vec![Box::new(Letters(identity))], ..Plugins::none() }
}

/// Two optimizer steps and two passes a rollout, a penalty that changes, everything that rewards go through.
const EVERYTHING: &[&str] = &[
    "objective.ppo.kl_coef=0.2",
    "objective.ppo.kl_estimator=k3",
    "objective.ppo.adaptive_kl.target=0.001",
    "objective.ppo.adaptive_kl.horizon=50",
    "objective.ppo.score_clip=0.6",
    "objective.ppo.missing_eos_penalty=0.1",
    "objective.ppo.whiten_rewards=true",
    "objective.ppo.entropy_coef=0.01",
    "rollout.num_generations=2",
    "rollout.max_completion_length=5",
    "rollout.steps_per_generation=2",
    "rollout.num_iterations=2",
    "train.steps=12",
];

fn with(value_model: &str, out: &str) -> Vec<String> {
    let own = [format!("objective.ppo.value_model={value_model}"), format!("output.dir={out}")];
    EVERYTHING.iter().map(ToString::to_string).chain(own).collect()
}

fn run(
    workplace: &Workplace,
    overrides: &[String],
    options: &RunOptions,
    stop: Option<u64>,
) -> Result<Summary, RunError> {
    let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
    workplace.watch_with(&mut plugins(), &overrides, options, &mut |event| match event {
        Event::Stepped(it) if Some(it.step) == stop => options.interrupt.raise(SIGTERM),
        _ => {}
    })
}

/// Bit for bit: the policy, the values, their moments and the penalty's coefficient go on as they were. Within a rollout
/// of four steps a run goes on to its end.
#[test]
fn a_resumed_run_of_ppo_equals_the_uninterrupted_one() {
    for value_model in ["shared", "shared_detached", "copy"] {
        let workplace = Workplace::new(14);
        run(&workplace, &with(value_model, "out"), &RunOptions::default(), None).unwrap();
        let left = |out: &str| {
            let metrics = std::fs::read_to_string(workplace.path(out).join("metrics.jsonl")).unwrap();
            (metrics, tensors(&workplace.path(out).join("adapter/adapter_model.safetensors")))
        };
        let whole = left("out");
        assert!(whole.1.iter().all(|it| it.0.contains("lora_")), "no head is in the adapter");
        // As sampled and as computed again, in the first update after a rollout: the bar is 1e-4.
        let differences = figures(&workplace.path("out"), "sampling/sampling_logp_difference/max");
        assert_eq!(differences.iter().map(|it| it.0).collect::<Vec<_>>(), [1, 5, 9]);
        assert!(differences.iter().all(|it| it.1 < 1e-4), "{differences:?}");
        let coefficients = figures(&workplace.path("out"), "objective/kl_coef");
        assert_eq!(coefficients.iter().map(|it| it.0).collect::<Vec<_>>(), [1, 5, 9]);
        let [first, second, third] = [0, 1, 2].map(|it| coefficients[it].1);
        assert!(
            first != second && second != third,
            "{coefficients:?} {:?}",
            figures(&workplace.path("out"), "objective/kl")
        );
        let overrides = with(value_model, "parts");
        for (stop, end) in [(2, 4), (8, 8)] {
            let interrupt = Interrupt::none();
            let options = RunOptions { resume: stop == 8, interrupt, ..RunOptions::default() };
            let error = run(&workplace, &overrides, &options, Some(stop)).unwrap_err();
            let RunError::Interrupted { step, .. } = error else { panic!("{error}") };
            assert_eq!(step, end);
        }
        run(&workplace, &overrides, &RunOptions { resume: true, ..RunOptions::default() }, None).unwrap();
        assert_eq!(left("parts"), whole, "{value_model}");
    }
}

/// Sixty rollouts, every weight trained: what is rewarded becomes more frequent, and values come to know it.
#[test]
fn a_policy_learns_what_is_rewarded_and_values_what_to_expect() {
    let workplace = Workplace::new(14);
    let text = std::fs::read_to_string(workplace.path("run.toml")).unwrap();
    std::fs::write(workplace.path("run.toml"), text.replace("[adapter.lora]\nrank = 4\n", "")).unwrap();
    for value_model in ["shared", "shared_detached", "copy"] {
        let (value_model, out) =
            (format!("objective.ppo.value_model={value_model}"), format!("output.dir={value_model}"));
        let overrides = [
            value_model.as_str(),
            out.as_str(),
            "objective.ppo.kl_coef=0.0",
            "objective.ppo.whiten_advantages=false",
            "rollout.num_generations=8",
            "rollout.max_completion_length=4",
            "optimizer.adamw.learning_rate=3e-2",
            "train.steps=60",
            "train.micro_batch_size=32",
            "train.gradient_accumulation_steps=1",
        ];
        workplace.watch_with(&mut plugins(), &overrides, &RunOptions::default(), &mut |_| ()).unwrap();
        let out = workplace.config(&overrides).output.dir;
        let mean = |name: &str, steps: std::ops::Range<usize>| {
            let values = &figures(&out, name)[steps];
            values.iter().map(|it| it.1).sum::<f64>() / values.len() as f64
        };
        let scores = [mean("objective/scores", 0..10), mean("objective/scores", 50..60)];
        assert!(scores[0] < 0.6 && scores[1] > 0.8, "{value_model}: {scores:?}");
        let losses = [mean("loss/value_avg", 0..10), mean("loss/value_avg", 50..60)];
        assert!(losses[1] < 0.5 * losses[0], "{value_model}: {losses:?}");
        let named = ["objective/kl", "policy/approxkl_avg", "val/ratio", "val/explained_variance"];
        assert!(named.iter().all(|it| figures(&out, it).len() == 60));
    }
}

/// A policy that has moved too far leaves what is left of its rollout.
#[test]
fn a_rollout_is_left_where_the_policy_has_moved_too_far() {
    let workplace = Workplace::new(14);
    let rollouts = |target: &str| {
        let overrides = [
            "objective.ppo.kl_coef=0.0",
            "rollout.num_generations=2",
            "rollout.max_completion_length=4",
            "rollout.num_iterations=4",
            "train.steps=8",
            target,
        ];
        let options = RunOptions { overwrite: true, ..RunOptions::default() };
        workplace.watch_with(&mut plugins(), &overrides, &options, &mut |_| ()).unwrap();
        figures(&workplace.path("out"), "objective/scores").len()
    };
    assert_eq!(rollouts("objective.ppo.target_kl=1000.0"), 2);
    assert!(rollouts("objective.ppo.target_kl=1e-9") > 2);
}
