//! Whether a value is valid: keyword by keyword, with the account of what was looked at that the `unevaluated`
//! keywords need.

use std::cell::Cell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};
use text_tools::number::{self, Decimal};

use crate::format;
use crate::schema::Schema;

/// How deep references and subschemas may lead; a schema that leads to itself without going into the value never ends.
const DEPTH: u32 = 256;

/// Properties and items that some subschema has looked at.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    properties: BTreeSet<String>,
    items: BTreeSet<usize>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.properties.extend(other.properties);
        self.items.extend(other.items);
    }
}

/// One validation.
pub struct Validation<'a> {
    schema: &'a Schema,
    depth: Cell<u32>,
    endless: Cell<bool>,
}

impl<'a> Validation<'a> {
    /// Of values against `schema`.
    pub fn new(schema: &'a Schema) -> Self {
        Self { schema, depth: Cell::new(0), endless: Cell::new(false) }
    }

    /// Whether `value` is valid against `part` of the schema.
    ///
    /// # Errors
    /// A schema that leads to itself without end.
    pub fn is_valid(&self, part: &Value, value: &Value) -> Result<bool, String> {
        let valid = self.seen(part, value).is_some();
        if self.endless.get() { Err("the schema refers to itself without end".into()) } else { Ok(valid) }
    }

    /// What was looked at; `None` where the value is not valid.
    fn seen(&self, schema: &Value, value: &Value) -> Option<Seen> {
        let Value::Object(keywords) = schema else {
            return (schema != &Value::Bool(false)).then(Seen::default);
        };
        if self.depth.get() >= DEPTH {
            self.endless.set(true);
        }
        if self.endless.get() {
            return None;
        }
        self.depth.set(self.depth.get() + 1);
        let seen = self.keywords(keywords, value);
        self.depth.set(self.depth.get() - 1);
        seen
    }

    fn keywords(&self, schema: &Map<String, Value>, value: &Value) -> Option<Seen> {
        let mut seen = Seen::default();
        for key in ["$ref", "$dynamicRef"] {
            if let Some(reference) = schema.get(key).and_then(Value::as_str) {
                seen.add(self.seen(self.schema.resolve(reference)?, value)?);
            }
        }
        self.holds_alone(schema, value).then_some(())?;
        self.combined(schema, value, &mut seen)?;
        match value {
            Value::Object(object) => self.object(schema, object, value, &mut seen)?,
            Value::Array(items) => self.array(schema, items, &mut seen)?,
            _ => {}
        }
        Some(seen)
    }

    /// The keywords that look at the value alone.
    fn holds_alone(&self, schema: &Map<String, Value>, value: &Value) -> bool {
        let keyword = |(key, asked): (&String, &Value)| match (key.as_str(), value) {
            ("type", _) => match asked {
                Value::Array(all) => all.iter().any(|it| is_of(it, value)),
                one => is_of(one, value),
            },
            ("const", _) => canonical(asked) == canonical(value),
            ("enum", _) => {
                let value = canonical(value);
                asked.as_array().is_some_and(|all| all.iter().any(|it| canonical(it) == value))
            }
            ("minimum", Value::Number(it)) => it.as_f64() >= asked.as_f64(),
            ("maximum", Value::Number(it)) => it.as_f64() <= asked.as_f64(),
            ("exclusiveMinimum", Value::Number(it)) => it.as_f64() > asked.as_f64(),
            ("exclusiveMaximum", Value::Number(it)) => it.as_f64() < asked.as_f64(),
            ("multipleOf", Value::Number(it)) => is_multiple(&it.to_string(), &asked.to_string()),
            ("minLength", Value::String(it)) => it.chars().count() as f64 >= count(asked),
            ("maxLength", Value::String(it)) => it.chars().count() as f64 <= count(asked),
            ("pattern", Value::String(it)) => {
                asked.as_str().and_then(|pattern| self.schema.pattern(pattern)).is_none_or(|p| p.is_match(it))
            }
            ("format", Value::String(it)) if self.schema.formats => {
                asked.as_str().is_none_or(|format| format::holds(format, it))
            }
            ("minItems", Value::Array(it)) => it.len() as f64 >= count(asked),
            ("maxItems", Value::Array(it)) => it.len() as f64 <= count(asked),
            ("uniqueItems", Value::Array(it)) if asked == &Value::Bool(true) => {
                it.iter().map(canonical).collect::<BTreeSet<_>>().len() == it.len()
            }
            ("minProperties", Value::Object(it)) => it.len() as f64 >= count(asked),
            ("maxProperties", Value::Object(it)) => it.len() as f64 <= count(asked),
            ("required", Value::Object(it)) => names(asked).all(|name| it.contains_key(name)),
            ("dependentRequired", Value::Object(it)) => asked.as_object().is_none_or(|all| {
                all.iter().all(|(name, others)| {
                    !it.contains_key(name) || names(others).all(|it_| it.contains_key(it_))
                })
            }),
            _ => true,
        };
        schema.iter().all(keyword)
    }

