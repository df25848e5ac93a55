//! Subschemas with their keywords read, so that a value is validated without a look at the schema's own JSON.

use std::collections::{BTreeSet, HashMap};

use regex::Regex;
use serde_json::{Map, Value};
use text_tools::json::Json;
use text_tools::number::{self, Decimal, Number};

use crate::schema::{Property, Schema, Sources};
use crate::validate::canonical;

/// A subschema.
#[derive(Debug)]
pub(crate) enum Node {
    /// `true`.
    Always,
    /// `false`.
    Never,
    /// Keywords.
    All(Box<Keywords>),
}

/// An object of keywords, in the order in which they are looked at. Subschemas are numbers of nodes.
#[derive(Debug, Default)]
pub(crate) struct Keywords {
    /// Where `$ref` and `$dynamicRef` lead; the value is not valid where that is nowhere.
    pub(crate) references: Vec<Option<usize>>,
    pub(crate) alone: Vec<Alone>,
    pub(crate) all_of: Vec<usize>,
    pub(crate) any_of: Option<Vec<usize>>,
    pub(crate) one_of: Option<Vec<usize>>,
    pub(crate) not: Option<usize>,
    /// `if`, `then`, `else`.
    pub(crate) condition: Option<[Option<usize>; 3]>,
    pub(crate) dependents: Vec<(String, Dependent)>,
    pub(crate) property_names: Option<usize>,
    pub(crate) properties: Vec<(String, usize)>,
    /// The value is not valid where a pattern is none.
    pub(crate) pattern_properties: Vec<(Option<Regex>, usize)>,
    pub(crate) additional_properties: Option<usize>,
    pub(crate) unevaluated_properties: Option<usize>,
    pub(crate) first_items: Vec<usize>,
    pub(crate) rest_items: Option<usize>,
    pub(crate) contains: Option<Contains>,
    pub(crate) unevaluated_items: Option<usize>,
}

/// What follows where an object has a property.
#[derive(Debug)]
pub(crate) enum Dependent {
    Names(Vec<String>),
    Schema(usize),
}

#[derive(Debug)]
pub(crate) struct Contains {
    pub(crate) part: usize,
    pub(crate) least: f64,
    pub(crate) most: Option<f64>,
}

/// A keyword that looks at the value alone.
#[derive(Debug)]
pub(crate) enum Alone {
    /// A bit of [`kind`] each.
    Type(u8),
    /// `const` and `enum`.
    OneOf(Vec<Constant>),
    Minimum(Option<f64>),
    Maximum(Option<f64>),
    ExclusiveMinimum(Option<f64>),
    ExclusiveMaximum(Option<f64>),
    MultipleOf(Option<Number>),
    MinLength(f64),
    MaxLength(f64),
    Pattern(Regex),
    Format(String),
    MinItems(f64),
    MaxItems(f64),
    UniqueItems,
    MinProperties(f64),
    MaxProperties(f64),
    Required(Vec<String>),
    DependentRequired(Vec<(String, Vec<String>)>),
}

/// A value of `const` or `enum`.
#[derive(Debug)]
pub(crate) enum Constant {
    Text(String),
    /// Any other, by its canonical text.
    Canonical(String),
}

/// Bits of types.
pub(crate) mod kind {
    pub(crate) const OBJECT: u8 = 1;
    pub(crate) const ARRAY: u8 = 2;
    pub(crate) const STRING: u8 = 4;
    pub(crate) const NUMBER: u8 = 8;
    pub(crate) const INTEGER: u8 = 16;
    pub(crate) const BOOLEAN: u8 = 32;
    pub(crate) const NULL: u8 = 64;
}

/// Makes nodes of a schema's JSON.
pub(crate) struct Compiler<'a> {
    sources: &'a Sources<'a>,
    nodes: Vec<Node>,
    /// Of what has a node its number, by where it lies: references may lead in circles.
    numbers: HashMap<*const Value, usize>,
    tracks: bool,
}

impl<'a> Compiler<'a> {
    pub(crate) fn new(sources: &'a Sources<'a>) -> Self {
        Self { sources, nodes: Vec::new(), numbers: HashMap::new(), tracks: false }
    }

    pub(crate) fn whole(mut self, formats: bool) -> Schema {
        let root = self.sources.root;
        self.node(root);
        let parts = root.get("properties").and_then(Value::as_object);
        let required: BTreeSet<&str> = root.get("required").into_iter().flat_map(names).collect();
        let all: BTreeSet<&str> = parts
            .into_iter()
            .flat_map(Map::keys)
            .map(String::as_str)
            .chain(required.iter().copied())
            .collect();
        let property = |name: &str| {
            let part = parts.and_then(|it| it.get(name)).map(|it| self.node(it));
            Property { name: name.into(), part, required: required.contains(name) }
        };
        let properties = all.into_iter().map(property).collect();
        Schema { nodes: self.nodes, properties, tracks: self.tracks, formats }
    }

    fn node(&mut self, schema: &'a Value) -> usize {
        if let Some(number) = self.numbers.get(&std::ptr::from_ref(schema)) {
            return *number;
        }
        let number = self.nodes.len();
        self.numbers.insert(schema, number);
        self.nodes.push(if schema == &Value::Bool(false) { Node::Never } else { Node::Always });
        if let Value::Object(object) = schema {
            self.nodes[number] = Node::All(Box::new(self.keywords(object)));
        }
        number
    }

