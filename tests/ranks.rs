//! One run on several ranks, under Open MPI's `mpirun`; skipped, and said so, where that is not on the path. What ranks do together
//! is tested under MPICH as well, in the engine's tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support;
use crate::support::namespaces::Namespaces;
use crate::support::workplace::{RUN_FILE, run, said, workplace};

/// `mpirun`, if it is there.
fn mpirun(test: &str) -> Option<Command> {
    let found = support::mpirun::mpirun();
    if found.is_none() {
        eprintln!("SKIPPED {test}: Open MPI's `mpirun` is not on the path");
    }
    found
}

/// `fthost run` of the file at `path` on `size` ranks.
fn on(mut mpirun: Command, size: usize, path: &Path, more: &[&str]) -> Command {
    mpirun.args(["-np", &size.to_string(), env!("CARGO_BIN_EXE_fthost"), "run"]).arg(path).args(more);
    // Ranks share the machine's cores.
    mpirun.env("RAYON_NUM_THREADS", "1");
    mpirun
}

fn done(output: &Output, folder: &Path) {
    assert!(output.status.success(), "{}", said(output, folder));
}

/// Lines of a run's metrics.
fn metrics(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    text.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
}

/// The weights that a run has left.
fn weights(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let files = ["out/adapter/adapter_model.safetensors", "out/model/model.safetensors"];
    let file = files.map(|it| folder.join(it)).into_iter().find(|it| it.exists()).unwrap();
    let bytes = std::fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values =
        |data: &[u8]| data.chunks_exact(4).map(|it| f32::from_le_bytes(it.try_into().unwrap())).collect();
    tensors.tensors().into_iter().map(|(name, it)| (name, values(it.data()))).collect()
}

fn rows(folder: &Path, row: impl Fn(usize) -> Value) {
    let rows: Vec<String> = (0..21).map(|it| row(it).to_string()).collect();
    std::fs::write(folder.join("rows.jsonl"), rows.join("\n")).unwrap();
}

fn sum(i: usize) -> Value {
    json!({"prompt": format!("What is {i} + {}?", i * i), "completion": format!(" It is {}.", i + i * i)})
}

/// Sections of a run file beside those that all have.
const KINDS: [(&str, &str); 9] = [
    ("full", ""),
    ("lora", "[adapter.lora]\nrank = 4\ndropout = 0.1\n"),
    ("qlora", "[adapter.lora]\nrank = 4\n[quant.nf4]\n"),
    ("dpo", "[adapter.lora]\nrank = 4\n[objective.dpo]\n"),
    ("kto", "[adapter.lora]\nrank = 4\n[objective.kto]\n"),
    ("reward", "[adapter.lora]\nrank = 4\n[objective.reward]\n"),
    ("packed", "[adapter.lora]\nrank = 4\n"),
    (
        "grpo",
        "[adapter.lora]\nrank = 4\n[objective.grpo]\nbeta = 0.04\n[plugins.length-band.config]\nmax = 3\nfalloff = 8\n\
         [rollout]\nnum_generations = 2\nmax_completion_length = 6\nsteps_per_generation = 2\nstop = [\"a\", \"e\"]\n",
    ),
    (
        "ppo",
        "[adapter.lora]\nrank = 4\n[objective.ppo]\nvalue_model = \"copy\"\n[plugins.length-band.config]\nmax = 3\nfalloff = 8\n\
         [rollout]\nnum_generations = 1\nmax_completion_length = 6\nnum_iterations = 2\nstop = [\"a\", \"e\"]\n",
    ),
];

fn place_of(kind: &str, sections: &str) -> (tempfile::TempDir, PathBuf) {
    let lora = "[adapter.lora]\nrank = 4\ndropout = 0.1\n";
    let file = RUN_FILE.replace(lora, sections).replace("learning_rate = 1e-2", "learning_rate = 1e-3");
    let packing = if kind == "packed" { "packing = true\nmax_length = 64" } else { "packing = false" };
    let file = file.replace("cache = false", &format!("cache = false\n{packing}"));
    let (folder, path) = workplace(&file);
    match kind {
        "dpo" | "kto" | "reward" => rows(
            folder.path(),
            |it| json!({"prompt": format!("What is {it} + 1?"), "chosen": format!(" {}.", it + 1), "rejected": " Nobody knows."}),
        ),
        _ => rows(folder.path(), sum),
    }
    (folder, path)
}

