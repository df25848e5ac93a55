//! {{ description }}.
use fthost_plugin_sdk::{Detail, Direction, Evaluator, Metric, Sample, export, plugin_config};

/// `[plugins.{{ name }}.config]`.
#[plugin_config]
struct Config {
    /// Whether upper and lower case are the same.
    #[default]
    ignore_case: bool,
}

struct {{ type }} {
    config: Config,
    graded: Vec<f64>,
}

impl From<Config> for {{ type }} {
    fn from(config: Config) -> Self {
        Self { config, graded: Vec::new() }
    }
}

impl Evaluator for {{ type }} {
    fn grade(&mut self, sample: &Sample) -> Detail {
        let Some(expected) = &sample.reference else {
            return Detail { values: Vec::new(), note: Some("no expected answer".into()) };
        };
        let exact = f64::from(self.same(&sample.completion.text, expected));
        self.graded.push(exact);
        Detail { values: vec![("exact".into(), exact)], note: None }
    }

    fn finish(&mut self) -> Vec<Metric> {
        let graded = std::mem::take(&mut self.graded);
        if graded.is_empty() {
            return Vec::new();
        }
        vec![Metric {
            name: "exact".into(),
            value: graded.iter().sum::<f64>() / graded.len() as f64,
            direction: Direction::HigherIsBetter,
            confidence: None,
            count: graded.len() as u64,
        }]
    }
}

impl {{ type }} {
    fn same(&self, answer: &str, expected: &str) -> bool {
        let (answer, expected) = (answer.trim(), expected.trim());
        answer == expected || (self.config.ignore_case && answer.to_lowercase() == expected.to_lowercase())
    }
}

export!(evaluator: {{ type }} from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::{serde_json::json, testing};

    #[test]
    fn the_metric_is_the_share_of_right_answers() {
        let mut evaluator: {{ type }} = testing::configure::<Config, _>(json!({"ignore_case": true})).unwrap();
        let samples = vec![testing::sample(Some("yes"), "Yes"), testing::sample(Some("yes"), "no")];
        testing::grade(&mut evaluator, samples).unwrap();
        assert_eq!(evaluator.finish()[0].value, 0.5);
    }
}
