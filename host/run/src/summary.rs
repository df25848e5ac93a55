//! What a run did and what it cost: `summary.json`. Clock and memory stand here, never in `metrics.jsonl`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fthost_engine::train::TrainState;
use fthost_engine::train::memory::peak_rss_bytes;
use serde::Serialize;

use crate::course::Course;
use crate::error::{Result, RunError};
use crate::evaluate::Evaluation;
use crate::event::Plan;
use crate::plugins::{PluginUsage, Plugins};
use crate::reference::PrecomputedRows;
use crate::report::Comparison;

/// What a run left behind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Optimizer steps done.
    pub steps: u64,
    /// Whether evaluations no longer improved before the last planned step.
    pub stopped_early: bool,
    /// Rows trained on.
    pub rows: usize,
    /// Rows held out.
    pub held_out_rows: usize,
    /// Rows left out because of `on_bad_row = "skip"`.
    pub skipped_rows: usize,
    /// Tokens trained on, over every pass.
    pub num_tokens: u64,
    /// Every evaluation, in order.
    pub evaluations: Vec<Evaluation>,
    /// The first and the last of them side by side.
    pub comparison: Option<Comparison>,
    /// The best of them.
    pub best: Option<BestEvaluation>,
    /// The PEFT folder, or the model's folder after full fine-tuning.
    pub result: PathBuf,
    /// Seconds from the beginning of training; of this program alone, where the run was resumed.
    pub seconds: f64,
    /// Tokens trained on a second, evaluations and checkpoints aside.
    pub tokens_per_second: f64,
    /// Seconds that training waited for micro-batches.
    #[serde(rename = "time/data_loading_s")]
    pub data_loading: f64,
    /// Rows that a reference was asked of before the first step, or an earlier run's answers read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precomputed: Option<PrecomputedRows>,
    /// Largest resident set of this program.
    pub peak_rss_bytes: Option<u64>,
    /// What each plugin used up in this program.
    pub plugins: Vec<PluginUsage>,
}

/// The evaluation with the lowest loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BestEvaluation {
    /// Steps done.
    pub step: u64,
    /// What was compared.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// Its checkpoint, where `checkpoint.keep_best` kept it.
    pub checkpoint: Option<PathBuf>,
}

impl Summary {
    pub(crate) fn new(
        plan: &Plan,
        course: &Course,
        state: &TrainState,
        evaluations: &[Evaluation],
        pace: &Pace,
        plugins: &Plugins,
        result: PathBuf,
    ) -> Self {
        let best = course.progress.best.as_ref().map(|it| BestEvaluation {
            step: it.step,
            metric: it.metric.clone(),
            value: it.value,
            checkpoint: course.best_checkpoint(),
        });
        Self {
            steps: state.step,
            stopped_early: state.step < plan.steps,
            rows: plan.rows,
            held_out_rows: plan.held_out_rows,
            skipped_rows: plan.skipped_rows,
            num_tokens: course.progress.num_tokens,
            evaluations: evaluations.to_vec(),
            comparison: Comparison::new(&plan.output, evaluations),
            best,
            result,
            seconds: pace.began.elapsed().as_secs_f64(),
            tokens_per_second: pace.tokens_per_second(),
            data_loading: pace.waited.as_secs_f64(),
            precomputed: None,
            peak_rss_bytes: peak_rss_bytes(),
            plugins: plugins.usage(),
        }
    }

    /// Writes `summary.json` into `folder`.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("summary.json");
        let text = serde_json::to_string_pretty(self).expect("a summary serialises");
        std::fs::write(&path, format!("{text}\n")).map_err(RunError::output(&path))
    }
}

/// How fast a run trains, evaluations and checkpoints aside.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    began: Instant,
    /// When training went on after a pause.
    since: Option<Instant>,
    trained: Duration,
    tokens: u64,
    steps_done: u32,
    steps_left: u32,
    waited: Duration,
    /// Training time at the end of the step before the last, and of the last.
    marks: [Duration; 2],
}

impl Pace {
    /// From `step` of `steps` on, paused.
    pub(crate) fn start(step: u64, steps: u64) -> Self {
        let steps_left = u32::try_from(steps.saturating_sub(step)).unwrap_or(u32::MAX);
        let (began, none) = (Instant::now(), Duration::ZERO);
        let (trained, waited, marks) = (none, none, [none; 2]);
        Self { began, since: None, trained, tokens: 0, steps_done: 0, steps_left, waited, marks }
    }

    /// Something that is no training begins.
    pub(crate) fn pause(&mut self) {
        if let Some(since) = self.since.take() {
            self.trained += since.elapsed();
        }
    }

    /// Training goes on.
    pub(crate) fn resume(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// A step of `tokens` tokens was done that `waited` for them: tokens a second so far, and the time left.
    pub(crate) fn step(&mut self, tokens: usize, waited: Duration) -> (f64, Duration) {
        self.tokens += tokens as u64;
        self.waited += waited;
        self.marks = [self.marks[1], self.elapsed()];
        self.steps_done += 1;
        self.steps_left = self.steps_left.saturating_sub(1);
        let left = (self.elapsed() / self.steps_done).saturating_mul(self.steps_left);
        (self.tokens_per_second(), left)
    }

    /// Training time of the last step.
    pub(crate) fn last_step(&self) -> Duration {
        self.marks[1] - self.marks[0]
    }

    fn elapsed(&self) -> Duration {
        self.trained + self.since.map_or(Duration::ZERO, |it| it.elapsed())
    }

    fn tokens_per_second(&self) -> f64 {
        let seconds = self.elapsed().as_secs_f64();
        if seconds > 0.0 { self.tokens as f64 / seconds } else { 0.0 }
    }
}
