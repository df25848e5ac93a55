//! ROUGE of the answers, with rouge-score's numbers, the mean over samples, and a 95% confidence interval by bootstrap.

use fthost_plugin_sdk::{ConfigProblem, Detail, Evaluator, Metric, Sample, export};
use text_metrics::{
    Bootstrap, Overlap, Rouge, RougeType, Tokenizer, counted, higher_is_better, mean, references,
};

/// `[plugins.rouge.config]`
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Which ROUGEs.
    types: Vec<RougeType>,
    /// What is reported of each: an F-measure goes by the ROUGE's own name, the others by `rouge1_precision` and so on.
    measures: Vec<Measure>,
    /// One of sacrebleu's tokenisers, `zh` for Chinese, `char` for other scripts without spaces. By default rouge-score's
    /// own, which finds words of ASCII letters and digits only: 0 in every other script.
    tokenizer: Option<Tokenizer>,
    /// Whether words lose their endings (Porter's stemmer; English, with rouge-score's own tokeniser).
    stemmer: bool,
    /// Whether case is ignored with one of sacrebleu's tokenisers; rouge-score's own always ignores it.
    lowercase: bool,
    /// The column that holds the expected answer or a list of them, of which the best counts; by default the row's own
    /// completion.
    column: Option<String>,
    /// The bootstrap behind the confidence interval.
    confidence: Bootstrap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Measure {
    Fmeasure,
    Precision,
    Recall,
}

impl Measure {
    fn name(self, which: RougeType) -> String {
        match self {
            Self::Fmeasure => which.name().into(),
            Self::Precision => format!("{}_precision", which.name()),
            Self::Recall => format!("{}_recall", which.name()),
        }
    }

    fn of(self, overlap: Overlap) -> f64 {
        match self {
            Self::Fmeasure => overlap.fmeasure,
            Self::Precision => overlap.precision,
            Self::Recall => overlap.recall,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            types: vec![RougeType::Rouge1, RougeType::Rouge2, RougeType::RougeL, RougeType::RougeLsum],
            measures: vec![Measure::Fmeasure],
            tokenizer: None,
            stemmer: false,
            lowercase: false,
            column: None,
            confidence: Bootstrap::default(),
        }
    }
}

struct RougeEvaluator {
    rouge: Rouge,
    config: Config,
    /// Of each figure its values, a sample each.
    values: Vec<Vec<f64>>,
    without_reference: u64,
}

impl TryFrom<Config> for RougeEvaluator {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.stemmer && config.tokenizer.is_some() {
            let message = "works with rouge-score's own tokeniser only: leave out `tokenizer`";
            return Err(ConfigProblem::new("stemmer", message));
        }
        if config.types.is_empty() || config.measures.is_empty() {
            let key = if config.types.is_empty() { "types" } else { "measures" };
            return Err(ConfigProblem::new(key, "must not be empty"));
        }
        let (tokenizer, stemmer, lowercase) = (config.tokenizer, config.stemmer, config.lowercase);
        let values = vec![Vec::new(); config.types.len() * config.measures.len()];
        Ok(Self { rouge: Rouge { tokenizer, stemmer, lowercase }, config, values, without_reference: 0 })
    }
}

impl Evaluator for RougeEvaluator {
    fn grade(&mut self, sample: &Sample) -> Detail {
        let references = references(sample, self.config.column.as_deref());
        if references.is_empty() {
            self.without_reference += 1;
            return Detail { values: Vec::new(), note: Some("no expected answer".into()) };
        }
        let mut values = Vec::new();
        for which in &self.config.types {
            let overlap = self.rouge.score(*which, &sample.completion.text, &references);
            values.extend(self.config.measures.iter().map(|it| (it.name(*which), it.of(overlap))));
        }
        for (all, (_, value)) in self.values.iter_mut().zip(&values) {
            all.push(*value);
        }
        Detail { values, note: None }
    }

    fn finish(&mut self) -> Vec<Metric> {
        let names =
            self.config.types.iter().flat_map(|which| self.config.measures.iter().map(|it| it.name(*which)));
        let mut metrics = Vec::new();
        for (name, values) in names.zip(self.values.iter_mut().map(std::mem::take)) {
            if !values.is_empty() {
                let sampled = self.config.confidence.mean(&values);
                metrics.push(higher_is_better(name, mean(&values), sampled, values.len()));
            }
        }
        metrics.extend(counted("without_reference", std::mem::take(&mut self.without_reference)));
        metrics
    }
}

export!(evaluator: RougeEvaluator from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing::sample;

    /// Oracle: rouge-score 0.1.2, `tests/golden/generate/text_metrics.py`.
    #[test]
    fn its_cases_hold() {
        text_metrics::cases::evaluator::<Config, RougeEvaluator>(
            &[],
            include_str!("../cases/rouge_score.jsonl"),
        );
    }

    #[test]
    fn precision_and_recall_go_by_their_own_names() {
        let measures = vec![Measure::Precision, Measure::Recall];
        let config = Config { measures, types: vec![RougeType::Rouge1], ..Config::default() };
        let mut evaluator = RougeEvaluator::try_from(config).unwrap();
        evaluator.grade(&sample(Some("a b c d"), "a b"));
        let metrics: Vec<_> = evaluator.finish().into_iter().map(|it| (it.name, it.value)).collect();
        assert_eq!(metrics, [("rouge1_precision".into(), 1.0), ("rouge1_recall".into(), 0.5)]);
    }
}
