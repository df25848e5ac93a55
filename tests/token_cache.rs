//! Tokenised rows that are kept for the next run: the same run, faster, and never rows of something else.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::root;
use crate::support::workplace::{RUN_FILE, said, workplace};

/// Rows held out and one that is skipped.
fn cached_workplace() -> (tempfile::TempDir, PathBuf) {
    let text = RUN_FILE
        .replace("steps = 12", "steps = 4")
        .replace("cache = false", "held_out.rows = 2\non_bad_row = \"skip\"");
    workplace(&format!("{text}\n[eval]\nevery_steps = 2\n"))
}

/// Runs with a cache folder of the workplace's own, which compiled components are lent to.
fn run(folder: &Path, more: &[&str]) -> Output {
    let cache = folder.join("cache");
    let own = cache.join("fthost");
    std::fs::create_dir_all(&own).unwrap();
    let theirs = fthost_run::place::cache_dir().join("components");
    #[cfg(unix)]
    if theirs.is_dir() && !own.join("components").exists() {
        std::os::unix::fs::symlink(theirs, own.join("components")).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_fthost"));
    command.arg("run").arg(folder.join("run.toml")).args(more);
    command.current_dir(root()).env("XDG_CACHE_HOME", cache).output().unwrap()
}

fn done(folder: &Path, more: &[&str]) -> String {
    let output = run(folder, more);
    assert!(output.status.success(), "{}", said(&output, folder));
    said(&output, folder)
}

fn cached(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder.join("cache/fthost/tokens")) else { return Vec::new() };
    entries.map(|it| it.unwrap().path()).collect()
}

/// What a run leaves that is the same twice, and what its lock file says of data and result.
fn left(out: &Path) -> (String, Vec<u8>, Value, Value) {
    let text = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let lock: Value = serde_json::from_str(&text("fthost.lock.json")).unwrap();
    let adapter = std::fs::read(out.join("adapter/adapter_model.safetensors")).unwrap();
    (text("metrics.jsonl"), adapter, lock["data"].clone(), lock["result"].clone())
}

/// Plan, skipped rows and preview: all that is printed before the first evaluation.
fn before_training(told: &str, out: &str) -> String {
    let end = told.find("evaluation after step 0").unwrap();
    told[..end].replace(&format!("output     {out}\n"), "")
}

#[test]
fn a_run_from_the_cache_is_the_run_that_filled_it() {
    let (folder, _) = cached_workplace();
    let folder = folder.path();
    let mut runs = Vec::new();
    for (out, more) in
        [("uncached", "data.cache=false"), ("first", "data.cache=true"), ("second", "data.cache=true")]
    {
        let told = done(folder, &["--set", more, "--set", &format!("output.dir={out}")]);
        assert!(told.contains("rows.jsonl:3: no known shape"), "{told}");
        runs.push((before_training(&told, out), left(&folder.join(out))));
        assert_eq!(cached(folder).len(), usize::from(out != "uncached"));
    }
    assert!(runs[0] == runs[1] && runs[1] == runs[2]);
    // The rows come from the cache, not from the files again.
    let file = cached(folder).pop().unwrap();
    let used = || std::fs::metadata(&file).unwrap().modified().unwrap();
    let before = used();
    done(folder, &["--dry-run"]);
    assert!(used() > before, "a file that is used is noted as used");
    assert_eq!(cached(folder).len(), 1);
}

#[test]
fn rows_of_plugins_come_from_the_cache_too() {
    let text = RUN_FILE
        .replace("cache = false", "held_out.rows = 3")
        .replace("steps = 12", "steps = 2")
        .replace("\n[model]", "plugin_sets = [\"json-extraction\"]\n[model]");
    let plugins =
        "[plugins.instruction-builder.config]\nformat = \"text\"\n[eval]\ngeneration.max_new_tokens = 4\n";
    let (place, _) = workplace(&format!("{text}\n{plugins}"));
    let folder = place.path();
    // Numbers that are no short decimals: what plugins are given must not change in the last bit.
    let row = |age: u32| json!({"text": format!("Ada is {age}."), "fields": {"name": "Ada", "age": 0.1 * f64::from(age)}});
    let rows: Vec<String> = (20..32).map(|age| row(age).to_string()).collect();
    std::fs::write(folder.join("rows.jsonl"), rows.join("\n")).unwrap();
    let run = |out: &str| {
        done(folder, &["--set", &format!("output.dir={out}")]);
        let judged =
            |step| std::fs::read_to_string(folder.join(out).join(format!("evaluations/step-{step}.json")));
        (left(&folder.join(out)), judged(0).unwrap(), judged(2).unwrap())
    };
    assert!(run("first") == run("second"));
    assert_eq!(cached(folder).len(), 1);
    let again = |setting: &str, expected: usize| {
        done(folder, &["--dry-run", "--set", setting]);
        assert_eq!(cached(folder).len(), expected, "{setting}");
    };
    again("plugins.constraint-augmenter.config.share=0.75", 2);
    again("plugins.instruction-builder.limits.fuel=1000000000", 3);
    again("train.seed=1", 4);
    again("plugins.json-match.config.allow_fence=true", 4);
}

