//! Columns by name, with reasons that say what there is.

use fthost_plugin_sdk::Columns;
use serde_json::Value;

/// A column's value.
///
/// # Errors
/// A column that is not there, with those that are.
pub fn value<'a>(columns: &'a Columns, name: &str) -> Result<&'a Value, String> {
    match columns.get(name) {
        Some(Value::Null) | None => {
            let found: Vec<&str> = columns.keys().map(String::as_str).collect();
            Err(format!("no column `{name}`; columns: {}", found.join(", ")))
        }
        Some(value) => Ok(value),
    }
}

/// A column's text; numbers and truth values are written out.
///
/// # Errors
/// A column that is not there, is empty or holds something else.
pub fn text(columns: &Columns, name: &str) -> Result<String, String> {
    let text = match value(columns, name)? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        other => return Err(format!("column `{name}` holds no text but {}", kind(other))),
    };
    if text.trim().is_empty() { Err(format!("column `{name}` is empty")) } else { Ok(text) }
}

/// The columns named in `keep`; all where it is absent.
pub fn kept(columns: &Columns, keep: Option<&[String]>) -> Columns {
    let mut kept = columns.clone();
    if let Some(keep) = keep {
        kept.retain(|name, _| keep.contains(name));
    }
    kept
}

/// What a value is, in a word.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing;
    use serde_json::json;

    #[test]
    fn a_missing_or_empty_column_is_said_with_those_that_are_there() {
        let columns = testing::columns(json!({"a": 1, "b": " ", "c": []}));
        assert_eq!(text(&columns, "a").unwrap(), "1");
        assert_eq!(text(&columns, "d").unwrap_err(), "no column `d`; columns: a, b, c");
        assert_eq!(text(&columns, "b").unwrap_err(), "column `b` is empty");
        assert_eq!(text(&columns, "c").unwrap_err(), "column `c` holds no text but a list");
        assert_eq!(kept(&columns, Some(&["c".into()])).len(), 1);
    }
}
