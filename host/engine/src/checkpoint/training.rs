//! Training checkpoints: everything a run needs to go on as if it had never stopped.
//!
//! `checkpoint-<step>/` holds the adapter in PEFT's layout, or `model.safetensors` where everything is trained;
//! `value.safetensors` where values are learned beside the model, `prefix_projection.safetensors` where prefixes are made by a
//! network, which PEFT's layout has no place for; `optimizer.safetensors`; and `trainer_state.json`, which names the digest of
//! each file. Of ranks that share a model each writes its pieces of weights and moments, `shard-<rank>-of-<ranks>.safetensors`, and
//! `shards.index.json` says which values they are; an adapter is there in PEFT's layout as well. Whichever it is, one process or
//! any number of ranks goes on from it. A checkpoint is there whole or not at all: it is written under a temporary name, synced, and renamed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use fthost_data::digest::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use super::saving::{Saving, begin, save};
use super::trained;
use crate::error::{EngineError, Result};
use crate::parallel::Collective;
use crate::train::TrainState;

pub(super) const STATE: &str = "trainer_state.json";
const PREFIX: &str = "checkpoint-";
pub(super) const FORMAT: u32 = 1;

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
pub(super) struct Manifest {
    pub format: u32,
    pub step: u64,
    pub updates: u64,
    pub progress: Progress,
    /// SHA-256 of each file beside this one, in hexadecimal.
    pub files: BTreeMap<String, String>,
}

/// The name of the checkpoint after `step` steps.
pub fn folder_of(step: u64) -> String {
    format!("{PREFIX}{step}")
}

/// Removes a checkpoint: what names its files goes first, so that half of one is none.
pub(super) fn remove(path: &Path, action: &'static str) -> Result<()> {
    match std::fs::remove_file(path.join(STATE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::fs::remove_dir_all(path),
    }
    .map_err(EngineError::io(action, path))
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
    // Of several ranks each looks at some of the files.
    let (rank, ranks) = (state.ranks.global_rank(), state.ranks.size());
    let mut outcome = Ok(());
    for (name, expected) in manifest.files.iter().skip(rank).step_by(ranks) {
        if digest(&checkpoint.join(name))? != *expected {
            outcome = Err(refuse(format!("`{name}` is damaged: it is not what was saved")));
        }
    }
    if state.ranks.any(outcome.is_err())? {
        let told = || refuse("one of its files is damaged, as another rank says".to_string());
        return Err(outcome.err().unwrap_or_else(told));
    }
    let mut resumed = state.clone();
    trained::read(checkpoint, &manifest.files, &mut resumed)?;
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

pub(super) fn digest(path: &Path) -> Result<String> {
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