#[test]
fn whatever_decides_the_rows_is_part_of_their_name() {
    let (place, _) = cached_workplace();
    let folder = place.path();
    let mut count = 0;
    let mut dry_run = |what: &str, more: &[&str], is_new: bool| {
        done(folder, &[&["--dry-run"], more].concat());
        count += usize::from(is_new);
        assert_eq!(cached(folder).len(), count, "{what}");
    };
    dry_run("the first run", &[], true);
    dry_run("the same", &[], false);
    dry_run("another layout of the same rows", &["--set", "data.packing=false"], false);
    dry_run("other steps", &["--set", "train.steps=7"], false);
    dry_run("a seed that no plugin draws from", &["--set", "train.seed=7"], false);
    dry_run("a length", &["--set", "data.max_length=15"], true);
    dry_run("another part held out", &["--set", "data.split_seed=1"], true);
    dry_run("less held out", &["--set", "data.held_out.rows=1"], true);
    let change = |name: &str, from: &str, to: &str| {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    };
    change("rows.jsonl", "What is 1", "What is 2");
    dry_run("a character of a row", &[], true);
    change("model/tokenizer_config.json", "{", "{\"bos_token\": \"<s>\", ");
    dry_run("the tokenizer's companions", &[], true);
    change("model/tokenizer.json", "{", "{ ");
    dry_run("the tokenizer's file", &[], true);
    std::fs::write(folder.join("model/chat_template.jinja"), "{{ messages[0].content }}").unwrap();
    dry_run("a chat template", &[], true);
    dry_run("the same", &[], false);
}

#[test]
fn a_cached_file_that_is_damaged_is_told_and_made_again() {
    let (place, _) = cached_workplace();
    let folder = place.path();
    done(folder, &["--set", "output.dir=whole"]);
    let whole = left(&folder.join("whole"));
    let file = cached(folder).pop().unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        bytes
    };
    let last = bytes.len() - 9;
    for (name, damaged, reason) in [
        ("foreign", b"GGUF".repeat(40), "it is no file of this cache"),
        ("empty", Vec::new(), "it is cut short"),
        ("short", bytes[..bytes.len() - 8].to_vec(), "its checksum is another"),
        ("older", with(8, 0), "its version is 0, not "),
        ("flipped", with(last, bytes[last] ^ 1), "its checksum is another"),
        ("described", with(70, bytes[70] ^ 1), "its checksum is another"),
    ] {
        std::fs::write(&file, damaged).unwrap();
        let told = done(folder, &["--set", &format!("output.dir={name}")]);
        let note = told.lines().next().unwrap();
        assert!(
            note.starts_with("cached rows can't be used and are made again: `") && note.contains(reason),
            "{told}"
        );
        assert!(left(&folder.join(name)) == whole, "{name}");
        assert!(std::fs::read(&file).unwrap() == bytes, "{name}: it is whole again");
    }
    let output = run(folder, &["--set", "output.dir=again", "--json"]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("{\"model\""), "nothing to note any more");
}

#[test]
fn a_cache_that_can_not_be_written_is_told_and_the_run_goes_on() {
    let (place, _) = cached_workplace();
    let folder = place.path();
    std::fs::create_dir_all(folder.join("cache/fthost")).unwrap();
    std::fs::write(folder.join("cache/fthost/tokens"), "in the way").unwrap();
    let told = done(folder, &[]);
    assert!(
        told.starts_with("cached rows can't be used") || told.starts_with("rows can't be cached: `"),
        "{told}"
    );
    assert!(folder.join("out/adapter").exists());
}
