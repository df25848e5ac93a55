//! Learning from completions that are sampled.

use std::path::Path;

use fthost_data::source::read_rows;
use fthost_data::{Failure, Group, OnFailure, Outcome, PluginIdentity, Reward, Score, Then};
use fthost_run::scores::Scores;
use fthost_run::summary::Summary;
use fthost_run::train::RunOptions;
use fthost_run::{Event, Interrupt, Plugins, RunError};

use crate::support::{Workplace, figures};

/// A reward played in process: `score` says what becomes of a completion.
struct Played {
    identity: PluginIdentity,
    on_failure: OnFailure,
    score: fn(&Group, usize) -> Outcome,
}

impl Reward for Played {
    fn identity(&self) -> &PluginIdentity {
        &self.identity
    }

    fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    fn score(&mut self, groups: &[Group]) -> Vec<Vec<Outcome>> {
        let of_group =
            |group: &Group| (0..group.completions.len()).map(|it| (self.score)(group, it)).collect();
        groups.iter().map(of_group).collect()
    }
}

pub fn played(then: Then, score: fn(&Group, usize) -> Outcome) -> Plugins {
    let identity = PluginIdentity { name: "played".into(), version: "1.0.0".into(), digest: String::new() };
    let on_failure = OnFailure { then, ..OnFailure::default() };
    Plugins { rewards: vec![Box::new(Played { identity, on_failure, score })], ..Plugins::none() }
}

pub fn ok(value: f64) -> Outcome {
    Outcome::Ok(Score { value, components: Vec::new() })
}

/// The share of small letters: a random model has some, so that scores differ.
pub fn letters(group: &Group, completion: usize) -> Outcome {
    let text = &group.completions[completion].text;
    let small = text.chars().filter(char::is_ascii_lowercase).count();
    ok(small as f64 / text.chars().count().max(1) as f64)
}

pub fn failed() -> Outcome {
    Outcome::Failed(Failure::Trap { message: "unreachable".into() })
}

/// Two optimizer steps a rollout, twice each: four steps belong together.
pub const ROLLOUTS: &[&str] = &[
    "objective.grpo.beta=0.05",
    "rollout.num_generations=4",
    "rollout.max_completion_length=6",
    "rollout.steps_per_generation=2",
    "rollout.num_iterations=2",
    "train.steps=12",
    "checkpoint.every_steps=1",
];

pub fn left(out: &Path) -> (String, Vec<u8>) {
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    (metrics, std::fs::read(out.join("adapter/adapter_model.safetensors")).unwrap())
}

pub fn run(place: &Workplace, overrides: &[&str], score: fn(&Group, usize) -> Outcome) -> Summary {
    let options = RunOptions::default();
    place.watch_with(&mut played(Then::Stop, score), overrides, &options, &mut |_| ()).unwrap()
}

/// Bit for bit, wherever a run is told to stop: it goes on to where nothing is left of the rollout in work.
#[test]
fn resume_equals_uninterrupted() {
    let place = Workplace::new(6);
    let overrides = [ROLLOUTS, &["eval.every_steps=4", "data.held_out.rows=2"]].concat();
    run(&place, &overrides, letters);
    let whole = left(&place.path("out"));
    assert_eq!(figures(&place.path("out"), "reward").len(), 3, "a rollout every four steps");
    for stop in [1, 4, 6, 8] {
        let parts = [&overrides[..], &["output.dir=parts"]].concat();
        let _ = std::fs::remove_dir_all(place.path("parts"));
        let interrupt = Interrupt::none();
        let options = RunOptions { interrupt: interrupt.clone(), ..RunOptions::default() };
        let mut plugins = played(Then::Stop, letters);
        let stopped = place.watch_with(&mut plugins, &parts, &options, &mut |event| match event {
            Event::Stepped(it) if it.step == stop => interrupt.raise(15),
            _ => {}
        });
        let Err(RunError::Interrupted { step, .. }) = stopped else { panic!("it was not interrupted") };
        assert_eq!(step, stop.next_multiple_of(4));
        let options = RunOptions { resume: true, ..RunOptions::default() };
        place.watch_with(&mut played(Then::Stop, letters), &parts, &options, &mut |_| ()).unwrap();
        assert!(left(&place.path("parts")) == whole, "stopped after step {stop}");
    }
}

