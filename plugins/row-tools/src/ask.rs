//! Asking a model for texts.

use fthost_plugin_sdk::model::{self, Model, Sampling};
use fthost_plugin_sdk::{Augmented, ConfigProblem, Message, Prompt, Role, log, plugin_config};

/// How a model is asked.
#[plugin_config]
#[derive(Debug, Clone)]
pub struct Asking {
    /// Who is asked: `run`, `reference` or `judges.<name>`. `grants.generate` must name the same.
    #[default = "run"]
    pub model: String,
    /// The longest answer, in tokens.
    #[default = 512]
    pub max_new_tokens: u32,
    /// 0 is greedy.
    #[default = 0.7]
    pub temperature: f32,
    /// Nucleus; 1 is off.
    #[default = 0.95]
    pub top_p: f32,
    /// Decides the draws of a model that runs in the host.
    #[default = 0]
    pub seed: u64,
}

impl Asking {
    /// The model that is asked, once every value is possible; problems name `<key>.<name>`, or the name alone where `key`
    /// is empty: there the values stand at the top of a configuration.
    ///
    /// # Errors
    /// The first value that is impossible.
    pub fn checked(&self, key: &str) -> Result<Model, ConfigProblem> {
        let problem = |name: &str, message: String| {
            let key = if key.is_empty() { name.into() } else { format!("{key}.{name}") };
            Err(ConfigProblem::new(key, message))
        };
        if self.max_new_tokens == 0 {
            return problem("max_new_tokens", "must be at least 1, got `0`".into());
        }
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return problem("temperature", format!("must be >= 0, got `{}`", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return problem("top_p", format!("must be in (0, 1], got `{}`", self.top_p));
        }
        self.model.parse().or_else(|message| problem("model", message))
    }

    /// Of `each` answers to every question.
    pub fn sampling(&self, each: u32) -> Sampling {
        let Self { max_new_tokens, temperature, top_p, seed, .. } = *self;
        Sampling { max_new_tokens, temperature, top_p, completions_per_prompt: each, stop: Vec::new(), seed }
    }

    /// `each` answers to every question, in one request.
    ///
    /// # Errors
    /// The model's reason.
    pub fn ask(&self, model: &Model, questions: Vec<String>, each: u32) -> Result<Vec<Vec<String>>, String> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let count = questions.len();
        let prompts = questions
            .into_iter()
            .map(|content| Prompt::Messages(vec![Message { role: Role::User, content }]))
            .collect();
        let answers = model::generate(model, prompts, &self.sampling(each))?;
        if answers.len() != count {
            return Err(format!("{} answers to {count} questions", answers.len()));
        }
        Ok(answers.into_iter().map(|it| it.into_iter().map(|it| it.text).collect()).collect())
    }
}

/// The only answer of a batch of one. A call an item can't return a failure, so the log gets it; the host asks by batches.
pub fn only(answers: Result<Vec<Augmented>, String>) -> Augmented {
    match answers {
        Ok(mut all) => all.pop().unwrap_or_default(),
        Err(reason) => {
            log::error(&reason);
            Augmented::default()
        }
    }
}

/// An answer without what models put around a text they were asked for: spaces, a label (`Paraphrase:`), quotes, a code
/// fence.
pub fn bare(answer: &str) -> &str {
    let mut text = answer.trim();
    if let Some(inside) = text.strip_prefix("```").and_then(|it| it.strip_suffix("```")) {
        text = inside.split_once('\n').map_or(inside, |it| it.1).trim();
    }
    if let Some((label, rest)) = text.split_once([':', '：']) {
        let labels = [
            "paraphrase",
            "translation",
            "rewritten",
            "answer",
            "question",
            "instruction",
            "改写",
            "译文",
            "翻译",
            "答案",
        ];
        let lower = label.trim_matches(['*', ' ', '#']).to_lowercase();
        if label.chars().count() <= 24
            && labels.iter().any(|it| lower == *it || lower.starts_with(&format!("{it} ")))
        {
            text = rest.trim_matches(['*', ' ', '\n']);
        }
    }
    for (open, close) in [('"', '"'), ('“', '”'), ('「', '」')] {
        let inside = text.strip_prefix(open).and_then(|it| it.strip_suffix(close));
        if let Some(inside) = inside.filter(|it| !it.contains([open, close])) {
            return inside.trim();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_surrounds_an_answer_goes_and_the_rest_stays() {
        let known = [
            (" \"A b.\" ", "A b."),
            ("Paraphrase: A b.", "A b."),
            ("**Translation:** “A b.”", "A b."),
            ("```text\nA b.\n```", "A b."),
            ("译文：你好。", "你好。"),
            ("Note: keep this", "Note: keep this"),
            ("\"A\" and \"B\"", "\"A\" and \"B\""),
        ];
        for (answer, expected) in known {
            assert_eq!(bare(answer), expected);
        }
    }

    #[test]
    fn impossible_values_name_their_key() {
        let key = |asking: Asking| asking.checked("asking").err().unwrap().key;
        assert_eq!(key(Asking { top_p: 0.0, ..Asking::default() }), "asking.top_p");
        assert_eq!(key(Asking { model: "gpt".into(), ..Asking::default() }), "asking.model");
        let top = Asking { temperature: -1.0, ..Asking::default() }.checked("").err().unwrap();
        assert_eq!(top.key, "temperature");
        assert!(matches!(Asking::default().checked("asking"), Ok(Model::Run)));
    }
}