/// The metrics and the weights of `found` are those of `expected`, to the last digits of a sum.
fn assert_equal_runs(
    what: &str,
    (found, weights): (&[Value], &BTreeMap<String, Vec<f32>>),
    (expected, alone): (&[Value], &BTreeMap<String, Vec<f32>>),
) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        for (name, expected) in expected.as_object().unwrap() {
            let (found, expected) = (found[name].as_f64().unwrap(), expected.as_f64().unwrap());
            let bound = 1e-6 * expected.abs().max(1.0);
            assert!((found - expected).abs() <= bound, "{what}: {name} {found} for {expected}");
        }
    }
    assert!(weights.keys().eq(alone.keys()), "{what}");
    for (name, expected) in alone {
        assert_eq!(weights[name].len(), expected.len(), "{what}: {name}");
        // What is not a number is not near one.
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
        assert!(weights[name].iter().zip(expected).all(near), "{what}: {name} differs");
    }
}

/// Ranks that have everything, and ranks that share it: how many there are, how many micro-batches each takes, and what of
/// `[parallel]` says so.
const MESHES: [(usize, &str, &[&str]); 5] = [
    (2, "2", &[]),
    (4, "1", &[]),
    (2, "2", &["data_parallel_shard=-1", "data_parallel_replicate=1"]),
    (4, "1", &["data_parallel_shard=-1", "data_parallel_replicate=1", "offload=optimizer"]),
    (4, "1", &["data_parallel_shard=2", "zero=2"]),
];

/// Rows of a step that all share; the last window of an epoch has 5 of 8 rows, which leaves a rank of four with nothing.
#[test]
fn ranks_train_what_one_process_does() {
    for (kind, sections) in KINDS {
        let (folder, path) = place_of(kind, sections);
        let place = folder.path();
        let held_out = [
            "--set",
            "data.held_out.rows=3",
            "--set",
            "eval.every_steps=6",
            "--set",
            "eval.generation.max_new_tokens=8",
        ];
        done(
            &run(&path, &[&held_out[..], &["--set", "train.gradient_accumulation_steps=4"]].concat()),
            place,
        );
        let (expected, alone) = (metrics(place), weights(place));
        let norms = expected.iter().filter_map(|it| it["grad_norm"].as_f64());
        assert!(norms.filter(|it| *it > 1e-4).count() > 6, "{kind} learns");
        for (size, accumulated, parallel) in MESHES {
            let Some(mpirun) = mpirun("ranks_train_what_one_process_does") else { return };
            std::fs::remove_dir_all(place.join("out")).unwrap();
            let accumulation = format!("train.gradient_accumulation_steps={accumulated}");
            let parallel: Vec<String> = parallel.iter().map(|it| format!("parallel.{it}")).collect();
            let parallel = parallel.iter().flat_map(|it| ["--set", it.as_str()]);
            let more: Vec<&str> =
                held_out.into_iter().chain(["--set", &accumulation]).chain(parallel).collect();
            let output = on(mpirun, size, &path, &more).output().unwrap();
            done(&output, place);
            // One of them prints.
            let told = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            assert_eq!(told.matches("step 12/12").count(), 1, "{told}");
            let (found, left) = (metrics(place), weights(place));
            assert_equal_runs(&format!("{kind}: {more:?} on {size}"), (&found, &left), (&expected, &alone));
        }
    }
}

