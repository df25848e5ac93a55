//! The `fthost` program from the outside: a whole run on a tiny random model, and what it says when it can't.

use std::path::Path;

use serde_json::Value;

use crate::support::fthost;
use crate::support::workplace::{RUN_FILE, run, said, workplace};

fn losses(folder: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    text.lines().map(|it| serde_json::from_str::<Value>(it).unwrap()["loss"].as_f64().unwrap()).collect()
}

#[test]
fn a_run_learns_and_leaves_a_peft_folder() {
    let (folder, path) = workplace(RUN_FILE);
    let output = run(&path, &["--set", "data.on_bad_row=skip"]);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    assert!(said(&output, folder.path()).contains("5 rows, 0 held out, 1 skipped; 12 steps"));
    let losses = losses(folder.path());
    assert_eq!(losses.len(), 12);
    // Windows differ and a random model learns slowly: a mean of three steps against a mean of three.
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[9..]) < mean(&losses[..3]) - 0.2, "{losses:?}");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        assert!(folder.path().join("out/adapter").join(name).exists(), "{name}");
    }
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let bytes = || {
        let (folder, path) = workplace(RUN_FILE);
        assert!(run(&path, &["--quiet", "--set", "data.on_bad_row=skip"]).status.success());
        let read = |name: &str| std::fs::read(folder.path().join("out").join(name)).unwrap();
        (read("metrics.jsonl"), read("adapter/adapter_model.safetensors"))
    };
    assert!(bytes() == bytes());
}

#[test]
fn full_fine_tuning_leaves_a_model_that_trains_on() {
    let (folder, path) = workplace(&RUN_FILE.replace("[adapter.lora]\nrank = 4\ndropout = 0.1\n", ""));
    let skip = ["--quiet", "--set", "data.on_bad_row=skip"];
    assert!(run(&path, &skip).status.success());
    let first = losses(folder.path());
    let again = [&skip[..], &["--set", "model.path=out/model", "--set", "output.dir=out"]].concat();
    std::fs::rename(folder.path().join("out"), folder.path().join("trained")).unwrap();
    let again: Vec<&str> = again
        .iter()
        .map(|it| if *it == "model.path=out/model" { "model.path=trained/model" } else { it })
        .collect();
    let output = run(&path, &again);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    assert!(losses(folder.path())[0] < first[0] - 0.5);
}

#[test]
fn a_bad_row_stops_the_run_with_its_file_and_line() {
    let (folder, path) = workplace(RUN_FILE);
    let output = run(&path, &[]);
    assert_eq!(output.status.code(), Some(3));
    let said = said(&output, folder.path());
    assert!(said.starts_with("error: rows.jsonl:3: no known shape: the columns are question"), "{said}");
    assert!(!folder.path().join("out").exists(), "nothing is written by a run that never began");
}

#[test]
fn every_problem_of_a_run_file_is_told_at_once() {
    let broken = RUN_FILE.replace("rank = 4", "rank = 0").replace("steps = 12", "steps = 0");
    let (folder, path) = workplace(&broken);
    let output = run(&path, &["--set", "optimizer.adamw.beta1=1.5"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(said(&output, folder.path()), @r"
    error: invalid run file `run.toml`
      `adapter.lora.rank` must be > 0, got `0`
      `optimizer.adamw.beta1` must be in [0, 1), got `1.5`
      `train.steps` must be > 0, got `0`
    ");
}

/// Each optimizer is a table of its own: problems are told under the name that was chosen.
#[test]
fn moments_in_8_bits_are_a_choice_beside_adamw() {
    let (folder, path) = workplace(&RUN_FILE.replace("[optimizer.adamw]", "[optimizer.adamw8bit]"));
    let checked = fthost(&["check", path.to_str().unwrap(), "--set", "data.on_bad_row=skip"]);
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked, folder.path()));
    let output = run(&path, &["--set", "optimizer.adamw8bit.eps=0"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(said(&output, folder.path()), @r"
    error: invalid run file `run.toml`
      `optimizer.adamw8bit.eps` must be > 0, got `0`
    ");
}

#[test]
fn an_unknown_key_is_refused_where_it_stands() {
    let (folder, path) = workplace(&RUN_FILE.replace("rank = 4", "rnak = 4"));
    let output = fthost(&["check", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output, folder.path());
    assert!(said.contains("`adapter.lora.rnak` (line 10): unknown field `rnak`"), "{said}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn cuda_without_the_feature_is_refused_by_name() {
    let (folder, path) = workplace(RUN_FILE);
    let output = run(&path, &["--device", "cuda", "--set", "data.on_bad_row=skip"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output, folder.path()).contains("without the feature `cuda`"));
}

#[cfg(feature = "cuda")]
#[test]
fn cuda_without_a_driver_is_refused_by_name() {
    let (folder, path) = workplace(RUN_FILE);
    let output = run(&path, &["--device", "cuda", "--set", "data.on_bad_row=skip"]);
    let said = said(&output, folder.path());
    if output.status.success() || said.contains("finds no device") || said.contains("no `nvvm/libdevice") {
        println!("SKIPPED: this machine has a CUDA driver");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no CUDA driver (`libcuda.so.1`)"), "{said}");
}

#[test]
fn help_names_verbs_and_exit_codes() {
    let output = fthost(&["--help"]);
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stdout), @r"
    Fine-tunes language models.

    Exit codes: 0 done; 1 failure; 2 usage or an invalid run file; 3 data; 4 a plugin failed or hit a
    limit; 5 a loss or gradient that is not finite; 130 SIGINT and 143 SIGTERM, the step finished and a
    checkpoint saved.

    Usage: fthost <COMMAND>

    Commands:
      run          Train as a run file says
      check        Check a run file without loading or training anything
      estimate     Say what a run would take in memory and operations, without starting it
      launch       Write a Slurm script or a Kubernetes MPIJob that starts a run; nothing is submitted
      generate     Print a model's answers to prompts
      eval         Judge a model, or one with an adapter, on the held-out rows of a run file
      data         Look at data as training sees it
      plugin       Look at plugins, write, test and share them
      replay       Compute the scores of a run again, offline, and tell every difference
      rescore      Score a run's completions by other rewards and compare
      rollouts     Browse the completions that a run sampled and learned from
      model        Make, merge and look at models' files
      doctor       Say what this machine has for fthost
      completions  Print a completion script
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version
    ");
}
