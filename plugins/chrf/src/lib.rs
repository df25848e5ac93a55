//! Corpus chrF or chrF++ of the answers, with sacrebleu's numbers, and a 95% confidence interval by bootstrap over samples.

use fthost_plugin_sdk::{ConfigProblem, Detail, Evaluator, Metric, Sample, export};
use text_metrics::{Bootstrap, Chrf, counted, higher_is_better, references, summed};

/// `[plugins.chrf.config]`: sacrebleu's options, with its defaults.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Length of the longest n-grams of characters.
    char_order: usize,
    /// Length of the longest n-grams of words: 0 for chrF, 2 for chrF++.
    word_order: usize,
    /// Weight of recall against precision.
    beta: f64,
    /// Whether case is ignored.
    lowercase: bool,
    /// Whether white space counts as characters.
    whitespace: bool,
    /// Whether lengths without n-grams count with a tiny share, in place of not at all.
    eps_smoothing: bool,
    /// The column that holds the expected answer or a list of them; by default the row's own completion.
    column: Option<String>,
    /// The bootstrap behind the confidence interval.
    confidence: Bootstrap,
}

impl Default for Config {
    fn default() -> Self {
        let Chrf { char_order, word_order, beta, lowercase, whitespace, eps_smoothing } = Chrf::default();
        let (column, confidence) = (None, Bootstrap::default());
        Self { char_order, word_order, beta, lowercase, whitespace, eps_smoothing, column, confidence }
    }
}

struct ChrfEvaluator {
    chrf: Chrf,
    column: Option<String>,
    confidence: Bootstrap,
    rows: Vec<Vec<f64>>,
    without_reference: u64,
}

impl TryFrom<Config> for ChrfEvaluator {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        let Config { char_order, word_order, beta, lowercase, whitespace, eps_smoothing, .. } = config;
        let chrf = Chrf { char_order, word_order, beta, lowercase, whitespace, eps_smoothing };
        chrf.check().map_err(|(key, message)| ConfigProblem::new(key, message))?;
        let (column, confidence) = (config.column, config.confidence);
        Ok(Self { chrf, column, confidence, rows: Vec::new(), without_reference: 0 })
    }
}

impl ChrfEvaluator {
    /// As in sacrebleu: a plus for each length of n-grams of words.
    fn name(&self) -> String {
        format!("chrf{}", "+".repeat(self.chrf.word_order))
    }
}

impl Evaluator for ChrfEvaluator {
    fn grade(&mut self, sample: &Sample) -> Detail {
        let references = references(sample, self.column.as_deref());
        if references.is_empty() {
            self.without_reference += 1;
            return Detail { values: Vec::new(), note: Some("no expected answer".into()) };
        }
        let row = self.chrf.statistics(&sample.completion.text, &references);
        let value = self.chrf.score(&row);
        self.rows.push(row);
        Detail { values: vec![(self.name(), value)], note: None }
    }

    fn finish(&mut self) -> Vec<Metric> {
        let rows = std::mem::take(&mut self.rows);
        let mut metrics = Vec::new();
        if !rows.is_empty() {
            let value = self.chrf.score(&summed(&rows));
            let [sampled] = self.confidence.sums(&rows, |sums| [self.chrf.score(sums)]);
            metrics.push(higher_is_better(self.name(), value, sampled, rows.len()));
        }
        metrics.extend(counted("without_reference", std::mem::take(&mut self.without_reference)));
        metrics
    }
}

export!(evaluator: ChrfEvaluator from Config);

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: sacrebleu 2.6.0, `tests/golden/generate/text_metrics.py`.
    #[test]
    fn its_cases_hold() {
        text_metrics::cases::evaluator::<Config, ChrfEvaluator>(
            &[],
            include_str!("../cases/sacrebleu.jsonl"),
        );
    }
}
