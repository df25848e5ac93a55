//! TensorBoard's own reader opens our event files and reads what `metrics.jsonl` says.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::workplace::{RUN_FILE, run, said, workplace};

const READER: &str = r#"
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
tags = events.Tags()["scalars"]
print(json.dumps({tag: [[it.step, it.value] for it in events.Scalars(tag)] for tag in tags}))
"#;

/// Step and value by tag, as `metrics.jsonl` holds them.
fn written(out: &Path) -> BTreeMap<String, Vec<(u64, f32)>> {
    let mut tags: BTreeMap<String, Vec<(u64, f32)>> = BTreeMap::new();
    for line in std::fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines() {
        let line: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        let step = line["step"].as_u64().unwrap();
        // An evaluation's epoch stands in its step's line already.
        let (part, skipped) = if line.contains_key("loss") { ("train", 1) } else { ("eval", 2) };
        for (name, value) in line.iter().skip(skipped) {
            let tag = format!("{part}/{}", name.trim_start_matches("eval_"));
            tags.entry(tag).or_default().push((step, value.as_f64().unwrap() as f32));
        }
    }
    tags
}

/// Oracle: `tensorboard.backend.event_processing`. A run that was resumed twice shows each step once.
#[test]
fn tensorboard_reads_what_was_written() {
    let Ok(python) = std::env::var("FTHOST_TEST_PYTHON") else {
        println!("SKIPPED: FTHOST_TEST_PYTHON names no Python with tensorboard");
        return;
    };
    let text = RUN_FILE
        .replace("steps = 12", "steps = 8")
        .replace("[data]", "[data]\nheld_out.rows = 2\non_bad_row = \"skip\"");
    let (folder, path) =
        workplace(&format!("{text}\n[eval]\nevery_steps = 3\n[checkpoint]\nevery_steps = 3\n"));
    for more in [&[][..], &["--resume"], &["--resume"]] {
        let output = run(&path, more);
        assert!(output.status.success(), "{}", said(&output, folder.path()));
    }
    let out = folder.path().join("out");
    let files = std::fs::read_dir(&out).unwrap();
    let count =
        files.filter(|it| it.as_ref().unwrap().file_name().to_str().unwrap().contains("tfevents")).count();
    assert_eq!(count, 3, "each part of the run writes a file of its own");
    let output = Command::new(python).args(["-c", READER]).arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: BTreeMap<String, Vec<(u64, f32)>> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(read, written(&out));
    assert_eq!(read["train/loss"].len(), 8);
    assert_eq!(read["eval/loss"].iter().map(|it| it.0).collect::<Vec<_>>(), [0, 3, 6, 8]);
}
