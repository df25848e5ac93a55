//! Exact match and token F1 against the expected answer.
//!
//! `squad` is SQuAD's normalisation and F1 (Rajpurkar et al. 2016, <https://arxiv.org/abs/1606.05250>): lower case,
//! no ASCII punctuation, no English articles, single spaces; F1 over the bag of words. `multilingual` is the same for every
//! script, as in MLQA (Lewis et al. 2020, <https://aclanthology.org/2020.acl-main.653>): CJK characters are words.

use fthost_plugin_sdk::{Detail, Evaluator, Metric, Sample, export};
use serde_json::Value;
use text_metrics::{Bootstrap, bag_f1, counted, higher_is_better, mean, multilingual_words, squad_words};

/// `[plugins.exact-and-f1.config]`.
#[derive(Debug, Clone, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// What counts as the same answer.
    compare: Compare,
    /// The column that holds the expected answer; by default the row's own completion.
    column: Option<String>,
    /// The bootstrap behind the confidence interval of F1.
    confidence: Bootstrap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Compare {
    /// The same text, white space at both ends apart.
    #[default]
    Text,
    /// The same text after SQuAD's normalisation.
    Squad,
    /// The same after SQuAD's normalisation for every script; F1 counts Chinese, Japanese and Korean by characters.
    Multilingual,
    /// The same JSON value: the order of keys and white space do not matter.
    Json,
}

struct ExactAndF1 {
    config: Config,
    exact: Vec<f64>,
    f1: Vec<f64>,
    without_reference: u64,
}

impl From<Config> for ExactAndF1 {
    fn from(config: Config) -> Self {
        Self { config, exact: Vec::new(), f1: Vec::new(), without_reference: 0 }
    }
}

impl Evaluator for ExactAndF1 {
    fn grade(&mut self, sample: &Sample) -> Detail {
        let expected = match &self.config.column {
            None => sample.reference.clone(),
            Some(column) => match sample.columns.get(column) {
                Some(Value::String(text)) => Some(text.clone()),
                Some(value) => Some(value.to_string()),
                None => None,
            },
        };
        let Some(expected) = expected else {
            self.without_reference += 1;
            return Detail { values: Vec::new(), note: Some("no expected answer".into()) };
        };
        let answer = &sample.completion.text;
        let exact = f64::from(u8::from(same(self.config.compare, answer, &expected)));
        let f1 = bag_f1(&self.words(answer), &self.words(&expected));
        self.exact.push(exact);
        self.f1.push(f1);
        Detail { values: vec![("exact_match".into(), exact), ("f1".into(), f1)], note: None }
    }

    fn finish(&mut self) -> Vec<Metric> {
        let (exact, f1) = (std::mem::take(&mut self.exact), std::mem::take(&mut self.f1));
        let mut metrics = Vec::new();
        if !exact.is_empty() {
            metrics.push(higher_is_better("exact_match", mean(&exact), Some(wilson(&exact)), exact.len()));
            metrics.push(higher_is_better("f1", mean(&f1), self.config.confidence.mean(&f1), f1.len()));
        }
        metrics.extend(counted("without_reference", std::mem::take(&mut self.without_reference)));
        metrics
    }
}

impl ExactAndF1 {
    /// What F1 counts.
    fn words(&self, text: &str) -> Vec<String> {
        if self.config.compare == Compare::Multilingual {
            multilingual_words(text)
        } else {
            squad_words(text)
        }
    }
}

fn same(compare: Compare, answer: &str, expected: &str) -> bool {
    let json = |text: &str| serde_json::from_str::<Value>(text.trim()).ok();
    match compare {
        Compare::Text => answer.trim() == expected.trim(),
        Compare::Squad => squad_words(answer) == squad_words(expected),
        Compare::Multilingual => multilingual_words(answer) == multilingual_words(expected),
        Compare::Json => json(answer).is_some_and(|it| Some(it) == json(expected)),
    }
}

/// Wilson's 95% interval of a share (Wilson 1927), which holds near 0 and 1 and for few samples.
fn wilson(values: &[f64]) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    let (n, share) = (values.len() as f64, mean(values));
    let centre = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

export!(evaluator: ExactAndF1 from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::{Columns, Completion, Finish, Prompt};

    fn judged(config: &str, pairs: &[(&str, &str)]) -> (Vec<Detail>, Vec<Metric>) {
        let config: Config = serde_json::from_str(config).unwrap();
        let mut evaluator = ExactAndF1::from(config);
        let sample = |(id, (answer, reference)): (usize, &(&str, &str))| Sample {
            step: 0,
            steps: 0,
            id: id as u64,
            prompt: Prompt::Text("?".into()),
            completion: Completion { text: answer.to_string(), token_count: 1, finish: Finish::Stop },
            reference: Some(reference.to_string()),
            columns: Columns::new(),
        };
        let details = pairs.iter().enumerate().map(sample).map(|it| evaluator.grade(&it)).collect();
        (details, evaluator.finish())
    }

    fn value(detail: &Detail, name: &str) -> f64 {
        detail.values.iter().find(|it| it.0 == name).unwrap().1
    }

    /// Oracle: the official SQuAD v1.1 evaluation script's `f1_score` and `exact_match_score`, by hand.
    #[test]
    fn squad_f1_and_exact_match() {
        let pairs = [("The cat sat.", "a cat sat"), ("cat cat dog", "cat dog bird"), ("x", "y")];
        let (details, metrics) = judged(r#"{"compare": "squad"}"#, &pairs);
        assert_eq!(value(&details[0], "exact_match"), 1.0);
        // Two words shared of three and three.
        assert!((value(&details[1], "f1") - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(value(&details[2], "f1"), 0.0);
        assert!((metrics[1].value - (1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn text_compares_as_written_and_json_by_value() {
        let pair = [(r#"{"b": 1, "a": 2}"#, r#"{"a":2,"b":1}"#)];
        assert_eq!(judged(r#"{}"#, &pair).1[0].value, 0.0);
        assert_eq!(judged(r#"{"compare": "json"}"#, &pair).1[0].value, 1.0);
        assert_eq!(judged(r#"{"compare": "json"}"#, &[("no", "no")]).1[0].value, 0.0);
    }

    /// Oracle: `scipy.stats.binomtest(8, 10).proportion_ci(method="wilson")`.
    #[test]
    fn the_interval_is_wilsons() {
        let pairs: Vec<(&str, &str)> =
            (0..10).map(|it| if it < 8 { ("a1", "a1") } else { ("x", "y") }).collect();
        let (low, high) = judged("{}", &pairs).1[0].confidence.unwrap();
        assert!(
            (low - 0.490_162_471_536_641_8).abs() < 1e-9 && (high - 0.943_317_848_545_624_8).abs() < 1e-9,
            "{low} {high}"
        );
    }

    /// Oracle: MLQA's normalisation written out in `tests/golden/generate/text_metrics.py`; Wilson's interval by its formula.
    #[test]
    fn its_cases_hold() {
        text_metrics::cases::evaluator::<Config, ExactAndF1>(
            &[],
            include_str!("../cases/exact_and_f1.jsonl"),
        );
    }

    #[test]
    fn a_finished_evaluation_starts_afresh() {
        let mut evaluator = ExactAndF1::from(Config::default());
        assert!(evaluator.finish().is_empty());
    }
}
