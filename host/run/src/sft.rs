//! Supervised fine-tuning, from files to an adapter or a merged model.

use std::path::PathBuf;

use fthost_data::sampler::Windows;
use fthost_data::{Batch, DataError, Sequence, Tokenizer, encode, rows, source};
use fthost_engine::adapters::merge::save_merged;
use fthost_engine::adapters::{attach_lora, peft};
use fthost_engine::checkpoint::load_model;
use fthost_engine::device::{self, DeviceKind};
use fthost_engine::train::{StepConfig, StepMetrics, TrainState, step};

use crate::config::{Adapter, DataConfig, OnBadRow, Optimizer, RunConfig};
use crate::error::{Result, RunError};
use crate::metrics::MetricSink;

/// What a run left behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Rows learned from.
    pub rows: usize,
    /// Rows left out because of `on_bad_row = "skip"`.
    pub skipped: usize,
    /// Metrics of the last step.
    pub last: Option<StepMetrics>,
    /// The PEFT folder, or the model's folder after full fine-tuning.
    pub result: PathBuf,
}

/// Runs the whole recipe; `progress` is told of every step.
///
/// # Errors
/// Everything [`RunError`] knows.
pub fn run(
    config: &RunConfig,
    device: DeviceKind,
    progress: &mut dyn FnMut(u64, &StepMetrics),
) -> Result<Summary> {
    let tokenizer = Tokenizer::load(&config.model.path)?;
    let (sequences, skipped) = load_sequences(&config.data, &tokenizer)?;
    let mut model = load_model(&config.model.path, &device::open(device)?)?;
    let adapter = match &config.adapter {
        Some(Adapter::Lora(lora)) => {
            attach_lora(&mut model, lora, config.train.seed)?;
            Some(lora.clone())
        }
        None => None,
    };
    let folder = &config.output.dir;
    std::fs::create_dir_all(folder)
        .map_err(|source| RunError::Output { path: folder.display().to_string(), source })?;
    let mut sink = MetricSink::create(folder)?;
    let mut state = TrainState::new(model, adapter);
    state.seed = config.train.seed;
    let mut last = None;

    let train = &config.train;
    let Optimizer::Adamw(adamw) = &config.optimizer;
    let mut windows =
        Windows::new(sequences.len(), train.micro_batch_size * train.gradient_accumulation_steps, train.seed);
    while state.step < train.steps {
        let Some(window) = windows.next() else { break };
        let micro_batches: Vec<Batch> = window
            .chunks(train.micro_batch_size)
            .map(|rows| Batch::new(rows.iter().map(|&row| &sequences[row])))
            .collect();
        let step_config = StepConfig {
            adamw: adamw.clone(),
            learning_rate: adamw.learning_rate * config.schedule.factor(state.step, train.steps),
            max_grad_norm: (train.max_grad_norm > 0.0).then_some(train.max_grad_norm),
            activation_checkpointing: train.activation_checkpointing,
        };
        let metrics = step(&mut state, &micro_batches, &step_config)?;
        sink.record(state.step, windows.epoch(), &metrics)?;
        progress(state.step, &metrics);
        last = Some(metrics);
    }

    let result = save(&mut state, config)?;
    Ok(Summary { rows: sequences.len(), skipped, last, result })
}

fn save(state: &mut TrainState, config: &RunConfig) -> Result<PathBuf> {
    let base = &config.model.path;
    if let Some(lora) = state.adapter.clone() {
        let folder = config.output.dir.join("adapter");
        peft::save_adapter(&mut state.model, &lora, &base.to_string_lossy(), &folder)?;
        return Ok(folder);
    }
    let folder = config.output.dir.join("model");
    save_merged(&mut state.model, base, &folder)?;
    Ok(folder)
}

/// Every usable row as tokens, and the number of those left out.
fn load_sequences(config: &DataConfig, tokenizer: &Tokenizer) -> Result<(Vec<Sequence>, usize)> {
    let (mut sequences, mut skipped) = (Vec::new(), 0);
    for file in &config.files {
        for row in source::read_rows(file)? {
            let sequence =
                row.and_then(rows::example).and_then(|it| encode::encode(&it, tokenizer, config.max_length));
            match (sequence, config.on_bad_row) {
                (Ok(sequence), _) => sequences.push(sequence),
                (Err(DataError::BadRow { .. }), OnBadRow::Skip) => skipped += 1,
                (Err(error), _) => return Err(error.into()),
            }
        }
    }
    if sequences.is_empty() {
        let path = config.files.first().cloned().unwrap_or_default();
        return Err(DataError::Damaged { path, reason: "no usable row in `data.files`".into() }.into());
    }
    Ok((sequences, skipped))
}
