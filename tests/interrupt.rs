//! Signals to the running program: what it saves, how it ends, and that it goes on as if nothing had happened.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::support::model::sums;
use crate::support::root;
use crate::support::workplace::{RUN_FILE, run, said, workplace};

/// A run that is long enough to be met by a signal.
fn long_workplace() -> (tempfile::TempDir, std::path::PathBuf) {
    let text = RUN_FILE.replace("steps = 12", "steps = 150");
    let (folder, path) = workplace(&format!("{text}\n[eval]\nevery_steps = 40\n"));
    std::fs::write(folder.path().join("rows.jsonl"), sums(30)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("[data]", "[data]\nheld_out.rows = 4")).unwrap();
    (folder, path)
}

/// Starts a run and reads its lines until step `step` is done.
fn started(path: &Path, step: u64, more: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fthost"))
        .arg("run")
        .arg(path)
        .args(more)
        .current_dir(root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with(&format!("step {step}/")) {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the run ended before step {step}");
    }
    (child, lines)
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Exit code and stderr.
fn ended(mut child: Child, mut lines: BufReader<ChildStdout>) -> (Option<i32>, String) {
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    (child.wait().unwrap().code(), error)
}

fn left(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let read = |name: &str| std::fs::read(folder.join("out").join(name)).unwrap();
    (read("metrics.jsonl"), read("adapter/adapter_model.safetensors"))
}

#[test]
fn resume_equals_uninterrupted_by_signals() {
    let (folder, path) = long_workplace();
    assert!(run(&path, &["--quiet"]).status.success());
    let whole = left(folder.path());
    std::fs::remove_dir_all(folder.path().join("out")).unwrap();

    for (name, code, step, more) in [("INT", 130, 3, &[][..]), ("TERM", 143, 60, &["--resume"][..])] {
        let (child, lines) = started(&path, step, more);
        signal(&child, name);
        let (ended, error) = ended(child, lines);
        assert_eq!(ended, Some(code), "{error}");
        let begins = format!("error: interrupted by SIG{name} after step ");
        assert!(error.starts_with(&begins) && error.contains("hint: go on with `--resume`"), "{error}");
        assert!(!folder.path().join("out/adapter").exists());
    }
    let output = run(&path, &["--resume"]);
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    assert!(said(&output, folder.path()).contains("resumed after step "));
    assert!(left(folder.path()) == whole, "metrics and adapter are those of the uninterrupted run");
}

/// SIGKILL leaves no time for anything: the run goes on from its last periodic checkpoint.
#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint() {
    let (folder, path) = long_workplace();
    let checkpoints = ["--set", "checkpoint.every_steps=25"];
    assert!(run(&path, &[&checkpoints[..], &["--quiet"]].concat()).status.success());
    let whole = left(folder.path());
    std::fs::remove_dir_all(folder.path().join("out")).unwrap();
    let (mut child, _lines) = started(&path, 60, &checkpoints);
    child.kill().unwrap();
    child.wait().unwrap();
    let output = run(&path, &[&checkpoints[..], &["--resume"]].concat());
    assert!(output.status.success(), "{}", said(&output, folder.path()));
    assert!(left(folder.path()) == whole);
}

/// Starts a run whose first step takes long, and signals it `delay` after its files are there. `None` where it had not begun with
/// the step yet: it ends then with a checkpoint of none.
fn met_in_its_first_step(path: &Path, delay: Duration) -> Option<Child> {
    let long = [
        "train.gradient_accumulation_steps=10000",
        "data.packing=false",
        "train.steps=2",
        "eval.before=false",
    ];
    let mut child = Command::new(env!("CARGO_BIN_EXE_fthost"))
        .arg("run")
        .arg(path)
        .args(["--quiet", "--overwrite"])
        .args(long.iter().flat_map(|it| ["--set", it]))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = path.with_file_name("out");
    while !out.join("metrics.jsonl").exists() {
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(child.try_wait().unwrap(), None, "the run ended before its first step");
    }
    std::thread::sleep(delay);
    for name in ["USR1", "TERM", "TERM"] {
        signal(&child, name);
        std::thread::sleep(Duration::from_millis(50));
    }
    if child.try_wait().unwrap().is_none() {
        return Some(child);
    }
    std::fs::remove_dir_all(out).unwrap();
    None
}

/// SIGINT after another signal does not wait for a step, nor for a checkpoint; SIGTERM, of which a cluster sends several, does.
#[test]
fn a_second_interrupt_ends_the_program_at_once() {
    let (folder, path) = long_workplace();
    std::fs::write(folder.path().join("rows.jsonl"), sums(20_000)).unwrap();
    let delays = [100, 500, 2000, 5000].map(Duration::from_millis);
    let met = delays.into_iter().find_map(|it| met_in_its_first_step(&path, it));
    let mut child = met.expect("a step that takes long is met in some seconds");
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let metrics = std::fs::read(folder.path().join("out/metrics.jsonl")).unwrap();
    assert!(metrics.is_empty(), "no step was finished");
    assert!(!folder.path().join("out/checkpoint-1").exists());
}
