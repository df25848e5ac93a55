//! A JSON Schema made ready: references resolved, patterns compiled, keywords checked.
//!
//! Draft 2020-12 with what is left of draft 7 (`definitions`, `dependencies`, `items` as a list with
//! `additionalItems`). One document is one schema: a plugin has no network, so `$ref` leads to places in it only.

use std::collections::HashMap;

use regex::Regex;
use serde_json::{Map, Value};

use crate::node::{Compiler, Node};

/// Keywords whose value is a schema.
const ONE: [&str; 12] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];
/// Keywords whose value is a list of schemas.
const LISTS: [&str; 5] = ["allOf", "anyOf", "oneOf", "prefixItems", "items"];
/// Keywords whose value is an object of schemas.
const OBJECTS: [&str; 6] =
    ["$defs", "definitions", "dependentSchemas", "dependencies", "patternProperties", "properties"];

const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

/// Keywords whose value is a number, and those whose value is a whole number from 0 on.
const NUMBERS: [&str; 5] = ["exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"];
const COUNTS: [&str; 8] = [
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
];

/// A sound schema.
#[derive(Debug)]
pub struct Schema {
    /// Every subschema; the first is the whole.
    pub(crate) nodes: Vec<Node>,
    /// Properties named at the top, in `properties` or `required`, each once.
    pub(crate) properties: Vec<Property>,
    /// Whether some subschema asks what others have looked at.
    pub(crate) tracks: bool,
    /// Whether `format` is checked.
    pub(crate) formats: bool,
}

/// A property named at the top.
#[derive(Debug)]
pub(crate) struct Property {
    pub(crate) name: String,
    /// What it must be.
    pub(crate) part: Option<usize>,
    pub(crate) required: bool,
}

/// A keyword that is not sound.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsound {
    /// JSON pointer of the keyword.
    pub at: String,
    /// What is wrong, with the offending value.
    pub message: String,
}

impl Schema {
    /// Checks every keyword and resolves every reference.
    pub fn new(root: &Value, formats: bool) -> Result<Self, Unsound> {
        let mut sources = Sources { root, anchors: HashMap::new(), patterns: HashMap::new() };
        let mut references = Vec::new();
        sources.collect(root, "", &mut references)?;
        for (at, reference) in references {
            if sources.resolve(&reference).is_none() {
                let message = if reference.starts_with('#') {
                    format!("`{reference}` leads nowhere in this schema")
                } else {
                    format!(
                        "`{reference}` is another document: only references within the schema (`#/$defs/name`) are followed"
                    )
                };
                return Err(Unsound { at, message });
            }
        }
        Ok(Compiler::new(&sources).whole(formats))
    }
}

/// What a schema is made of, and where its parts are.
pub(crate) struct Sources<'a> {
    pub(crate) root: &'a Value,
    /// `$anchor` and `$dynamicAnchor` to JSON pointers.
    anchors: HashMap<String, String>,
    patterns: HashMap<String, Regex>,
}

impl<'a> Sources<'a> {
    fn collect(
        &mut self,
        schema: &Value,
        at: &str,
        references: &mut Vec<(String, String)>,
    ) -> Result<(), Unsound> {
        let object = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(object) => object,
            other => {
                let message = format!("must be an object or a truth value, got `{other}`");
                return Err(Unsound { at: at.into(), message });
            }
        };
        self.keywords(object, at)?;
        for key in ["$ref", "$dynamicRef"] {
            if let Some(Value::String(reference)) = object.get(key) {
                references.push((format!("{at}/{key}"), reference.clone()));
            }
        }
        for (key, value) in object {
            let here = format!("{at}/{}", escaped(key));
            match value {
                Value::Array(all) if LISTS.contains(&key.as_str()) => {
                    for (index, one) in all.iter().enumerate() {
                        self.collect(one, &format!("{here}/{index}"), references)?;
                    }
                }
                Value::Object(all) if OBJECTS.contains(&key.as_str()) => {
                    for (name, one) in all.iter().filter(|it| !it.1.is_array()) {
                        self.collect(one, &format!("{here}/{}", escaped(name)), references)?;
                    }
                }
                one if ONE.contains(&key.as_str()) => self.collect(one, &here, references)?,
                other if LISTS.contains(&key.as_str()) || OBJECTS.contains(&key.as_str()) => {
                    return Err(Unsound { at: here, message: format!("holds no schemas: `{other}`") });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The keywords that hold no schemas.
    fn keywords(&mut self, object: &Map<String, Value>, at: &str) -> Result<(), Unsound> {
        let unsound = |key: &str, message: String| Err(Unsound { at: format!("{at}/{key}"), message });
        for key in ["$anchor", "$dynamicAnchor"] {
            if let Some(Value::String(name)) = object.get(key) {
                self.anchors.insert(name.clone(), at.into());
            }
        }
        match object.get("type") {
            None => {}
            Some(Value::String(one)) if TYPES.contains(&one.as_str()) => {}
            Some(Value::Array(all))
                if all.iter().all(|it| it.as_str().is_some_and(|it| TYPES.contains(&it))) => {}
            Some(other) => {
                return unsound("type", format!("`{other}` is no type; types: {}", TYPES.join(", ")));
            }
        }
        for (key, value) in object {
            if NUMBERS.contains(&key.as_str()) && !value.is_number() {
                return unsound(key, format!("must be a number, got `{value}`"));
            }
            if key == "multipleOf" && value.as_f64().is_some_and(|it| it <= 0.0) {
                return unsound(key, format!("must be > 0, got `{value}`"));
            }
            if COUNTS.contains(&key.as_str())
                && !value.as_f64().is_some_and(|it| it >= 0.0 && it.fract() == 0.0)
            {
                return unsound(key, format!("must be a whole number from 0 on, got `{value}`"));
            }
            let names = || value.as_array().is_some_and(|all| all.iter().all(Value::is_string));
            if key == "required" && !names() {
                return unsound(key, format!("must be a list of names, got `{value}`"));
            }
            if key == "enum" && !value.is_array() {
                return unsound(key, format!("must be a list, got `{value}`"));
            }
        }
        let own = object.get("pattern").map(|it| it.as_str().map(str::to_owned));
        let properties = object.get("patternProperties").and_then(Value::as_object);
        let properties = properties.into_iter().flat_map(Map::keys).map(|it| Some(it.clone()));
        for pattern in own.into_iter().chain(properties) {
            let Some(pattern) = pattern else { return unsound("pattern", "must be a text".into()) };
            match Regex::new(&pattern) {
                Ok(regex) => self.patterns.insert(pattern, regex),
                Err(error) => return unsound("pattern", error.to_string()),
            };
        }
        Ok(())
    }

    /// Where a reference leads.
    pub(crate) fn resolve(&self, reference: &str) -> Option<&'a Value> {
        let own = self.root.get("$id").and_then(Value::as_str).map(|it| it.trim_end_matches('#'));
        let fragment = match reference.split_once('#') {
            Some((document, fragment)) if document.is_empty() || Some(document) == own => fragment,
            None if Some(reference) == own => "",
            _ => return None,
        };
        if fragment.is_empty() || fragment.starts_with('/') {
            return self.root.pointer(&percent_decoded(fragment));
        }
        self.root.pointer(self.anchors.get(fragment)?)
    }

    /// What was compiled where keywords were checked.
    pub(crate) fn pattern(&self, pattern: &str) -> Option<Regex> {
        self.patterns.get(pattern).cloned()
    }
}

/// A part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|it| u8::from_str_radix(it, 16).ok());
        match hex.filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