    fn keywords(&mut self, object: &'a Map<String, Value>) -> Keywords {
        let references = ["$ref", "$dynamicRef"].iter().filter_map(|it| object.get(*it)?.as_str());
        let references: Vec<Option<&Value>> = references.map(|it| self.sources.resolve(it)).collect();
        let references = references.into_iter().map(|it| it.map(|it| self.node(it))).collect();
        let alone = object.iter().filter_map(|(key, asked)| self.alone(key, asked)).collect();
        let condition = object
            .get("if")
            .is_some()
            .then(|| ["if", "then", "else"].map(|it| object.get(it).map(|it| self.node(it))));
        // Draft 7 wrote the first items' schemas in `items` and the others' in `additionalItems`.
        let (first, rest) = match (object.get("prefixItems"), object.get("items")) {
            (None, Some(Value::Array(first))) => (Some(first), object.get("additionalItems")),
            (first, rest) => (first.and_then(Value::as_array), rest),
        };
        self.tracks |=
            object.contains_key("unevaluatedProperties") || object.contains_key("unevaluatedItems");
        Keywords {
            references,
            alone,
            all_of: self.list(object, "allOf").unwrap_or_default(),
            any_of: self.list(object, "anyOf"),
            one_of: self.list(object, "oneOf"),
            not: self.one(object, "not"),
            condition,
            dependents: self.dependents(object),
            property_names: self.one(object, "propertyNames"),
            properties: table(object, "properties")
                .map(|(name, part)| (name.clone(), self.node(part)))
                .collect(),
            pattern_properties: table(object, "patternProperties")
                .map(|(pattern, part)| (self.sources.pattern(pattern), self.node(part)))
                .collect(),
            additional_properties: self.one(object, "additionalProperties"),
            unevaluated_properties: self.one(object, "unevaluatedProperties"),
            first_items: first.into_iter().flatten().map(|it| self.node(it)).collect(),
            rest_items: rest.map(|it| self.node(it)),
            contains: self.one(object, "contains").map(|part| {
                let bound = |key: &str| object.get(key).map(count);
                Contains { part, least: bound("minContains").unwrap_or(1.0), most: bound("maxContains") }
            }),
            unevaluated_items: self.one(object, "unevaluatedItems"),
        }
    }

    fn one(&mut self, object: &'a Map<String, Value>, key: &str) -> Option<usize> {
        object.get(key).map(|it| self.node(it))
    }

    fn list(&mut self, object: &'a Map<String, Value>, key: &str) -> Option<Vec<usize>> {
        let all = object.get(key)?.as_array()?;
        Some(all.iter().map(|it| self.node(it)).collect())
    }

    fn dependents(&mut self, object: &'a Map<String, Value>) -> Vec<(String, Dependent)> {
        let all = table(object, "dependentSchemas").chain(table(object, "dependencies"));
        let dependent = |(name, part): (&String, &'a Value)| {
            let dependent = match part {
                Value::Array(_) => Dependent::Names(names(part).map(str::to_owned).collect()),
                part => Dependent::Schema(self.node(part)),
            };
            (name.clone(), dependent)
        };
        all.map(dependent).collect()
    }

    fn alone(&self, key: &str, asked: &Value) -> Option<Alone> {
        let owned = |value: &Value| names(value).map(str::to_owned).collect::<Vec<_>>();
        Some(match key {
            "type" => Alone::Type(match asked {
                Value::Array(all) => all.iter().fold(0, |bits, it| bits | bit(it)),
                one => bit(one),
            }),
            "const" => Alone::OneOf(vec![constant(asked)]),
            "enum" => Alone::OneOf(asked.as_array().into_iter().flatten().map(constant).collect()),
            "minimum" => Alone::Minimum(asked.as_f64()),
            "maximum" => Alone::Maximum(asked.as_f64()),
            "exclusiveMinimum" => Alone::ExclusiveMinimum(asked.as_f64()),
            "exclusiveMaximum" => Alone::ExclusiveMaximum(asked.as_f64()),
            "multipleOf" => {
                Alone::MultipleOf(number::whole(&asked.to_string(), Decimal::Point).map(|it| it.number))
            }
            "minLength" => Alone::MinLength(count(asked)),
            "maxLength" => Alone::MaxLength(count(asked)),
            "pattern" => Alone::Pattern(self.sources.pattern(asked.as_str()?)?),
            "format" => Alone::Format(asked.as_str()?.into()),
            "minItems" => Alone::MinItems(count(asked)),
            "maxItems" => Alone::MaxItems(count(asked)),
            "uniqueItems" if asked == &Value::Bool(true) => Alone::UniqueItems,
            "minProperties" => Alone::MinProperties(count(asked)),
            "maxProperties" => Alone::MaxProperties(count(asked)),
            "required" => Alone::Required(owned(asked)),
            "dependentRequired" => Alone::DependentRequired(
                asked.as_object()?.iter().map(|(name, others)| (name.clone(), owned(others))).collect(),
            ),
            _ => return None,
        })
    }
}

fn table<'a>(
    object: &'a Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    object.get(key).and_then(Value::as_object).into_iter().flatten()
}

fn names(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn count(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn constant(value: &Value) -> Constant {
    match value {
        Value::String(text) => Constant::Text(text.clone()),
        other => Constant::Canonical(canonical(&Json::from(other.clone()))),
    }
}

fn bit(kind: &Value) -> u8 {
    match kind.as_str() {
        Some("object") => kind::OBJECT,
        Some("array") => kind::ARRAY,
        Some("string") => kind::STRING,
        Some("number") => kind::NUMBER,
        Some("integer") => kind::INTEGER,
        Some("boolean") => kind::BOOLEAN,
        _ => kind::NULL,
    }
}
