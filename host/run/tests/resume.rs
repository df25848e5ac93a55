//! A run that was interrupted and resumed is the uninterrupted one.

use std::path::Path;

use fthost_data::digest::sha256;
use fthost_run::summary::Summary;
use fthost_run::train::RunOptions;
use fthost_run::{Event, Interrupt, RunError};

use crate::support::Workplace;

const SIGTERM: i32 = 15;

/// Dropout, held-out rows, evaluations, periodic and best checkpoints, partial windows, several epochs.
const EVERYTHING: &[&str] = &[
    "adapter.lora.dropout=0.2",
    "data.held_out.rows=3",
    "eval.every_steps=3",
    "checkpoint.every_steps=4",
    "checkpoint.keep_best=true",
    "schedule.warmup_steps=2",
];

/// Everything a run leaves that is the same twice.
#[derive(Debug, PartialEq)]
struct Left {
    metrics: String,
    /// Digest of its weights.
    adapter: String,
    evaluations: String,
    stopped_early: bool,
    num_tokens: u64,
}

fn left(out: &Path, summary: &Summary) -> Left {
    Left {
        metrics: std::fs::read_to_string(out.join("metrics.jsonl")).unwrap(),
        adapter: sha256(&std::fs::read(out.join("adapter/adapter_model.safetensors")).unwrap()),
        evaluations: format!(
            "{:?} {:?}",
            summary.evaluations,
            summary.best.as_ref().map(|it| (it.step, it.value))
        ),
        stopped_early: summary.stopped_early,
        num_tokens: summary.num_tokens,
    }
}

/// Interrupts after each step of `stops` in turn, resumes, and gives what the last part left.
fn interrupted(workplace: &Workplace, overrides: &[&str], stops: &[u64]) -> Left {
    let out = workplace.path("parts");
    let _ = std::fs::remove_dir_all(&out);
    let overrides = [overrides, &["output.dir=parts"]].concat();
    for (part, &stop) in stops.iter().enumerate() {
        let interrupt = Interrupt::none();
        let options = RunOptions { resume: part > 0, interrupt: interrupt.clone(), ..RunOptions::default() };
        let error = workplace
            .watch(&overrides, &options, &mut |event| match event {
                Event::Planned(_) if stop == 0 => interrupt.raise(SIGTERM),
                Event::Stepped(it) if it.step == stop => interrupt.raise(SIGTERM),
                _ => {}
            })
            .unwrap_err();
        assert_eq!(error.exit_code(), 143);
        let RunError::Interrupted { step, checkpoint, .. } = error else { panic!("{error}") };
        assert_eq!((step, checkpoint), (stop, out.join(format!("checkpoint-{stop}"))));
        assert!(!out.join("adapter").exists(), "a part of a run has no result");
    }
    let options = RunOptions { resume: true, ..RunOptions::default() };
    let summary = workplace.watch(&overrides, &options, &mut |_| ()).unwrap();
    left(&out, &summary)
}

/// Bit for bit, wherever the run stops: before the first step, between, before an evaluation, before the result.
#[test]
fn resume_equals_uninterrupted() {
    let workplace = Workplace::new(14);
    let summary = workplace.run(EVERYTHING);
    let whole = left(&workplace.path("out"), &summary);
    assert_eq!(whole.metrics.lines().count(), 9 + 4, "nine steps, evaluations after 0, 3, 6 and 9");
    for stop in 0..=9 {
        assert_eq!(interrupted(&workplace, EVERYTHING, &[stop]), whole, "stopped after step {stop}");
    }
    assert_eq!(interrupted(&workplace, EVERYTHING, &[0, 3, 4, 5, 9]), whole);
}

#[test]
fn a_resumed_run_stops_early_where_the_uninterrupted_one_does() {
    let workplace = Workplace::new(14);
    let impatient =
        [EVERYTHING, &["early_stop.patience=2", "early_stop.min_delta=0.3", "eval.every_steps=2"]].concat();
    let summary = workplace.run(&impatient);
    assert!(summary.stopped_early && summary.steps < 9, "{summary:?}");
    let whole = left(&workplace.path("out"), &summary);
    for stop in 1..=summary.steps {
        assert_eq!(interrupted(&workplace, &impatient, &[stop]), whole, "stopped after step {stop}");
    }
}

/// As after a crash: the newest checkpoint is some steps behind the metrics, whose last line is cut off.
#[test]
fn metrics_are_cut_back_to_the_checkpoint() {
    let workplace = Workplace::new(14);
    let whole = left(&workplace.path("out"), &workplace.run(EVERYTHING));
    let metrics = workplace.path("out/metrics.jsonl");
    let torn = &whole.metrics[..whole.metrics.len() - 7];
    let options = RunOptions { resume: true, ..RunOptions::default() };
    std::fs::remove_dir_all(workplace.path("out/checkpoint-9")).unwrap();
    std::fs::write(&metrics, torn).unwrap();
    let summary = workplace.watch(EVERYTHING, &options, &mut |_| ()).unwrap();
    assert_eq!(left(&workplace.path("out"), &summary), whole);
}

