//! What crosses the boundary, as plain types. Columns are parsed; prompts and answers are as in the data set.

use serde_json::{Map, Value};

use crate::bindings::types as wit;

/// A row's columns by name, in the file's order.
pub type Columns = Map<String, Value>;

pub use wit::{Finish, Message, Purpose, Role};

/// What a model is asked.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// Continued as it stands.
    Text(String),
    /// Rendered with the chat template.
    Messages(Vec<Message>),
}

impl Prompt {
    /// The text, or the last turn of the conversation.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Messages(messages) => messages.last().map_or_else(String::new, |it| it.content.clone()),
        }
    }
}

/// What a model should answer; of the same kind as its prompt.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The continuation of a text prompt.
    Text(String),
    /// Further turns; those of the assistant are supervised.
    Messages(Vec<Message>),
}

/// The shapes of example that trainers understand.
#[derive(Debug, Clone)]
pub enum Content {
    /// A conversation; every assistant turn is supervised.
    Messages(Vec<Message>),
    /// A prompt and its answer.
    PromptCompletion {
        /// What is asked.
        prompt: Prompt,
        /// What is supervised.
        completion: Answer,
    },
    /// A preference pair.
    Preference {
        /// Shared by both answers.
        prompt: Prompt,
        /// The preferred answer.
        chosen: Answer,
        /// The other one.
        rejected: Answer,
    },
    /// Plain text; every token is supervised.
    Text(String),
    /// A prompt alone, for rollouts.
    Prompt(Prompt),
}

/// A row as it stands in a file.
#[derive(Debug, Clone)]
pub struct Row {
    /// Names the row to the host.
    pub id: u64,
    /// Every column.
    pub columns: Columns,
}

/// One example for a trainer.
#[derive(Debug, Clone)]
pub struct Example {
    /// [`Row::id`] of the row it was made from.
    pub row: u64,
    /// What is trained on.
    pub content: Content,
    /// Columns that rewards and evaluators may need.
    pub columns: Columns,
}

/// An example that an augmenter derived.
#[derive(Debug, Clone)]
pub struct Variant {
    /// The new example.
    pub example: Example,
    /// What was done, as in `constraint:only-json`.
    pub operation: String,
}

/// What an augmenter makes of an example.
#[derive(Debug, Clone, Default)]
pub struct Augmented {
    /// Why the example itself is left out; it stays where there is no reason.
    pub dropped: Option<String>,
    /// Further examples.
    pub variants: Vec<Variant>,
}

impl Augmented {
    /// The example is left out, without variants.
    pub fn drop(reason: impl Into<String>) -> Self {
        Self { dropped: Some(reason.into()), variants: Vec::new() }
    }
}

impl From<Vec<Variant>> for Augmented {
    fn from(variants: Vec<Variant>) -> Self {
        Self { dropped: None, variants }
    }
}

/// One generated answer.
#[derive(Debug, Clone)]
pub struct Completion {
    /// Special tokens left out.
    pub text: String,
    /// Tokens generated.
    pub token_count: u32,
    /// Why generation ended.
    pub finish: Finish,
}

/// A prompt with every answer sampled for it.
#[derive(Debug, Clone)]
pub struct Group {
    /// Stable across a run.
    pub id: u64,
    /// Optimizer step; 0 before training.
    pub step: u64,
    /// Optimizer steps planned; 0 where nothing is trained.
    pub steps: u64,
    /// What becomes of the scores.
    pub purpose: Purpose,
    /// What was asked.
    pub prompt: Prompt,
    /// The answers.
    pub completions: Vec<Completion>,
    /// Tokens that a completion could have at most; 0 where that is not known.
    pub max_tokens: u32,
    /// The row's other columns.
    pub columns: Columns,
}

/// One answer to be judged.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Unique in an evaluation.
    pub id: u64,
    /// Optimizer step; 0 before training.
    pub step: u64,
    /// Optimizer steps planned; 0 where nothing is trained.
    pub steps: u64,
    /// What was asked.
    pub prompt: Prompt,
    /// What the model answered.
    pub completion: Completion,
    /// The answer expected, where the row has one.
    pub reference: Option<String>,
    /// The row's other columns.
    pub columns: Columns,
}

/// What a reward says of one completion: a finite score, an abstention, or an error. An error is never a number.
#[derive(Debug, Clone)]
pub struct Score(pub(crate) wit::Outcome);

impl Score {
    /// A score without parts.
    pub fn new(value: f64) -> Self {
        Self(wit::Outcome::Ok(wit::Score { value, components: Vec::new() }))
    }

    /// Names a part the score was made of, for metrics. Does nothing to an abstention or an error.
    pub fn with(mut self, component: impl Into<String>, value: f64) -> Self {
        if let wit::Outcome::Ok(score) = &mut self.0 {
            score.components.push((component.into(), value));
        }
        self
    }

    /// The reward does not apply to this row.
    pub fn abstain(reason: impl Into<String>) -> Self {
        Self(wit::Outcome::Abstain(reason.into()))
    }

    /// The reward failed on this completion.
    pub fn error(message: impl Into<String>) -> Self {
        Self(wit::Outcome::Error(message.into()))
    }

