//! A folder with a tiny model, rows and a run file, for tests that run the program in it.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::json;

use super::fthost;
use super::model::write_model;

/// Twelve steps of four rows on an adapter.
pub const RUN_FILE: &str = r#"
[model]
path = "model"

[data]
files = ["rows.jsonl"]
cache = false

[adapter.lora]
rank = 4
dropout = 0.1

[optimizer.adamw]
learning_rate = 1e-2

[train]
steps = 12
micro_batch_size = 2
gradient_accumulation_steps = 2

[output]
dir = "out"
"#;

/// A folder with model, six rows (the third is unknown) and `run_file`; and the run file's path.
pub fn workplace(run_file: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    write_model(&folder.path().join("model"));
    let row =
        |i: u32| json!({"prompt": format!("What is {i} + 1?"), "completion": format!(" It is {}.", i + 1)});
    let rows: Vec<String> = (0..6)
        .map(|i| if i == 2 { json!({"question": "?"}).to_string() } else { row(i).to_string() })
        .collect();
    std::fs::write(folder.path().join("rows.jsonl"), rows.join("\n")).unwrap();
    let path = folder.path().join("run.toml");
    std::fs::write(&path, run_file).unwrap();
    (folder, path)
}

/// `fthost run` on the run file at `path`.
pub fn run(path: &Path, more: &[&str]) -> Output {
    let mut args = vec!["run", path.to_str().unwrap()];
    args.extend(more);
    fthost(&args)
}

/// What the program printed, the temporary folder's name left out.
pub fn said(output: &Output, folder: &Path) -> String {
    let bytes = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    String::from_utf8_lossy(bytes).replace(&format!("{}/", folder.display()), "")
}
