//! How text is sampled. Names and meanings are those of transformers' `GenerationConfig`.

use serde::{Deserialize, Serialize};

/// How completions are sampled. The filters apply in the order penalty, temperature, top-k, top-p, min-p.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateConfig {
    /// Tokens of a completion at most; the model's context may end it earlier.
    pub max_new_tokens: usize,
    /// Logits are divided by it; 0 takes the most likely token.
    pub temperature: f64,
    /// Only the `top_k` most likely tokens are drawn from; 0 is off.
    pub top_k: usize,
    /// Only the fewest most likely tokens whose probabilities reach `top_p` are drawn from; 1 is off.
    pub top_p: f64,
    /// Only tokens at least `min_p` times as likely as the most likely one are drawn from; 0 is off.
    pub min_p: f64,
    /// Logits of tokens that stand in prompt or completion are divided by it where positive, multiplied where
    /// negative; 1 is off. <https://arxiv.org/abs/1909.05858>
    pub repetition_penalty: f64,
    /// Texts that end a completion; they are not part of its text.
    pub stop: Vec<String>,
    /// With the positions of prompt and completion, decides every draw.
    pub seed: u64,
    /// Completions a prompt.
    pub completions_per_prompt: usize,
    /// The position of the first prompt, where those before it are another rank's.
    #[serde(skip)]
    pub first_prompt: usize,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 256,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            stop: Vec::new(),
            seed: 0,
            completions_per_prompt: 1,
            first_prompt: 0,
        }
    }
}

impl GenerateConfig {
    /// Whether no filter leaves a token out.
    pub(super) fn draws_from_all(&self) -> bool {
        self.top_k == 0 && self.top_p >= 1.0 && self.min_p == 0.0
    }

    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let counts = [
            ("max_new_tokens", self.max_new_tokens),
            ("completions_per_prompt", self.completions_per_prompt),
        ];
        problems.extend(
            counts.iter().filter(|it| it.1 == 0).map(|it| format!("`{}` must be > 0, got `0`", it.0)),
        );
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            problems.push(format!("`temperature` must be >= 0, got `{}`", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            problems.push(format!("`top_p` must be in (0, 1], got `{}`", self.top_p));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            problems.push(format!("`min_p` must be in [0, 1], got `{}`", self.min_p));
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            problems.push(format!("`repetition_penalty` must be > 0, got `{}`", self.repetition_penalty));
        }
        if self.stop.iter().any(String::is_empty) {
            problems.push("`stop` holds an empty text, which would end every completion at once".to_string());
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_impossible_value_is_named() {
        assert!(GenerateConfig::default().problems().is_empty());
        let config = GenerateConfig {
            max_new_tokens: 0,
            temperature: -1.0,
            top_k: 0,
            top_p: 0.0,
            min_p: 1.5,
            repetition_penalty: f64::NAN,
            stop: vec!["###".into(), String::new()],
            seed: 0,
            completions_per_prompt: 0,
            first_prompt: 0,
        };
        insta::assert_snapshot!(config.problems().join("\n"), @r"
        `max_new_tokens` must be > 0, got `0`
        `completions_per_prompt` must be > 0, got `0`
        `temperature` must be >= 0, got `-1`
        `top_p` must be in (0, 1], got `0`
        `min_p` must be in [0, 1], got `1.5`
        `repetition_penalty` must be > 0, got `NaN`
        `stop` holds an empty text, which would end every completion at once
        ");
    }
}
