//! Whether a model's confidence means what it says: of the answers it is 80% sure of, are 80% right? Expected and maximum
//! calibration error (Guo et al. 2017, <https://arxiv.org/abs/1706.04599>) and the Brier score.

mod confidence;

use fthost_plugin_sdk::{ConfigProblem, Detail, Evaluator, Metric, Prompt, Sample, export, model};
use text_metrics::{
    Bins, Bootstrap, Calibration, ModelName, counted, higher_is_better, lower_is_better, multilingual_words,
    one, references, strings, summed,
};

use confidence::{Stated, expected_choice, most_likely};

/// `[plugins.calibration.config]`
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Where confidence comes from.
    source: Source,
    /// When an answer is right; of choices the expected one is.
    right: Right,
    /// The column that holds the list of choices, for `source = "choices"`.
    choices: String,
    /// Whether choices are compared by their mean log-probability a token, in place of the sum.
    per_token: bool,
    /// Bins of equal width.
    bins: usize,
    /// Which model is asked: `run`, `reference` or `judges.<name>`; the same is to be granted in `grants.logprobs`.
    model: ModelName,
    /// The column that holds the expected answer or a list of them, of choices also its letter or its position from 0; by
    /// default the row's own completion.
    column: Option<String>,
    /// The bootstrap behind the confidence intervals.
    confidence: Bootstrap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Source {
    /// Probability of the answer's tokens, their geometric mean.
    #[default]
    TokenMean,
    /// Probability of the whole answer.
    Sequence,
    /// What the answer says: `Confidence: 80%`.
    Stated,
    /// Share of the likeliest choice's probability in that of all; the answer itself is not looked at.
    Choices,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Right {
    /// The same words as expected: case, punctuation and English articles apart, CJK characters one by one.
    #[default]
    Words,
    /// The expected words, one after the other, somewhere in it.
    Contains,
    /// The same text, white space at both ends apart.
    Text,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: Source::default(),
            right: Right::default(),
            choices: "choices".into(),
            per_token: false,
            bins: 10,
            model: ModelName::default(),
            column: None,
            confidence: Bootstrap::default(),
        }
    }
}

struct CalibrationEvaluator {
    config: Config,
    stated: Stated,
    rows: Vec<Vec<f64>>,
    without_reference: u64,
    without_confidence: u64,
}

impl TryFrom<Config> for CalibrationEvaluator {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if !(1..=1000).contains(&config.bins) {
            return Err(ConfigProblem::new("bins", format!("must be in 1..=1000, got `{}`", config.bins)));
        }
        let stated = Stated::new();
        Ok(Self { config, stated, rows: Vec::new(), without_reference: 0, without_confidence: 0 })
    }
}

/// Confidence and whether the answer is right, where there is one.
type Judged = Option<(f64, bool)>;

impl CalibrationEvaluator {
    fn is_right(&self, answer: &str, references: &[String]) -> bool {
        let found = multilingual_words(answer);
        references.iter().any(|expected| match self.config.right {
            Right::Text => answer.trim() == expected.trim(),
            Right::Words => found == multilingual_words(expected),
            Right::Contains => {
                let expected = multilingual_words(expected);
                !expected.is_empty() && found.windows(expected.len()).any(|it| it == expected)
            }
        })
    }

    fn by_statement(&self, samples: &[(&Sample, Vec<String>)]) -> Vec<Judged> {
        let judged = |(sample, references): &(&Sample, Vec<String>)| {
            let (confidence, rest) = self.stated.split(&sample.completion.text)?;
            Some((confidence, self.is_right(&rest, references)))
        };
        samples.iter().map(judged).collect()
    }

    fn by_answer(&self, samples: &[(&Sample, Vec<String>)]) -> Result<Vec<Judged>, String> {
        let pairs = samples.iter().map(|(it, _)| (it.prompt.clone(), it.completion.text.clone())).collect();
        let answers = model::logprobs(&(&self.config.model).into(), pairs)?;
        let judged = |((sample, references), answer): (&(&Sample, Vec<String>), model::TextLogprob)| {
            let tokens =
                if self.config.source == Source::Sequence { 1.0 } else { f64::from(answer.token_count) };
            let confidence = (answer.sum / tokens).exp();
            let usable = answer.token_count > 0 && confidence.is_finite();
            usable.then(|| (confidence, self.is_right(&sample.completion.text, references)))
        };
        Ok(samples.iter().zip(answers).map(judged).collect())
    }

