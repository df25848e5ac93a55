//! The models that plugins may ask through the host.

use serde::{Deserialize, Serialize};

use crate::record::Prompt;
use crate::role::Candidate;

/// How text is sampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TextLogprob {
    /// Summed over the continuation's tokens, in nats.
    pub sum: f64,
    /// Tokens of the continuation.
    pub token_count: u32,
}

/// Whom a plugin may ask, where it was granted that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModelName {
    /// The model that is trained.
    Run,
    /// The same model before training.
    Reference,
    /// One of the run file's `[judges]`.
    Judge(String),
}

impl std::fmt::Display for ModelName {
    /// As grants write it: `run`, `reference`, `judges.<name>`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Run => f.write_str("run"),
            Self::Reference => f.write_str("reference"),
            Self::Judge(name) => write!(f, "judges.{name}"),
        }
    }
}

impl std::str::FromStr for ModelName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "run" => Ok(Self::Run),
            "reference" => Ok(Self::Reference),
            _ => match text.strip_prefix("judges.").filter(|it| !it.is_empty()) {
                Some(name) => Ok(Self::Judge(name.to_string())),
                None => {
                    Err(format!("`{text}` is no model; known are `run`, `reference` and `judges.<name>`"))
                }
            },
        }
    }
}

/// A model that plugins may ask.
pub trait HostModel: Send {
    /// `completions_per_prompt` answers a prompt, in order. Errors are told to the plugin as they stand.
    fn generate(&mut self, prompts: &[Prompt], sampling: &Sampling) -> Result<Vec<Vec<Candidate>>, String>;
    /// Log-probability of each continuation after its prompt, in order.
    fn logprobs(&mut self, pairs: &[(Prompt, String)]) -> Result<Vec<TextLogprob>, String>;
    /// For each text a vector of length 1: the mean of the last hidden states over its tokens.
    fn embed(&mut self, texts: &[String]) -> Result<Vec<Vec<f32>>, String>;
}
