//! What is learned from one look at the data to the next: optimizer steps, whatever they are made of.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fthost_data::Tokenizer;
use fthost_data::sampler::Windows;
use fthost_engine::checkpoint::training::{DataPosition, Penalty, Progress};
use fthost_engine::device::DeviceKind;
use fthost_engine::models::CausalLm;
use fthost_engine::train::{StepConfig, StepMetrics, TrainState};

use crate::config::RunConfig;
use crate::error::Result;
use crate::method::Method;
use crate::plugins::Plugins;
use crate::policy::{Learned, MiniBatch, Policy};
use crate::prefetch::Prefetch;
use crate::questions::Question;
use crate::reference::ReferenceLogps;
use crate::rollout::RolloutTimes;
use crate::rows::Rows;
use crate::scores::Scores;

/// An optimizer step that was done.
pub(crate) struct Lesson {
    pub(crate) metrics: StepMetrics,
    /// Where the run is in its data.
    pub(crate) position: DataPosition,
    /// How long the step waited for its micro-batches.
    pub(crate) waited: Duration,
    /// Where the time of the rollout went that came before it, where one did.
    pub(crate) rollout: Option<RolloutTimes>,
    /// What it sampled.
    pub(crate) sampled: Option<Scores>,
    /// Whether a run can go on from here: nothing is left of a rollout.
    pub(crate) whole: bool,
}

/// The steps of a run, one after the other.
pub(crate) enum Lessons<'a> {
    /// Of rows that are given.
    Rows(Prefetch),
    /// Of completions that the policy samples.
    Rollouts(Box<Rollouts<'a>>),
}

/// Prompts in windows, and what is left to learn of the last one.
pub(crate) struct Rollouts<'a> {
    policy: Policy<'a>,
    questions: Vec<Question>,
    windows: Windows,
    left: VecDeque<MiniBatch>,
    position: DataPosition,
}

impl<'a> Lessons<'a> {
    /// From where `progress` is. `reference` is the model before training, `known` what it says of the rows where that is known.
    pub(crate) fn start(
        config: &'a RunConfig,
        tokenizer: &'a Tokenizer,
        rows: &mut Rows,
        known: Option<Arc<ReferenceLogps>>,
        device: DeviceKind,
        reference: &CausalLm,
        progress: &Progress,
    ) -> Self {
        let position = progress.data;
        let DataPosition { epoch, rows: seen } = position;
        let count = rows.train.len();
        let seed = config.train.seed;
        let windows = |window: usize| Windows::resume(count, window, seed, epoch, seen as usize);
        let steps = config.train.total_steps(count);
        match Policy::of(config, tokenizer, device, reference, steps, progress.penalty) {
            Some(policy) => Self::Rollouts(Box::new(Rollouts {
                windows: windows(policy.prompts()),
                policy,
                questions: std::mem::take(&mut rows.questions),
                left: VecDeque::new(),
                position,
            })),
            None => {
                let windows = windows(config.train.global_batch_size());
                Self::Rows(Prefetch::start(Arc::clone(&rows.train), known, config.laying(), windows))
            }
        }
    }

    /// What a checkpoint has to know of a penalty; only between two rollouts.
    pub(crate) fn penalty(&self) -> Option<Penalty> {
        match self {
            Self::Rows(_) => None,
            Self::Rollouts(rollouts) => rollouts.policy.penalty(),
        }
    }

    /// The next optimizer step; `None` where there is nothing to learn from.
    ///
    /// # Errors
    /// What ends a step, and a rollout.
    pub(crate) fn next(
        &mut self,
        state: &mut TrainState,
        plugins: &mut Plugins,
        method: &Method,
        config: &StepConfig,
    ) -> Result<Option<Lesson>> {
        match self {
            Self::Rows(windows) => {
                let Some(window) = windows.next_window() else { return Ok(None) };
                let metrics = method.step(state, &window.laid, config)?;
                let (position, waited) = (window.position, window.waited);
                Ok(Some(Lesson { metrics, position, waited, rollout: None, sampled: None, whole: true }))
            }
            Self::Rollouts(rollouts) => rollouts.next(state, plugins, config),
        }
    }
}

impl Rollouts<'_> {
    fn next(
        &mut self,
        state: &mut TrainState,
        plugins: &mut Plugins,
        config: &StepConfig,
    ) -> Result<Option<Lesson>> {
        let (mut times, mut sampled, mut told) = (None, None, Vec::new());
        if self.left.is_empty() {
            let Self { policy, questions, windows, .. } = self;
            if questions.is_empty() {
                return Ok(None);
            }
            let mut draw = |most: usize| {
                windows.next_of(most).into_iter().map(|row| (row as u64, &questions[row])).collect()
            };
            let rolled = policy.roll_out(state, plugins, &mut draw)?;
            self.left = rolled.mini_batches.into();
            self.position = DataPosition { epoch: self.windows.epoch(), rows: self.windows.row() as u64 };
            (times, sampled, told) = (Some(rolled.times), Some(rolled.scores), rolled.figures);
        }
        let Some(batch) = self.left.pop_front() else { return Ok(None) };
        let Learned { mut metrics, is_enough } = self.policy.step(state, &batch, config)?;
        if is_enough {
            self.left.clear();
        }
        told.append(&mut metrics.figures);
        metrics.figures = told;
        Ok(Some(Lesson {
            metrics,
            position: self.position,
            waited: Duration::ZERO,
            rollout: times,
            sampled,
            whole: self.left.is_empty(),
        }))
    }
}
