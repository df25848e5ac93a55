//! Whether the sentences of an answer belong together. Two measures, both the mean over neighbouring sentences:
//!
//! - `embedding`: cosine of their vectors (Foltz, Kintsch and Landauer 1998, "The measurement of textual coherence with
//!   latent semantic analysis", Discourse Processes 25), here a language model's own;
//! - `gain`: by how much the one before makes the next more likely, in nats a token: pointwise mutual information (as
//!   between sentences in Padmakumar and He 2021, <https://arxiv.org/abs/2102.06272>), divided by length.

use fthost_plugin_sdk::{ConfigProblem, Detail, Evaluator, Metric, Prompt, Sample, export, model};
use text_metrics::{Bootstrap, ModelName, counted, higher_is_better, mean, one};
use unicode_segmentation::UnicodeSegmentation;

/// `[plugins.coherence.config]`
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// What is measured: `embedding` needs `grants.embed`, `gain` needs `grants.logprobs`.
    measures: Vec<Measure>,
    /// Which model is asked: `run`, `reference` or `judges.<name>`; the same is to be granted.
    model: ModelName,
    /// What stands in the place of the sentence before, for the probability of a sentence by itself.
    neutral: String,
    /// The bootstrap behind the confidence interval.
    confidence: Bootstrap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Measure {
    Embedding,
    Gain,
}

impl Measure {
    fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Gain => "gain",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let (model, confidence) = (ModelName::default(), Bootstrap::default());
        Self { measures: vec![Measure::Embedding], model, neutral: "\n".into(), confidence }
    }
}

struct Coherence {
    config: Config,
    /// Of each measure its values, an answer each.
    values: Vec<Vec<f64>>,
    one_sentence: u64,
}

impl TryFrom<Config> for Coherence {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.measures.is_empty() {
            return Err(ConfigProblem::new("measures", "must not be empty"));
        }
        if config.neutral.is_empty() {
            let message = "must not be empty: a first token without anything before it has no probability";
            return Err(ConfigProblem::new("neutral", message));
        }
        let values = vec![Vec::new(); config.measures.len()];
        Ok(Self { config, values, one_sentence: 0 })
    }
}

/// A sentence, and the white space between it and the one before.
struct Sentence<'a> {
    space: &'a str,
    text: &'a str,
}

/// By Unicode's rules (UAX #29), which know the full stops of all scripts; a line's end ends a sentence too.
fn sentences(text: &str) -> Vec<Sentence<'_>> {
    let mut space = "";
    let mut sentences = Vec::new();
    for piece in text.unicode_sentences() {
        let sentence = piece.trim_end();
        sentences.push(Sentence { space, text: sentence.trim_start() });
        space = &piece[sentence.len()..];
    }
    sentences
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let norm = (dot(a, a) * dot(b, b)).sqrt();
    if norm > 0.0 { dot(a, b) / norm } else { 0.0 }
}

impl Coherence {
    /// Of each text the values of its pairs of neighbours.
    fn measure(&self, which: Measure, texts: &[Vec<Sentence>]) -> Result<Vec<Vec<f64>>, String> {
        let asked = model::Model::from(&self.config.model);
        match which {
            Measure::Embedding => {
                let all: Vec<String> = texts.iter().flatten().map(|it| it.text.to_owned()).collect();
                let mut vectors = model::embed(&asked, &all)?.into_iter();
                let of = |text: &Vec<Sentence>| {
                    let own: Vec<_> = vectors.by_ref().take(text.len()).collect();
                    own.windows(2).map(|it| cosine(&it[0], &it[1])).collect()
                };
                Ok(texts.iter().map(of).collect())
            }
            Measure::Gain => {
                let mut pairs = Vec::new();
                for neighbours in texts.iter().flat_map(|it| it.windows(2)) {
                    let next = format!("{}{}", neighbours[1].space, neighbours[1].text);
                    pairs.push((Prompt::Text(neighbours[0].text.to_owned()), next.clone()));
                    pairs.push((Prompt::Text(self.config.neutral.clone()), next));
                }
                let answers = model::logprobs(&asked, pairs)?;
                let per_token = |it: &model::TextLogprob| it.sum / f64::from(it.token_count.max(1));
                let mut gains = answers.chunks_exact(2).map(|it| per_token(&it[0]) - per_token(&it[1]));
                let of = |text: &Vec<Sentence>| gains.by_ref().take(text.len() - 1).collect();
                Ok(texts.iter().map(of).collect())
            }
        }
    }
}

impl Evaluator for Coherence {
    fn grade(&mut self, sample: &Sample) -> Detail {
        one(self.grade_all(std::slice::from_ref(sample)))
    }

    fn grade_all(&mut self, samples: &[Sample]) -> Result<Vec<Detail>, String> {
        let mut details = vec![Detail::default(); samples.len()];
        let (mut places, mut texts) = (Vec::new(), Vec::new());
        for (at, sample) in samples.iter().enumerate() {
            let sentences = sentences(&sample.completion.text);
            if sentences.len() < 2 {
                self.one_sentence += 1;
                details[at].note = Some("fewer than two sentences".into());
            } else {
                places.push(at);
                texts.push(sentences);
            }
        }
        let measures = if texts.is_empty() { Vec::new() } else { self.config.measures.clone() };
        for (all, which) in measures.into_iter().enumerate() {
            for (at, pairs) in places.iter().zip(self.measure(which, &texts)?) {
                let value = mean(&pairs);
                if !value.is_finite() {
                    return Err(format!("the model gave no number for `{}`", which.name()));
                }
                self.values[all].push(value);
                details[*at].values.push((which.name().into(), value));
            }
        }
        Ok(details)
    }

    fn finish(&mut self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        for (which, values) in self.config.measures.iter().zip(&mut self.values) {
            let values = std::mem::take(values);
            if !values.is_empty() {
                let sampled = self.config.confidence.mean(&values);
                metrics.push(higher_is_better(which.name(), mean(&values), sampled, values.len()));
            }
        }
        metrics.extend(counted("one_sentence", std::mem::take(&mut self.one_sentence)));
        metrics
    }
}

export!(evaluator: Coherence from Config);

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: numpy, `tests/golden/generate/evaluator_cases.py`.
    #[test]
    fn its_cases_hold() {
        text_metrics::cases::evaluator::<Config, Coherence>(&[], include_str!("../cases/coherence.jsonl"));
    }

    #[test]
    fn sentences_end_by_the_rules_of_their_script() {
        let texts =
            |text| sentences(text).iter().map(|it| format!("{}|{}", it.space, it.text)).collect::<Vec<_>>();
        assert_eq!(texts("It costs 3.50. Really? Yes"), ["|It costs 3.50.", " |Really?", " |Yes"]);
        assert_eq!(texts("天气很好。我们去公园！好吗？"), ["|天气很好。", "|我们去公园！", "|好吗？"]);
        assert_eq!(texts("one line\nanother\n"), ["|one line", "\n|another"]);
        assert_eq!(texts("यह सच है। ठीक है।"), ["|यह सच है।", " |ठीक है।"]);
        assert!(texts(" \n").is_empty());
    }
}
