//! Expected against found: each difference with its place, in words.

use serde_json::{Map, Value};

/// One thing that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// As in `completion 2`, `metric exact`.
    pub place: String,
    /// What the case says.
    pub expected: String,
    /// What the plugin said.
    pub found: String,
}

impl Difference {
    pub(crate) fn new(place: impl Into<String>, expected: impl ToString, found: impl ToString) -> Self {
        Self { place: place.into(), expected: expected.to_string(), found: found.to_string() }
    }
}

/// Differences between answers, one an item; `item` names one, as in `row`.
pub(crate) fn answers(item: &str, expected: &[Value], found: &[Value], tolerance: f64) -> Vec<Difference> {
    let mut all = Vec::new();
    for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
        match (item, expected, found) {
            // A group: one outcome a completion.
            ("group", Value::Array(expected), Value::Array(found)) => {
                for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                    value(&format!("completion {}", index + 1), expected, found, tolerance, &mut all);
                }
            }
            _ => value(&format!("{item} {}", index + 1), expected, found, tolerance, &mut all),
        }
    }
    all
}

/// Differences of metrics by name: a figure, or `{"value", "confidence"}`.
pub(crate) fn metrics(expected: &Value, found: &[Value], tolerance: f64) -> Vec<Difference> {
    let mut all = Vec::new();
    for (name, expected) in expected.as_object().into_iter().flatten() {
        let place = format!("metric {name}");
        match found.iter().find(|it| it["name"] == name.as_str()) {
            Some(found) => value(&place, expected, found, tolerance, &mut all),
            None => {
                let names: Vec<&str> = found.iter().filter_map(|it| it["name"].as_str()).collect();
                all.push(Difference::new(
                    place,
                    expected,
                    format!("no such metric among [{}]", names.join(", ")),
                ));
            }
        }
    }
    all
}

/// Words that a reason need only hold.
const REASONS: [&str; 5] = ["abstain", "error", "bad_row", "drop", "note"];

fn value(place: &str, expected: &Value, found: &Value, tolerance: f64, all: &mut Vec<Difference>) {
    match (expected, found) {
        (Value::Number(expected), Value::Number(found)) => {
            let (left, right) = (expected.as_f64().unwrap_or(f64::NAN), found.as_f64().unwrap_or(f64::NAN));
            if !close(left, right, tolerance) {
                all.push(Difference::new(place, expected, found));
            }
        }
        // A figure alone says nothing of what stands beside it.
        (Value::Number(_), Value::Object(fields)) if fields.contains_key("value") => {
            value(place, expected, &fields["value"], tolerance, all);
        }
        (Value::Object(expected), Value::Object(found)) => fields(place, expected, found, tolerance, all),
        (Value::Array(left), Value::Array(right)) => {
            if left.len() != right.len() {
                let told = |it: &[Value]| format!("{} of them: {}", it.len(), Value::Array(it.to_vec()));
                return all.push(Difference::new(place, told(left), told(right)));
            }
            for (index, (expected, found)) in left.iter().zip(right).enumerate() {
                value(&format!("{place}, {}", index + 1), expected, found, tolerance, all);
            }
        }
        _ if expected == found => {}
        _ => all.push(Difference::new(place, expected, found)),
    }
}

/// What is named is compared; an example's content has no more and no fewer fields than it should.
fn fields(
    place: &str,
    expected: &Map<String, Value>,
    found: &Map<String, Value>,
    tolerance: f64,
    all: &mut Vec<Difference>,
) {
    const CONTENT: [&str; 6] = ["messages", "prompt", "completion", "chosen", "rejected", "text"];
    let whole = |it: &Map<String, Value>| Value::Object(it.clone());
    for (key, wanted) in expected {
        match (wanted, found.get(key)) {
            (_, None) => return all.push(Difference::new(place, whole(expected), whole(found))),
            (Value::String(part), Some(Value::String(reason))) if REASONS.contains(&key.as_str()) => {
                if !reason.contains(part.as_str()) {
                    all.push(Difference::new(format!("{place}, {key}"), format!("... {part} ..."), reason));
                }
            }
            (wanted, Some(there)) => value(&format!("{place}, {key}"), wanted, there, tolerance, all),
        }
    }
    if CONTENT.iter().any(|it| found.contains_key(*it) && !expected.contains_key(*it)) {
        all.push(Difference::new(place, whole(expected), whole(found)));
    }
}

/// Within `tolerance`, or within it of the greater one.
fn close(left: f64, right: f64, tolerance: f64) -> bool {
    left == right || (left - right).abs() <= tolerance * left.abs().max(right.abs()).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(item: &str, expected: Value, found: Value) -> Vec<String> {
        let (expected, found) = ([expected], [found]);
        let all = answers(item, &expected, &found, 1e-9);
        all.iter().map(|it| format!("{}: {} / {}", it.place, it.expected, it.found)).collect()
    }

    #[test]
    fn a_score_is_a_number_or_named_parts_and_a_reason_is_held() {
        let found =
            json!([{"value": 0.5, "components": {"a": 1.0, "b": 0.0}}, {"abstain": "no text in column `x`"}]);
        assert!(told("group", json!([0.5, {"abstain": "no text"}]), found.clone()).is_empty());
        assert!(
            told("group", json!([{"value": 0.5, "components": {"a": 1}}, {"abstain": ""}]), found.clone())
                .is_empty()
        );
        insta::assert_snapshot!(told("group", json!([{"value": 0.4, "components": {"b": 1}}, 0]), found).join("\n"), @r#"
        completion 1, value: 0.4 / 0.5
        completion 1, components, b: 1 / 0.0
        completion 2: 0 / {"abstain":"no text in column `x`"}
        "#);
    }

    #[test]
    fn contents_are_compared_whole() {
        let found = json!([{"prompt": "a", "completion": "b", "operation": "o"}]);
        assert!(told("example", json!([{"prompt": "a", "completion": "b"}]), found.clone()).is_empty());
        insta::assert_snapshot!(told("example", json!([{"prompt": "a"}]), found.clone()).join("\n"), @r#"example 1, 1: {"prompt":"a"} / {"prompt":"a","completion":"b","operation":"o"}"#);
        insta::assert_snapshot!(told("example", json!({"drop": "why"}), found).join("\n"), @r#"example 1: {"drop":"why"} / [{"prompt":"a","completion":"b","operation":"o"}]"#);
    }

    #[test]
    fn metrics_are_found_by_name() {
        let found = [json!({"name": "f1", "value": 0.5, "confidence": [0.1, 0.9], "count": 2})];
        assert!(metrics(&json!({"f1": {"value": 0.5, "confidence": [0.1, 0.9]}}), &found, 1e-9).is_empty());
        let off = metrics(&json!({"f1": 0.6, "em": 1}), &found, 1e-9);
        insta::assert_snapshot!(off.iter().map(|it| format!("{}: {}", it.place, it.found)).collect::<Vec<_>>().join("\n"), @r"
        metric f1: 0.5
        metric em: no such metric among [f1]
        ");
    }
}