/// The processes that `mpirun` has started.
fn ranks_of(mpirun: u32) -> Vec<String> {
    let output = Command::new("pgrep").args(["-P", &mpirun.to_string()]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(ToString::to_string).collect()
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_mins(2), "waited for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A run on two ranks that has done some steps.
fn begun(place: &Path, path: &Path, more: &[&str], test: &str) -> Option<std::process::Child> {
    let mut command = on(mpirun(test)?, 2, path, &[&["--quiet"], more].concat());
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines =
        || std::fs::read_to_string(place.join("out/metrics.jsonl")).map_or(0, |it| it.lines().count());
    wait_for("some steps", || lines() > 3 && ranks_of(child.id()).len() == 2);
    Some(child)
}

/// SIGTERM to the second rank alone: all end after the same step, with a checkpoint that as many go on from as if nothing had
/// happened, and fewer go on from as well; whether each rank has everything or a share.
#[test]
fn a_signal_to_one_rank_saves_all() {
    for parallel in ["parallel.data_parallel_shard=1", "parallel.data_parallel_shard=2"] {
        signalled(parallel);
    }
}

fn signalled(parallel: &str) {
    let (test, steps) = ("a_signal_to_one_rank_saves_all", "train.steps=300");
    let (folder, path) = place_of("lora", KINDS[1].1);
    let (place, out) = (folder.path(), folder.path().join("out"));
    let more = ["--set", steps, "--set", parallel];
    let Some(child) = begun(place, &path, &more, test) else { return };
    done(&child.wait_with_output().unwrap(), place);
    let (all, whole) = (metrics(place), weights(place));
    std::fs::remove_dir_all(&out).unwrap();

    let child = begun(place, &path, &more, test).unwrap();
    let rank = ranks_of(child.id()).pop().unwrap();
    assert!(Command::new("kill").args(["-TERM", &rank]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.matches("checkpoint-").count() == 1, "{told}");
    let step = metrics(place).last().unwrap()["step"].as_u64().unwrap();
    assert!(step < 300 && newest(place) == Some(step), "{told}");
    let kept = place.join("kept");
    assert!(Command::new("cp").arg("-r").args([&out, &kept]).status().unwrap().success());

    let resumed = [&["--resume"], &more[..]].concat();
    done(&on(mpirun(test).unwrap(), 2, &path, &resumed).output().unwrap(), place);
    assert!(metrics(place) == all && weights(place) == whole, "a resumed run ends elsewhere");
    std::fs::remove_dir_all(&out).unwrap();
    std::fs::rename(&kept, &out).unwrap();
    done(&run(&path, &["--resume", "--set", steps]), place);
    assert_eq!(metrics(place).last().unwrap()["step"], 300);
}

/// Preferences from an adapter that is trained on, which the reference has as well, and an adapter that begins from the weights:
/// models that are shared behind their beginning.
#[test]
fn models_that_are_there_at_first_are_shared_as_well() {
    let test = "models_that_are_there_at_first_are_shared_as_well";
    let (adapter, first) = place_of("lora", KINDS[1].1);
    done(&run(&first, &[]), adapter.path());
    let folder = adapter.path().join("out/adapter");
    let trained_on = format!("[adapter.peft]\npath = \"{}\"\n[objective.dpo]\n", folder.display());
    let saved =
        "[adapter.lora]\nrank = 4\nuse_dora = true\nmodules_to_save = [\"embed_tokens\"]\n[objective.dpo]\n";
    for sections in [&trained_on, saved] {
        let (folder, path) = place_of("dpo", sections);
        let place = folder.path();
        done(&run(&path, &["--set", "train.gradient_accumulation_steps=4"]), place);
        let (expected, alone) = (metrics(place), weights(place));
        std::fs::remove_dir_all(place.join("out")).unwrap();
        let Some(mpirun) = mpirun(test) else { return };
        let more =
            ["--set", "parallel.data_parallel_shard=2", "--set", "train.gradient_accumulation_steps=2"];
        done(&on(mpirun, 2, &path, &more).output().unwrap(), place);
        assert_equal_runs(sections, (&metrics(place), &weights(place)), (&expected, &alone));
    }
}

/// One that is killed, as the system does when memory is out, ends the other within a bounded time.
#[test]
fn a_rank_that_is_killed_ends_the_run() {
    let (folder, path) = place_of("full", "");
    let test = "a_rank_that_is_killed_ends_the_run";
    let Some(child) = begun(folder.path(), &path, &["--set", "train.steps=100000"], test) else { return };
    let ranks = ranks_of(child.id());
    assert!(Command::new("kill").args(["-KILL", &ranks[1]]).status().unwrap().success());
    let began = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success() && began.elapsed() < Duration::from_mins(1));
    let is_alive = |it: &String| Path::new("/proc").join(it).join("stat").exists();
    wait_for("the other rank's end", || !ranks.iter().any(is_alive));
}

/// The step of the newest checkpoint.
fn newest(place: &Path) -> Option<u64> {
    let names =
        std::fs::read_dir(place.join("out")).ok()?.filter_map(|it| it.ok()?.file_name().into_string().ok());
    names.filter_map(|it| it.strip_prefix("checkpoint-")?.parse().ok()).max()
}

/// One that stops and is not gone ends the other as well, which names it and the checkpoint to go on from.
#[test]
fn a_rank_that_stops_is_named_with_the_last_checkpoint() {
    let (folder, path) = place_of("full", "");
    let place = folder.path();
    let Some(mpirun) = mpirun("a_rank_that_stops_is_named_with_the_last_checkpoint") else { return };
    let mut more = vec!["--quiet"];
    for it in [
        "train.steps=100000",
        "checkpoint.every_steps=2",
        "parallel.data_parallel_shard=2",
        "parallel.heartbeat_timeout_seconds=2",
    ] {
        more.extend(["--set", it]);
    }
    let mut command = on(mpirun, 2, &path, &more);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a checkpoint", || newest(place).is_some());
    let rank = ranks_of(child.id()).pop().unwrap();
    assert!(Command::new("kill").args(["-STOP", &rank]).status().unwrap().success());
    let began = Instant::now();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && began.elapsed() < Duration::from_mins(1), "{told}");
    let named = format!("(process {rank} on ");
    assert!(told.contains(&named) && told.contains("has given no sign of life for"), "{told}");
    let newest = place.join("out").join(format!("checkpoint-{}", newest(place).unwrap()));
    assert!(told.contains(&format!("last good checkpoint: `{}`", newest.display())), "{told}");
}

/// Two machines, as far as the network can tell; skipped, and said so, where they can't be made.
fn two_machines(test: &str) -> Option<Namespaces> {
    mpirun(test)?;
    let found = Namespaces::new();
    if found.is_none() {
        eprintln!("SKIPPED {test}: network namespaces can't be made here");
    }
    found
}

/// A rank on the first of two machines and one on the second.
fn on_both(machines: &Namespaces, path: &Path, settings: &[&str]) -> Command {
    let mut command = machines.mpirun();
    command.args([env!("CARGO_BIN_EXE_fthost"), "run"]).arg(path).env("RAYON_NUM_THREADS", "1");
    settings.iter().for_each(|it| {
        command.args(["--set", it]);
    });
    command
}

/// By TCP between two machines, everything and a share each.
#[test]
fn ranks_of_two_machines_train_what_one_process_does() {
    let Some(machines) = two_machines("ranks_of_two_machines_train_what_one_process_does") else { return };
    let (folder, path) = place_of("lora", KINDS[1].1);
    let place = folder.path();
    done(&run(&path, &["--set", "train.gradient_accumulation_steps=4"]), place);
    let (expected, alone) = (metrics(place), weights(place));
    for parallel in ["parallel.data_parallel_shard=1", "parallel.data_parallel_shard=2"] {
        std::fs::remove_dir_all(place.join("out")).unwrap();
        let output =
            on_both(&machines, &path, &[parallel, "train.gradient_accumulation_steps=2"]).output().unwrap();
        done(&output, place);
        assert_equal_runs(parallel, (&metrics(place), &weights(place)), (&expected, &alone));
    }
}

/// The cable is pulled: both machines' ranks end by themselves, and say what they waited for.
#[test]
fn machines_that_lose_each_other_end() {
    let Some(machines) = two_machines("machines_that_lose_each_other_end") else { return };
    let (folder, path) = place_of("full", "");
    let place = folder.path();
    let settings = [
        "train.steps=100000",
        "parallel.data_parallel_shard=2",
        "parallel.timeout_seconds=3",
        "checkpoint.every_steps=3",
    ];
    let mut command = on_both(&machines, &path, &settings);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a checkpoint", || newest(place).is_some());
    machines.disconnect();
    wait_for("the end of both ranks", || {
        let found = Command::new("pgrep").args(["-x", "fthost", "-a"]).output().unwrap();
        !String::from_utf8_lossy(&found.stdout).contains(&*path.to_string_lossy())
    });
    drop(machines);
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(" has waited ") && told.contains(" s for "), "{told}");
    assert!(told.contains("last good checkpoint: `"), "{told}");
}

/// What is wrong on every rank is said once; what ranks can't do together yet is said by name.
#[test]
fn what_is_wrong_is_said_once() {
    let (folder, path) = place_of("full", "");
    let bad = |more: &[&str]| {
        let output = on(mpirun("what_is_wrong_is_said_once")?, 2, &path, more).output().unwrap();
        assert!(!output.status.success());
        Some(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let Some(told) = bad(&["--set", "train.steps=0"]) else { return };
    assert_eq!(told.matches("train.steps").count(), 1, "{told}");
    let told = bad(&[
        "--set",
        "train.gradient_release=true",
        "--set",
        "train.max_grad_norm=0",
        "--set",
        "train.gradient_accumulation_steps=1",
    ])
    .unwrap();
    assert!(told.contains("not known on several ranks: `train.gradient_release`"), "{told}");
    assert!(!folder.path().join("out/model").exists());
}
