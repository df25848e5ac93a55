//! Whether an answer is JSON and valid against a schema, which stands in the configuration or in a row's column.
//!
//! JSON Schema, draft 2020-12: <https://json-schema.org/draft/2020-12>.

use fthost_plugin_sdk::{Columns, ConfigProblem, Group, Reward, Score, export};
use serde_json::Value;
use text_tools::extract;
use text_tools::json::{self, Json};

mod format;
mod node;
mod schema;
mod validate;

use schema::{Property, Schema};
use validate::Validation;

/// `[plugins.json-schema.config]`.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// The schema of every answer: a table, or JSON text.
    schema: Option<Value>,
    /// A column that holds a row's own schema, an object or JSON text; it goes before `schema`.
    column: Option<String>,
    /// Where the JSON stands in an answer.
    place: Place,
    /// Whether `format` is checked (dates, addresses, ...), which JSON Schema leaves open.
    check_formats: bool,
    /// Shares of the parts in the score; divided by their sum.
    weights: Weights,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Place {
    /// The answer is JSON and nothing else.
    Whole,
    /// In the first code fence, or the whole answer where there is none.
    Fence,
    /// The first object or list of the answer, whatever stands around it.
    Anywhere,
}

#[derive(Debug, Clone, Copy, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Weights {
    /// The answer is JSON.
    json: f64,
    /// The share of the schema's own properties that are there where they must be, and valid.
    properties: f64,
    /// The answer is valid.
    schema: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            schema: None,
            column: None,
            place: Place::Whole,
            check_formats: false,
            weights: Weights::default(),
        }
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self { json: 0.2, properties: 0.3, schema: 0.5 }
    }
}

struct JsonSchema {
    config: Config,
    schema: Option<Schema>,
}

impl TryFrom<Config> for JsonSchema {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.schema.is_none() && config.column.is_none() {
            return Err(ConfigProblem::new("schema", "must be given, or `column` where rows hold theirs"));
        }
        let Weights { json, properties, schema } = config.weights;
        for (key, weight) in [("json", json), ("properties", properties), ("schema", schema)] {
            if !(weight >= 0.0 && weight.is_finite()) {
                let message = format!("must be >= 0, got `{weight}`");
                return Err(ConfigProblem::new(format!("weights.{key}"), message));
            }
        }
        if json + properties + schema <= 0.0 {
            return Err(ConfigProblem::new("weights", "must not all be 0"));
        }
        let schema = config.schema.clone().map(|it| made(it, config.check_formats)).transpose();
        let schema = schema.map_err(|message| ConfigProblem::new("schema", message))?;
        Ok(Self { config, schema })
    }
}

/// A schema of a table or of JSON text; errors say where.
fn made(value: Value, formats: bool) -> Result<Schema, String> {
    let value = match value {
        Value::String(text) => serde_json::from_str(&text).map_err(|error| format!("no JSON: {error}"))?,
        other => other,
    };
    Schema::new(&value, formats)
        .map_err(|it| format!("at `{}`: {}", if it.at.is_empty() { "/" } else { &it.at }, it.message))
}

impl JsonSchema {
    /// The row's own schema, `Ok(None)` where that of the configuration counts.
    fn of_row(&self, columns: &Columns) -> Result<Option<Schema>, Score> {
        let Some(column) = &self.config.column else { return Ok(None) };
        match columns.get(column) {
            None | Some(Value::Null) if self.schema.is_some() => Ok(None),
            None | Some(Value::Null) => Err(Score::abstain(format!("the row has no column `{column}`"))),
            Some(value) => made(value.clone(), self.config.check_formats)
                .map(Some)
                .map_err(|error| Score::error(format!("column `{column}`: {error}"))),
        }
    }

    fn answer<'a>(&self, text: &'a str) -> Option<Json<'a>> {
        match self.config.place {
            Place::Whole => json::parse(text.trim()),
            Place::Fence => json::parse(extract::fence(text).unwrap_or(text).trim()),
            Place::Anywhere => text
                .match_indices(['{', '['])
                .take(MOST_BEGINNINGS)
                .find_map(|(at, _)| json::parse_first(&text[at..])),
        }
    }

    fn judge(&self, text: &str, schema: &Schema) -> Score {
        let answer = self.answer(text);
        let flag = |it: bool| f64::from(u8::from(it));
        let parts = answer.as_ref().map(|it| {
            let valid = Validation::new(schema).is_valid(0, it)?;
            Ok::<_, String>((valid, properties(schema, it, valid)?))
        });
        let (valid, properties) = match parts.transpose() {
            Err(error) => return Score::error(error),
            Ok(parts) => parts.map_or((0.0, 0.0), |(valid, share)| {
                // A schema without properties of its own has nothing to share out.
                (flag(valid), share.unwrap_or(flag(valid)))
            }),
        };
        let json = flag(answer.is_some());
        let weights = self.config.weights;
        let total = weights.json + weights.properties + weights.schema;
        let value = (weights.json * json + weights.properties * properties + weights.schema * valid) / total;
        Score::new(value).with("json", json).with("properties", properties).with("valid", valid)
    }
}

/// Where `anywhere` looks for the beginning of JSON, at most.
const MOST_BEGINNINGS: usize = 64;

