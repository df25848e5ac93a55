//! The four roles a plugin can play, over plain types.
//!
//! `fthost-sandbox` plays them with WebAssembly components, tests with closures; nothing that uses a role can
//! tell the two apart. Every call takes a batch: crossing into a component costs more than most scores do.
//! A failing plugin is an error or a non-ok [`Outcome`], never a number.

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, OnFailure, RoleError};
use crate::record::{Columns, Example, Prompt, Record};

/// Name, version and digest of whoever plays a role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PluginIdentity {
    /// Name as the run file writes it.
    pub name: String,
    /// Semantic version the plugin states.
    pub version: String,
    /// `sha256:<hex>` of the component; empty for a role played in process.
    pub digest: String,
}

/// What a builder made of one record.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildOutcome {
    /// The examples, possibly none when the builder keeps the record back for later.
    Examples(Vec<Example>),
    /// The record can't be used; the run file's `on_bad_row` decides what follows.
    BadRow {
        /// Why, in the plugin's words.
        reason: String,
    },
}

/// Makes examples of records no reader knows.
pub trait DataBuilder: Send {
    /// Who plays the role.
    fn identity(&self) -> &PluginIdentity;
    /// One outcome a record, in order.
    fn build(&mut self, records: &[Record]) -> Result<Vec<BuildOutcome>, RoleError>;
    /// What was kept back, once the records have ended.
    fn finish(&mut self) -> Result<Vec<Example>, RoleError>;
}

/// What an augmenter makes of an example.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Augmented {
    /// Why the example itself is left out; it stays where there is no reason.
    pub dropped: Option<String>,
    /// Further examples, their provenance extended by this plugin.
    pub variants: Vec<Example>,
}

/// Derives further examples from examples, or leaves some out.
pub trait Augmenter: Send {
    /// Who plays the role.
    fn identity(&self) -> &PluginIdentity;
    /// One answer an example, in order.
    fn augment(&mut self, examples: &[Example]) -> Result<Vec<Augmented>, RoleError>;
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// End-of-turn token or stop string.
    Stop,
    /// `max_new_tokens` reached.
    Length,
}

/// One completion to be scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The decoded text, special tokens left out.
    pub text: String,
    /// Tokens generated.
    pub token_count: u32,
    /// Why it ended.
    pub finish: Finish,
}

/// What becomes of scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The model learns from them.
    Training,
    /// They are figures.
    #[default]
    Evaluation,
}

/// What a group is sampled for, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occasion {
    /// What becomes of the scores.
    pub purpose: Purpose,
    /// Optimizer steps planned; 0 where nothing is trained.
    pub steps: u64,
    /// Tokens that a completion could have at most; 0 where that is not known.
    pub max_tokens: u32,
}

impl Occasion {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A prompt with every completion sampled for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Stable across a run: the row's position in the data set.
    pub id: u64,
    /// Optimizer step, 0 before training.
    pub step: u64,
    /// What it is sampled for. Not written where nothing is known of it, so that groups that were recorded before it
    /// was known keep their digests.
    #[serde(default, skip_serializing_if = "Occasion::is_default")]
    pub occasion: Occasion,
    /// What was asked.
    pub prompt: Prompt,
    /// The answers.
    pub completions: Vec<Candidate>,
    /// The row's other columns.
    pub columns: Columns,
}

/// A score with the parts it was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Finite: a NaN or infinite score becomes a [`Failure::Contract`].
    pub value: f64,
    /// Named parts (`format`, `answer`), for metrics.
    pub components: Vec<(String, f64)>,
}

/// What became of one completion's scoring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A score.
    Ok(Score),
    /// The reward does not apply to this row.
    Abstain {
        /// Why, in the plugin's words.
        reason: String,
    },
    /// The plugin, or the limits around it, failed on this completion.
    Failed(Failure),
}

impl Outcome {
    /// Short name for counts and metrics: `ok`, `abstained`, or the kind of the failure.
    pub fn kind(&self) -> &'static str {
        match self {
            Outcome::Ok(_) => "ok",
            Outcome::Abstain { .. } => "abstained",
            Outcome::Failed(failure) => failure.kind(),
        }
    }

    /// The score's value; `None` where there is no score, which is never a number.
    pub fn value(&self) -> Option<f64> {
        match self {
            Outcome::Ok(score) => Some(score.value),
            Outcome::Abstain { .. } | Outcome::Failed(_) => None,
        }
    }
}

/// Scores completions.
pub trait Reward: Send {
    /// Who plays the role.
    fn identity(&self) -> &PluginIdentity;
    /// What the run file says of failures; trying again is the reward's own part of it.
    fn on_failure(&self) -> OnFailure {
        OnFailure::default()
    }
    /// One outcome a completion, group by group. A call that fails as a whole marks each completion failed,
    /// so that the run file's policy and the counts apply; it is not an `Err`.
    fn score(&mut self, groups: &[Group]) -> Vec<Vec<Outcome>>;
}

/// One answer to be judged.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalSample {
    /// Unique in an evaluation.
    pub id: u64,
    /// Optimizer step, 0 before training.
    pub step: u64,
    /// Optimizer steps planned; 0 where nothing is trained.
    pub steps: u64,
    /// What was asked.
    pub prompt: Prompt,
    /// What the model answered.
    pub completion: Candidate,
    /// The answer expected, where the row has one.
    pub reference: Option<String>,
    /// The row's other columns.
    pub columns: Columns,
}

/// Which way a metric improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Larger is better.
    HigherIsBetter,
    /// Smaller is better.
    LowerIsBetter,
}

/// One figure of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Name (`exact_match`).
    pub name: String,
    /// Value over every sample graded.
    pub value: f64,
    /// Which way it improves.
    pub direction: Direction,
    /// Low and high end of a 95% confidence interval, where the plugin computes one.
    pub confidence: Option<(f64, f64)>,
    /// Samples behind the figure.
    pub count: u64,
}

/// What an evaluator says of one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// The sample's id.
    pub id: u64,
    /// Named values (`exact_match`, `f1`).
    pub values: Vec<(String, f64)>,
    /// A remark for a person.
    pub note: Option<String>,
}

/// Judges a model's answers.
pub trait Evaluator: Send {
    /// Who plays the role.
    fn identity(&self) -> &PluginIdentity;
    /// What the run file says of failures; trying again is the evaluator's own part of it.
    fn on_failure(&self) -> OnFailure {
        OnFailure::default()
    }
    /// One detail a sample, in order. Called batch by batch.
    fn grade(&mut self, samples: &[EvalSample]) -> Result<Vec<Detail>, RoleError>;
    /// The metrics over everything graded since the last call; starts afresh.
    fn finish(&mut self) -> Result<Vec<Metric>, RoleError>;
}
