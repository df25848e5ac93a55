//! Where a run is: what a checkpoint keeps besides weights, and how a run goes on from one.

use std::path::{Path, PathBuf};

use fthost_engine::EngineError;
use fthost_engine::checkpoint::training::{
    self, Best, DataPosition, Progress, Saving, latest, prune, read_progress,
};
use fthost_engine::parallel::Collective;
use fthost_engine::train::TrainState;
use fthost_engine::train::early_stop::{EarlyStopConfig, Verdict, judge};

use crate::config::{CheckpointConfig, RunConfig};
use crate::error::{Result, RunError};
use crate::evaluate::{BEST_METRIC, Evaluation};
use crate::event::Event;
use crate::settings::Settings;
use crate::{completions, judge as judging, scores};

/// Position, best evaluation and patience of a run, and where its checkpoints go.
#[derive(Debug)]
pub struct Course {
    /// As a checkpoint keeps it.
    pub progress: Progress,
    rows: usize,
    folder: PathBuf,
    base: String,
    checkpoint: CheckpointConfig,
    early_stop: Option<EarlyStopConfig>,
    saving: Option<Pending>,
}

/// The checkpoint that is being written.
#[derive(Debug)]
struct Pending {
    step: u64,
    /// Of the best evaluation when it was begun: that of a later one is not there yet.
    best: Option<u64>,
    saving: Saving,
}