#[test]
fn the_newest_checkpoints_and_the_best_are_kept() {
    let workplace = Workplace::new(14);
    let overrides = [
        "data.held_out.rows=3",
        "eval.every_steps=1",
        "checkpoint.every_steps=1",
        "checkpoint.keep_best=true",
        "optimizer.adamw.learning_rate=2.0",
        "schedule.kind=constant",
        "early_stop.patience=100",
        "early_stop.min_delta=0.2",
    ];
    let summary = workplace.run(&overrides);
    let best = summary.best.unwrap();
    assert!((1..8).contains(&best.step), "the best is none of the last: {:?}", summary.evaluations);
    let mut kept: Vec<String> = std::fs::read_dir(workplace.path("out"))
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .filter(|it| it.starts_with("checkpoint-"))
        .collect();
    kept.sort();
    let mut expected =
        vec![format!("checkpoint-{}", best.step), "checkpoint-8".into(), "checkpoint-9".into()];
    expected.sort();
    expected.dedup();
    assert_eq!(kept, expected);
    assert_eq!(best.checkpoint, Some(workplace.path("out").join(format!("checkpoint-{}", best.step))));
}

/// Whether a run waits for its checkpoints changes nothing that it leaves; every one that was announced is there.
#[test]
fn checkpoints_beside_steps_are_those_that_are_waited_for() {
    let workplace = Workplace::new(14);
    let left_by = |out: &str, beside: bool| {
        let (asynchronous, dir) = (format!("checkpoint.asynchronous={beside}"), format!("output.dir={out}"));
        let overrides = [&dir, &asynchronous, "checkpoint.every_steps=1", "checkpoint.keep_last=9"];
        let mut saved = Vec::new();
        let summary = workplace.watch(&overrides, &RunOptions::default(), &mut |event| {
            if let Event::Saved { step, checkpoint } = event {
                assert!(checkpoint.join("trainer_state.json").exists());
                saved.push((step, sha256(&std::fs::read(checkpoint.join("optimizer.safetensors")).unwrap())));
            }
        });
        let weights = workplace.path(out).join(summary.unwrap().result.file_name().unwrap());
        let weights =
            ["adapter_model.safetensors", "model.safetensors"].map(|it| std::fs::read(weights.join(it)).ok());
        (saved, weights)
    };
    for kind in ["lora", "full"] {
        let waited = left_by(&format!("{kind}-waited"), false);
        assert_eq!(waited.0.len(), 9);
        assert!(left_by(&format!("{kind}-beside"), true) == waited, "{kind}");
        // The second time every weight is trained.
        let file = std::fs::read_to_string(workplace.path("run.toml")).unwrap();
        std::fs::write(workplace.path("run.toml"), file.replace("[adapter.lora]\nrank = 4\n", "")).unwrap();
    }
}

#[test]
fn another_run_is_not_resumed_and_its_differences_are_named() {
    let workplace = Workplace::new(14);
    let checkpoints = ["checkpoint.every_steps=4"];
    let resume = RunOptions { resume: true, ..RunOptions::default() };
    let fails = |overrides: &[&str], options: &RunOptions| {
        let error = workplace.watch(overrides, options, &mut |_| ()).unwrap_err().to_string();
        error.replace(&format!("{}/", workplace.path("").display()).replace("//", "/"), "")
    };
    insta::assert_snapshot!(fails(&checkpoints, &resume), @r"
    nothing to resume: no checkpoint in `out`
    hint: run without `--resume` to begin
    ");
    workplace.run(&checkpoints);
    insta::assert_snapshot!(fails(&["train.micro_batch_size=1", "adapter.lora.rank=2", "train.epochs=4"], &resume), @r"
    can't resume from `out/checkpoint-8`: the run is another now
      `adapter.lora.rank` was `4`, is `2`
      `train.epochs` was `null`, is `4.0`
      `train.micro_batch_size` was `2`, is `1`
    hint: undo the change, or begin anew in another `output.dir`
    ");
    insta::assert_snapshot!(fails(&checkpoints, &RunOptions::default()), @r"
    `out/checkpoint-4` is an earlier run's
    hint: go on with `--resume`, remove such checkpoints with `--overwrite`, or give another `output.dir`
    ");
    let overwrite = RunOptions { overwrite: true, ..RunOptions::default() };
    workplace.watch(&["train.steps=2"], &overwrite, &mut |_| ()).unwrap();
    assert!(!workplace.path("out/checkpoint-8").exists());
}
