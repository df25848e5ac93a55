//! How a training checkpoint is written: while the run waits, or beside its next steps.
//!
//! What is written beside steps is a snapshot: tensors that nobody has changed yet are shared with it, and one that a step
//! changes is copied then. So it takes as much memory as what is trained and its moments, until it is written; of a device that is
//! not the CPU it is in the host's memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::shards::Pieces;
use super::trained::OPTIMIZER;
use super::training::{FORMAT, Manifest, Progress, STATE, digest, folder_of, remove};
use super::write::write_whole;
use super::{moments, shards, trained};
use crate::error::{EngineError, Result};
use crate::models::{CausalLm, Parameter};
use crate::optim::MomentStorage;
use crate::optim::adamw::Moments;
use crate::parallel::Ranks;
use crate::train::TrainState;

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
    match Begun::new(folder, state, progress)? {
        Err(there) => Ok(there),
        Ok(begun) => {
            let adapter = trained::whole_adapter(state);
            let written = write_own(state, adapter, base, &begun.inside);
            let path = begun.finish(&state.ranks, written)?;
            state.last_checkpoint = Some(path.clone());
            Ok(path)
        }
    }
}

/// As [`save`], of `state` as it is now, by a thread of its own while the caller goes on; a checkpoint that is there already is
/// an `Err`. Moments in a file's pages are written before it comes back: a snapshot of them would be a second file.
///
/// # Errors
/// A folder that can't be written to; what fails later [`Saving::finish`] tells.
pub fn begin(
    folder: &Path,
    state: &mut TrainState,
    progress: &Progress,
    base: &str,
) -> Result<std::result::Result<Saving, PathBuf>> {
    let begun = match Begun::new(folder, state, progress)? {
        Err(there) => return Ok(Err(there)),
        Ok(begun) => begun,
    };
    let adapter = trained::whole_adapter(state);
    let writing = if matches!(state.optimizer.storage, MomentStorage::Paged(_)) {
        Writing::Done(write_own(state, adapter, base, &begun.inside))
    } else {
        let (mut state, base, inside) = (snapshot(state), base.to_string(), begun.inside.clone());
        let thread = std::thread::Builder::new().name("checkpoint".into());
        let thread = thread.spawn(move || write_own(&mut state, adapter, &base, &inside));
        Writing::Beside(thread.map_err(EngineError::io("write", folder))?)
    };
    Ok(Ok(Saving { work: Some((begun, writing)), ranks: state.ranks.clone() }))
}

/// A checkpoint that is being written. Where nobody finishes it, because a run fails, a process alone does so when it is dropped; of
/// several ranks nothing is left.
#[derive(Debug)]
#[must_use = "whoever begins a checkpoint finishes it"]
pub struct Saving {
    /// Taken by whoever finishes it.
    work: Option<(Begun, Writing)>,
    ranks: Ranks,
}

#[derive(Debug)]
enum Writing {
    Beside(JoinHandle<Result<Written>>),
    Done(Result<Written>),
}

impl Writing {
    /// What was written, when it is.
    fn wait(self) -> Result<Written> {
        match self {
            Self::Done(written) => written,
            Self::Beside(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        }
    }
}

impl Saving {
    /// Whether every rank has written its part. All ask together.
    ///
    /// # Errors
    /// Ranks that can't be reached.
    pub fn is_written(&self) -> Result<bool> {
        let is_writing = matches!(&self.work, Some((_, Writing::Beside(thread))) if !thread.is_finished());
        Ok(!self.ranks.any(is_writing)?)
    }

    /// Waits until it is written, and puts it where it belongs. All ranks do it together.
    ///
    /// # Errors
    /// As [`save`].
    pub fn finish(mut self, state: &mut TrainState) -> Result<PathBuf> {
        let (begun, writing) = self.work.take().expect("it is taken once");
        let path = begun.finish(&state.ranks, writing.wait())?;
        state.last_checkpoint = Some(path.clone());
        Ok(path)
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        let Some((begun, writing)) = self.work.take() else { return };
        let written = match writing {
            Writing::Done(written) => written,
            // The folder may not be taken away under it.
            Writing::Beside(thread) => match thread.join() {
                Ok(written) => written,
                Err(_) => return,
            },
        };
        if !self.ranks.are_many() {
            // The run has failed, and says why; without this checkpoint the one before it is the newest.
            drop(begun.finish(&self.ranks, written));
        }
    }
}

/// A checkpoint's place, before anything is in it.
#[derive(Debug)]
struct Begun {
    path: PathBuf,
    /// Of the first rank, which takes it away where it stays unfinished.
    temporary: Option<TempDir>,
    inside: PathBuf,
    step: u64,
    updates: u64,
    progress: Progress,
}

impl Begun {
    /// `Err` where the checkpoint of `state` is there.
    fn new(
        folder: &Path,
        state: &TrainState,
        progress: &Progress,
    ) -> Result<std::result::Result<Self, PathBuf>> {
        let path = folder.join(folder_of(state.step));
        let is_there = state.last_checkpoint.as_ref() == Some(&path) && path.join(STATE).exists();
        let ranks = &state.ranks;
        // Ranks may see a file system at other times.
        if ranks.any(is_there)? {
            return Ok(Err(path));
        }
        let temporary = ranks.is_first().then(|| temporary_in(folder)).transpose();
        let inside = temporary.as_ref().ok().and_then(|it| Some(it.as_ref()?.path().to_path_buf()));
        let inside = ranks.merged(inside.into_iter().collect::<Vec<PathBuf>>())?;
        let Some(inside) = inside.into_iter().next() else {
            return Err(temporary.err().unwrap_or_else(|| elsewhere("the first rank can't write", folder)));
        };
        let (step, updates, progress) = (state.step, state.optimizer.updates, progress.clone());
        Ok(Ok(Self { path, temporary: temporary?, inside, step, updates, progress }))
    }

