//! Whether a value is valid: keyword by keyword, with the account of what was looked at where the `unevaluated` keywords
//! need it.

use std::cell::Cell;
use std::collections::BTreeSet;

use text_tools::json::{Json, Object};
use text_tools::number::{self, Decimal, Number};

use crate::format;
use crate::node::{Alone, Constant, Dependent, Keywords, Node, kind};
use crate::schema::Schema;

/// How deep references and subschemas may lead; a schema that leads to itself without going into the value never ends.
const DEPTH: u32 = 256;

/// Of an object's entries or a list's items those that some subschema has looked at. Empty where nobody asks.
#[derive(Debug, Default)]
struct Seen(Vec<bool>);

impl Seen {
    fn add(&mut self, other: Self) {
        if self.0.is_empty() {
            self.0 = other.0;
        } else {
            self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own |= other);
        }
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

    /// Whether `value` is valid against a part of the schema; part 0 is the whole.
    ///
    /// # Errors
    /// A schema that leads to itself without end.
    pub fn is_valid(&self, part: usize, value: &Json) -> Result<bool, String> {
        let valid = self.seen(part, value).is_some();
        if self.endless.get() { Err("the schema refers to itself without end".into()) } else { Ok(valid) }
    }

    /// What was looked at; `None` where the value is not valid.
    fn seen(&self, part: usize, value: &Json) -> Option<Seen> {
        let keywords = match &self.schema.nodes[part] {
            Node::Always => return Some(Seen::default()),
            Node::Never => return None,
            Node::All(keywords) => keywords,
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

    fn keywords(&self, keywords: &Keywords, value: &Json) -> Option<Seen> {
        let mut seen = Seen::default();
        for reference in &keywords.references {
            seen.add(self.seen((*reference)?, value)?);
        }
        keywords.alone.iter().all(|it| self.holds_alone(it, value)).then_some(())?;
        self.combined(keywords, value, &mut seen)?;
        match value {
            Json::Object(object) => self.object(keywords, object, value, &mut seen)?,
            Json::List(items) => self.array(keywords, items, &mut seen)?,
            _ => {}
        }
        Some(seen)
    }

    fn holds_alone(&self, keyword: &Alone, value: &Json) -> bool {
        match (keyword, value) {
            (Alone::Type(kinds), _) => kinds_of(value) & kinds != 0,
            (Alone::OneOf(all), Json::Text(value)) => {
                all.iter().any(|it| matches!(it, Constant::Text(text) if text == value))
            }
            (Alone::OneOf(all), value) => {
                let value = canonical(value);
                all.iter().any(|it| matches!(it, Constant::Canonical(text) if *text == value))
            }
            (Alone::Minimum(asked), Json::Number(it)) => it.as_f64() >= *asked,
            (Alone::Maximum(asked), Json::Number(it)) => it.as_f64() <= *asked,
            (Alone::ExclusiveMinimum(asked), Json::Number(it)) => it.as_f64() > *asked,
            (Alone::ExclusiveMaximum(asked), Json::Number(it)) => it.as_f64() < *asked,
            (Alone::MultipleOf(asked), Json::Number(it)) => is_multiple(&it.to_string(), *asked),
            (Alone::MinLength(asked), Json::Text(it)) => it.chars().count() as f64 >= *asked,
            (Alone::MaxLength(asked), Json::Text(it)) => it.chars().count() as f64 <= *asked,
            (Alone::Pattern(pattern), Json::Text(it)) => pattern.is_match(it),
            (Alone::Format(format), Json::Text(it)) => !self.schema.formats || format::holds(format, it),
            (Alone::MinItems(asked), Json::List(it)) => it.len() as f64 >= *asked,
            (Alone::MaxItems(asked), Json::List(it)) => it.len() as f64 <= *asked,
            (Alone::UniqueItems, Json::List(it)) => {
                it.iter().map(canonical).collect::<BTreeSet<_>>().len() == it.len()
            }
            (Alone::MinProperties(asked), Json::Object(it)) => it.len() as f64 >= *asked,
            (Alone::MaxProperties(asked), Json::Object(it)) => it.len() as f64 <= *asked,
            (Alone::Required(names), Json::Object(it)) => has_all(it, names),
            (Alone::DependentRequired(all), Json::Object(it)) => {
                all.iter().all(|(name, others)| it.get(name).is_none() || has_all(it, others))
            }
            _ => true,
        }
    }

    /// The keywords that combine schemas of the same value.
    fn combined(&self, keywords: &Keywords, value: &Json, seen: &mut Seen) -> Option<()> {
        for one in &keywords.all_of {
            seen.add(self.seen(*one, value)?);
        }
        if let Some(all) = &keywords.any_of {
            // Every one that holds counts as having looked.
            let holding: Vec<Seen> = all.iter().filter_map(|it| self.seen(*it, value)).collect();
            (!holding.is_empty()).then_some(())?;
            holding.into_iter().for_each(|it| seen.add(it));
        }
        if let Some(all) = &keywords.one_of {
            let mut holding: Vec<Seen> = all.iter().filter_map(|it| self.seen(*it, value)).collect();
            (holding.len() == 1).then_some(())?;
            seen.add(holding.remove(0));
        }
        if keywords.not.is_some_and(|it| self.seen(it, value).is_some()) {
            return None;
        }
        if let Some([Some(condition), then, otherwise]) = keywords.condition {
            let held = self.seen(condition, value);
            let branch = if held.is_some() { then } else { otherwise };
            seen.add(held.unwrap_or_default());
            if let Some(branch) = branch {
                seen.add(self.seen(branch, value)?);
            }
        }
        Some(())
    }

    fn object(&self, keywords: &Keywords, object: &Object, value: &Json, seen: &mut Seen) -> Option<()> {
        for (name, dependent) in &keywords.dependents {
            if object.get(name).is_some() {
                match dependent {
                    Dependent::Names(names) => has_all(object, names).then_some(())?,
                    Dependent::Schema(part) => seen.add(self.seen(*part, value)?),
                }
            }
        }
        if let Some(part) = keywords.property_names {
            for (name, _) in object.iter() {
                self.seen(part, &Json::Text(name.into()))?;
            }
        }
        if self.schema.tracks {
            seen.0.resize(object.len(), false);
        }
        for (name, part) in &keywords.properties {
            if let Some(property) = object.get(name) {
                self.seen(*part, property)?;
            }
        }
        for (pattern, part) in &keywords.pattern_properties {
            let pattern = pattern.as_ref()?;
            for (_, property) in object.iter().filter(|it| pattern.is_match(it.0)) {
                self.seen(*part, property)?;
            }
        }
        if self.schema.tracks || keywords.additional_properties.is_some() {
            for (at, (name, property)) in object.iter().enumerate() {
                let named = keywords.properties.iter().any(|it| it.0 == name);
                let known = named || keywords.matches(name);
                if let Some(part) = keywords.additional_properties.filter(|_| !known) {
                    self.seen(part, property)?;
                }
                if let Some(seen) = seen.0.get_mut(at) {
                    *seen |= known || keywords.additional_properties.is_some();
                }
            }
        }
        self.unevaluated(keywords.unevaluated_properties, object.iter().map(|it| it.1), seen)
    }

    /// What nothing has looked at yet, against `part`.
    fn unevaluated<'b, 'c: 'b>(
        &self,
        part: Option<usize>,
        values: impl Iterator<Item = &'b Json<'c>>,
        seen: &mut Seen,
    ) -> Option<()> {
        let Some(part) = part else { return Some(()) };
        for (value, seen) in values.zip(&mut seen.0) {
            if !*seen {
                self.seen(part, value)?;
                *seen = true;
            }
        }
        Some(())
    }

    fn array(&self, keywords: &Keywords, items: &[Json], seen: &mut Seen) -> Option<()> {
        if self.schema.tracks {
            seen.0.resize(items.len(), false);
        }
        let mark = |seen: &mut Seen, at: usize| {
            if let Some(seen) = seen.0.get_mut(at) {
                *seen = true;
            }
        };
        let first = keywords.first_items.iter().copied().map(Some);
        for (at, (part, item)) in first.chain(std::iter::repeat(keywords.rest_items)).zip(items).enumerate() {
            let Some(part) = part else { break };
            self.seen(part, item)?;
            mark(seen, at);
        }
        if let Some(contains) = &keywords.contains {
            let mut holding = 0.0;
            for (at, item) in items.iter().enumerate() {
                if self.seen(contains.part, item).is_some() {
                    holding += 1.0;
                    mark(seen, at);
                }
            }
            let not_too_many = contains.most.is_none_or(|most| holding <= most);
            (holding >= contains.least && not_too_many).then_some(())?;
        }
        self.unevaluated(keywords.unevaluated_items, items.iter(), seen)
    }
}

impl Keywords {
    fn matches(&self, name: &str) -> bool {
        self.pattern_properties.iter().any(|it| it.0.as_ref().is_some_and(|it| it.is_match(name)))
    }
}

fn has_all(object: &Object, names: &[String]) -> bool {
    names.iter().all(|it| object.get(it).is_some())
}

/// The bits of the types that a value has.
fn kinds_of(value: &Json) -> u8 {
    match value {
        Json::Object(_) => kind::OBJECT,
        Json::List(_) => kind::ARRAY,
        Json::Text(_) => kind::STRING,
        Json::Number(it) if it.as_f64().is_some_and(|it| it.fract() == 0.0) => kind::NUMBER | kind::INTEGER,
        Json::Number(_) => kind::NUMBER,
        Json::Bool(_) => kind::BOOLEAN,
        Json::Null => kind::NULL,
    }
}

fn is_multiple(value: &str, of: Option<Number>) -> bool {
    let value = number::whole(value, Decimal::Point).map(|it| it.number);
    let quotient = value.zip(of).and_then(|(a, b)| a.over(b));
    quotient.is_some_and(Number::is_whole)
}

/// A text that is equal for values that JSON Schema holds equal: 1 and 1.0 are, and the order of keys is nothing.
pub(crate) fn canonical(value: &Json) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match value {
        Json::Null => "null".into(),
        Json::Bool(flag) => flag.to_string(),
        Json::Number(it) => match it.as_f64() {
            // A float that is whole, written without its point; what is no float keeps all its digits.
            Some(float) if it.is_f64() && float.fract() == 0.0 && float.abs() < 1e38 => {
                (float as i128).to_string()
            }
            _ => it.to_string(),
        },
        Json::Text(text) => quoted(text),
        Json::List(all) => format!("[{}]", all.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Json::Object(all) => {
            let mut entries: Vec<String> =
                all.iter().map(|(name, value)| format!("{}:{}", quoted(name), canonical(value))).collect();
            entries.sort();
            format!("{{{}}}", entries.join(","))
        }
    }
}
