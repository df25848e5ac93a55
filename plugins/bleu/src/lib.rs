//! Corpus BLEU of the answers, with sacrebleu's numbers, and a 95% confidence interval by bootstrap over samples.

use fthost_plugin_sdk::{ConfigProblem, Detail, Evaluator, Metric, Sample, export};
use text_metrics::{
    Bleu, Bootstrap, Smoothing, Tokenizer, counted, higher_is_better, mean, references, summed,
};

/// `[plugins.bleu.config]`: sacrebleu's options, with its defaults.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// How texts become words: `13a`, `intl`, `zh` for Chinese, `char` for other scripts without spaces, `none`.
    tokenizer: Tokenizer,
    /// Whether case is ignored.
    lowercase: bool,
    /// What stands in for a precision of 0: `exp`, `none`, `{ floor = 0.1 }`, `{ add-k = 1.0 }`.
    smoothing: Smoothing,
    /// Length of the longest n-grams.
    max_order: usize,
    /// Whether lengths of which the answers have no n-gram are left out. A sentence's own BLEU always leaves them out.
    effective_order: bool,
    /// The column that holds the expected answer or a list of them; by default the row's own completion.
    column: Option<String>,
    /// The bootstrap behind the confidence interval.
    confidence: Bootstrap,
}

impl Default for Config {
    fn default() -> Self {
        let Bleu { tokenizer, lowercase, smoothing, max_order, effective_order } = Bleu::default();
        let confidence = Bootstrap::default();
        Self { tokenizer, lowercase, smoothing, max_order, effective_order, column: None, confidence }
    }
}

struct BleuEvaluator {
    bleu: Bleu,
    column: Option<String>,
    confidence: Bootstrap,
    rows: Vec<Vec<f64>>,
    sentences: Vec<f64>,
    without_reference: u64,
}

impl TryFrom<Config> for BleuEvaluator {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        let Config { tokenizer, lowercase, smoothing, max_order, effective_order, column, confidence } =
            config;
        let bleu = Bleu { tokenizer, lowercase, smoothing, max_order, effective_order };
        bleu.check().map_err(|(key, message)| ConfigProblem::new(key, message))?;
        let (rows, sentences) = (Vec::new(), Vec::new());
        Ok(Self { bleu, column, confidence, rows, sentences, without_reference: 0 })
    }
}

impl Evaluator for BleuEvaluator {
    fn grade(&mut self, sample: &Sample) -> Detail {
        let references = references(sample, self.column.as_deref());
        if references.is_empty() {
            self.without_reference += 1;
            return Detail { values: Vec::new(), note: Some("no expected answer".into()) };
        }
        let row = self.bleu.statistics(&sample.completion.text, &references);
        let sentence = Bleu { effective_order: true, ..self.bleu.clone() }.score(&row).score;
        self.rows.push(row);
        self.sentences.push(sentence);
        Detail { values: vec![("bleu".into(), sentence)], note: None }
    }

    fn finish(&mut self) -> Vec<Metric> {
        let (rows, sentences) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.sentences));
        let mut metrics = Vec::new();
        if !rows.is_empty() {
            let score = self.bleu.score(&summed(&rows));
            let [of_score, of_penalty] = self.confidence.sums(&rows, |sums| {
                let drawn = self.bleu.score(sums);
                [drawn.score, drawn.brevity_penalty]
            });
            let of_sentences = self.confidence.mean(&sentences);
            let (penalty, count) = (score.brevity_penalty, rows.len());
            metrics.push(higher_is_better("bleu", score.score, of_score, count));
            metrics.push(higher_is_better("bleu_sentence", mean(&sentences), of_sentences, count));
            metrics.push(higher_is_better("bleu_brevity_penalty", penalty, of_penalty, count));
        }
        metrics.extend(counted("without_reference", std::mem::take(&mut self.without_reference)));
        metrics
    }
}

export!(evaluator: BleuEvaluator from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing::sample;

    /// Oracle: sacrebleu 2.6.0, `tests/golden/generate/text_metrics.py`.
    #[test]
    fn its_cases_hold() {
        text_metrics::cases::evaluator::<Config, BleuEvaluator>(
            &[],
            include_str!("../cases/sacrebleu.jsonl"),
        );
    }

    #[test]
    fn a_sample_without_a_reference_is_counted_and_no_zero() {
        let mut evaluator = BleuEvaluator::try_from(Config::default()).unwrap();
        evaluator.grade(&sample(None, "an answer"));
        evaluator.grade(&sample(Some("the same four words"), "the same four words"));
        let metrics = evaluator.finish();
        assert!((metrics[0].value - 100.0).abs() < 1e-9);
        assert_eq!(
            (metrics[0].count, metrics[3].name.as_str(), metrics[3].value),
            (1, "without_reference", 1.0)
        );
    }
}
