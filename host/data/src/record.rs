//! What a data set holds: raw records as they stand in a file, and examples a trainer understands.
//!
//! Names are the field's own (TRL's data set types, Hugging Face's messages).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The columns of a row by name, in the file's order.
pub type Columns = serde_json::Map<String, Value>;

/// Who speaks in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that stand above the conversation.
    System,
    /// The person.
    User,
    /// The model: the only role whose tokens are supervised.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name used in `messages` columns and chat templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn by `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// Where a row comes from, for error messages and digests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The file as the run file names it.
    pub source: Arc<str>,
    /// 1-based line (JSONL, CSV) or row (JSON arrays, Parquet).
    pub line: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.line)
    }
}

/// A row as it stands in a file, before anything has made sense of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Every column, in the file's order.
    pub columns: Columns,
    /// File and line.
    pub origin: Origin,
}

/// What the model is asked: plain text to continue, or a conversation to render with the chat template.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// Continued as it stands; no chat template.
    Text(String),
    /// Rendered with the chat template and a generation prompt.
    Messages(Vec<Message>),
}

impl Prompt {
    /// What was said last: the text itself, or the content of the last message.
    pub fn last_turn(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Messages(messages) => messages.last().map_or("", |it| &it.content),
        }
    }
}

/// What the model should answer. Always of the same kind as its prompt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Completion {
    /// The continuation of a text prompt.
    Text(String),
    /// Further turns of a conversation; assistant turns are supervised.
    Messages(Vec<Message>),
}

impl Completion {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Completion::Text(text) => text.is_empty(),
            Completion::Messages(messages) => messages.iter().all(|it| it.content.is_empty()),
        }
    }
}

/// One preference: two answers to a prompt, the first preferred.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PreferencePair {
    /// Shared by both answers.
    pub prompt: Prompt,
    /// The preferred answer.
    pub chosen: Completion,
    /// The other one.
    pub rejected: Completion,
}

/// The shapes of example a trainer understands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A whole conversation: every assistant turn is supervised.
    Messages(Vec<Message>),
    /// A prompt and its answer: the answer is supervised.
    PromptCompletion {
        /// What is asked.
        prompt: Prompt,
        /// What is supervised.
        completion: Completion,
    },
    /// A preference pair.
    Preference(PreferencePair),
    /// Plain text: every token is supervised.
    Text(String),
    /// A prompt alone, for rollouts.
    Prompt(Prompt),
}

impl Content {
    /// The sequences that it stands for: both answers of a preference pair, the preferred one first; itself otherwise.
    pub fn sequences(&self) -> Vec<Content> {
        match self {
            Content::Preference(PreferencePair { prompt, chosen, rejected }) => [chosen, rejected]
                .map(|it| Content::PromptCompletion { prompt: prompt.clone(), completion: it.clone() })
                .to_vec(),
            other => vec![other.clone()],
        }
    }
}

/// One step in the making of an example.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Provenance {
    /// The plugin that made or changed the example.
    pub plugin: String,
    /// What it did, in its own words (`constraint:lowercase-keys`).
    pub operation: String,
}

/// One example for a trainer, with what it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// What is trained on.
    pub content: Content,
    /// Columns that rewards and evaluators may need (`answer`, `reference`, ...).
    pub columns: Columns,
    /// The row it was made from.
    pub origin: Origin,
    /// The plugins that had a hand in it, in order; empty for a row known without a plugin.
    pub provenance: Vec<Provenance>,
}
