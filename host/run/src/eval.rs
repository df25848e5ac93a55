//! Evaluation without training: the held-out rows of a run file, for the base model or with an adapter.

use fthost_data::{DataError, TokenRows, Tokenizer};
use fthost_engine::adapters::peft;
use fthost_engine::checkpoint::{LoadConfig, load_model_as};
use fthost_engine::device::{self, DeviceKind};
use fthost_engine::models::DecoderConfig;
use fthost_engine::train::{TrainState, attach_reward_head};

use crate::adapter_base::{load_adapter, load_adapters};
use crate::config::{Adapter, RunConfig};
use crate::dataset::{self, OnBadRow};
use crate::error::{Result, RunError};
use crate::evaluate::{Evaluation, HeldOutRows};
use crate::judge::{Judge, JudgeSettings, Judgement};
use crate::method::Method;
use crate::models::combine::Weighted;
use crate::plugins::Plugins;
use crate::rows::encoded;
use crate::{models, reward_model};

/// Loss over the held-out rows, and what plugins say of the answers to them.
///
/// # Errors
/// A run file that holds nothing out; everything that stops an evaluation of a run.
pub fn run(
    config: &RunConfig,
    plugins: &mut Plugins,
    adapters: &[Weighted],
    device: DeviceKind,
) -> Result<(Evaluation, Option<Judgement>)> {
    let config = &models::found(config)?;
    let opened = device::open(device)?;
    let tokenizer = Tokenizer::load(config.model.folder())?;
    let max_length = config.data.max_length.min(room(config, adapters));
    reward_model::open(config, plugins, device)?;
    // Held-out rows are never augmented.
    plugins.augmenters.clear();
    let dataset = dataset::load(&config.data, plugins)?;
    let (mut examples, mut rows) = (Vec::with_capacity(dataset.held_out.len()), TokenRows::default());
    for example in dataset.held_out {
        match (encoded(&config.objective, &example, &tokenizer, max_length), config.data.on_bad_row) {
            (Ok(sequences), _) => {
                sequences.iter().for_each(|it| rows.push(it));
                examples.push(config.objective.asked(example));
            }
            (Err(DataError::BadRow { .. }), OnBadRow::Skip) => {}
            (Err(error), _) => return Err(error.into()),
        }
    }
    let held_out = HeldOutRows::new(examples, &rows, config.laying(), None);
    let stored = LoadConfig { to_train: false, ..config.load_config() };
    let mut model = load_model_as(config.model.folder(), &opened, &stored)?;
    model.compute_dtype = config.train.compute_dtype;
    let mut reference = model.clone();
    if let Some(Adapter::Peft { path }) = &config.adapter {
        load_adapter(&mut reference, path, config.model.folder())?;
    }
    let adapter = load_adapters(&mut model, adapters, config.model.folder())?;
    if config.objective.has_margins() {
        attach_reward_head(&mut model);
    }
    let state = TrainState::new(model, adapter);
    let mut evaluation =
        held_out.evaluate(&state, &Method::of(config, &reference, false))?.ok_or(RunError::NothingHeldOut)?;
    let asked = plugins.ask_the_reference().then(|| reference.clone());
    let asking = JudgeSettings { eval: &config.eval, judges: &config.judges, device, steps: 0 };
    let mut judge = Judge::new(plugins, &tokenizer, asking, &held_out.examples)?;
    let judgement = judge.judge(plugins, &state.model, asked, state.step)?;
    if let Some(judgement) = &judgement {
        evaluation.add(judgement);
    }
    Ok((evaluation, judgement))
}

/// Tokens of a text at most beside the adapters' virtual tokens. What can't be read is told by whoever loads it.
fn room(config: &RunConfig, adapters: &[Weighted]) -> usize {
    let Ok(shape) = DecoderConfig::read(&config.model.folder().join("config.json")) else {
        return usize::MAX;
    };
    let read = adapters.iter().filter_map(|it| peft::read_adapter_config(&it.folder, &shape).ok());
    let before = read.map(|it| it.virtual_tokens()).max().unwrap_or(0);
    shape.context_length().saturating_sub(before)
}
