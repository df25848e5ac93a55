//! `metrics.jsonl`, one object an optimizer step or evaluation under TRL's names, and the same figures for
//! TensorBoard, which is told besides what steps cost ([`crate::performance`]).
//!
//! `metrics.jsonl` holds no wall clock: the same run writes the same bytes, interrupted or not.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::{Result, RunError};
use crate::evaluate::Evaluation;
use crate::event::Stepped;
use crate::performance::{self, PerformanceLog};
use crate::plugins::PluginUsage;
use crate::tensorboard::EventWriter;

/// Where figures go as they arise.
pub struct MetricSink {
    /// Of the rank that writes.
    files: Option<Files>,
    evaluations: Vec<Evaluation>,
}

struct Files {
    path: PathBuf,
    lines: BufWriter<File>,
    events: EventWriter,
    performance: PerformanceLog,
}

impl MetricSink {
    /// No file: another rank writes the same figures.
    pub fn nowhere() -> Self {
        Self { files: None, evaluations: Vec::new() }
    }

    /// A fresh `metrics.jsonl` in `folder`.
    ///
    /// # Errors
    /// Files that can't be written.
    pub fn create(folder: &Path) -> Result<Self> {
        Self::open(folder, String::new(), 0, Vec::new())
    }

    /// `metrics.jsonl` cut back to what was there when the checkpoint of `step` was saved, whose last evaluation was
    /// after step `evaluated`.
    ///
    /// # Errors
    /// Files that can't be read or written.
    pub fn resume(folder: &Path, step: u64, evaluated: Option<u64>) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(RunError::output(&path))?,
        };
        let (mut kept, mut evaluations) = (String::new(), Vec::new());
        for line in text.lines() {
            // A line cut off by a crash is of a step that comes again.
            let Ok(Value::Object(figures)) = serde_json::from_str(line) else { continue };
            let at = figures.get("step").and_then(Value::as_u64).unwrap_or(u64::MAX);
            let evaluation = evaluation(at, &figures);
            let was_there =
                if evaluation.is_some() { evaluated.is_some_and(|it| at <= it) } else { at <= step };
            if was_there {
                kept.push_str(line);
                kept.push('\n');
                evaluations.extend(evaluation);
            }
        }
        Self::open(folder, kept, step + 1, evaluations)
    }

    /// Begins with the lines of `kept`; figures of step `purge_from` and later are new to TensorBoard.
    fn open(folder: &Path, kept: String, purge_from: u64, evaluations: Vec<Evaluation>) -> Result<Self> {
        let path = folder.join("metrics.jsonl");
        let fail = |source| RunError::Output { path: path.display().to_string(), source };
        // Whole or not at all: a crash here must not cost the figures of the steps before.
        let temporary = folder.join(".metrics.jsonl");
        std::fs::write(&temporary, kept).and_then(|()| std::fs::rename(&temporary, &path)).map_err(fail)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(fail)?;
        let events = EventWriter::create(folder, purge_from).map_err(RunError::output(folder))?;
        let performance = PerformanceLog::open(folder, purge_from.saturating_sub(1))?;
        let files = Files { path, lines: BufWriter::new(file), events, performance };
        Ok(Self { files: Some(files), evaluations })
    }

    /// Writes a step's figures.
    ///
    /// # Errors
    /// Files that can't be written.
    pub fn stepped(&mut self, stepped: &Stepped) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        files.write(stepped.step, stepped.epoch, figures(stepped).into_iter())?;
        files.performance.stepped(stepped)?;
        let cost = performance::figures(stepped).into_iter();
        let cost =
            cost.filter_map(|(name, value)| Some((format!("performance/{name}"), value.as_f64()? as f32)));
        files.events.scalars(stepped.step, cost).map_err(RunError::output(&files.path))
    }

    /// Writes an evaluation's figures.
    ///
    /// # Errors
    /// Files that can't be written.
    pub fn evaluated(&mut self, evaluation: &Evaluation, epoch: f64) -> Result<()> {
        self.evaluations.push(evaluation.clone());
        let Some(files) = &mut self.files else { return Ok(()) };
        let figures = evaluation.metrics.iter().map(|(name, value)| (name.clone(), json!(value)));
        files.write(evaluation.step, epoch, figures)
    }

    /// Writes what plugins have used up so far, which holds clocks: beside what steps cost, not among the figures.
    ///
    /// # Errors
    /// Files that can't be written.
    pub fn judged(&mut self, step: u64, usage: &[PluginUsage]) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        files.performance.judged(step, usage)?;
        let scalars = usage.iter().flat_map(|it| {
            let of = |key: &str, value: f64| {
                (format!("performance/plugins/{}/{key}", it.plugin.name), value as f32)
            };
            let usage = &it.usage;
            [of("guest_s", usage.guest_s), of("host_s", usage.host_s), of("calls", usage.calls as f64)]
        });
        files.events.scalars(step, scalars).map_err(RunError::output(&files.path))
    }

    /// Every evaluation of the run, those before it was resumed included.
    pub fn evaluations(&self) -> &[Evaluation] {
        &self.evaluations
    }
}

impl Files {
    fn write(&mut self, step: u64, epoch: f64, figures: impl Iterator<Item = (String, Value)>) -> Result<()> {
        let mut line: Map<String, Value> = Map::new();
        line.insert("step".into(), json!(step));
        line.insert("epoch".into(), json!(epoch));
        line.extend(figures);
        // An evaluation's epoch is its step's, which has been told.
        let told_before = if line.contains_key("loss") { 1 } else { 2 };
        let scalars = line.iter().skip(told_before).filter_map(|(name, value)| {
            let tag = match name.strip_prefix("eval_") {
                Some(rest) => format!("eval/{rest}"),
                None => format!("train/{name}"),
            };
            Some((tag, value.as_f64()? as f32))
        });
        self.events.scalars(step, scalars).map_err(RunError::output(&self.path))?;
        let written = writeln!(self.lines, "{}", Value::Object(line)).and_then(|()| self.lines.flush());
        written.map_err(RunError::output(&self.path))
    }
}

/// What a step's line says besides step and epoch, in order.
pub fn figures(stepped: &Stepped) -> Vec<(String, Value)> {
    let metrics = &stepped.metrics;
    let of_all =
        [("loss", metrics.loss), ("grad_norm", metrics.grad_norm), ("learning_rate", metrics.learning_rate)];
    let mut figures: Vec<(String, Value)> =
        of_all.into_iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
    figures.extend(metrics.figures.iter().map(|(name, value)| (name.clone(), json!(value))));
    figures.push(("num_tokens".to_string(), json!(stepped.num_tokens)));
    figures
}

/// The evaluation a line of figures tells of; a training step's line has a `loss`.
fn evaluation(step: u64, figures: &Map<String, Value>) -> Option<Evaluation> {
    if figures.contains_key("loss") {
        return None;
    }
    let metrics = figures.iter().filter(|it| *it.0 != "step" && *it.0 != "epoch");
    let metrics = metrics.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
    Some(Evaluation { step, metrics })
}
