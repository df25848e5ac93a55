//! What is trained, in a checkpoint: whole tensors of one process, as others read them, or what ranks have of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use super::shards::INDEX;
use super::stretches::{Index, Saved};
use super::write::{LazyTensor, StoredDtype, write_lazy};
use crate::adapters::peft::{self, save_adapter};
use crate::error::{EngineError, Result};
use crate::models::parameter::FROZEN;
use crate::models::prefix::is_of_projection;
use crate::models::score::{SCORE, SCORE_BIAS};
use crate::models::{CausalLm, Parameter, ScoreRole};
use crate::optim::MomentStorage;
use crate::optim::adamw::Moments;
use crate::train::TrainState;
use crate::train::state::VALUE_MODEL;

pub(super) const OPTIMIZER: &str = "optimizer.safetensors";
const FULL_WEIGHTS: &str = "model.safetensors";
const VALUES: &str = "value.safetensors";
const PROJECTION: &str = "prefix_projection.safetensors";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Writes everything that is trained into `folder`; gives the files' names.
pub(super) fn write(state: &TrainState, base: &str, folder: &Path) -> Result<Vec<String>> {
    let mut state = state.clone();
    let (mut of_model, mut of_values, mut of_projection) = (Vec::new(), Vec::new(), Vec::new());
    let is_adapter = state.adapter.is_some();
    let is_reward = state.model.score.as_ref().is_some_and(|it| it.role == ScoreRole::Reward);
    state.visit_trained(&mut |name, parameter| {
        let is_score = name == SCORE || name == SCORE_BIAS;
        let beside = name.starts_with(VALUE_MODEL) || is_score && !is_reward;
        // An adapter's own weights are written as PEFT has them.
        let tensors = match (beside, is_adapter) {
            (true, _) => &mut of_values,
            (false, true) if is_of_projection(name) => &mut of_projection,
            (false, true) => return,
            (false, false) => &mut of_model,
        };
        let (shape, values) = (parameter.dims(), parameter.flat());
        let values = move || values.clone().try_into_vec_as::<f32>().expect("a float tensor is read as f32");
        tensors.push(LazyTensor::new(name.to_string(), shape, StoredDtype::F32, values));
    });
    let mut written = match &state.adapter {
        Some(adapter) => {
            save_adapter(&mut state.model, adapter, base, folder)?;
            vec![ADAPTER_WEIGHTS, ADAPTER_CONFIG]
        }
        None => {
            write_lazy(&folder.join(FULL_WEIGHTS), of_model)?;
            vec![FULL_WEIGHTS]
        }
    };
    for (name, tensors) in [(VALUES, of_values), (PROJECTION, of_projection)] {
        if !tensors.is_empty() {
            write_lazy(&folder.join(name), tensors)?;
            written.push(name);
        }
    }
    Ok(written.into_iter().map(String::from).collect())
}

/// The model with the whole adapter, of a model that ranks share and have an adapter on, on the first rank: all take part.
pub(super) fn whole_adapter(state: &TrainState) -> Option<CausalLm> {
    if state.model.shards.is_none() || state.adapter.is_none() {
        return None;
    }
    let model = state.model.with_trained();
    state.ranks.is_first().then_some(model)
}

/// Writes what [`whole_adapter`] has gathered in PEFT's layout into `folder`, for others: whoever goes on has the ranks' own files.
/// Gives the files' names.
pub(super) fn write_whole_adapter(
    state: &TrainState,
    gathered: Option<CausalLm>,
    base: &str,
    folder: &Path,
) -> Result<Vec<String>> {
    let (Some(mut model), Some(adapter)) = (gathered, &state.adapter) else { return Ok(Vec::new()) };
    save_adapter(&mut model, adapter, base, folder)?;
    Ok([ADAPTER_WEIGHTS, ADAPTER_CONFIG].map(String::from).to_vec())
}

