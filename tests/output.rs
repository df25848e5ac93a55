//! What a run prints, for a person and for a program. Times, speeds and memory are left out of the snapshots.

use serde_json::Value;

use crate::support::fthost;
use crate::support::workplace::{RUN_FILE, run, said, workplace};

fn evaluated() -> String {
    let text = RUN_FILE
        .replace("steps = 12", "steps = 4")
        .replace("[data]", "[data]\nheld_out.rows = 2\non_bad_row = \"skip\"");
    format!(
        "{text}\n[eval]\nevery_steps = 2\n\n[checkpoint]\nevery_steps = 2\nkeep_best = true\nasynchronous = false\n"
    )
}

/// Figures that no two machines share become `N`.
fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"[0-9]+ tokens/s", "N tokens/s");
    settings.add_filter(r"[0-9ms]+ left", "N left");
    settings.add_filter(r"tokens in [0-9ms]+", "tokens in N");
    settings.add_filter(r"[0-9]+ MiB", "N MiB");
    settings.add_filter(r"sha256:[0-9a-f]{64}", "sha256:…");
    // The last digits of a loss differ between processors.
    settings.add_filter(r"([0-9]\.[0-9]{2})[0-9]{1,2}\b", "$1…");
    settings
}

#[test]
fn a_run_tells_plan_row_steps_evaluations_and_end() {
    let (folder, path) = workplace(&evaluated());
    let output = run(&path, &[]);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    settings().bind(|| insta::assert_snapshot!(said(&output, folder.path()), @r"
    model      model (8,688 weights, 928 trained)
    data       3 rows, 2 held out, 1 skipped; 48 tokens, 21 supervised
      skipped  rows.jsonl:3: no known shape: the columns are question (known: messages; prompt + completion; prompt + chosen + rejected; text; instruction + output (Alpaca); conversations (ShareGPT); prompt); a data-builder plugin maps anything else
    training   4 steps of 4 rows; 1 packed micro-batches an epoch
    output     out
    ⟦supervised⟧, the rest is masked
    rows.jsonl:2: 16 tokens, 7 supervised
    What is 1 + 1?⟦ It is 2.</s>⟧

    evaluation after step 0: eval_loss 6.15… eval_entropy 6.00… eval_mean_token_accuracy 0.00…
    step 1/4 loss 6.09… grad_norm 0.31… mean_token_accuracy 0.00… N tokens/s N left
    step 2/4 loss 6.06… grad_norm 0.31… mean_token_accuracy 0.00… N tokens/s N left
    evaluation after step 2: eval_loss 6.08… eval_entropy 6.00… eval_mean_token_accuracy 0.00…
    saved `out/checkpoint-2`
    step 3/4 loss 6.02… grad_norm 0.34… mean_token_accuracy 0.00… N tokens/s N left
    step 4/4 loss 6.00… grad_norm 0.37… mean_token_accuracy 0.00… N tokens/s N left
    evaluation after step 4: eval_loss 6.04… eval_entropy 6.00… eval_mean_token_accuracy 0.00…
    saved `out/checkpoint-4`
    3 rows, 2 held out, 1 skipped; 4 steps

    held-out rows              step 0        step 4
    loss                       6.15…        6.04…  better
    entropy                    6.00…        6.00…
    mean_token_accuracy        0.00…        0.00…

    best eval_loss 6.04… after step 4, kept as `out/checkpoint-4`
    192 tokens in N, N tokens/s, N MiB at most
    result: out/adapter
    "));
}

#[test]
fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    let (folder, path) = workplace(&evaluated());
    let output = run(&path, &["--dry-run", "--set", "train.epochs=3", "--set", "train.steps=100"]);
    settings().bind(|| insta::assert_snapshot!(said(&output, folder.path()), @r"
    model      model (8,688 weights, 928 trained)
    data       3 rows, 2 held out, 1 skipped; 48 tokens, 21 supervised
      skipped  rows.jsonl:3: no known shape: the columns are question (known: messages; prompt + completion; prompt + chosen + rejected; text; instruction + output (Alpaca); conversations (ShareGPT); prompt); a data-builder plugin maps anything else
    training   3 steps of 4 rows; 1 packed micro-batches an epoch
    output     out
    a dry run: nothing was trained or written
    "));
    assert!(!folder.path().join("out").exists());
    let text = evaluated().replace("[adapter.lora]\nrank = 4\ndropout = 0.1\n", "");
    std::fs::write(&path, text).unwrap();
    let output = run(&path, &["--dry-run", "--json"]);
    let plan: Value = serde_json::from_slice(output.stdout.split(|it| *it == b'\n').next().unwrap()).unwrap();
    assert_eq!(plan["parameters"], plan["trainable_parameters"]);
    assert_eq!(
        (&plan["event"], &plan["rows"], &plan["held_out_rows"]),
        (&"plan".into(), &3.into(), &2.into())
    );
}

#[test]
fn json_lines_tell_everything_to_a_program() {
    let (folder, path) = workplace(&evaluated());
    let output = run(&path, &["--json"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output, folder.path()));
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    let events: Vec<&str> = lines.iter().map(|it| it["event"].as_str().unwrap()).collect();
    insta::assert_snapshot!(events.join(" "), @"plan preview evaluation step step evaluation checkpoint step step evaluation checkpoint done");
    let last = lines.last().unwrap();
    let summary = std::fs::read_to_string(folder.path().join("out/summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    for key in [
        "steps",
        "rows",
        "num_tokens",
        "evaluations",
        "best",
        "result",
        "seconds",
        "time/data_loading_s",
        "peak_rss_bytes",
    ] {
        assert!(!summary[key].is_null(), "{key}");
        assert_eq!(summary[key], last[key], "{key}");
    }
    let keys: Vec<String> =
        lines.iter().find(|it| it["event"] == "step").unwrap().as_object().unwrap().keys().cloned().collect();
    insta::assert_snapshot!(keys.join(" "), @"event step steps epoch loss grad_norm learning_rate entropy mean_token_accuracy num_tokens seconds_left time/data_loading_s time/step_s tokens_per_second peak_rss_bytes");

    let output = run(&path, &["--json", "--set", "data.on_bad_row=stop", "--overwrite"]);
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&error["event"], &error["exit_code"]), (&"error".into(), &3.into()));
}

#[test]
fn quiet_prints_nothing() {
    let (_folder, path) = workplace(&evaluated());
    let output = run(&path, &["--quiet"]);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
}

#[test]
fn metrics_hold_steps_and_evaluations_under_trls_names() {
    let (folder, path) = workplace(&evaluated());
    assert!(run(&path, &["--quiet"]).status.success());
    let text = std::fs::read_to_string(folder.path().join("out/metrics.jsonl")).unwrap();
    let figures = |line: &str| {
        let line: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        line.keys().map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    insta::assert_snapshot!(text.lines().map(figures).collect::<Vec<_>>().join("\n"), @r"
    step epoch eval_loss eval_entropy eval_mean_token_accuracy
    step epoch loss grad_norm learning_rate entropy mean_token_accuracy num_tokens
    step epoch loss grad_norm learning_rate entropy mean_token_accuracy num_tokens
    step epoch eval_loss eval_entropy eval_mean_token_accuracy
    step epoch loss grad_norm learning_rate entropy mean_token_accuracy num_tokens
    step epoch loss grad_norm learning_rate entropy mean_token_accuracy num_tokens
    step epoch eval_loss eval_entropy eval_mean_token_accuracy
    ");
}

#[test]
fn check_says_what_a_run_file_asks_for() {
    let (folder, path) = workplace(&evaluated());
    let output =
        fthost(&["check", path.to_str().unwrap(), "--set", "data.files=[\"rows.jsonl\", \"more.csv\"]"]);
    insta::assert_snapshot!(said(&output, folder.path()), @r"
    `run.toml` is a sound run file
      model       model
      data        rows.jsonl, more.csv (not there)
      held out    2 rows
      trains      a LoRA adapter of rank 4
      by          sft
      for         4 steps of 4 rows
      into        out
    ");
}

#[test]
fn doctor_names_what_it_looked_at() {
    let output = fthost(&["doctor"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let names = ["versions", "cpu", "memory", "cuda", "guest toolchain"];
    assert!(names.iter().all(|name| text.lines().any(|it| it[4..].starts_with(name))), "{text}");
    assert!(text.contains("burn 0.") && text.contains("wasmtime ") && !text.contains('?'), "{text}");
}

#[test]
fn a_run_without_a_checkpoint_has_nothing_to_resume() {
    let (folder, path) = workplace(&evaluated());
    let output = run(&path, &["--resume"]);
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(said(&output, folder.path()).lines().rev().take(2).collect::<Vec<_>>().join("\n"), @r"
    hint: run without `--resume` to begin
    error: nothing to resume: no checkpoint in `out`
    ");
}
