//! Training checkpoints: everything a run needs to go on as if it had never stopped.
//!
//! `checkpoint-<step>/` holds the adapter in PEFT's layout, or `model.safetensors` where everything is trained;
//! `value.safetensors` where values are learned beside the model, `prefix_projection.safetensors` where prefixes are made by a
//! network, which PEFT's layout has no place for; `optimizer.safetensors`; and `trainer_state.json`, which names the digest of
//! each file. A checkpoint is there whole or not at all: it is written under a temporary name, synced, and renamed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use fthost_data::digest::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::moments;
use super::safetensors::TensorFiles;
use super::write::{write_f32, write_whole};
use crate::adapters::peft::{self, save_adapter};
use crate::error::{EngineError, Result};
use crate::models::parameter::FROZEN;
use crate::models::prefix::is_of_projection;
use crate::models::score::{SCORE, SCORE_BIAS};
use crate::models::{Parameter, ScoreRole};
use crate::optim::adamw::Moments;
use crate::train::TrainState;
use crate::train::state::VALUE_MODEL;

const STATE: &str = "trainer_state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const FULL_WEIGHTS: &str = "model.safetensors";
const VALUES: &str = "value.safetensors";
const PROJECTION: &str = "prefix_projection.safetensors";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "checkpoint-";
const FORMAT: u32 = 1;

/// How far into the data a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataPosition {
    /// Whole passes over the training rows.
    pub epoch: u64,
    /// Rows of this pass that were trained on.
    pub rows: u64,
}

/// The best evaluation so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// `eval_loss`, ...
    pub metric: String,
    /// Its value.
    #[serde(with = "exact")]
    pub value: f64,
    /// The step it was measured after.
    pub step: u64,
}

/// A coefficient that changes as a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Penalty {
    /// As the next rollout uses it.
    #[serde(with = "exact")]
    pub coef: f64,
}

/// A number as text: what reads JSON may round its last bit, and a resumed run is to compare with the same value.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What a run carries besides weights and moments. Random draws are made from `seed` and `step`, so no
/// generator's state is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The run's seed.
    pub seed: u64,
    /// Where the data goes on.
    pub data: DataPosition,
    /// Tokens trained on.
    pub num_tokens: u64,
    /// The best evaluation.
    pub best: Option<Best>,
    /// Evaluations since the best one.
    pub evaluations_without_improvement: u64,
    /// The step after which the run was last evaluated.
    pub evaluated: Option<u64>,
    /// The coefficient of a penalty that follows a divergence, as it is now; `None` where there is none.
    #[serde(default)]
    pub penalty: Option<Penalty>,
    /// Digest of the base model.
    pub base_digest: String,
    /// Digest of every setting that changes what is computed.
    pub config_digest: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    step: u64,
    updates: u64,
    progress: Progress,
    /// SHA-256 of each file beside this one, in hexadecimal.
    files: BTreeMap<String, String>,
}

/// The name of the checkpoint after `step` steps.
pub fn folder_of(step: u64) -> String {
    format!("{PREFIX}{step}")
}

/// Writes `checkpoint-<step>` into `folder` and gives its path. `base` is what PEFT is told to load the model from.
///
/// The checkpoint that this state was saved to, or resumed from, is there already: it is never taken away to be written
/// again, because whoever is killed in between would have none. What it says of evaluations may be older than `progress`;
/// a run that is resumed from it evaluates again.
///
/// # Errors
/// Files that can't be written; nothing is left behind then.
pub fn save(folder: &Path, state: &mut TrainState, progress: &Progress, base: &str) -> Result<PathBuf> {
    let path = folder.join(folder_of(state.step));
    if state.last_checkpoint.as_ref() == Some(&path) && path.join(STATE).exists() {
        return Ok(path);
    }
    std::fs::create_dir_all(folder).map_err(EngineError::io("write", folder))?;
    let temporary = tempfile::Builder::new()
        .prefix(".checkpoint-")
        .tempdir_in(folder)
        .map_err(EngineError::io("write", folder))?;
    let inside = temporary.path();
    let weights = write_weights(state, base, inside)?;
    moments::write(&inside.join(OPTIMIZER), &state.optimizer)?;
    let mut files = BTreeMap::new();
    for name in weights.into_iter().chain([OPTIMIZER]) {
        files.insert(name.to_string(), digest(&inside.join(name))?);
    }
    let (step, updates) = (state.step, state.optimizer.updates);
    let manifest = Manifest { format: FORMAT, step, updates, progress: progress.clone(), files };
    let text = serde_json::to_string_pretty(&manifest).expect("a manifest serialises");
    write_whole(&inside.join(STATE), format!("{text}\n").as_bytes())?;
    sync_folder(inside)?;
    let path = publish(temporary, &path)?;
    state.last_checkpoint = Some(path.clone());
    Ok(path)
}

