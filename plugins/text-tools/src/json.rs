//! JSON as answers hold it: read by `serde_json`, but lean. Texts without escapes are the answer's own, and an object is a
//! list of its entries: nothing is hashed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

/// A value. Equal as `serde_json`'s are: 1 is not 1.0, the order of an object's entries is nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` and `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Json<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// The entries of an object, each name once, in the order in which names come first.
#[derive(Debug, Clone, Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

/// A text that is one JSON value and nothing else but spaces around it.
pub fn parse(text: &str) -> Option<Json<'_>> {
    serde_json::from_str(text).ok()
}

/// The value that the text begins with, whatever follows it.
pub fn parse_first(text: &str) -> Option<Json<'_>> {
    serde_json::Deserializer::from_str(text).into_iter().next()?.ok()
}

impl<'a> Json<'a> {
    /// The entries, of an object.
    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }
}

/// Entries up to which names are compared with one another.
const FEW: usize = 64;

impl<'a> Object<'a> {
    /// Of a name that stands more than once the last value counts.
    fn of(entries: Vec<(Cow<'a, str>, Json<'a>)>) -> Self {
        // Names that share no bit are different: most are told so without a comparison.
        let mut bits = 0u64;
        let is_new = |(at, (name, _)): (usize, &(Cow<str>, Json))| {
            let ends = name.as_bytes().last_chunk::<2>().map_or(0, |it| u32::from(u16::from_le_bytes(*it)));
            let bit = 1 << ((ends ^ ends >> 7).wrapping_add(name.len() as u32) % 64);
            let is_new = bits & bit == 0 || entries[..at].iter().all(|it| it.0 != *name);
            bits |= bit;
            is_new
        };
        if entries.len() <= FEW && entries.iter().enumerate().all(is_new) {
            return Self(entries);
        }
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for (at, (name, _)) in entries.iter().enumerate() {
            places.entry(name).or_insert(at);
        }
        if places.len() == entries.len() {
            return Self(entries);
        }
        let places: Vec<usize> = entries.iter().map(|it| places[&*it.0]).collect();
        let mut kept: Vec<Option<(Cow<str>, Json)>> = entries.iter().map(|_| None).collect();
        for (entry, place) in entries.into_iter().zip(places) {
            kept[place] = Some(entry);
        }
        Self(kept.into_iter().flatten().collect())
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.0.iter().find(|it| it.0 == name).map(|it| &it.1)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Json<'a>)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

impl PartialEq for Object<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(name, value)| other.get(name) == Some(value))
    }
}

impl From<Value> for Json<'static> {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(flag),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(text.into()),
            Value::Array(all) => Self::List(all.into_iter().map(Self::from).collect()),
            Value::Object(all) => {
                Self::Object(Object(all.into_iter().map(|(name, it)| (name.into(), it.into())).collect()))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// A name, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(number).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::with_capacity(8);
        while let Some((Name(name), value)) = entries.next_entry()? {
            all.push((name, value));
        }
        Ok(Json::Object(Object::of(all)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Oracle: `serde_json::Value` of the same text.
    #[test]
    fn it_reads_what_serde_json_reads() {
        let twice = |names: usize| {
            let entries: Vec<String> =
                (0..2 * names).map(|it| format!("\"n{}\": {it}", it % names)).collect();
            format!("{{{}}}", entries.join(","))
        };
        let deep = "[".repeat(127) + &"]".repeat(127);
        let texts = [
            "null",
            "true",
            "-0",
            "0",
            "1.50",
            "-12",
            "1e3",
            "18446744073709551615",
            "18446744073709551616",
            "1e400",
            "01",
            "\"a\"",
            "\"\\u00e9\\n\"",
            "\"\\ud800\"",
            "\"\u{1}\"",
            "[1, [2, {}], \"x\"]",
            "[1,]",
            " {\"a\": 1, \"b\": {\"c\": null}} ",
            "{\"a\": 1, \"\\u0061\": 2, \"b\": 3}",
            "{\"a\": 1,}",
            "{a: 1}",
            "1 2",
            "",
            &deep,
            &format!("[{deep}]"),
            &twice(3),
            &twice(40),
        ];
        for text in texts {
            let expected = serde_json::from_str::<Value>(text).ok();
            assert_eq!(parse(text), expected.clone().map(Json::from), "{text}");
            let names = |it: &Value| it.as_object().map(|it| it.keys().cloned().collect::<Vec<_>>());
            let found =
                parse(text).and_then(|it| Some(it.as_object()?.iter().map(|it| it.0.to_owned()).collect()));
            assert_eq!(found, expected.as_ref().and_then(names), "{text}");
        }
        assert_eq!(parse_first("{\"a\": 1}, ok?"), Some(Json::from(json!({"a": 1}))));
        assert_eq!(parse_first("{so}"), None);
        assert_eq!(parse("{\"a\": 1, \"b\": 2}"), parse("{\"b\": 2, \"a\": 1}"));
        assert_ne!(parse("1"), parse("1.0"));
    }
}