/// Who is told of what happens.
type Observer<'a> = &'a mut dyn FnMut(Event<'_>);

impl Course {
    /// The beginning of a run with `settings` over `rows` rows, on the base model of `base_digest`.
    pub fn new(config: &RunConfig, settings: &Settings, rows: usize, base_digest: String) -> Self {
        let progress = Progress {
            seed: config.train.seed,
            data: DataPosition::default(),
            num_tokens: 0,
            best: None,
            evaluations_without_improvement: 0,
            evaluated: None,
            penalty: None,
            base_digest,
            config_digest: settings.digest(),
        };
        Self {
            progress,
            rows,
            folder: config.output.dir.clone(),
            base: config.model.reference(),
            checkpoint: config.checkpoint.clone(),
            early_stop: config.early_stop.clone(),
            saving: None,
        }
    }

    /// Makes the output folder of a run that begins; what an earlier run scored and judged there is removed.
    ///
    /// # Errors
    /// Checkpoints of an earlier run in it, unless they may be removed; a folder that can't be written.
    pub fn clear(&self, overwrite: bool) -> Result<()> {
        std::fs::create_dir_all(&self.folder).map_err(RunError::output(&self.folder))?;
        for (_, checkpoint) in training::list(&self.folder)? {
            if !overwrite {
                return Err(RunError::CheckpointsInTheWay { checkpoint });
            }
            std::fs::remove_dir_all(&checkpoint).map_err(RunError::output(&checkpoint))?;
        }
        // Files a step of an earlier run, of which this one may have fewer steps.
        for name in [scores::FOLDER, completions::FOLDER, judging::FOLDER] {
            let stale = self.folder.join(name);
            if stale.exists() {
                std::fs::remove_dir_all(&stale).map_err(RunError::output(&stale))?;
            }
        }
        Ok(())
    }

    /// Brings a run's beginning to where its newest checkpoint was saved; gives the checkpoint.
    ///
    /// # Errors
    /// No checkpoint, one of another run (naming what differs), or a damaged one.
    pub fn resume(&mut self, state: &mut TrainState, settings: &Settings) -> Result<PathBuf> {
        let folder = &self.folder;
        let nothing = || RunError::NothingToResume { folder: folder.clone() };
        let checkpoint = latest(folder)?.ok_or_else(nothing)?;
        if read_progress(&checkpoint)?.config_digest != self.progress.config_digest {
            let mut changes = settings.changes_since(folder);
            if changes.is_empty() {
                changes.push("its settings are not known any more".to_string());
            }
            return Err(RunError::AnotherRun { checkpoint, changes });
        }
        self.progress = training::resume(&checkpoint, state, &self.progress)?;
        Ok(checkpoint)
    }

    /// Takes note of a step over `tokens` tokens that brought the run to `data`.
    pub fn advance(&mut self, data: DataPosition, tokens: usize) {
        self.progress.data = data;
        self.progress.num_tokens += tokens as u64;
    }

    /// Passes over the training rows so far.
    pub fn epoch(&self) -> f64 {
        let DataPosition { epoch, rows } = self.progress.data;
        epoch as f64 + rows as f64 / self.rows as f64
    }

    /// Takes note of an evaluation; whether it is the best so far.
    pub fn judge(&mut self, evaluation: &Evaluation) -> bool {
        let progress = &mut self.progress;
        progress.evaluated = Some(evaluation.step);
        let Some(value) = evaluation.value(BEST_METRIC) else { return false };
        let config = self.early_stop.clone().unwrap_or_default();
        let best = progress.best.as_ref().map(|it| it.value);
        let waited = &mut progress.evaluations_without_improvement;
        let improved = judge(&config, best, waited, value) == Verdict::Improved;
        if improved {
            progress.best = Some(Best { metric: BEST_METRIC.to_string(), value, step: evaluation.step });
        }
        improved
    }

    /// Whether patience is used up.
    pub fn stopped_early(&self) -> bool {
        let waited = self.progress.evaluations_without_improvement;
        self.early_stop.as_ref().is_some_and(|it| waited >= it.patience)
    }

    /// Whether to save after the step that was just done and, where `improved`, judged the best.
    pub fn is_checkpoint_due(&self, step: u64, improved: bool) -> bool {
        step > 0 && (self.checkpoint.is_due(step) || improved && self.checkpoint.keep_best)
    }

    /// Saves a checkpoint, as all ranks do together, and removes those that are not to be kept.
    ///
    /// # Errors
    /// Files that can't be written or removed.
    pub fn save(&mut self, state: &mut TrainState, observe: Observer<'_>) -> Result<PathBuf> {
        self.settle(state, observe)?;
        let path = training::save(&self.folder, state, &self.progress, &self.base)?;
        self.tidy(state, self.best_step())?;
        Ok(path)
    }

    /// As [`Course::save`]; where it may be, it is written while the run goes on. `observe` is told of each that is there.
    ///
    /// # Errors
    /// As [`Course::save`].
    pub fn begin_save(&mut self, state: &mut TrainState, observe: Observer<'_>) -> Result<()> {
        let is_small = state.model.is_shared() || state.adapter.is_some() && state.value_model.is_none();
        if !self.checkpoint.asynchronous.unwrap_or(is_small) {
            let checkpoint = self.save(state, observe)?;
            observe(Event::Saved { step: state.step, checkpoint: &checkpoint });
            return Ok(());
        }
        self.settle(state, observe)?;
        match training::begin(&self.folder, state, &self.progress, &self.base)? {
            Ok(saving) => self.saving = Some(Pending { step: state.step, best: self.best_step(), saving }),
            Err(checkpoint) => observe(Event::Saved { step: state.step, checkpoint: &checkpoint }),
        }
        Ok(())
    }

    /// Behind a step: puts the checkpoint that is being written where it belongs, if every rank has written its part. One that the
    /// next is due after is waited for, so that no more steps are lost than twice as many as there are between two.
    ///
    /// # Errors
    /// As [`Course::save`].
    pub fn look_after_saving(&mut self, state: &mut TrainState, observe: Observer<'_>) -> Result<()> {
        let Some(Pending { step, saving, .. }) = &self.saving else { return Ok(()) };
        let every = self.checkpoint.every_steps;
        let is_next_due = every > 0 && state.step >= step + every;
        if is_next_due || saving.is_written()? { self.settle(state, observe) } else { Ok(()) }
    }

    /// Waits for the checkpoint that is being written.
    ///
    /// # Errors
    /// As [`Course::save`].
    pub fn settle(&mut self, state: &mut TrainState, observe: Observer<'_>) -> Result<()> {
        let Some(Pending { step, best, saving }) = self.saving.take() else { return Ok(()) };
        let checkpoint = saving.finish(state)?;
        self.tidy(state, best)?;
        observe(Event::Saved { step, checkpoint: &checkpoint });
        Ok(())
    }

    /// `found`; where a step failed on all ranks, the checkpoint that is being written is finished, and the error names it.
    ///
    /// # Errors
    /// That of `found`.
    pub fn settled<T>(
        &mut self,
        mut found: Result<T>,
        state: &mut TrainState,
        observe: Observer<'_>,
    ) -> Result<T> {
        if let Err(RunError::Engine(EngineError::NotFiniteStep { last_checkpoint, .. })) = &mut found {
            // Why the run ends is told, not what else fails.
            let _ = self.settle(state, observe);
            last_checkpoint.clone_from(&state.last_checkpoint);
        }
        found
    }

    /// The step of the best evaluation, where its checkpoint is kept.
    fn best_step(&self) -> Option<u64> {
        self.progress.best.as_ref().filter(|_| self.checkpoint.keep_best).map(|it| it.step)
    }

    /// Removes checkpoints that are not to be kept.
    fn tidy(&self, state: &TrainState, best: Option<u64>) -> Result<()> {
        if state.ranks.is_first() {
            prune(&self.folder, self.checkpoint.keep_last, best)?;
        }
        Ok(state.ranks.barrier()?)
    }

    /// The best evaluation's checkpoint, where it was kept.
    pub fn best_checkpoint(&self) -> Option<PathBuf> {
        let best = self.progress.best.as_ref()?;
        let path: PathBuf = Path::new(&self.folder).join(training::folder_of(best.step));
        path.exists().then_some(path)
    }
}
