//! A host whose answers stand in the case.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fthost_data::{Candidate, Finish, HostModel, Prompt, Sampling, TextLogprob};
use serde::Deserialize;

/// `host` of a case: answers, taken one after the other by whichever model is asked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Answers {
    /// Texts, one a completion.
    pub(crate) generate: VecDeque<String>,
    /// Sum in nats, and tokens; one a continuation.
    pub(crate) logprobs: VecDeque<(f64, u32)>,
    /// Vectors, one a text.
    pub(crate) embed: VecDeque<Vec<f32>>,
}

impl Answers {
    pub(crate) fn is_empty(&self) -> bool {
        self.generate.is_empty() && self.logprobs.is_empty() && self.embed.is_empty()
    }
}

/// Every model of a case; they share the answers.
#[derive(Debug, Clone)]
pub(crate) struct Canned(Arc<Mutex<Answers>>);

impl Canned {
    pub(crate) fn new(answers: Answers) -> Self {
        Self(Arc::new(Mutex::new(answers)))
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn short(import: &str) -> String {
    format!("the case has no further answer in `host.{import}`")
}

impl HostModel for Canned {
    fn generate(&mut self, prompts: &[Prompt], sampling: &Sampling) -> Result<Vec<Vec<Candidate>>, String> {
        let mut answers = self.lock();
        let mut next = || {
            let text = answers.generate.pop_front().ok_or_else(|| short("generate"))?;
            let token_count = text.split_whitespace().count() as u32;
            Ok(Candidate { text, token_count, finish: Finish::Stop })
        };
        prompts.iter().map(|_| (0..sampling.completions_per_prompt).map(|_| next()).collect()).collect()
    }

    fn logprobs(&mut self, pairs: &[(Prompt, String)]) -> Result<Vec<TextLogprob>, String> {
        let mut answers = self.lock();
        let mut next = || answers.logprobs.pop_front().ok_or_else(|| short("logprobs"));
        pairs.iter().map(|_| next().map(|(sum, token_count)| TextLogprob { sum, token_count })).collect()
    }

    fn embed(&mut self, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
        let mut answers = self.lock();
        texts.iter().map(|_| answers.embed.pop_front().ok_or_else(|| short("embed"))).collect()
    }
}
