//! Policies that learn from rewards, through the program: what is recorded, browsed, replayed, and survives being killed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::model::sums;
use crate::support::workplace::{run, said, workplace};
use crate::support::{fthost, root};

const RUN_FILE: &str = r#"
[model]
path = "model"

[data]
files = ["rows.jsonl"]

[objective.grpo]
beta = 0.04

[rollout]
num_generations = 4
max_completion_length = 6
log_completions_every = 0

[adapter.lora]
rank = 2

[optimizer.adamw]
learning_rate = 1e-2

[train]
steps = 3
micro_batch_size = 8

[eval]
before = false
after = false

[checkpoint]
every_steps = 1

[plugins.judge]
component = "HOSTILE"
roles = ["reward"]
config.always = "ALWAYS"
MORE

[output]
dir = "out"
"#;

/// A folder with a run file whose reward is the hostile guest, told to do `always`.
fn prepared(always: &str, more: &str) -> (tempfile::TempDir, PathBuf) {
    let hostile = root().join("tests/guests/dist/hostile.wasm");
    assert!(hostile.is_file(), "run `plugins/build`");
    let text = RUN_FILE.replace("HOSTILE", &hostile.display().to_string());
    let (folder, path) = workplace(&text.replace("ALWAYS", always).replace("MORE", more));
    std::fs::write(folder.path().join("rows.jsonl"), sums(12)).unwrap();
    (folder, path)
}

fn told(folder: &Path, arguments: &[&str]) -> (String, Option<i32>) {
    let out = folder.join("out").display().to_string();
    let arguments: Vec<&str> = arguments.iter().map(|it| if *it == "out" { &out } else { *it }).collect();
    let output = fthost(&arguments);
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (String::from_utf8_lossy(&all).replace(&folder.display().to_string(), "FOLDER"), output.status.code())
}

#[test]
fn what_was_sampled_is_browsed_and_replayed() {
    let (folder, path) = prepared("random", "");
    let output = run(&path, &["--quiet"]);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    let (text, _) = told(folder.path(), &["rollouts", "out", "--json", "--limit", "100"]);
    let rows: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(rows.len(), 3 * 8, "three steps of eight completions");
    let steps: Vec<u64> = rows.iter().map(|it| it["step"].as_u64().unwrap()).collect();
    assert_eq!((steps[0], steps[8], steps[16]), (0, 1, 2));
    let rewards: Vec<f64> = rows.iter().map(|it| it["reward"].as_f64().unwrap()).collect();
    assert!(
        rows.iter().zip(&rewards).all(|(row, reward)| row["outcomes"]["judge"]["ok"]["value"] == *reward)
    );
    let middle = rewards[3];
    let bound = middle.to_string();
    let (text, _) =
        told(folder.path(), &["rollouts", "out", "--json", "--limit", "100", "--min-reward", &bound]);
    assert_eq!(text.lines().count(), rewards.iter().filter(|it| **it >= middle).count());
    let (text, _) = told(folder.path(), &["rollouts", "out", "--step", "1", "--outcome", "trap"]);
    assert_eq!(text.lines().count(), 1, "nothing trapped: {text}");
    // Numbers that a reward drew are drawn again, though each group was scored by a call of its own.
    let (text, code) = told(folder.path(), &["replay", "out", "--json"]);
    let replayed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert_eq!((&replayed[0]["scored"], &replayed[0]["changed"]), (&json!(24), &json!(0)));
}

