//! {{ description }}.
use fthost_plugin_sdk::{Group, Reward, Score, export, plugin_config, serde_json::Value};

/// `[plugins.{{ name }}.config]`.
#[plugin_config]
struct Config {
    /// The column that holds the expected answer.
    #[default = "answer"]
    column: String,
}

struct {{ type }}(Config);

impl From<Config> for {{ type }} {
    fn from(config: Config) -> Self {
        Self(config)
    }
}

impl Reward for {{ type }} {
    fn score(&self, group: &Group) -> Vec<Score> {
        let Some(Value::String(expected)) = group.columns.get(&self.0.column) else {
            let reason = format!("no text in column `{}`", self.0.column);
            return vec![Score::abstain(reason); group.completions.len()];
        };
        group.completions.iter().map(|it| compare(&it.text, expected.trim())).collect()
    }
}

/// 1 for the expected answer, 0.5 for one that holds it.
fn compare(answer: &str, expected: &str) -> Score {
    let (exact, contains) = (answer.trim() == expected, answer.contains(expected));
    let value = if exact { 1.0 } else if contains { 0.5 } else { 0.0 };
    Score::new(value).with("exact", f64::from(exact)).with("contains", f64::from(contains))
}

export!(reward: {{ type }} from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::{serde_json::json, testing};

    #[test]
    fn the_expected_answer_is_worth_most() {
        let mut reward: {{ type }} = testing::configure::<Config, _>(json!({})).unwrap();
        let group = testing::group(json!({"answer": "4"}), &["4", "It is 4.", "5"]);
        let scores = testing::score(&mut reward, vec![group]).unwrap();
        let values: Vec<_> = scores[0].iter().map(|it| it.value().unwrap()).collect();
        assert_eq!(values, [1.0, 0.5, 0.0]);
    }
}