    /// Ties together what each rank has written.
    fn finish(mut self, ranks: &Ranks, written: Result<Written>) -> Result<PathBuf> {
        let folder = self.path.parent().unwrap_or(Path::new(".")).to_path_buf();
        if ranks.any(written.is_err())? {
            let told = || elsewhere("another rank can't write its part", &folder);
            return Err(written.err().unwrap_or_else(told));
        }
        let told = ranks.merged(vec![written?])?;
        let temporary = self.temporary.take();
        let finished = temporary.map(|it| self.publish(it, told)).transpose();
        if ranks.any(finished.is_err())? {
            return Err(finished
                .err()
                .unwrap_or_else(|| elsewhere("the first rank can't finish it", &folder)));
        }
        Ok(self.path)
    }

    /// Writes what ties the files of all ranks together, and renames the finished folder into place; one of the same step, which
    /// another run left, is replaced.
    fn publish(&self, temporary: TempDir, told: Vec<Written>) -> Result<()> {
        let (inside, path) = (temporary.path(), &self.path);
        let (mut files, mut pieces) = (BTreeMap::new(), Vec::new());
        for written in told {
            files.extend(written.files);
            pieces.extend(written.pieces);
        }
        if !pieces.is_empty() {
            shards::write_index(inside, &pieces)?;
            files.insert(shards::INDEX.to_string(), digest(&inside.join(shards::INDEX))?);
        }
        let (step, updates, progress) = (self.step, self.updates, self.progress.clone());
        let manifest = Manifest { format: FORMAT, step, updates, progress, files };
        let text = serde_json::to_string_pretty(&manifest).expect("a manifest serialises");
        write_whole(&inside.join(STATE), format!("{text}\n").as_bytes())?;
        sync_folder(inside)?;
        if path.exists() {
            remove(path, "replace")?;
        }
        std::fs::rename(inside, path).map_err(EngineError::io("write", path))?;
        // Renamed away: nothing is left for the guard to remove.
        let _ = temporary.keep();
        sync_folder(path.parent().unwrap_or(Path::new(".")))
    }
}

/// The error of a rank whose own part was done.
fn elsewhere(what: &str, folder: &Path) -> EngineError {
    EngineError::io("write", folder)(std::io::Error::other(what))
}

fn temporary_in(folder: &Path) -> Result<TempDir> {
    std::fs::create_dir_all(folder).map_err(EngineError::io("write", folder))?;
    let temporary = tempfile::Builder::new().prefix(".checkpoint-").tempdir_in(folder);
    temporary.map_err(EngineError::io("write", folder))
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|it| it.sync_all()).map_err(EngineError::io("write", folder))
}

/// What a checkpoint holds of `state`, which later steps do not change. On a device other than the CPU it is read into the host's
/// memory: the device has none to spare.
fn snapshot(state: &TrainState) -> TrainState {
    fn on_host<const D: usize>(tensor: &mut Tensor<D>) {
        if tensor.device().inner() != Device::flex() {
            *tensor = tensor.clone().inner().to_device(&Device::flex());
        }
    }
    let mut state = state.clone();
    // Of ranks that share what is trained each writes its stretches.
    state.model.hollow_beside_stretches();
    state.value_model.iter_mut().for_each(CausalLm::hollow_beside_stretches);
    state.visit_own(&mut |_, parameter| match parameter {
        Parameter::Vector(tensor) => on_host(tensor),
        Parameter::Matrix(tensor) => on_host(tensor),
        Parameter::Packed(_) => unreachable!("{}", crate::models::parameter::FROZEN),
    });
    for moments in state.optimizer.moments.values_mut() {
        if let Moments::F32(moments) = moments {
            on_host(&mut moments.first);
            on_host(&mut moments.second);
        }
    }
    state
}

/// What a rank has written.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    /// Names of files, each with its digest.
    files: Vec<(String, String)>,
    /// Its pieces of a model that is shared.
    pieces: Option<Pieces>,
}

/// Writes this rank's part of a checkpoint into the folder `inside`: other ranks are not asked. `adapter` is the whole one of a model
/// that they share.
fn write_own(
    state: &mut TrainState,
    adapter: Option<CausalLm>,
    base: &str,
    inside: &Path,
) -> Result<Written> {
    let (mut names, mut pieces) = (Vec::new(), None);
    if state.model.shards.is_some() {
        names.extend(trained::write_whole_adapter(state, adapter, base, inside)?);
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
