//! Exact match and token F1 against the expected answer.
//!
//! `squad` is SQuAD's normalisation and F1 (Rajpurkar et al. 2016, <https://arxiv.org/abs/1606.05250>): lower case,
//! no ASCII punctuation, no English articles, single spaces; F1 over the bag of words.

use std::collections::BTreeMap;

use fthost_plugin_sdk::{Detail, Direction, Evaluator, Metric, Sample, export};
use serde_json::Value;

/// `[plugins.exact-and-f1.config]`.
#[derive(Debug, Clone, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// What counts as the same answer.
    compare: Compare,
    /// The column that holds the expected answer; by default the row's own completion.
    column: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Compare {
    /// The same text, white space at both ends apart.
    #[default]
    Text,
    /// The same text after SQuAD's normalisation.
    Squad,
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
        let f1 = f1(&words(answer), &words(&expected));
        self.exact.push(exact);
        self.f1.push(f1);
        Detail { values: vec![("exact_match".into(), exact), ("f1".into(), f1)], note: None }
    }

    fn finish(&mut self) -> Vec<Metric> {
        let (exact, f1) = (std::mem::take(&mut self.exact), std::mem::take(&mut self.f1));
        let metric = |name: &str, values: &[f64], confidence| Metric {
            name: name.into(),
            value: mean(values),
            direction: Direction::HigherIsBetter,
            confidence,
            count: values.len() as u64,
        };
        let mut metrics = Vec::new();
        if !exact.is_empty() {
            metrics.push(metric("exact_match", &exact, Some(wilson(&exact))));
            metrics.push(metric("f1", &f1, None));
        }
        if self.without_reference > 0 {
            metrics.push(Metric {
                name: "without_reference".into(),
                value: std::mem::take(&mut self.without_reference) as f64,
                direction: Direction::LowerIsBetter,
                confidence: None,
                count: 0,
            });
        }
        metrics
    }
}

fn same(compare: Compare, answer: &str, expected: &str) -> bool {
    let json = |text: &str| serde_json::from_str::<Value>(text.trim()).ok();
    match compare {
        Compare::Text => answer.trim() == expected.trim(),
        Compare::Squad => words(answer) == words(expected),
        Compare::Json => json(answer).is_some_and(|it| Some(it) == json(expected)),
    }
}

/// SQuAD's normalisation, as words.
fn words(text: &str) -> Vec<String> {
    let text: String = text.to_lowercase().chars().filter(|it| !it.is_ascii_punctuation()).collect();
    text.split_whitespace().filter(|it| !["a", "an", "the"].contains(it)).map(str::to_string).collect()
}

/// Harmonic mean of precision and recall over bags of words; where one side has no words, 1 if both have none.
fn f1(answer: &[String], expected: &[String]) -> f64 {
    if answer.is_empty() || expected.is_empty() {
        return f64::from(u8::from(answer == expected));
    }
    let mut left: BTreeMap<&str, u64> = BTreeMap::new();
    for word in expected {
        *left.entry(word).or_default() += 1;
    }
    let hits = answer.iter().filter(|word| match left.get_mut(word.as_str()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    });
    let hits = hits.count() as f64;
    if hits == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (hits / answer.len() as f64, hits / expected.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
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

    #[test]
    fn a_finished_evaluation_starts_afresh() {
        let mut evaluator = ExactAndF1::from(Config::default());
        assert!(evaluator.finish().is_empty());
    }
}