/// Writes everything that is trained into `folder`; gives the files' names.
fn write_weights(state: &TrainState, base: &str, folder: &Path) -> Result<Vec<&'static str>> {
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
        let (shape, values) = parameter.to_f32();
        tensors.push((name.to_string(), shape, values));
    });
    let mut written = match &state.adapter {
        Some(adapter) => {
            save_adapter(&mut state.model, adapter, base, folder)?;
            vec![ADAPTER_WEIGHTS, "adapter_config.json"]
        }
        None => {
            write_f32(&folder.join(FULL_WEIGHTS), &of_model)?;
            vec![FULL_WEIGHTS]
        }
    };
    for (name, tensors) in [(VALUES, of_values), (PROJECTION, of_projection)] {
        if !tensors.is_empty() {
            write_f32(&folder.join(name), &tensors)?;
            written.push(name);
        }
    }
    Ok(written)
}

/// Removes a checkpoint: what names its files goes first, so that half of one is none.
fn remove(path: &Path, action: &'static str) -> Result<()> {
    match std::fs::remove_file(path.join(STATE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::fs::remove_dir_all(path),
    }
    .map_err(EngineError::io(action, path))
}

/// Renames the finished folder into place; one of the same step, which another run left, is replaced.
fn publish(temporary: tempfile::TempDir, path: &Path) -> Result<PathBuf> {
    if path.exists() {
        remove(path, "replace")?;
    }
    std::fs::rename(temporary.path(), path).map_err(EngineError::io("write", path))?;
    // Renamed away: nothing is left for the guard to remove.
    let _ = temporary.keep();
    sync_folder(path.parent().unwrap_or(Path::new(".")))?;
    Ok(path.to_path_buf())
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|it| it.sync_all()).map_err(EngineError::io("write", folder))
}

/// Brings `state`, a fresh beginning of the same run, to where `checkpoint` was saved.
///
/// `expected` gives the seed and both digests of the run that goes on.
///
/// # Errors
/// Damaged files, another base model, seed or configuration: by name; `state` is unchanged then.
pub fn resume(checkpoint: &Path, state: &mut TrainState, expected: &Progress) -> Result<Progress> {
    let manifest = read_manifest(checkpoint)?;
    let refuse = |reason: String| EngineError::Checkpoint { path: checkpoint.to_path_buf(), reason };
    let saved = &manifest.progress;
    for (what, saved, expected) in [
        ("base model", &saved.base_digest, &expected.base_digest),
        ("configuration", &saved.config_digest, &expected.config_digest),
        ("seed", &saved.seed.to_string(), &expected.seed.to_string()),
    ] {
        if saved != expected {
            return Err(refuse(format!("it was made with another {what}: {saved}, this run has {expected}")));
        }
    }
    for (name, expected) in &manifest.files {
        if digest(&checkpoint.join(name))? != *expected {
            return Err(refuse(format!("`{name}` is damaged: it is not what was saved")));
        }
    }
    let weights = if state.adapter.is_some() { ADAPTER_WEIGHTS } else { FULL_WEIGHTS };
    if !manifest.files.contains_key(weights) || !manifest.files.contains_key(OPTIMIZER) {
        return Err(refuse(format!("`{weights}` or `{OPTIMIZER}` is not among its files")));
    }
    if state.model.prefix_encoder.is_some() && !manifest.files.contains_key(PROJECTION) {
        return Err(refuse(format!("`{PROJECTION}`, which the prefix is made by, is not among its files")));
    }
    let mut resumed = state.clone();
    let beside = [VALUES, PROJECTION].into_iter().filter(|it| manifest.files.contains_key(*it));
    read_tensors(checkpoint, weights, beside, &mut resumed)?;
    resumed.step = manifest.step;
    resumed.optimizer.updates = manifest.updates;
    resumed.last_checkpoint = Some(checkpoint.to_path_buf());
    *state = resumed;
    Ok(manifest.progress)
}

