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

use super::shards::Pieces;
use super::trained::OPTIMIZER;
use super::write::write_whole;
use super::{moments, shards, trained};
use crate::error::{EngineError, Result};
use crate::parallel::Collective;
use crate::train::TrainState;

const STATE: &str = "trainer_state.json";
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

/// Writes `checkpoint-<step>` into `folder` and gives its path. `base` is what PEFT is told to load the model from. Of several
/// ranks all do it together: the first writes or, of a model that they share, each a file of its own.
///
/// The checkpoint that this state was saved to, or resumed from, is there already: it is never taken away to be written
/// again, because whoever is killed in between would have none. What it says of evaluations may be older than `progress`;
/// a run that is resumed from it evaluates again.
///
/// # Errors
/// Files that can't be written, on any rank; nothing is left behind then.
pub fn save(folder: &Path, state: &mut TrainState, progress: &Progress, base: &str) -> Result<PathBuf> {
    let path = folder.join(folder_of(state.step));
    let is_there = state.last_checkpoint.as_ref() == Some(&path) && path.join(STATE).exists();
    let ranks = state.ranks.clone();
    // Ranks may see a file system at other times.
    if ranks.any(is_there)? {
        return Ok(path);
    }
    let temporary = ranks.is_first().then(|| temporary_in(folder)).transpose();
    let inside = temporary.as_ref().ok().and_then(|it| Some(it.as_ref()?.path().to_path_buf()));
    let inside = ranks.merged(inside.into_iter().collect::<Vec<PathBuf>>())?;
    let Some(inside) = inside.first() else {
        return Err(temporary.err().unwrap_or_else(|| elsewhere("the first rank can't write", folder)));
    };
    let temporary = temporary?;
    let written = write_own(state, base, inside);
    if ranks.any(written.is_err())? {
        return Err(written.err().unwrap_or_else(|| elsewhere("another rank can't write its part", folder)));
    }
    let told = ranks.merged(vec![written?])?;
    let finished = temporary.map(|it| finish(it, &path, state, progress, told)).transpose();
    if ranks.any(finished.is_err())? {
        return Err(finished.err().unwrap_or_else(|| elsewhere("the first rank can't finish it", folder)));
    }
    state.last_checkpoint = Some(path.clone());
    Ok(path)
}

/// The error of a rank whose own part was done.
fn elsewhere(what: &str, folder: &Path) -> EngineError {
    EngineError::io("write", folder)(std::io::Error::other(what))
}

fn temporary_in(folder: &Path) -> Result<tempfile::TempDir> {
    std::fs::create_dir_all(folder).map_err(EngineError::io("write", folder))?;
    let temporary = tempfile::Builder::new().prefix(".checkpoint-").tempdir_in(folder);
    temporary.map_err(EngineError::io("write", folder))
}

/// What a rank has written.
#[derive(Serialize, Deserialize)]
struct Written {
    /// Files and their digests.
    files: Vec<(String, String)>,
    /// Its pieces of a model that is shared.
    pieces: Option<Pieces>,
}

/// Writes this rank's part of a checkpoint into the folder `inside`.
fn write_own(state: &mut TrainState, base: &str, inside: &Path) -> Result<Written> {
    let (mut names, mut pieces) = (Vec::new(), None);
    if state.model.shards.is_some() {
        // First, because all take part in it.
        names.extend(trained::write_shared_adapter(state, base, inside)?);
        pieces = shards::write(state, inside)?;
        names.extend(pieces.as_ref().map(|it| it.file.clone()));
    } else if state.ranks.is_first() {
        names.extend(trained::write(state, base, inside)?);
        let moments = moments::tensors_of(&state.optimizer).collect();
        moments::write(&inside.join(OPTIMIZER), moments)?;
        names.push(OPTIMIZER.to_string());
    }
    let digests = names.into_iter().map(|it| Ok((it.clone(), digest(&inside.join(it))?)));
    Ok(Written { files: digests.collect::<Result<_>>()?, pieces })
}

/// Writes what ties the files of all ranks together, and puts the folder where it belongs.
fn finish(
    temporary: tempfile::TempDir,
    path: &Path,
    state: &TrainState,
    progress: &Progress,
    told: Vec<Written>,
) -> Result<PathBuf> {
    let inside = temporary.path();
    let mut files = BTreeMap::new();
    let mut pieces = Vec::new();
    for written in told {
        files.extend(written.files);
        pieces.extend(written.pieces);
    }
    if !pieces.is_empty() {
        shards::write_index(inside, &pieces)?;
        files.insert(shards::INDEX.to_string(), digest(&inside.join(shards::INDEX))?);
    }
    let (step, updates) = (state.step, state.optimizer.updates);
    let manifest = Manifest { format: FORMAT, step, updates, progress: progress.clone(), files };
    let text = serde_json::to_string_pretty(&manifest).expect("a manifest serialises");
    write_whole(&inside.join(STATE), format!("{text}\n").as_bytes())?;
    sync_folder(inside)?;
    publish(temporary, path)
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
