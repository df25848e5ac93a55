//! From the run file's `config` table to a plugin's own type.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, de::DeserializeOwned};

use crate::bindings::about::exports::fthost::plugin::about::ConfigProblem as WitProblem;

/// Something wrong with a plugin's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Path of the key, as in `weights.format`.
    pub key: String,
    /// What is wrong, with the offending value.
    pub message: String,
}

impl ConfigProblem {
    /// A problem of the value at `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

impl From<ConfigProblem> for WitProblem {
    fn from(it: ConfigProblem) -> Self {
        Self { key: it.key, message: it.message }
    }
}

impl From<std::convert::Infallible> for ConfigProblem {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// The configuration of a plugin that has none: every key is refused.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// Reads the `config` table; an error names the key.
#[doc(hidden)]
pub fn configure<C: DeserializeOwned>(text: &str) -> Result<C, Vec<WitProblem>> {
    let deserializer = &mut serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let key = error.path().to_string();
        let message = error.inner().to_string();
        // The table comes from a run file: a position in the JSON made of it says nothing.
        let message = message.split(" at line ").next().unwrap_or_default().to_string();
        let key = if key == "." { String::new() } else { key };
        vec![WitProblem { key, message }]
    })
}

/// The schema of the first role that has a configuration.
#[doc(hidden)]
pub fn schema(all: &[Schema]) -> String {
    let named = all.iter().find(|it| it.get("properties").is_some()).or(all.first());
    named.map_or_else(|| "{}".into(), |it| it.as_value().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::schema_for;

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Config {
        /// How much.
        inner: Inner,
    }

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        weight: f64,
    }

    fn problem(text: &str) -> (String, String) {
        let problem = configure::<Config>(text).unwrap_err().remove(0);
        (problem.key, problem.message)
    }

    #[test]
    fn a_problem_names_the_path_of_its_key() {
        assert_eq!(configure::<Config>(r#"{"inner": {"weight": 2}}"#).unwrap().inner.weight, 2.0);
        let (key, message) = problem(r#"{"inner": {"weight": "much"}}"#);
        assert_eq!((&*key, &*message), ("inner.weight", "invalid type: string \"much\", expected f64"));
        let (key, message) = problem(r#"{"iner": {}}"#);
        assert_eq!((&*key, &*message), ("iner", "unknown field `iner`, expected `inner`"));
    }

    #[test]
    fn a_plugin_without_configuration_refuses_every_key() {
        assert!(configure::<NoConfig>("{}").is_ok());
        assert!(configure::<NoConfig>(r#"{"a": 1}"#).is_err());
    }

    #[test]
    fn the_schema_is_that_of_the_role_with_a_configuration() {
        let text = schema(&[schema_for!(NoConfig), schema_for!(Config)]);
        let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(schema["properties"]["inner"]["description"], "How much.");
    }

    #[crate::plugin_config]
    struct Marked {
        /// Which column.
        #[default = "answer"]
        column: String,
        /// A share.
        #[default = 0.5]
        #[schemars(range(min = 0.0, max = 1.0))]
        share: f64,
        compare: Compare,
    }

    #[crate::plugin_config]
    #[derive(Default, Debug, PartialEq)]
    enum Compare {
        #[default]
        AsWritten,
        IgnoreCase,
    }

    #[crate::plugin_config]
    #[derive(Default)]
    struct OfItsType {
        weight: f64,
    }

    #[test]
    fn a_plugin_config_has_its_defaults_and_documentation_in_the_schema() {
        let schema = schema_for!(Marked).to_value();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["required"], serde_json::json!(["compare"]));
        assert_eq!(schema["properties"]["column"]["default"], "answer");
        assert_eq!(schema["properties"]["column"]["description"], "Which column.");
        assert_eq!(schema["properties"]["share"]["maximum"], 1.0);
        assert_eq!(schema["$defs"]["Compare"]["enum"], serde_json::json!(["as_written", "ignore_case"]));
    }

    #[test]
    fn a_plugin_config_fills_in_defaults_and_asks_for_the_rest() {
        let config = configure::<Marked>(r#"{"compare": "ignore_case"}"#).unwrap();
        assert_eq!((&*config.column, config.share, config.compare), ("answer", 0.5, Compare::IgnoreCase));
        let missing = configure::<Marked>("{}").err().unwrap().remove(0);
        assert_eq!(missing.message, "missing field `compare`");
        let unknown =
            configure::<Marked>(r#"{"compare": "ignore_case", "shar": 1}"#).err().unwrap().remove(0);
        assert_eq!(unknown.key, "shar");
        assert_eq!(configure::<OfItsType>("{}").unwrap().weight, 0.0);
    }
}