/// What `checkpoint` says of the run that saved it; its other files are not looked at.
///
/// # Errors
/// A manifest that can't be read.
pub fn read_progress(checkpoint: &Path) -> Result<Progress> {
    Ok(read_manifest(checkpoint)?.progress)
}

fn read_manifest(checkpoint: &Path) -> Result<Manifest> {
    let path = checkpoint.join(STATE);
    let text = std::fs::read_to_string(&path).map_err(EngineError::io("read", &path))?;
    let manifest: Manifest =
        serde_json::from_str(&text).map_err(|source| EngineError::Json { path: path.clone(), source })?;
    if manifest.format != FORMAT {
        let reason = format!("its format is {}, known is {FORMAT}", manifest.format);
        return Err(EngineError::Checkpoint { path: checkpoint.to_path_buf(), reason });
    }
    Ok(manifest)
}

fn read_tensors(
    checkpoint: &Path,
    weights: &'static str,
    beside: impl Iterator<Item = &'static str>,
    state: &mut TrainState,
) -> Result<()> {
    let files = [weights].into_iter().chain(beside).map(|it| checkpoint.join(it)).collect();
    let values = TensorFiles::open(checkpoint, files)?;
    let optimizer = TensorFiles::open(checkpoint, vec![checkpoint.join(OPTIMIZER)])?;
    let is_adapter = state.adapter.is_some();
    if is_adapter {
        peft::read_into(&mut state.model, checkpoint)?;
    }
    let (device, storage) = (state.model.device(), state.optimizer.storage.clone());
    let mut found = BTreeMap::new();
    let mut outcome = Ok(());
    state.visit_trained(&mut |name, parameter| {
        if outcome.is_err() {
            return;
        }
        let read = || -> Result<(Option<TensorData>, Option<Moments>)> {
            let shape = parameter.dims();
            let length = shape.iter().product();
            // An adapter's own weights have been read, as PEFT has them.
            let is_beside = !is_adapter || values.contains(name);
            let value = is_beside.then(|| read_any(&values, name, &shape)).transpose()?;
            Ok((value, moments::read(&optimizer, name, length, &storage, &device)?))
        };
        match read() {
            Err(error) => outcome = Err(error),
            Ok((value, moments)) => {
                match (parameter, value) {
                    (_, None) => {}
                    (Parameter::Vector(tensor), Some(it)) => *tensor = Tensor::from_data(it, &device),
                    (Parameter::Matrix(tensor), Some(it)) => *tensor = Tensor::from_data(it, &device),
                    (Parameter::Packed(_), Some(_)) => unreachable!("{FROZEN}"),
                }
                found.extend(moments.map(|it| (name.to_string(), it)));
            }
        }
    });
    outcome?;
    state.optimizer.moments = found;
    Ok(())
}

fn read_any(files: &TensorFiles, name: &str, shape: &[usize]) -> Result<TensorData> {
    match *shape {
        [length] => files.read(name, [length]),
        [rows, columns] => files.read(name, [rows, columns]),
        _ => unreachable!("parameters are vectors and matrices"),
    }
}

fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(EngineError::io("read", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(EngineError::io("read", path))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    Ok(hex(&hasher.finalize()))
}

/// The checkpoints in `folder` with their steps, oldest first. A folder that is not there holds none.
///
/// # Errors
/// A folder that can't be listed.
pub fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(EngineError::io("read", folder))? {
        let path = entry.map_err(EngineError::io("read", folder))?.path();
        let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        let step = name.strip_prefix(PREFIX).and_then(|it| it.parse().ok());
        if let Some(step) = step.filter(|_| path.join(STATE).exists()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The checkpoint of the highest step in `folder`.
///
/// # Errors
/// A folder that can't be listed.
pub fn latest(folder: &Path) -> Result<Option<PathBuf>> {
    Ok(list(folder)?.pop().map(|(_, path)| path))
}

/// Removes all but the `keep_last` newest checkpoints (one at least), and the one of step `best` where that is named.
///
/// # Errors
/// Folders that can't be listed or removed.
pub fn prune(folder: &Path, keep_last: usize, best: Option<u64>) -> Result<()> {
    let found = list(folder)?;
    let spare = found.len().saturating_sub(keep_last.max(1));
    for (step, path) in found.into_iter().take(spare) {
        if Some(step) != best {
            remove(&path, "remove")?;
        }
    }
    Ok(())
}