/// A checkpoint that is due in the middle of a rollout is saved where nothing is left of it.
#[test]
fn a_checkpoint_waits_for_the_end_of_its_rollout() {
    let place = Workplace::new(6);
    let overrides = [ROLLOUTS, &["checkpoint.every_steps=3", "checkpoint.keep_last=9"]].concat();
    run(&place, &overrides, letters);
    let mut saved: Vec<u64> = std::fs::read_dir(place.path("out"))
        .unwrap()
        .filter_map(|it| it.unwrap().file_name().to_str()?.strip_prefix("checkpoint-")?.parse().ok())
        .collect();
    saved.sort_unstable();
    assert_eq!(saved, [4, 8, 12]);
}

/// Of a run whose reward is always the same: said when it appears, and once.
#[test]
fn a_sign_of_trouble_is_told_by_a_run() {
    for objective in [&["objective.grpo.beta=0.0"][..], &["objective.ppo.kl_coef=0.0"]] {
        let place = Workplace::new(6);
        let overrides =
            [objective, &["rollout.num_generations=2", "rollout.max_completion_length=6", "train.steps=3"]];
        let (mut plugins, mut told) = (played(Then::Stop, |_, _| ok(1.0)), Vec::new());
        let mut watch = |event: Event<'_>| {
            if let Event::Troubled(it) = event {
                told.push((it.step, it.sign, it.metric.clone()));
            }
        };
        place.watch_with(&mut plugins, &overrides.concat(), &RunOptions::default(), &mut watch).unwrap();
        let found: Vec<_> = told.iter().filter(|it| it.2 == "reward_std").collect();
        assert_eq!(found, [&(1, "rewards no longer differ", "reward_std".to_string())], "{told:?}");
    }
}

/// Every option of a group-relative objective reaches what is learned, and the same run learns the same.
#[test]
fn every_option_of_a_group_changes_what_is_learned() {
    let place = Workplace::new(6);
    let learned = |more: &[&str]| {
        let _ = std::fs::remove_dir_all(place.path("out"));
        // Some completions end before others.
        run(&place, &[ROLLOUTS, &["rollout.stop=[\"e\", \"a\", \"o\"]"], more].concat(), letters);
        left(&place.path("out")).1
    };
    let plain = learned(&[]);
    let options: [&[&str]; 9] = [
        &["objective.grpo.loss_type=grpo"],
        &["objective.grpo.loss_type=dr_grpo"],
        &["objective.grpo.importance_sampling_level=sequence"],
        &["objective.grpo.kl_in_reward=true"],
        &["objective.grpo.baseline=leave_one_out"],
        &["objective.grpo.scale_rewards=batch"],
        &["objective.grpo.scale_rewards=none"],
        &["objective.grpo.overlong.max_completion_length=6", "objective.grpo.overlong.soft_punish_cache=3"],
        &["rollout.mask_truncated_completions=true"],
    ];
    for option in options {
        let found = learned(option);
        assert!(found != plain, "{option:?} changes nothing");
        assert!(found == learned(option), "{option:?} is not repeated");
    }
}

