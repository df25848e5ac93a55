//! What the standard evaluators share: where references come from, how figures are said, which model is asked.

use fthost_plugin_sdk::model::Model;
use fthost_plugin_sdk::{Columns, Detail, Direction, Metric, Sample};
use serde_json::Value;

/// The answers expected of a sample: the row's own completion, or what stands in `column`, one or a list of them.
/// Empty where there is none.
pub fn references(sample: &Sample, column: Option<&str>) -> Vec<String> {
    match column {
        None => sample.reference.iter().cloned().collect(),
        Some(column) => strings(&sample.columns, column),
    }
}

/// A column's text, or texts; what is no text is taken as JSON. Empty where there is no such column, or `null`.
pub fn strings(columns: &Columns, column: &str) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match columns.get(column) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(all)) => all.iter().map(text).collect(),
        Some(value) => vec![text(value)],
    }
}

/// Of no values it is not a number.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// A figure over `count` samples that should grow.
pub fn higher_is_better(
    name: impl Into<String>,
    value: f64,
    confidence: Option<(f64, f64)>,
    count: usize,
) -> Metric {
    let (direction, count) = (Direction::HigherIsBetter, count as u64);
    Metric { name: name.into(), value, direction, confidence, count }
}

/// A figure over `count` samples that should shrink.
pub fn lower_is_better(
    name: impl Into<String>,
    value: f64,
    confidence: Option<(f64, f64)>,
    count: usize,
) -> Metric {
    Metric { direction: Direction::LowerIsBetter, ..higher_is_better(name, value, confidence, count) }
}

/// How many samples had something that kept them out of the other figures; nothing where none had.
pub fn counted(name: &str, samples: u64) -> Option<Metric> {
    (samples > 0).then(|| lower_is_better(name, samples as f64, None, samples as usize))
}

/// What is said of a single sample by an evaluator that grades batches.
pub fn one(graded: Result<Vec<Detail>, String>) -> Detail {
    match graded {
        Ok(mut details) => details.pop().unwrap_or_default(),
        Err(reason) => Detail { values: Vec::new(), note: Some(reason) },
    }
}

/// Which model is asked, as grants name it: `run`, `reference` or `judges.<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^(run|reference|judges\\..+)$"))]
pub enum ModelName {
    /// The model that is trained, as it stands.
    #[default]
    Run,
    /// The same model before training.
    Reference,
    /// One of the run file's `[judges]`.
    Judge(String),
}

impl TryFrom<String> for ModelName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Ok(match name.parse()? {
            Model::Run => Self::Run,
            Model::Reference => Self::Reference,
            Model::Judge(name) => Self::Judge(name),
        })
    }
}

impl From<&ModelName> for Model {
    fn from(name: &ModelName) -> Self {
        match name {
            ModelName::Run => Self::Run,
            ModelName::Reference => Self::Reference,
            ModelName::Judge(name) => Self::Judge(name.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing::{columns, sample};
    use serde_json::json;

    #[test]
    fn a_column_holds_one_reference_or_several() {
        let mut sample = sample(Some("own"), "answer");
        sample.columns = columns(json!({"one": "a", "two": ["a", "b"], "number": 4, "none": null}));
        assert_eq!(references(&sample, None), ["own"]);
        assert_eq!(references(&sample, Some("one")), ["a"]);
        assert_eq!(references(&sample, Some("two")), ["a", "b"]);
        assert_eq!(references(&sample, Some("number")), ["4"]);
        assert!(references(&sample, Some("none")).is_empty() && references(&sample, Some("x")).is_empty());
    }

    #[test]
    fn models_are_named_as_grants_name_them() {
        let read = |text: &str| serde_json::from_value::<ModelName>(json!(text));
        assert_eq!(read("judges.strict").unwrap(), ModelName::Judge("strict".into()));
        assert!(read("strict").unwrap_err().to_string().contains("got `strict`"));
    }
}
