//! The four roles a plugin can play, over plain types.
//!
//! `fthost-sandbox` plays them with WebAssembly components, tests with closures; nothing that uses a role can
//! tell the two apart. Every call takes a batch: crossing into a component costs more than most scores do.
//! A failing plugin is an error or a non-ok [`Outcome`], never a number.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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

/// One more example an augmenter derived.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The example, its provenance extended by this plugin.
    pub example: Example,
}

/// Derives further examples from examples.
pub trait Augmenter: Send {
    /// Who plays the role.
    fn identity(&self) -> &PluginIdentity;
    /// The variants of each example, in order; the original is kept by the caller, not returned.
    fn augment(&mut self, examples: &[Example]) -> Result<Vec<Vec<Variant>>, RoleError>;
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

/// A prompt with every completion sampled for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Stable across a run: the row's position in the data set.
    pub id: u64,
    /// Optimizer step, 0 before training.
    pub step: u64,
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
#[derive(Debug, Clone, PartialEq)]
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

/// Scores completions.
pub trait Reward: Send {
    /// Who plays the role.
    fn identity(&self) -> &PluginIdentity;
    /// One outcome a completion, group by group. A call that fails as a whole marks each completion failed,
    /// so that the run file's policy and the counts apply; it is not an `Err`.
    fn score(&mut self, groups: &[Group]) -> Vec<Vec<Outcome>>;
}

/// One answer to be judged.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalSample {
    /// Position in the held-out part.
    pub id: u64,
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
    /// One detail a sample, in order. Called batch by batch.
    fn grade(&mut self, samples: &[EvalSample]) -> Result<Vec<Detail>, RoleError>;
    /// The metrics over everything graded since the last call; starts afresh.
    fn finish(&mut self) -> Result<Vec<Metric>, RoleError>;
}

/// Why a call into a plugin gave no result. Limits carry the run file's key that raises them.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The plugin returned an error of its own.
    #[error("returned an error: {message}")]
    Plugin {
        /// The plugin's words.
        message: String,
    },
    /// The guest trapped; its instance was dropped.
    #[error("trapped: {message}")]
    Trap {
        /// Trap and, where the guest logged one, its panic message.
        message: String,
    },
    /// The fuel of a call was used up.
    #[error("ran out of fuel")]
    OutOfFuel {
        /// `limits.fuel`.
        limit: u64,
    },
    /// The deadline of a call passed.
    #[error("ran past its deadline")]
    Timeout {
        /// `limits.deadline_ms`.
        limit: Duration,
    },
    /// The guest asked for more memory than it may have.
    #[error("asked for more memory than its limit")]
    Memory {
        /// `limits.memory_bytes`.
        limit: u64,
    },
    /// The guest recursed past its stack.
    #[error("overflowed its stack")]
    StackOverflow {
        /// `limits.stack_bytes`.
        limit: u64,
    },
    /// The guest asked for more table elements than it may have.
    #[error("asked for more table elements than its limit")]
    Tables {
        /// `limits.table_elements`.
        limit: u64,
    },
    /// The guest returned more than it may.
    #[error("produced more output than its limit")]
    OutputTooLarge {
        /// `limits.output_bytes`.
        limit: u64,
    },
    /// The guest logged more than it may.
    #[error("logged more than its limit")]
    LogTooLarge {
        /// `limits.log_bytes`.
        limit: u64,
    },
    /// The guest called an import it was not granted.
    #[error("called `{import}`, which it was not granted")]
    Denied {
        /// The import.
        import: String,
        /// The line that would grant it.
        grant: String,
    },
    /// The answer does not fit the question: a wrong number of scores, a NaN.
    #[error("broke the contract: {message}")]
    Contract {
        /// What was wrong.
        message: String,
    },
}

impl Failure {
    /// Short name for counts and metrics: `error`, `trap`, `out_of_fuel`, `timeout`, ...
    pub fn kind(&self) -> &'static str {
        match self {
            Failure::Plugin { .. } => "error",
            Failure::Trap { .. } => "trap",
            Failure::OutOfFuel { .. } => "out_of_fuel",
            Failure::Timeout { .. } => "timeout",
            Failure::Memory { .. } => "memory",
            Failure::StackOverflow { .. } => "stack_overflow",
            Failure::Tables { .. } => "tables",
            Failure::OutputTooLarge { .. } => "output_too_large",
            Failure::LogTooLarge { .. } => "log_too_large",
            Failure::Denied { .. } => "denied",
            Failure::Contract { .. } => "contract",
        }
    }

    /// Key (under `plugins.<name>`) and value of the limit that was hit, if one was.
    pub fn limit(&self) -> Option<(&'static str, String)> {
        match self {
            Failure::OutOfFuel { limit } => Some(("limits.fuel", limit.to_string())),
            Failure::Timeout { limit } => Some(("limits.deadline_ms", limit.as_millis().to_string())),
            Failure::Memory { limit } => Some(("limits.memory_bytes", limit.to_string())),
            Failure::StackOverflow { limit } => Some(("limits.stack_bytes", limit.to_string())),
            Failure::Tables { limit } => Some(("limits.table_elements", limit.to_string())),
            Failure::OutputTooLarge { limit } => Some(("limits.output_bytes", limit.to_string())),
            Failure::LogTooLarge { limit } => Some(("limits.log_bytes", limit.to_string())),
            Failure::Plugin { .. }
            | Failure::Trap { .. }
            | Failure::Denied { .. }
            | Failure::Contract { .. } => None,
        }
    }
}

impl Failure {
    /// The limit that was hit, by its full key, and what to do; empty where none was.
    pub fn advice(&self, plugin: &str) -> String {
        match (self, self.limit()) {
            (_, Some((key, value))) => format!(
                "\n  limit: `plugins.{plugin}.{key}` = {value}\nhint: raise the limit, or give the plugin less to do"
            ),
            (Self::Denied { grant, .. }, None) => format!("\nhint: {grant} would grant it"),
            _ => String::new(),
        }
    }
}

/// A call into a plugin that gave no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("plugin `{plugin}` {failure} in `{call}` of {items} items{}", failure.advice(plugin))]
pub struct RoleError {
    /// The plugin's name.
    pub plugin: String,
    /// The exported function (`build`, `augment`, `grade`, ...).
    pub call: &'static str,
    /// Items in the batch.
    pub items: usize,
    /// What happened.
    #[source]
    pub failure: Failure,
}

/// How text is sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Tokens at most.
    pub max_new_tokens: u32,
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus; 1 is off.
    pub top_p: f32,
    /// Completions a prompt.
    pub completions_per_prompt: u32,
    /// Texts that end a completion; they are not part of it.
    pub stop: Vec<String>,
    /// With the request's position, decides every draw.
    pub seed: u64,
}

/// Log-probability of a continuation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextLogprob {
    /// Summed over the continuation's tokens, in nats.
    pub sum: f64,
    /// Tokens of the continuation.
    pub token_count: u32,
}

/// The model a plugin may ask, where it was granted `generate` or `logprobs`.
pub trait HostModel: Send {
    /// `completions_per_prompt` answers a prompt, in order. Errors are told to the plugin as they stand.
    fn generate(&mut self, prompts: &[Prompt], sampling: &Sampling) -> Result<Vec<Vec<Candidate>>, String>;
    /// Log-probability of each continuation after its prompt, in order.
    fn logprobs(&mut self, pairs: &[(Prompt, String)]) -> Result<Vec<TextLogprob>, String>;
}