#[test]
fn a_rollout_is_recorded_with_what_was_sampled() {
    let place = Workplace::new(6);
    run(&place, ROLLOUTS, letters);
    let rollouts = Scores::rollouts(&place.path("out")).unwrap();
    assert_eq!(rollouts.iter().map(|it| it.step).collect::<Vec<_>>(), [0, 4, 8]);
    for rollout in &rollouts {
        // 2 * 2 completions a step, two steps, four of a prompt.
        assert_eq!(rollout.groups.len(), 2);
        let sums: Vec<Option<f64>> = rollout.sums.iter().flatten().copied().collect();
        let scores: Vec<Option<f64>> =
            rollout.rewards[0].outcomes.iter().flatten().map(Outcome::value).collect();
        assert_eq!(sums, scores);
        assert!(rollout.groups.iter().all(|it| it.group.completions.iter().all(|it| it.token_count <= 6)));
    }
    // Where the time of a rollout went, beside the step that follows it.
    let performance = std::fs::read_to_string(place.path("out/performance.jsonl")).unwrap();
    let performance = performance.lines().map(|it| serde_json::from_str::<serde_json::Value>(it).unwrap());
    for line in performance {
        let is_first = line["step"].as_u64().unwrap() % 4 == 1;
        for name in ["generate", "reward", "train", "wait"] {
            let time = line[format!("time/{name}_s")].as_f64();
            assert_eq!(time.is_some_and(|it| it >= 0.0), is_first, "{name}: {line}");
        }
    }
    // As sampled and as computed again: the bar is 1e-4.
    let differences = figures(&place.path("out"), "sampling/sampling_logp_difference/max");
    assert_eq!(differences.len(), 3);
    assert!(differences.iter().all(|it| it.1 < 1e-4), "{differences:?}");
    // The first update after a rollout is at a ratio of 1.
    let clipped = figures(&place.path("out"), "clip_ratio/region_mean");
    assert!(clipped.iter().filter(|it| it.0 % 4 == 1).all(|it| it.1 == 0.0), "{clipped:?}");
}

#[test]
fn tables_of_completions_are_written_when_they_are_due() {
    let place = Workplace::new(6);
    let table = |step: u64| place.path(&format!("out/completions/completions_{step:05}.parquet"));
    let every =
        |steps: &str| run(&place, &[ROLLOUTS, &["rollout.log_completions_every=8", steps]].concat(), letters);
    every("train.steps=12");
    let rows: Vec<_> = read_rows(&table(8)).unwrap().map(Result::unwrap).collect();
    assert!(table(0).is_file() && !table(4).exists());
    let sampled = &Scores::rollouts(&place.path("out")).unwrap()[2];
    let texts = sampled.groups.iter().flat_map(|it| &it.group.completions).map(|it| it.text.as_str());
    assert_eq!(
        rows.iter().map(|it| it.columns["completion"].as_str().unwrap()).collect::<Vec<_>>(),
        texts.collect::<Vec<_>>()
    );
    assert_eq!(rows[0].columns["reward"].as_f64(), sampled.sums[0][0]);

    // A shorter run in the same folder leaves nothing of the longer one.
    let options = RunOptions { overwrite: true, ..RunOptions::default() };
    let shorter = [ROLLOUTS, &["train.steps=4"]].concat();
    place.watch_with(&mut played(Then::Stop, letters), &shorter, &options, &mut |_| ()).unwrap();
    assert_eq!(Scores::rollouts(&place.path("out")).unwrap().len(), 1);
    assert!(!table(8).exists());
}

/// Every second completion fails: the others are learned from, and nothing of the failed ones is in their group's mean.
#[test]
fn a_failed_score_is_counted_and_never_zero() {
    fn half(group: &Group, completion: usize) -> Outcome {
        if completion % 2 == 1 { failed() } else { letters(group, completion) }
    }
    let place = Workplace::new(6);
    let options = RunOptions::default();
    place.watch_with(&mut played(Then::Skip, half), ROLLOUTS, &options, &mut |_| ()).unwrap();
    let out = place.path("out");
    assert!(figures(&out, "rewards/played/outcomes/trap").iter().all(|it| it.1 == 4.0));
    for rollout in Scores::rollouts(&out).unwrap() {
        let scored: Vec<f64> = rollout.sums.iter().flatten().filter_map(|it| *it).collect();
        assert_eq!(scored.len(), 4);
        let mean = scored.iter().sum::<f64>() / 4.0;
        let told = figures(&out, "reward").into_iter().find(|it| it.0 == rollout.step + 1).unwrap().1;
        assert!((told - mean).abs() < 1e-6, "{told} is not {mean}");
    }
}