    /// The score, unless it is an abstention or an error.
    pub fn value(&self) -> Option<f64> {
        match &self.0 {
            wit::Outcome::Ok(score) => Some(score.value),
            _ => None,
        }
    }

    /// The value of a named part.
    pub fn component(&self, name: &str) -> Option<f64> {
        match &self.0 {
            wit::Outcome::Ok(score) => score.components.iter().find(|it| it.0 == name).map(|it| it.1),
            _ => None,
        }
    }
}

impl From<f64> for Score {
    fn from(value: f64) -> Self {
        Self::new(value)
    }
}

impl From<bool> for Score {
    /// 1 for true, 0 for false.
    fn from(value: bool) -> Self {
        Self::new(f64::from(u8::from(value)))
    }
}

/// What an evaluator says of one sample.
#[derive(Debug, Clone, Default)]
pub struct Detail {
    /// Named values, as in `exact_match`.
    pub values: Vec<(String, f64)>,
    /// A remark for a person.
    pub note: Option<String>,
}

pub use wit::{Direction, Metric};

impl From<wit::Prompt> for Prompt {
    fn from(prompt: wit::Prompt) -> Self {
        match prompt {
            wit::Prompt::Text(text) => Self::Text(text),
            wit::Prompt::Messages(messages) => Self::Messages(messages),
        }
    }
}

impl From<Prompt> for wit::Prompt {
    fn from(prompt: Prompt) -> Self {
        match prompt {
            Prompt::Text(text) => Self::Text(text),
            Prompt::Messages(messages) => Self::Messages(messages),
        }
    }
}

impl From<wit::Answer> for Answer {
    fn from(answer: wit::Answer) -> Self {
        match answer {
            wit::Answer::Text(text) => Self::Text(text),
            wit::Answer::Messages(messages) => Self::Messages(messages),
        }
    }
}

impl From<Answer> for wit::Answer {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Text(text) => Self::Text(text),
            Answer::Messages(messages) => Self::Messages(messages),
        }
    }
}

impl From<wit::Content> for Content {
    fn from(content: wit::Content) -> Self {
        match content {
            wit::Content::Messages(messages) => Self::Messages(messages),
            wit::Content::PromptCompletion(it) => {
                Self::PromptCompletion { prompt: it.prompt.into(), completion: it.completion.into() }
            }
            wit::Content::Preference(it) => Self::Preference {
                prompt: it.prompt.into(),
                chosen: it.chosen.into(),
                rejected: it.rejected.into(),
            },
            wit::Content::Text(text) => Self::Text(text),
            wit::Content::Prompt(prompt) => Self::Prompt(prompt.into()),
        }
    }
}

impl From<Content> for wit::Content {
    fn from(content: Content) -> Self {
        match content {
            Content::Messages(messages) => Self::Messages(messages),
            Content::PromptCompletion { prompt, completion } => {
                Self::PromptCompletion(wit::PromptCompletion {
                    prompt: prompt.into(),
                    completion: completion.into(),
                })
            }
            Content::Preference { prompt, chosen, rejected } => Self::Preference(wit::PreferencePair {
                prompt: prompt.into(),
                chosen: chosen.into(),
                rejected: rejected.into(),
            }),
            Content::Text(text) => Self::Text(text),
            Content::Prompt(prompt) => Self::Prompt(prompt.into()),
        }
    }
}

/// The host's columns are always one JSON object.
fn columns(text: &str) -> Result<Columns, String> {
    serde_json::from_str(text).map_err(|error| format!("columns that are no JSON object: {error}"))
}

fn json(columns: &Columns) -> String {
    serde_json::to_string(columns).expect("JSON values serialise")
}

impl TryFrom<wit::Row> for Row {
    type Error = String;
    fn try_from(row: wit::Row) -> Result<Self, String> {
        Ok(Self { id: row.id, columns: columns(&row.columns)? })
    }
}

impl TryFrom<wit::Example> for Example {
    type Error = String;
    fn try_from(it: wit::Example) -> Result<Self, String> {
        Ok(Self { row: it.row, content: it.content.into(), columns: columns(&it.columns)? })
    }
}

impl From<Example> for wit::Example {
    fn from(it: Example) -> Self {
        Self { row: it.row, content: it.content.into(), columns: json(&it.columns) }
    }
}

impl From<wit::Candidate> for Completion {
    fn from(it: wit::Candidate) -> Self {
        Self { text: it.text, token_count: it.token_count, finish: it.finish }
    }
}

impl TryFrom<wit::Group> for Group {
    type Error = String;
    fn try_from(it: wit::Group) -> Result<Self, String> {
        Ok(Self {
            id: it.id,
            step: it.step,
            steps: it.steps,
            purpose: it.purpose,
            prompt: it.prompt.into(),
            completions: it.completions.into_iter().map(Completion::from).collect(),
            max_tokens: it.max_tokens,
            columns: columns(&it.columns)?,
        })
    }
}

impl TryFrom<wit::Sample> for Sample {
    type Error = String;
    fn try_from(it: wit::Sample) -> Result<Self, String> {
        Ok(Self {
            id: it.id,
            step: it.step,
            steps: it.steps,
            prompt: it.prompt.into(),
            completion: it.completion.into(),
            reference: it.reference,
            columns: columns(&it.columns)?,
        })
    }
}
