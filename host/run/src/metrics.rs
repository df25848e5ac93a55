//! `metrics.jsonl`: one object an optimizer step, under TRL's names.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use fthost_engine::train::StepMetrics;
use serde_json::json;

use crate::error::{Result, RunError};

/// Where figures go as they arise.
pub struct MetricSink {
    path: PathBuf,
    file: BufWriter<File>,
}

impl MetricSink {
    /// A fresh `metrics.jsonl` in `folder`.
    ///
    /// # Errors
    /// A file that can't be created.
    pub fn create(folder: &Path) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let file = File::create(&path).map_err(|source| output(&path, source))?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    /// Writes one step's line. No wall clock: the same run writes the same bytes.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn record(&mut self, step: u64, epoch: u64, metrics: &StepMetrics) -> Result<()> {
        let line = json!({
            "step": step,
            "epoch": epoch,
            "loss": metrics.loss,
            "grad_norm": metrics.grad_norm,
            "learning_rate": metrics.learning_rate,
            "entropy": metrics.entropy,
            "mean_token_accuracy": metrics.mean_token_accuracy,
            "num_tokens": metrics.num_tokens,
        });
        let written = writeln!(self.file, "{line}").and_then(|()| self.file.flush());
        written.map_err(|source| output(&self.path, source))
    }
}

fn output(path: &Path, source: std::io::Error) -> RunError {
    RunError::Output { path: path.display().to_string(), source }
}