#[test]
fn a_reward_that_fails_stops_the_run_where_it_says_so() {
    let place = Workplace::new(6);
    let options = RunOptions::default();
    let said = |then, score: fn(&Group, usize) -> Outcome| {
        let _ = std::fs::remove_dir_all(place.path("out"));
        place.watch_with(&mut played(then, score), ROLLOUTS, &options, &mut |_| ()).unwrap_err().to_string()
    };
    insta::assert_snapshot!(said(Then::Stop, |_, _| failed()), @"plugin `played` trapped: unreachable in `score` of 4 items");
    insta::assert_snapshot!(said(Then::Skip, |_, _| failed()), @r"
    no completion of the rollout before step 1 has a reward: played trap 8x
    hint: `fthost plugin test` runs a reward by itself; a reward abstains where a row lacks its column
    ");
    insta::assert_snapshot!(said(Then::Stop, |_, _| Outcome::Abstain { reason: "no column".into() }), @r"
    no completion of the rollout before step 1 has a reward: played abstained 8x
    hint: `fthost plugin test` runs a reward by itself; a reward abstains where a row lacks its column
    ");
    let none = place.watch(ROLLOUTS, &options, &mut |_| ()).unwrap_err().to_string();
    insta::assert_snapshot!(none, @r"
    `objective.grpo` learns from rewards, and the run has none
    hint: add `[plugins.<name>]` of a plugin that plays the role `reward`, which `fthost plugin list` names, or `[rewards.<name>]` with the `path` of a reward model
    ");
}

/// It is found before anything is sampled, not when its turn comes.
#[test]
fn a_prompt_that_is_too_long_is_told_with_its_line_or_left_out() {
    let place = Workplace::new(6);
    let rows = std::fs::read_to_string(place.path("rows.jsonl")).unwrap();
    let long = serde_json::json!({"prompt": "What is 1 + 1? ".repeat(40), "completion": "2"});
    std::fs::write(place.path("rows.jsonl"), format!("{long}\n{rows}")).unwrap();
    let run = |overrides: &[&str]| {
        let overrides = [ROLLOUTS, overrides].concat();
        place.watch_with(&mut played(Then::Stop, letters), &overrides, &RunOptions::default(), &mut |_| ())
    };
    let refused = |overrides: &[&str]| {
        let error = run(overrides).unwrap_err().to_string();
        error.replace(&format!("{}", place.path("").display()), "")
    };
    insta::assert_snapshot!(refused(&["data.on_bad_row=stop"]), @"rows.jsonl:1: a prompt of 400 tokens; at most 48 fit `data.max_length` and the model's context");
    // The model's context, where rows may be longer.
    insta::assert_snapshot!(refused(&["data.on_bad_row=stop", "data.max_length=1000"]), @"rows.jsonl:1: a prompt of 400 tokens; at most 128 fit `data.max_length` and the model's context");
    assert!(!place.path("out/metrics.jsonl").exists());
    let summary = run(&["data.on_bad_row=skip", "train.steps=4"]).unwrap();
    assert_eq!((summary.rows, summary.skipped_rows), (6, 1));
}

/// The same rollout, whatever grows at one time.
#[test]
fn completions_do_not_depend_on_the_batch() {
    let sampled = |batch_size: &str| {
        let place = Workplace::new(6);
        run(&place, &[ROLLOUTS, &[batch_size, "train.steps=4"]].concat(), letters);
        let rollouts = Scores::rollouts(&place.path("out")).unwrap();
        let texts =
            rollouts[0].groups.iter().flat_map(|it| it.group.completions.iter().map(|it| it.text.clone()));
        texts.collect::<Vec<String>>()
    };
    let one = sampled("rollout.batch_size=1");
    assert_eq!(one.len(), 8);
    assert!(sampled("rollout.batch_size=3") == one && sampled("rollout.batch_size=64") == one);
}