    /// The keywords that combine schemas of the same value.
    fn combined(&self, schema: &Map<String, Value>, value: &Value, seen: &mut Seen) -> Option<()> {
        let list = |key: &str| schema.get(key).and_then(Value::as_array);
        for one in list("allOf").into_iter().flatten() {
            seen.add(self.seen(one, value)?);
        }
        if let Some(all) = list("anyOf") {
            // Every one that holds counts as having looked.
            let holding: Vec<Seen> = all.iter().filter_map(|it| self.seen(it, value)).collect();
            (!holding.is_empty()).then_some(())?;
            holding.into_iter().for_each(|it| seen.add(it));
        }
        if let Some(all) = list("oneOf") {
            let mut holding: Vec<Seen> = all.iter().filter_map(|it| self.seen(it, value)).collect();
            (holding.len() == 1).then_some(())?;
            seen.add(holding.remove(0));
        }
        if schema.get("not").is_some_and(|it| self.seen(it, value).is_some()) {
            return None;
        }
        if let Some(condition) = schema.get("if") {
            let held = self.seen(condition, value);
            let branch = schema.get(if held.is_some() { "then" } else { "else" });
            seen.add(held.unwrap_or_default());
            if let Some(branch) = branch {
                seen.add(self.seen(branch, value)?);
            }
        }
        Some(())
    }

    fn object(
        &self,
        schema: &Map<String, Value>,
        object: &Map<String, Value>,
        value: &Value,
        seen: &mut Seen,
    ) -> Option<()> {
        let table = |key: &str| schema.get(key).and_then(Value::as_object);
        for (name, part) in table("dependentSchemas").into_iter().chain(table("dependencies")).flatten() {
            if object.contains_key(name) {
                match part {
                    Value::Array(_) => names(part).all(|it| object.contains_key(it)).then_some(())?,
                    part => seen.add(self.seen(part, value)?),
                }
            }
        }
        if let Some(part) = schema.get("propertyNames") {
            for name in object.keys() {
                self.seen(part, &Value::String(name.clone()))?;
            }
        }
        let mut own = BTreeSet::new();
        for (name, part) in table("properties").into_iter().flatten() {
            if let Some(property) = object.get(name) {
                self.seen(part, property)?;
                own.insert(name.clone());
            }
        }
        for (pattern, part) in table("patternProperties").into_iter().flatten() {
            let pattern = self.schema.pattern(pattern)?;
            for (name, property) in object.iter().filter(|it| pattern.is_match(it.0)) {
                self.seen(part, property)?;
                own.insert(name.clone());
            }
        }
        self.others(schema.get("additionalProperties"), object, &mut own)?;
        seen.properties.extend(own);
        self.others(schema.get("unevaluatedProperties"), object, &mut seen.properties)
    }

    /// The properties that are not in `known` yet, against `part`.
    fn others(
        &self,
        part: Option<&Value>,
        object: &Map<String, Value>,
        known: &mut BTreeSet<String>,
    ) -> Option<()> {
        let Some(part) = part else { return Some(()) };
        for (name, property) in object {
            if !known.contains(name) {
                self.seen(part, property)?;
                known.insert(name.clone());
            }
        }
        Some(())
    }

    fn array(&self, schema: &Map<String, Value>, items: &[Value], seen: &mut Seen) -> Option<()> {
        // Draft 7 wrote the first items' schemas in `items` and the others' in `additionalItems`.
        let (first, rest) = match (schema.get("prefixItems"), schema.get("items")) {
            (None, Some(Value::Array(first))) => (Some(first), schema.get("additionalItems")),
            (first, rest) => (first.and_then(Value::as_array), rest),
        };
        for (at, (part, item)) in first.into_iter().flatten().zip(items).enumerate() {
            self.seen(part, item)?;
            seen.items.insert(at);
        }
        if let Some(part) = rest {
            for (at, item) in items.iter().enumerate().skip(first.map_or(0, Vec::len)) {
                self.seen(part, item)?;
                seen.items.insert(at);
            }
        }
        if let Some(part) = schema.get("contains") {
            let holding: Vec<usize> =
                (0..items.len()).filter(|at| self.seen(part, &items[*at]).is_some()).collect();
            let bound = |key: &str| schema.get(key).map(count);
            let enough = holding.len() as f64 >= bound("minContains").unwrap_or(1.0);
            let not_too_many = bound("maxContains").is_none_or(|most| holding.len() as f64 <= most);
            (enough && not_too_many).then_some(())?;
            seen.items.extend(holding);
        }
        if let Some(part) = schema.get("unevaluatedItems") {
            for (at, item) in items.iter().enumerate() {
                if !seen.items.contains(&at) {
                    self.seen(part, item)?;
                    seen.items.insert(at);
                }
            }
        }
        Some(())
    }
}

fn names(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn count(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("number") => value.is_number(),
        Some("integer") => value.as_f64().is_some_and(|it| it.fract() == 0.0),
        Some("boolean") => value.is_boolean(),
        _ => value.is_null(),
    }
}

fn is_multiple(value: &str, of: &str) -> bool {
    let [value, of] = [value, of].map(|it| number::whole(it, Decimal::Point));
    let quotient = value.zip(of).and_then(|(a, b)| a.number.over(b.number));
    quotient.is_some_and(number::Number::is_whole)
}

/// A text that is equal for values that JSON Schema holds equal: 1 and 1.0 are, and the order of keys is nothing.
fn canonical(value: &Value) -> String {
    match value {
        Value::Number(it) => match it.as_f64() {
            // A float that is whole, written without its point; what is no float keeps all its digits.
            Some(float) if it.is_f64() && float.fract() == 0.0 && float.abs() < 1e38 => {
                (float as i128).to_string()
            }
            _ => it.to_string(),
        },
        Value::Array(all) => format!("[{}]", all.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(all) => {
            let mut entries: Vec<String> = all
                .iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)))
                .collect();
            entries.sort();
            format!("{{{}}}", entries.join(","))
        }
        other => other.to_string(),
    }
}
