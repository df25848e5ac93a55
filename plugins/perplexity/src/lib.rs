//! Perplexity of expected answers, or of the model's own, by the log-probabilities of a model: per token, and per byte
//! where models with different tokenisers are compared.

use fthost_plugin_sdk::{ConfigProblem, Detail, Evaluator, Metric, Prompt, Sample, export, model};
use text_metrics::{Bootstrap, ModelName, counted, lower_is_better, one, references, summed};

/// `[plugins.perplexity.config]`
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Whose perplexity.
    of: Vec<Whose>,
    /// Whether the text is taken as an answer to its prompt, or alone; alone its first token has no probability.
    after_prompt: bool,
    /// Which model is asked: `run`, `reference` or `judges.<name>`; the same is to be granted in `grants.logprobs`.
    model: ModelName,
    /// The column that holds the expected answer, of a list the first; by default the row's own completion.
    column: Option<String>,
    /// The bootstrap behind the confidence interval.
    confidence: Bootstrap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Whose {
    /// The expected answer's.
    Reference,
    /// The model's own answer's.
    Answer,
}

impl Whose {
    fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Answer => "answer",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let (of, model, confidence) = (vec![Whose::Reference], ModelName::default(), Bootstrap::default());
        Self { of, after_prompt: true, model, column: None, confidence }
    }
}

struct Perplexity {
    config: Config,
    /// Of each of `config.of`: log-probability, tokens and bytes, a row a text.
    rows: Vec<Vec<Vec<f64>>>,
    without_text: u64,
}

impl TryFrom<Config> for Perplexity {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.of.is_empty() {
            return Err(ConfigProblem::new("of", "must not be empty"));
        }
        let rows = vec![Vec::new(); config.of.len()];
        Ok(Self { config, rows, without_text: 0 })
    }
}

const FIGURES: [&str; 3] = ["perplexity", "byte_perplexity", "bits_per_byte"];

/// Mean surprise of a token and of a byte, as a number of equally likely ones, and of a byte in bits: of a sum of
/// log-probabilities, tokens and bytes.
fn figures(sums: &[f64]) -> [f64; 3] {
    let (per_token, per_byte) = (-sums[0] / sums[1], -sums[0] / sums[2]);
    [per_token.exp(), per_byte.exp(), per_byte / std::f64::consts::LN_2]
}

impl Perplexity {
    fn text(&self, whose: Whose, sample: &Sample) -> Option<String> {
        let text = match whose {
            Whose::Answer => Some(sample.completion.text.clone()),
            Whose::Reference => references(sample, self.config.column.as_deref()).into_iter().next(),
        };
        text.filter(|it| !it.is_empty())
    }
}

impl Evaluator for Perplexity {
    fn grade(&mut self, sample: &Sample) -> Detail {
        one(self.grade_all(std::slice::from_ref(sample)))
    }

    fn grade_all(&mut self, samples: &[Sample]) -> Result<Vec<Detail>, String> {
        let mut details = vec![Detail::default(); samples.len()];
        let (mut places, mut pairs) = (Vec::new(), Vec::new());
        for (at, sample) in samples.iter().enumerate() {
            for (which, whose) in self.config.of.iter().enumerate() {
                let Some(text) = self.text(*whose, sample) else {
                    self.without_text += 1;
                    details[at].note = Some(format!("no text of the {}", whose.name()));
                    continue;
                };
                let prompt = if self.config.after_prompt {
                    sample.prompt.clone()
                } else {
                    Prompt::Text(String::new())
                };
                places.push((at, which, text.len()));
                pairs.push((prompt, text));
            }
        }
        let answers = model::logprobs(&(&self.config.model).into(), pairs)?;
        for ((at, which, bytes), answer) in places.into_iter().zip(answers) {
            let name = self.config.of[which].name();
            if answer.token_count == 0 || !answer.sum.is_finite() {
                self.without_text += 1;
                details[at].note = Some(format!("no log-probability of the {name}"));
                continue;
            }
            let row = vec![answer.sum, f64::from(answer.token_count), bytes as f64];
            let [perplexity, _, bits] = figures(&row);
            details[at].values.push((format!("perplexity_{name}"), perplexity));
            details[at].values.push((format!("bits_per_byte_{name}"), bits));
            self.rows[which].push(row);
        }
        Ok(details)
    }

    fn finish(&mut self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        for (whose, rows) in self.config.of.iter().zip(&mut self.rows) {
            let rows = std::mem::take(rows);
            if rows.is_empty() {
                continue;
            }
            let sampled = self.config.confidence.sums(&rows, figures);
            for ((name, value), sampled) in FIGURES.iter().zip(figures(&summed(&rows))).zip(sampled) {
                metrics.push(lower_is_better(format!("{name}_{}", whose.name()), value, sampled, rows.len()));
            }
        }
        metrics.extend(counted("without_text", std::mem::take(&mut self.without_text)));
        metrics
    }
}

export!(evaluator: Perplexity from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing::sample;

    /// Oracle: numpy, `tests/golden/generate/evaluator_cases.py`.
    #[test]
    fn its_cases_hold() {
        text_metrics::cases::evaluator::<Config, Perplexity>(&[], include_str!("../cases/perplexity.jsonl"));
    }

    #[test]
    fn a_model_that_fails_fails_the_batch() {
        let mut evaluator = Perplexity::try_from(Config::default()).unwrap();
        let answer = evaluator.grade_all(&[sample(Some("a"), "b")]);
        assert_eq!(answer.unwrap_err(), "the test's host has no model");
    }
}
