//! What a run tells of itself while it goes on. The program prints it; a run computes the same whoever listens.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fthost_data::Preview;
use fthost_engine::train::StepMetrics;
use serde::Serialize;

use crate::dataset::Skipped;
use crate::evaluate::Evaluation;
use crate::reference::PrecomputedRows;
use crate::rollout::RolloutTimes;
use crate::scores::Scores;
use crate::trouble::Trouble;

/// Something that happened, in order.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something a person should know; the run goes on.
    Noted(&'a str),
    /// Everything is loaded; this is what will be done.
    Planned(&'a Plan),
    /// A row as it is trained on; comes before the first step.
    Previewed(&'a Preview),
    /// The run goes on from a checkpoint.
    Resumed {
        /// Steps done.
        step: u64,
        /// Where from.
        checkpoint: &'a Path,
    },
    /// The reference is being asked of all rows, before the first step.
    Precomputing {
        /// Rows done.
        done: usize,
        /// Rows there are.
        rows: usize,
    },
    /// The reference was asked of all rows, now or by an earlier run.
    Precomputed(&'a PrecomputedRows),
    /// An optimizer step was done.
    Stepped(&'a Stepped),
    /// Completions that the step before learned from, every so many steps.
    Sampled(&'a Scores),
    /// Something in a rollout that a person should look at; the run goes on.
    Troubled(&'a Trouble),
    /// The held-out rows are being looked at, which may take longer than many steps.
    Evaluating {
        /// Rows held out.
        rows: usize,
    },
    /// The held-out rows were looked at.
    Evaluated(&'a Evaluation),
    /// A checkpoint was saved.
    Saved {
        /// Steps done.
        step: u64,
        /// Where to.
        checkpoint: &'a Path,
    },
    /// Evaluations no longer improve: the run ends here.
    StoppedEarly {
        /// Steps done.
        step: u64,
    },
}

/// An optimizer step.
#[derive(Debug, Clone)]
pub struct Stepped {
    /// Steps done, this one included.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Passes over the training rows so far.
    pub epoch: f64,
    /// What the step did.
    pub metrics: StepMetrics,
    /// Tokens trained on so far, over the whole run.
    pub num_tokens: u64,
    /// Tokens trained on a second, since the program began to train.
    pub tokens_per_second: f64,
    /// Time left at that pace, evaluations aside.
    pub left: Duration,
    /// How long the step took, waiting for its micro-batches included.
    pub elapsed: Duration,
    /// How long it waited for them.
    pub data_loading: Duration,
    /// Where the time of the rollout went that came before it, where one did.
    pub rollout: Option<RolloutTimes>,
    /// Largest resident set of this program so far; `None` where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
}

/// What a run will do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The model's folder.
    pub model: PathBuf,
    /// Weights of the model, adapters aside.
    pub parameters: usize,
    /// Weights that are trained.
    pub trainable_parameters: usize,
    /// Rows trained on.
    pub rows: usize,
    /// Rows held out.
    pub held_out_rows: usize,
    /// Rows left out, and the first few of them.
    pub skipped_rows: usize,
    /// As many as a person would read.
    pub skipped: Vec<Skipped>,
    /// Tokens of one pass over the training rows.
    pub tokens: usize,
    /// Of those, tokens that carry loss.
    pub supervised_tokens: usize,
    /// Optimizer steps.
    pub steps: u64,
    /// Rows of an optimizer step.
    pub global_batch_size: usize,
    /// Micro-batches of one pass over the training rows, in their first order.
    pub micro_batches_per_epoch: usize,
    /// What is minimised: its key.
    pub objective: &'static str,
    /// Completions of a prompt and prompts of a rollout, where completions are sampled.
    pub rollout: Option<(usize, usize)>,
    /// Whether rows share micro-batches as tightly as they fit.
    pub packing: bool,
    /// Plugins by role.
    pub plugins: Vec<PlannedPlugin>,
    /// Digest of every example.
    pub data_digest: String,
    /// Where results go.
    pub output: PathBuf,
}

/// A plugin that has a hand in the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedPlugin {
    /// `builder`, `augmenter`, `reward` or `evaluator`.
    pub role: &'static str,
    /// As the run file names it.
    pub name: String,
    /// As it states.
    pub version: String,
    /// Of the component; empty for a role played in process.
    pub digest: String,
}
