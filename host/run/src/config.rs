//! The run file. Composes what is configured beside the code it configures; nothing else does.

use std::path::{Path, PathBuf};

use fthost_engine::adapters::LoraConfig;
use fthost_engine::optim::{AdamWConfig, ScheduleConfig};
use fthost_engine::train::ActivationCheckpointing;
use serde::{Deserialize, Serialize};

use crate::error::{Result, RunError};

/// A whole run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// What is fine-tuned.
    pub model: ModelConfig,
    /// What it learns from.
    pub data: DataConfig,
    /// What is trained; every weight if absent.
    #[serde(default)]
    pub adapter: Option<Adapter>,
    /// What is minimised.
    #[serde(default)]
    pub objective: Objective,
    /// The optimizer.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// The learning rate's course.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// How long and how much at a time.
    pub train: TrainConfig,
    /// Where results go.
    pub output: OutputConfig,
}

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A folder in Hugging Face's layout.
    pub path: PathBuf,
}

/// What a row that can't be used means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// The run ends, naming the row.
    #[default]
    Stop,
    /// The row is left out and counted.
    Skip,
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// JSONL, JSON, CSV or Parquet.
    pub files: Vec<PathBuf>,
    /// Tokens of a row at most; its end is cut off.
    #[serde(default = "default_max_length")]
    pub max_length: usize,
    /// What a row that can't be used means.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
}

fn default_max_length() -> usize {
    1024
}

/// `[adapter.<kind>]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Adapter {
    /// Low-rank adaptation.
    Lora(LoraConfig),
}

/// `[objective.<kind>]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Objective {
    /// Supervised fine-tuning.
    Sft {},
}

impl Default for Objective {
    fn default() -> Self {
        Self::Sft {}
    }
}

/// `[optimizer.<kind>]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Optimizer {
    /// AdamW with torch's semantics.
    Adamw(AdamWConfig),
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adamw(AdamWConfig::default())
    }
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Rows whose graph exists at one time.
    pub micro_batch_size: usize,
    /// Micro-batches an optimizer step.
    pub gradient_accumulation_steps: usize,
    /// Decides the order of rows and the adapter's first values.
    pub seed: u64,
    /// Bound of the gradient's norm; 0 is no clipping.
    pub max_grad_norm: f64,
    /// What is kept between forward and backward.
    pub activation_checkpointing: ActivationCheckpointing,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 100,
            micro_batch_size: 8,
            gradient_accumulation_steps: 1,
            seed: 0,
            max_grad_norm: 1.0,
            activation_checkpointing: ActivationCheckpointing::Off,
        }
    }
}

/// `[output]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputConfig {
    /// Folder for adapter and metrics.
    pub dir: PathBuf,
}

impl RunConfig {
    /// Reads a run file and applies `key=value` overrides, whose values are TOML or bare text.
    ///
    /// Paths stand relative to the run file.
    ///
    /// # Errors
    /// Unknown keys, wrong types, and every impossible value at once.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let fail = |problems| RunError::Config { path: path.display().to_string(), problems };
        let text = std::fs::read_to_string(path).map_err(|error| fail(vec![error.to_string()]))?;
        let mut config: Self = if overrides.is_empty() {
            toml::from_str(&text).map_err(|error| fail(vec![error.to_string().trim_end().to_string()]))?
        } else {
            let mut table: toml::Table = toml::from_str(&text)
                .map_err(|error| fail(vec![error.to_string().trim_end().to_string()]))?;
            for pair in overrides {
                set(&mut table, pair).map_err(|problem| fail(vec![problem]))?;
            }
            table
                .try_into()
                .map_err(|error: toml::de::Error| fail(vec![error.to_string().trim_end().to_string()]))?
        };
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(fail(problems));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        config.model.path = folder.join(&config.model.path);
        config.output.dir = folder.join(&config.output.dir);
        config.data.files.iter_mut().for_each(|file| *file = folder.join(&file));
        Ok(config)
    }

    /// Every impossible value, each with its full key.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let under = |prefix: &str, found: Vec<String>| -> Vec<String> {
            found.iter().map(|it| it.replacen('`', &format!("`{prefix}."), 1)).collect()
        };
        if let Some(Adapter::Lora(lora)) = &self.adapter {
            problems.extend(under("adapter.lora", lora.problems()));
        }
        let Optimizer::Adamw(adamw) = &self.optimizer;
        problems.extend(under("optimizer.adamw", adamw.problems()));
        let counts = [
            ("data.max_length", self.data.max_length as u64),
            ("train.steps", self.train.steps),
            ("train.micro_batch_size", self.train.micro_batch_size as u64),
            ("train.gradient_accumulation_steps", self.train.gradient_accumulation_steps as u64),
        ];
        problems.extend(
            counts.iter().filter(|it| it.1 == 0).map(|it| format!("`{}` must be > 0, got `0`", it.0)),
        );
        let bound = self.train.max_grad_norm;
        if !(bound >= 0.0 && bound.is_finite()) {
            problems.push(format!("`train.max_grad_norm` must be >= 0, got `{bound}`"));
        }
        if self.data.files.is_empty() {
            problems.push("`data.files` names no file".into());
        }
        problems
    }
}

/// Sets `a.b.c=value` in `table`.
fn set(table: &mut toml::Table, pair: &str) -> std::result::Result<(), String> {
    let (key, value) = pair.split_once('=').ok_or(format!("`--set {pair}` must be `key=value`"))?;
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
    let value = match parsed {
        Ok(mut table) => table.remove("value").unwrap_or(toml::Value::String(value.into())),
        Err(_) => toml::Value::String(value.to_string()),
    };
    let mut path: Vec<&str> = key.split('.').collect();
    let last = path.pop().unwrap_or_default();
    let mut inner = table;
    for part in path {
        let entry = inner.entry(part.to_string()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        inner = entry.as_table_mut().ok_or(format!("`--set {key}`: `{part}` is not a table"))?;
    }
    inner.insert(last.to_string(), value);
    Ok(())
}
