//! A plugin's configuration against the JSON Schema it states, before it is given any.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value};

/// Every problem of `config`, as key and message; empty for a valid one.
///
/// # Errors
/// A schema that is none.
pub(crate) fn problems(schema: &Value, config: &Map<String, Value>) -> Result<Vec<(String, String)>, String> {
    let validator = jsonschema::validator_for(schema).map_err(|error| error.to_string())?;
    let config = Value::Object(config.clone());
    Ok(validator.iter_errors(&config).map(|error| (key(&error), message(schema, &error))).collect())
}

/// `/weights/0/valid` as `weights[0].valid`; of a key that is too much or missing, the key itself.
fn key(error: &ValidationError<'_>) -> String {
    let mut path = String::new();
    for part in error.instance_path().as_str().split('/').filter(|it| !it.is_empty()) {
        match part.parse::<usize>() {
            Ok(index) => path += &format!("[{index}]"),
            Err(_) if path.is_empty() => path += part,
            Err(_) => path += &format!(".{part}"),
        }
    }
    let last = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected.first().cloned(),
        ValidationErrorKind::Required { property } => property.as_str().map(str::to_string),
        _ => None,
    };
    match last {
        Some(last) if path.is_empty() => last,
        Some(last) => format!("{path}.{last}"),
        None => path,
    }
}

fn message(schema: &Value, error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { .. } if error.instance_path().as_str().is_empty() => {
            let known: Vec<String> = schema["properties"]
                .as_object()
                .map(|it| it.keys().map(|key| format!("`{key}`")).collect())
                .unwrap_or_default();
            match known.is_empty() {
                true => "unknown key: the plugin has no configuration".to_string(),
                false => format!("unknown key, expected one of {}", known.join(", ")),
            }
        }
        ValidationErrorKind::AdditionalProperties { .. } => "unknown key".to_string(),
        ValidationErrorKind::Required { .. } => "is missing".to_string(),
        ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } => {
            match choices(context) {
                Some(choices) => format!("must be one of {choices}, got `{}`", error.instance()),
                None => error.to_string(),
            }
        }
        _ => error.to_string(),
    }
}

/// The values of alternatives that are one value each, as a Rust enum's are.
fn choices(context: &[Vec<ValidationError<'static>>]) -> Option<String> {
    let value = |errors: &Vec<ValidationError<'static>>| match errors.as_slice() {
        [only] => match only.kind() {
            ValidationErrorKind::Constant { expected_value } => Some(vec![format!("`{expected_value}`")]),
            ValidationErrorKind::Enum { options } => {
                options.as_array().map(|all| all.iter().map(|it| format!("`{it}`")).collect())
            }
            _ => None,
        },
        _ => None,
    };
    let all: Option<Vec<Vec<String>>> = context.iter().map(value).collect();
    all.map(|it| it.concat().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(config: Value) -> Vec<(String, String)> {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["column"],
            "properties": {
                "column": {"type": "string"},
                "kinds": {"items": {"oneOf": [{"const": "swap"}, {"enum": ["drop", "case"]}]}},
                "weights": {"$ref": "#/$defs/Weights"},
            },
            "$defs": {"Weights": {
                "type": "object",
                "additionalProperties": false,
                "properties": {"valid": {"type": "number", "minimum": 0}},
            }},
        });
        let Value::Object(config) = config else { panic!("an object") };
        problems(&schema, &config).unwrap()
    }

    #[test]
    fn every_problem_is_told_with_the_path_of_its_key() {
        let mut told =
            told(json!({"columm": "a", "kinds": ["drop", "typo"], "weights": {"valid": -1, "keys": 2}}));
        told.sort();
        let told: Vec<String> = told.iter().map(|(key, message)| format!("{key}: {message}")).collect();
        assert_eq!(
            told,
            [
                "columm: unknown key, expected one of `column`, `kinds`, `weights`",
                "column: is missing",
                r#"kinds[1]: must be one of `"swap"`, `"drop"`, `"case"`, got `"typo"`"#,
                "weights.keys: unknown key",
                "weights.valid: -1 is less than the minimum of 0",
            ]
        );
    }

    #[test]
    fn a_valid_configuration_has_no_problems_and_a_bad_schema_is_told() {
        assert!(told(json!({"column": "a", "weights": {"valid": 0.5}})).is_empty());
        assert!(problems(&json!({"type": "nonsense"}), &Map::new()).is_err());
    }
}
