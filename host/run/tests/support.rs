//! A workplace with a tiny random model, and runs in it.

use std::path::{Path, PathBuf};

use fthost_run::summary::Summary;
use fthost_run::train::{self, RunOptions};
use fthost_run::{Event, Plugins, Result, RunConfig};
use serde_json::Value;

#[path = "../../../tests/support/model.rs"]
mod model;

pub struct Workplace {
    folder: tempfile::TempDir,
}

const RUN_FILE: &str = r#"
[model]
path = "model"

[data]
files = ["rows.jsonl"]
cache = false
max_length = 48

[adapter.lora]
rank = 4

[optimizer.adamw]
learning_rate = 1e-2

[train]
steps = 9
micro_batch_size = 2
gradient_accumulation_steps = 2

[output]
dir = "out"
"#;

impl Workplace {
    /// `rows` rows and a run file that trains an adapter on them.
    pub fn new(rows: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        model::write_model(&folder.path().join("model"));
        std::fs::write(folder.path().join("rows.jsonl"), model::sums(rows)).unwrap();
        std::fs::write(folder.path().join("run.toml"), RUN_FILE).unwrap();
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self, overrides: &[&str]) -> RunConfig {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        RunConfig::read(&self.path("run.toml"), &overrides, &[]).unwrap()
    }

    /// Runs without plugins and without a listener.
    pub fn run(&self, overrides: &[&str]) -> Summary {
        self.watch(overrides, &RunOptions::default(), &mut |_| ()).unwrap()
    }

    pub fn watch(
        &self,
        overrides: &[&str],
        options: &RunOptions,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Summary> {
        self.watch_with(&mut Plugins::none(), overrides, options, observe)
    }

    /// As [`Workplace::watch`], with somebody in the roles.
    pub fn watch_with(
        &self,
        plugins: &mut Plugins,
        overrides: &[&str],
        options: &RunOptions,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<Summary> {
        train::run(&self.config(overrides), plugins, options, observe)
    }
}

/// The values of `name` in a run's `metrics.jsonl`, with their steps.
pub fn figures(out: &Path, name: &str) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|it| serde_json::from_str::<Value>(it).unwrap());
    lines.filter_map(|it| Some((it["step"].as_u64()?, it[name].as_f64()?))).collect()
}

/// Every tensor of a safetensors file, as f32.
pub fn tensors(path: &Path) -> Vec<(String, Vec<f32>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
    let mut all: Vec<_> = file.iter().map(|(name, view)| (name.to_string(), values(view.data()))).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}