/// Brings what is trained of `state`, or this rank's pieces of it, to what `files` of `checkpoint` hold.
pub(super) fn read(
    checkpoint: &Path,
    files: &BTreeMap<String, String>,
    state: &mut TrainState,
) -> Result<()> {
    if files.contains_key(INDEX) {
        let path = checkpoint.join(INDEX);
        let text = std::fs::read_to_string(&path).map_err(EngineError::io("read", &path))?;
        let index: Index =
            serde_json::from_str(&text).map_err(|source| EngineError::Json { path, source })?;
        return read_stretches(&Saved::shards(checkpoint, index)?, state, true);
    }
    let refuse = |reason: String| EngineError::Checkpoint { path: checkpoint.to_path_buf(), reason };
    let is_adapter = state.adapter.is_some();
    let weights = if is_adapter { ADAPTER_WEIGHTS } else { FULL_WEIGHTS };
    if !files.contains_key(weights) || !files.contains_key(OPTIMIZER) {
        return Err(refuse(format!("`{weights}` or `{OPTIMIZER}` is not among its files")));
    }
    if state.model.prefix_encoder.is_some() && !files.contains_key(PROJECTION) {
        return Err(refuse(format!("`{PROJECTION}`, which the prefix is made by, is not among its files")));
    }
    if is_adapter {
        // PEFT's layout has whole tensors under names of its own.
        let mesh = state.model.shards.as_ref().map(|it| it.mesh.clone());
        state.model.gather_trained();
        peft::read_into(&mut state.model, checkpoint)?;
        mesh.iter().for_each(|it| state.model.share(it));
    }
    let beside = [VALUES, PROJECTION].into_iter().filter(|it| files.contains_key(*it));
    let saved = Saved::whole(checkpoint, [weights, OPTIMIZER].into_iter().chain(beside))?;
    read_stretches(&saved, state, !is_adapter)
}

/// A stretch as it was saved.
struct Read {
    /// `None` where it has been read already.
    values: Option<Vec<f32>>,
    moments: Option<Moments>,
}

/// Reads every stretch that `state` has from `saved`, where all values are, unless `all` is false and some have been read.
fn read_stretches(saved: &Saved, state: &mut TrainState, all: bool) -> Result<()> {
    let storage = state.optimizer.storage.clone();
    let whole = state.lengths();
    let (mut found, mut outcome) = (BTreeMap::new(), Ok(()));
    state.visit_stretches(&mut |name, begin, parameter| {
        if outcome.is_err() {
            return;
        }
        let (stretch, device) = (begin..begin + parameter.length(), parameter.device());
        match read_stretch(saved, name, whole[name], &stretch, all, (&storage, &device)) {
            Err(error) => outcome = Err(error),
            Ok(Read { values, moments }) => {
                if let Some(values) = values {
                    put(values, parameter);
                }
                found.extend(moments.map(|it| (name.to_string(), it)));
            }
        }
    });
    outcome?;
    state.optimizer.moments = found;
    state.refill();
    Ok(())
}

/// On the device that the parameter is on.
fn put(values: Vec<f32>, parameter: Parameter<'_>) {
    let data = TensorData::new(values, parameter.dims());
    match parameter {
        Parameter::Vector(tensor) => *tensor = Tensor::from_data(data, &tensor.device()),
        Parameter::Matrix(tensor) => *tensor = Tensor::from_data(data, &tensor.device()),
        Parameter::Packed(_) => unreachable!("{FROZEN}"),
    }
}

fn read_stretch(
    saved: &Saved,
    name: &str,
    whole: usize,
    stretch: &Range<usize>,
    all: bool,
    (storage, device): (&MomentStorage, &Device),
) -> Result<Read> {
    // An adapter's own weights have been read, as PEFT has them.
    let is_there = all || saved.contains(name);
    let values = is_there.then(|| saved.values(name, whole, stretch)).transpose()?;
    Ok(Read { values, moments: saved.moments(name, whole, stretch, storage, device)? })
}
