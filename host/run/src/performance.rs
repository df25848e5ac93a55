//! `performance.jsonl`: what each optimizer step cost, in time and memory, and what plugins have used up at each
//! evaluation.
//!
//! Apart from `metrics.jsonl`, whose bytes are the same for the same run.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{Result, RunError};
use crate::event::Stepped;
use crate::plugins::PluginUsage;

/// In the run's output folder.
pub const FILE: &str = "performance.jsonl";

/// The figures of a step's cost, in a fixed order; memory is absent where the system does not tell.
pub fn figures(stepped: &Stepped) -> Vec<(&'static str, Value)> {
    let mut figures = vec![
        ("time/data_loading_s", json!(stepped.data_loading.as_secs_f64())),
        ("time/step_s", json!(stepped.elapsed.as_secs_f64())),
        ("tokens_per_second", json!(stepped.tokens_per_second)),
    ];
    if let Some(times) = stepped.rollout {
        let of_rollout = [
            ("time/generate_s", times.generate),
            ("time/reward_s", times.reward),
            ("time/wait_s", times.wait),
            ("time/train_s", stepped.elapsed.saturating_sub(times.generate + times.wait)),
        ];
        figures.extend(of_rollout.map(|(name, time)| (name, json!(time.as_secs_f64()))));
    }
    figures.extend(stepped.peak_rss_bytes.map(|it| ("peak_rss_bytes", json!(it))));
    figures
}

/// Writes a line a step.
pub struct PerformanceLog {
    path: PathBuf,
    file: File,
}

impl PerformanceLog {
    /// Goes on after the lines of the first `kept` steps; a run that begins keeps none.
    ///
    /// # Errors
    /// Files that can't be read or written.
    pub fn open(folder: &Path, kept: u64) -> Result<Self> {
        let path = folder.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(RunError::output(&path))?,
        };
        let step = |line: &str| serde_json::from_str::<Value>(line).ok()?["step"].as_u64();
        let lines = text.lines().filter(|line| step(line).is_some_and(|it| it <= kept));
        let text: String = lines.flat_map(|it| [it, "\n"]).collect();
        let file = std::fs::write(&path, text).and_then(|()| OpenOptions::new().append(true).open(&path));
        Ok(Self { file: file.map_err(RunError::output(&path))?, path })
    }

    /// Writes a step's line.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn stepped(&mut self, stepped: &Stepped) -> Result<()> {
        let mut line: Map<String, Value> = Map::new();
        line.insert("step".into(), json!(stepped.step));
        line.extend(figures(stepped).into_iter().map(|(name, value)| (name.to_string(), value)));
        writeln!(self.file, "{}", Value::Object(line)).map_err(RunError::output(&self.path))
    }

    /// Writes what plugins have used up by an evaluation at `step`, by plugin.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn judged(&mut self, step: u64, usage: &[PluginUsage]) -> Result<()> {
        let plugins: Map<String, Value> =
            usage.iter().map(|it| (it.plugin.name.clone(), json!(it.usage))).collect();
        writeln!(self.file, "{}", json!({"step": step, "plugins": plugins}))
            .map_err(RunError::output(&self.path))
    }
}
