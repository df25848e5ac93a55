//! What plugins asked models and what they were told: kept beside the scores, so that these can be computed again without
//! the models.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fthost_data::{Candidate, HostModel, ModelName, Prompt, Sampling, TextLogprob};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use fthost_data::digest::sha256;

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// `run`, `reference`, `judges.<name>`.
    pub model: String,
    /// `generate`, `logprobs`, `embed`.
    pub import: String,
    /// `sha256:<hex>` of everything that was asked.
    pub request: String,
    /// The answer, or the model's reason for none.
    pub answer: Result<Answer, String>,
}

/// What a model said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To `generate`.
    Completions(Vec<Vec<Candidate>>),
    /// To `logprobs`: sums as text, because reading a JSON number may round its last bit, and counts.
    Logprobs(Vec<(String, u32)>),
    /// To `embed`.
    Vectors(Vec<Vec<f32>>),
}

/// Questions in the order in which they were answered.
#[derive(Debug, Clone, Default)]
pub struct AskedLog(Arc<Mutex<Vec<Asked>>>);

impl AskedLog {
    fn lock(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything asked since the last call.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.lock())
    }
}

fn request(import: &str, asked: &Value) -> String {
    sha256(format!("{import} {asked}").as_bytes())
}

/// A model whose answers are written down.
pub struct Recording {
    inner: Box<dyn HostModel>,
    name: String,
    log: AskedLog,
}

impl Recording {
    /// `inner`, known to plugins as `name`.
    pub fn new(inner: Box<dyn HostModel>, name: &ModelName, log: AskedLog) -> Self {
        Self { inner, name: name.to_string(), log }
    }

    fn kept<R>(
        &self,
        import: &str,
        asked: &Value,
        answer: Result<R, String>,
        written: impl FnOnce(&R) -> Answer,
    ) -> Result<R, String> {
        let kept = answer.as_ref().map(written).map_err(Clone::clone);
        let (model, import, request) = (self.name.clone(), import.to_string(), request(import, asked));
        self.log.lock().push(Asked { model, import, request, answer: kept });
        answer
    }
}

impl HostModel for Recording {
    fn generate(&mut self, prompts: &[Prompt], sampling: &Sampling) -> Result<Vec<Vec<Candidate>>, String> {
        let answer = self.inner.generate(prompts, sampling);
        self.kept("generate", &json!([prompts, sampling]), answer, |it| Answer::Completions(it.clone()))
    }

    fn logprobs(&mut self, pairs: &[(Prompt, String)]) -> Result<Vec<TextLogprob>, String> {
        let answer = self.inner.logprobs(pairs);
        self.kept("logprobs", &json!(pairs), answer, |all| {
            Answer::Logprobs(all.iter().map(|it| (it.sum.to_string(), it.token_count)).collect())
        })
    }

    fn embed(&mut self, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
        let answer = self.inner.embed(texts);
        self.kept("embed", &json!(texts), answer, |it| Answer::Vectors(it.clone()))
    }
}

/// Answers that were written down, given again to the same questions.
pub struct Recorded {
    name: String,
    answers: BTreeMap<String, VecDeque<Result<Answer, String>>>,
}

impl Recorded {
    /// The models that were asked.
    pub fn models(asked: &[Asked]) -> Vec<(ModelName, Self)> {
        let mut names: Vec<&str> = asked.iter().map(|it| it.model.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let of = |name: &str| {
            let mut answers = BTreeMap::<String, VecDeque<_>>::new();
            for it in asked.iter().filter(|it| it.model == name) {
                answers.entry(it.request.clone()).or_default().push_back(it.answer.clone());
            }
            Some((name.parse().ok()?, Self { name: name.to_string(), answers }))
        };
        names.into_iter().filter_map(of).collect()
    }

    /// Questions that were asked several times are answered in order, the last answer for ever.
    fn answer(&mut self, import: &str, asked: &Value) -> Result<Answer, String> {
        let answers = self.answers.get_mut(&request(import, asked));
        let answer = answers.and_then(|it| if it.len() > 1 { it.pop_front() } else { it.front().cloned() });
        answer.unwrap_or_else(|| Err(format!("the run never asked model `{}` this by `{import}`", self.name)))
    }
}

fn another(import: &str) -> String {
    format!("a recorded answer that is none to `{import}`")
}

impl HostModel for Recorded {
    fn generate(&mut self, prompts: &[Prompt], sampling: &Sampling) -> Result<Vec<Vec<Candidate>>, String> {
        match self.answer("generate", &json!([prompts, sampling]))? {
            Answer::Completions(all) => Ok(all),
            _ => Err(another("generate")),
        }
    }

    fn logprobs(&mut self, pairs: &[(Prompt, String)]) -> Result<Vec<TextLogprob>, String> {
        let Answer::Logprobs(all) = self.answer("logprobs", &json!(pairs))? else {
            return Err(another("logprobs"));
        };
        let read = |(sum, token_count): (String, u32)| {
            let sum = sum.parse().map_err(|_| another("logprobs"))?;
            Ok(TextLogprob { sum, token_count })
        };
        all.into_iter().map(read).collect()
    }

    fn embed(&mut self, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
        match self.answer("embed", &json!(texts))? {
            Answer::Vectors(all) => Ok(all),
            _ => Err(another("embed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(u32);

    impl HostModel for Count {
        fn generate(&mut self, _: &[Prompt], _: &Sampling) -> Result<Vec<Vec<Candidate>>, String> {
            Err("tired".into())
        }

        fn logprobs(&mut self, pairs: &[(Prompt, String)]) -> Result<Vec<TextLogprob>, String> {
            self.0 += 1;
            Ok(vec![TextLogprob { sum: -0.1 * f64::from(self.0), token_count: self.0 }; pairs.len()])
        }

        fn embed(&mut self, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
            Ok(texts.iter().map(|it| vec![0.1 * it.len() as f32]).collect())
        }
    }

    #[test]
    fn what_was_answered_is_answered_again_bit_for_bit_and_nothing_else() {
        let log = AskedLog::default();
        let judge = ModelName::Judge("big".into());
        let mut model = Recording::new(Box::new(Count(0)), &judge, log.clone());
        let pair = |text: &str| vec![(Prompt::Text("p".into()), text.to_string())];
        let asked = |model: &mut dyn HostModel| {
            (
                [model.logprobs(&pair("a")), model.logprobs(&pair("a")), model.logprobs(&pair("b"))],
                model.embed(&["abc".into()]),
            )
        };
        let first = asked(&mut model);
        let text = serde_json::to_string(&log.take()).unwrap();
        let read: Vec<Asked> = serde_json::from_str(&text).unwrap();
        let (name, mut recorded) = Recorded::models(&read).remove(0);
        assert_eq!(name, judge);
        assert_eq!(asked(&mut recorded), first);
        let error = recorded.logprobs(&pair("c")).unwrap_err();
        assert_eq!(error, "the run never asked model `judges.big` this by `logprobs`");
    }
}