#[test]
fn a_table_is_for_people() {
    let (folder, path) = prepared("id", "");
    assert!(run(&path, &["--quiet", "--set", "train.steps=1"]).status.success());
    let (text, _) = told(folder.path(), &["rollouts", "out", "--limit", "3"]);
    let rows: Vec<String> = text.lines().map(|it| it.split(" -> ").next().unwrap().to_string()).collect();
    insta::assert_snapshot!(rows.join("\n"), @r"
     step    row   reward tokens end     prompt
        0      2    2.000      6 length  What is 2 + 1 + 1 + 1?
        0      2    2.000      6 length  What is 2 + 1 + 1 + 1?
        0      2    2.000      6 length  What is 2 + 1 + 1 + 1?
    ... 5 more: `--limit` shows them
    ");
    // The same table while a run goes on, where it is due.
    let out = format!("output.dir={:?}", folder.path().join("shown"));
    let sets = ["--set", "train.steps=1", "--set", "rollout.log_completions_every=1", "--set", &out];
    let shown = run(&path, &sets);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned() + &String::from_utf8_lossy(&shown.stderr);
    assert!(shown.contains("reward tokens end     prompt") && shown.contains(" length  What is"), "{shown}");
    let count = |more: &[&str]| {
        let (text, code) = told(folder.path(), &[&["rollouts", "out", "--json"], more].concat());
        assert_eq!(code, Some(0), "{text}");
        text.lines().filter(|it| it.starts_with('{')).count()
    };
    let all = count(&[]);
    assert!(all > 0 && count(&["--max-reward", "1.9"]) + count(&["--min-reward", "1.9"]) == all);
    assert_eq!([count(&["--plugin", "judge", "--outcome", "ok"]), count(&["--outcome", "trap"])], [all, 0]);
    let (text, code) = told(folder.path(), &["rollouts", "out", "--step", "9"]);
    assert_eq!((text.lines().count(), code), (1, Some(0)), "{text}");
    std::fs::remove_dir_all(folder.path().join("out/scores")).unwrap();
    insta::assert_snapshot!(told(folder.path(), &["rollouts", "out"]).0, @r"
    error: no scores in `FOLDER/out`
    hint: give the `output.dir` of a run whose plugins have a reward
    ");
}

#[test]
fn a_reward_that_is_no_number_is_no_number() {
    let (folder, path) = prepared("nan", "on_failure = \"skip\"");
    insta::assert_snapshot!(said(&run(&path, &["--quiet"]), folder.path()), @r"
    error: no completion of the rollout before step 1 has a reward: judge contract 8x
    hint: `fthost plugin test` runs a reward by itself; a reward abstains where a row lacks its column
    ");
    let (folder, path) = prepared("nan", "");
    insta::assert_snapshot!(said(&run(&path, &["--quiet"]), folder.path()), @"error: plugin `judge` broke the contract: a score is NaN in `score` of 4 items");
}

#[test]
fn what_does_not_fit_together_is_told_before_anything_is_loaded() {
    let (folder, path) = prepared("id", "");
    let said_with = |overrides: &[&str]| {
        let sets: Vec<&str> = overrides.iter().flat_map(|it| ["--set", *it]).collect();
        said(&run(&path, &sets), folder.path())
    };
    insta::assert_snapshot!(said_with(&["rollout.num_generations=3", "rollout.temperature=0", "objective.grpo.epsilon=0"]), @r"
    error: invalid run file `run.toml`
      `objective.grpo.epsilon` must be > 0, got `0`
      `rollout.temperature` must be > 0, got `0`: completions of a prompt would all be one
      `rollout.num_generations` = 3 must divide the completions of a rollout, `train.micro_batch_size` * `train.gradient_accumulation_steps` * `rollout.steps_per_generation` = 8
    ");
    insta::assert_snapshot!(said_with(&["data.max_length=3"]), @"error: rows.jsonl:1: a prompt of 9 tokens; at most 3 fit `data.max_length` and the model's context");
}

/// The weights and figures of a run.
fn left(folder: &Path) -> (String, Vec<u8>) {
    let out = folder.join("out");
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    (metrics, std::fs::read(out.join("adapter/adapter_model.safetensors")).unwrap())
}

/// Killed at moments that nobody chose, a run loses the step in work and nothing else: what it leaves in the end is what it
/// would have left.
#[test]
fn a_run_that_is_killed_at_any_moment_loses_one_step_at_most() {
    is_killed_at_any_moment("", &["train.steps=200"], 1);
}

/// Of several steps that learn from one rollout, those in work: a checkpoint holds nothing of what was sampled.
#[test]
fn a_run_of_ppo_that_is_killed_at_any_moment_loses_one_rollout_at_most() {
    let sets = ["train.steps=400", "rollout.num_iterations=4", "objective.ppo.kl_coef=0.01"];
    is_killed_at_any_moment("[objective.grpo]\nbeta = 0.04\n", &sets, 4);
}

/// A run without the section `without` and with `sets` on top, whose rollouts are learned from in so many steps.
fn is_killed_at_any_moment(without: &str, sets: &[&str], steps: u64) {
    let (folder, path) = prepared("random", "");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(without, "")).unwrap();
    let mut arguments = vec!["run", path.to_str().unwrap(), "--quiet"];
    sets.iter().for_each(|it| arguments.extend(["--set", it]));
    let start = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_fthost"))
            .args(&arguments)
            .args(more)
            .current_dir(root())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    assert!(start(&[]).wait().unwrap().success());
    let whole = left(folder.path());
    std::fs::remove_dir_all(folder.path().join("out")).unwrap();
    let newest = || {
        let entries = std::fs::read_dir(folder.path().join("out")).into_iter().flatten().flatten();
        let step =
            |it: std::fs::DirEntry| it.file_name().to_str()?.strip_prefix("checkpoint-")?.parse::<u64>().ok();
        entries.filter_map(step).max()
    };
    // A small generator draws moments: in loading; or so many checkpoints on, and then some milliseconds into sampling,
    // training or saving.
    let mut state = 0x2545_f491_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for attempt in 0..12 {
        let before = newest();
        let mut child = start(if before.is_some() { &["--resume"] } else { &["--overwrite"] });
        let until = before.unwrap_or(0) + steps * (1 + draw(4));
        while attempt % 3 > 0 && newest().is_none_or(|it| it < until) {
            assert!(child.try_wait().unwrap().is_none(), "the run ended before it was killed");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(draw(12)));
        let _ = child.kill();
        child.wait().unwrap();
        assert!(newest() >= before, "a checkpoint was lost");
        if let Some(step) = newest() {
            let figures = std::fs::read_to_string(folder.path().join("out/metrics.jsonl")).unwrap();
            let done = figures.lines().filter(|it| it.starts_with('{') && it.ends_with('}')).count() as u64;
            assert!(done <= step + steps, "{done} steps are told, {step} saved: more would be lost");
        }
    }
    let child = start(if newest().is_some() { &["--resume"] } else { &["--overwrite"] });
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(left(folder.path()) == whole, "metrics and adapter are those of the run that nobody killed");
}