/// The share of the properties named at the top that hold; `None` where none is named.
fn properties(schema: &Schema, answer: &Json, valid: bool) -> Result<Option<f64>, String> {
    if schema.properties.is_empty() {
        return Ok(None);
    }
    let object = answer.as_object();
    // Each of a valid object's properties was found valid with it.
    if valid && object.is_some() {
        return Ok(Some(1.0));
    }
    let mut holding = 0;
    for Property { name, part, required } in &schema.properties {
        let holds = match object.and_then(|it| it.get(name)) {
            None => object.is_some() && !required,
            Some(value) => match part {
                None => true,
                Some(part) => Validation::new(schema).is_valid(*part, value)?,
            },
        };
        holding += usize::from(holds);
    }
    Ok(Some(holding as f64 / schema.properties.len() as f64))
}

impl Reward for JsonSchema {
    fn score(&self, group: &Group) -> Vec<Score> {
        let own = match self.of_row(&group.columns) {
            Err(score) => return vec![score; group.completions.len()],
            Ok(own) => own,
        };
        match own.as_ref().or(self.schema.as_ref()) {
            Some(schema) => group.completions.iter().map(|it| self.judge(&it.text, schema)).collect(),
            None => vec![Score::abstain("no schema"); group.completions.len()],
        }
    }
}

export!(reward: JsonSchema from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing::group;
    use serde_json::json;

    fn reward(config: Value) -> Result<JsonSchema, ConfigProblem> {
        JsonSchema::try_from(serde_json::from_value::<Config>(config).unwrap())
    }

    fn person() -> Value {
        json!({
            "type": "object",
            "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
            "required": ["name", "age"],
            "additionalProperties": false
        })
    }

    fn values(config: Value, columns: Value, answers: &[&str]) -> Vec<Option<f64>> {
        reward(config).unwrap().score(&group(columns, answers)).iter().map(Score::value).collect()
    }

    #[test]
    fn parts_are_weighted() {
        let answers =
            [r#"{"name": "Ada", "age": 36}"#, r#"{"name": "Ada", "age": -1}"#, r#"{"age": 1}"#, "[]", "Ada"];
        let scores = values(json!({"schema": person()}), json!({}), &answers);
        assert_eq!(scores, [Some(1.0), Some(0.35), Some(0.35), Some(0.2), Some(0.0)]);
        let only = json!({"schema": person(), "weights": {"json": 0, "properties": 0, "schema": 1}});
        assert_eq!(values(only, json!({}), &answers[..2]), [Some(1.0), Some(0.0)]);
    }

    #[test]
    fn the_json_is_found_where_the_configuration_says() {
        let of = |place: &str, text: &str| {
            values(json!({"schema": {"required": ["a"]}, "place": place}), json!({}), &[text])[0]
        };
        assert_eq!(of("fence", "Here:\n```json\n{\"a\": 1}\n```\nDone"), Some(1.0));
        assert_eq!(of("anywhere", "Sure {so}: {\"a\": 1}, ok?"), Some(1.0));
        assert_eq!(of("whole", "Sure: {\"a\": 1}"), Some(0.0));
    }

    #[test]
    fn a_row_s_own_schema_goes_first_and_a_bad_one_is_an_error() {
        let config = json!({"schema": {"type": "string"}, "column": "schema", "weights": {"json": 0}});
        assert_eq!(values(config.clone(), json!({"schema": "{\"type\": \"array\"}"}), &["[]"]), [Some(1.0)]);
        assert_eq!(values(config.clone(), json!({}), &["[]"]), [Some(0.0)]);
        assert_eq!(values(config, json!({"schema": {"type": "list"}}), &["[]"]), [None]);
        assert_eq!(values(json!({"column": "schema"}), json!({}), &["[]"]), [None]);
        let endless = json!({"schema": {"$ref": "#"}});
        assert_eq!(values(endless, json!({}), &["1"]), [None]);
    }

    #[test]
    fn an_unsound_schema_says_where() {
        let message = |schema: Value| reward(json!({ "schema": schema })).err().unwrap().message;
        assert!(
            message(json!({"properties": {"a": {"type": "text"}}})).starts_with("at `/properties/a/type`")
        );
        assert!(message(json!({"$ref": "#/$defs/a"})).contains("leads nowhere"));
        assert!(message(json!({"$ref": "https://a.example/b"})).contains("another document"));
        assert!(message(json!({"pattern": "(?=a)"})).contains("/pattern"));
        assert!(message(json!("{")).contains("no JSON"));
        assert_eq!(reward(json!({})).err().unwrap().key, "schema");
        assert_eq!(
            reward(json!({"schema": true, "weights": {"json": -1}})).err().unwrap().key,
            "weights.json"
        );
    }

    /// Oracle: the official JSON Schema Test Suite, draft 2020-12, by `tests/golden/generate/json_schema.py`. What
    /// needs other documents, other vocabularies or look-around is not in it.
    #[test]
    fn the_official_test_suite_passes() {
        let suite: Value =
            serde_json::from_str(include_str!("../../../tests/golden/rewards/json_schema.json")).unwrap();
        let (mut failures, mut count) = (Vec::new(), 0);
        for case in suite["cases"].as_array().unwrap() {
            let schema = Schema::new(&case["schema"], false);
            let schema = schema.unwrap_or_else(|it| panic!("{}: {it:?}", case["description"]));
            for test in case["tests"].as_array().unwrap() {
                count += 1;
                let valid = Validation::new(&schema).is_valid(0, &Json::from(test["data"].clone()));
                if valid != Ok(test["valid"].as_bool().unwrap()) {
                    failures.push(format!("{}: {} ({valid:?})", case["description"], test["description"]));
                }
            }
        }
        assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
        assert!(count > 900, "{count}");
    }
}
