//! How far an answer is the JSON object that was expected: well-formed, its keys, its values.

use fthost_plugin_sdk::{ConfigProblem, Group, Reward, Score, export};
use serde_json::Value;
use text_tools::json::{self, Json, Object};

/// `[plugins.json-match.config]`.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// The column that holds the expected object, as an object or as JSON text.
    column: String,
    /// Whether an object inside a Markdown code fence counts as well-formed.
    allow_fence: bool,
    /// Shares of the parts in the score; divided by their sum.
    weights: Weights,
}

#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Weights {
    /// The answer is one JSON object and nothing else.
    valid: f64,
    /// F1 of the answer's keys against the expected ones.
    keys: f64,
    /// Share of the expected keys whose value is equal.
    values: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { column: "answer".into(), allow_fence: false, weights: Weights::default() }
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self { valid: 0.2, keys: 0.3, values: 0.5 }
    }
}

struct JsonMatch(Config);

impl TryFrom<Config> for JsonMatch {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        let Weights { valid, keys, values } = config.weights;
        for (key, weight) in [("valid", valid), ("keys", keys), ("values", values)] {
            if !(weight >= 0.0 && weight.is_finite()) {
                return Err(ConfigProblem::new(
                    format!("weights.{key}"),
                    format!("must be >= 0, got `{weight}`"),
                ));
            }
        }
        if valid + keys + values <= 0.0 {
            return Err(ConfigProblem::new("weights", "must not all be 0"));
        }
        Ok(Self(config))
    }
}

impl Reward for JsonMatch {
    fn score(&self, group: &Group) -> Vec<Score> {
        let expected = match group.columns.get(&self.0.column) {
            Some(Value::String(text)) => json::parse(text.trim()),
            Some(value) => Some(Json::from(value.clone())),
            None => None,
        };
        let Some(Json::Object(expected)) = expected else {
            let reason = format!("column `{}` holds no JSON object", self.0.column);
            return vec![Score::abstain(reason); group.completions.len()];
        };
        group.completions.iter().map(|it| self.compare(&it.text, &expected)).collect()
    }
}

impl JsonMatch {
    fn compare(&self, answer: &str, expected: &Object) -> Score {
        let text = if self.0.allow_fence { without_fence(answer) } else { answer };
        let found = json::parse(text.trim());
        let found = found.as_ref().and_then(Json::as_object);
        let valid = f64::from(u8::from(found.is_some()));
        let (keys, values) = match found {
            Some(found) => (key_f1(found, expected), value_share(found, expected)),
            None => (0.0, 0.0),
        };
        let weights = &self.0.weights;
        let total = weights.valid + weights.keys + weights.values;
        let value = (weights.valid * valid + weights.keys * keys + weights.values * values) / total;
        Score::new(value).with("valid", valid).with("keys", keys).with("values", values)
    }
}

/// The inside of a text that is one code fence; the text itself otherwise.
fn without_fence(text: &str) -> &str {
    let inside = text.trim().strip_prefix("```").and_then(|it| it.strip_suffix("```"));
    inside.map_or(text, |it| it.strip_prefix("json").unwrap_or(it))
}

/// Harmonic mean of the shares of keys that are right and of keys that are there; 1 for two empty objects.
fn key_f1(found: &Object, expected: &Object) -> f64 {
    let shared = found.iter().filter(|it| expected.get(it.0).is_some()).count();
    match found.len() + expected.len() {
        0 => 1.0,
        all => 2.0 * shared as f64 / all as f64,
    }
}

fn value_share(found: &Object, expected: &Object) -> f64 {
    if expected.is_empty() {
        return 1.0;
    }
    let equal = expected.iter().filter(|(name, value)| found.get(name) == Some(value)).count();
    equal as f64 / expected.len() as f64
}

export!(reward: JsonMatch from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing;
    use serde_json::json;

    fn scores(config: Value, columns: Value, answers: &[&str]) -> Vec<Score> {
        let config: Config = serde_json::from_value(config).unwrap();
        JsonMatch::try_from(config).unwrap().score(&testing::group(columns, answers))
    }

    #[test]
    fn parts_are_weighted() {
        let answers = [r#"{"name": "Ada", "age": 36}"#, r#"{"name": "Ada", "year": 36}"#, "Ada is 36."];
        let scores = scores(json!({}), json!({"answer": {"name": "Ada", "age": 36}}), &answers);
        let values: Vec<f64> = scores.iter().map(|it| it.value().unwrap()).collect();
        // The second: valid 0.2, one of two keys right (F1 1/2), one of two values equal.
        assert_eq!(values, [1.0, 0.2 + 0.3 * 0.5 + 0.5 * 0.5, 0.0]);
        assert_eq!(scores[1].component("keys"), Some(0.5));
    }

    #[test]
    fn a_fence_counts_only_where_allowed() {
        let (columns, fenced) = (json!({"answer": r#"{"a": 1}"#}), ["```json\n{\"a\": 1}\n```"]);
        let strict = scores(json!({}), columns.clone(), &fenced);
        let lenient = scores(json!({"allow_fence": true}), columns, &fenced);
        assert_eq!((strict[0].value(), lenient[0].value()), (Some(0.0), Some(1.0)));
    }

    #[test]
    fn a_row_without_an_expected_object_is_no_zero() {
        assert_eq!(scores(json!({}), json!({"other": 1}), &["{}"])[0].value(), None);
    }

    #[test]
    fn weights_that_say_nothing_are_refused() {
        let config = json!({"weights": {"valid": 0, "keys": 0, "values": 0}});
        let config: Config = serde_json::from_value(config).unwrap();
        assert_eq!(JsonMatch::try_from(config).err().unwrap().key, "weights");
    }
}