    fn by_choices(&self, samples: &[(&Sample, Vec<String>)]) -> Result<Vec<Judged>, String> {
        let choices: Vec<_> =
            samples.iter().map(|(it, _)| strings(&it.columns, &self.config.choices)).collect();
        let mut pairs: Vec<(Prompt, String)> = Vec::new();
        for ((sample, _), choices) in samples.iter().zip(&choices) {
            pairs.extend(choices.iter().map(|it| (sample.prompt.clone(), it.clone())));
        }
        let mut answers = model::logprobs(&(&self.config.model).into(), pairs)?.into_iter();
        let judged = |((_, references), choices): (&(&Sample, Vec<String>), &Vec<String>)| {
            let score = |it: model::TextLogprob| {
                if self.config.per_token { it.sum / f64::from(it.token_count) } else { it.sum }
            };
            let scores: Vec<f64> = answers.by_ref().take(choices.len()).map(score).collect();
            let (chosen, confidence) = most_likely(&scores)?;
            let expected = expected_choice(references.first()?, choices)?;
            Some((confidence, chosen == expected))
        };
        Ok(samples.iter().zip(&choices).map(judged).collect())
    }
}

impl Evaluator for CalibrationEvaluator {
    fn grade(&mut self, sample: &Sample) -> Detail {
        one(self.grade_all(std::slice::from_ref(sample)))
    }

    fn grade_all(&mut self, samples: &[Sample]) -> Result<Vec<Detail>, String> {
        let mut details = vec![Detail::default(); samples.len()];
        let (mut places, mut asked) = (Vec::new(), Vec::new());
        for (at, sample) in samples.iter().enumerate() {
            let references = references(sample, self.config.column.as_deref());
            if references.is_empty() {
                self.without_reference += 1;
                details[at].note = Some("no expected answer".into());
            } else {
                places.push(at);
                asked.push((sample, references));
            }
        }
        let judged = match self.config.source {
            Source::Stated => self.by_statement(&asked),
            Source::TokenMean | Source::Sequence => self.by_answer(&asked)?,
            Source::Choices => self.by_choices(&asked)?,
        };
        for (at, judged) in places.into_iter().zip(judged) {
            let Some((confidence, right)) = judged else {
                self.without_confidence += 1;
                details[at].note = Some("no confidence".into());
                continue;
            };
            self.rows.push(Bins(self.config.bins).statistics(confidence, right));
            let right = f64::from(u8::from(right));
            details[at].values = vec![("confidence".into(), confidence), ("right".into(), right)];
        }
        Ok(details)
    }

    fn finish(&mut self) -> Vec<Metric> {
        let (rows, bins) = (std::mem::take(&mut self.rows), Bins(self.config.bins));
        let mut metrics = Vec::new();
        if !rows.is_empty() {
            let figures = |sums: &[f64]| {
                let Calibration { expected_error, maximum_error, brier, accuracy, confidence } =
                    bins.score(sums);
                [expected_error, maximum_error, brier, accuracy, confidence]
            };
            let [ece, mce, brier, accuracy, confidence] = figures(&summed(&rows));
            let [of_ece, of_mce, of_brier, of_accuracy, of_confidence] =
                self.config.confidence.sums(&rows, figures);
            let count = rows.len();
            metrics.extend([
                lower_is_better("ece", ece, of_ece, count),
                lower_is_better("mce", mce, of_mce, count),
                lower_is_better("brier", brier, of_brier, count),
                higher_is_better("accuracy", accuracy, of_accuracy, count),
                higher_is_better("mean_confidence", confidence, of_confidence, count),
            ]);
        }
        metrics.extend(counted("without_reference", std::mem::take(&mut self.without_reference)));
        metrics.extend(counted("without_confidence", std::mem::take(&mut self.without_confidence)));
        metrics
    }
}

export!(evaluator: CalibrationEvaluator from Config);

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: numpy, `tests/golden/generate/evaluator_cases.py`.
    #[test]
    fn its_cases_hold() {
        text_metrics::cases::evaluator::<Config, CalibrationEvaluator>(
            &[],
            include_str!("../cases/calibration.jsonl"),
        );
    }
}
