//! One check: what may be written, and what is ready to run.

use std::cell::OnceCell;

use regex::{Regex, RegexBuilder};
use serde_json::Value;
use text_tools::json::{self, Json as Found};
use text_tools::number::{self, Decimal};

use crate::path::Path;

/// One check; exactly one of its kinds is given.
#[derive(Debug, Clone, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Check {
    /// The name of the component that tells how it went; its kind where absent.
    pub name: Option<String>,
    /// Its share in the score.
    pub weight: Option<f64>,
    /// Passes where the check would not.
    pub negate: bool,
    /// Capital and small letters are the same, for the kinds of text.
    pub ignore_case: bool,
    /// The answer holds this text.
    pub contains: Option<String>,
    /// The answer does not hold this text.
    pub not_contains: Option<String>,
    /// The answer is this text, apart from spaces around it.
    pub equals: Option<String>,
    /// The answer begins with this text.
    pub starts_with: Option<String>,
    /// The answer ends with this text.
    pub ends_with: Option<String>,
    /// A regular expression finds something in the answer.
    pub matches: Option<String>,
    /// The answer is JSON, and a value in it is as asked.
    pub json: Option<Json>,
    /// The answer's last number.
    pub number: Option<Amount>,
    /// Lines with something on them.
    pub lines: Option<Amount>,
    /// Words; each Han or kana character is one.
    pub words: Option<Amount>,
    /// Sentences.
    pub sentences: Option<Amount>,
    /// Characters, without spaces around the answer.
    pub characters: Option<Amount>,
    /// The letters belong to one script.
    pub script: Option<Script>,
}

/// What a number must be; at least one is given.
#[derive(Debug, Clone, Copy, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Amount {
    /// At least.
    min: Option<f64>,
    /// At most.
    max: Option<f64>,
    /// Exactly, within `tolerance`.
    equals: Option<f64>,
    /// How far from `equals`.
    tolerance: f64,
}

/// What a value in the answer's JSON must be; with the path alone it must exist.
#[derive(Debug, Clone, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Json {
    /// Where the value stands: `$.a.b[0]` or a JSON pointer `/a/b/0`; the whole answer where absent.
    path: String,
    /// The value; numbers are compared as numbers.
    equals: Option<Value>,
    /// Its type.
    #[serde(rename = "type")]
    kind: Option<Kind>,
    /// A number, at least.
    min: Option<f64>,
    /// A number, at most.
    max: Option<f64>,
    /// A regular expression finds something in the text.
    matches: Option<String>,
    /// Entries of a list or an object, characters of a text.
    length: Option<Amount>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// An object.
    Object,
    /// A list.
    Array,
    /// A text.
    String,
    /// A number.
    Number,
    /// A number without a fraction.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// `null`.
    Null,
}

/// Which script the letters belong to.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Unicode's name of the script: `Latin`, `Han`, `Cyrillic`, `Arabic`, `Hangul`, `Hiragana` ...
    is: String,
    /// At least this share of the letters.
    #[serde(default = "most")]
    share: f64,
}

fn most() -> f64 {
    0.8
}

/// A check that is ready to run.
pub struct Ready {
    /// Of the component.
    pub name: String,
    /// Its share.
    pub weight: f64,
    negate: bool,
    test: Test,
}

enum Test {
    Pattern { pattern: Regex, absent: bool },
    Json { path: Path, json: Box<Json>, equals: Option<Found<'static>>, pattern: Option<Regex> },
    Amount { of: fn(&str) -> Option<f64>, amount: Amount },
    Script { letter: Regex, share: f64 },
}

/// The key that is wrong, and what is wrong with it.
type Wrong = (String, String);

impl Check {
    /// Compiles what is written.
    pub fn ready(&self) -> Result<Ready, Wrong> {
        let weight = self.weight.unwrap_or(1.0);
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(("weight".into(), format!("must be > 0, got `{weight}`")));
        }
        let mut kinds = self.kinds();
        let all = "contains, not_contains, equals, starts_with, ends_with, matches, json, number, lines, words, \
                   sentences, characters, script";
        let Some((kind, test)) = kinds.next() else {
            return Err(("contains".into(), format!("one of these must be given: {all}")));
        };
        if let Some((second, _)) = kinds.next() {
            return Err((second.into(), format!("a check has one kind, and `{kind}` is given")));
        }
        let name = self.name.clone().unwrap_or_else(|| kind.into());
        Ok(Ready { name, weight, negate: self.negate, test: test? })
    }

    /// Each kind that is given.
    fn kinds(&self) -> impl Iterator<Item = (&'static str, Result<Test, Wrong>)> {
        let text = |key: &'static str, value: &Option<String>, before: &str, after: &str, absent: bool| {
            value.as_ref().map(|it| {
                let source = format!("{before}{}{after}", regex::escape(it.trim_matches(['\n', '\r'])));
                (key, self.pattern(key, &source).map(|pattern| Test::Pattern { pattern, absent }))
            })
        };
        let amount = |key: &'static str, value: Option<Amount>, of: fn(&str) -> Option<f64>| {
            value.map(|it| (key, it.checked(key).map(|()| Test::Amount { of, amount: it })))
        };
        let matches = self.matches.as_ref();
        let matches = matches.map(|it| {
            ("matches", self.pattern("matches", it).map(|pattern| Test::Pattern { pattern, absent: false }))
        });
        [
            text("contains", &self.contains, "", "", false),
            text("not_contains", &self.not_contains, "", "", true),
            text("equals", &self.equals, r"\A\s*", r"\s*\z", false),
            text("starts_with", &self.starts_with, r"\A\s*", "", false),
            text("ends_with", &self.ends_with, "", r"\s*\z", false),
            matches,
            self.json.as_ref().map(|it| ("json", it.ready())),
            amount("number", self.number, |text| Some(number::last(text, Decimal::Point)?.number.value())),
            amount("lines", self.lines, |text| {
                Some(text.lines().filter(|it| !it.trim().is_empty()).count() as f64)
            }),
            amount("words", self.words, |text| Some(text_tools::word_count(text) as f64)),
            amount("sentences", self.sentences, |text| {
                Some(text_tools::sentences(text).iter().filter(|it| !it.trim().is_empty()).count() as f64)
            }),
            amount("characters", self.characters, |text| Some(text.trim().chars().count() as f64)),
            self.script.as_ref().map(|it| ("script", it.ready())),
        ]
        .into_iter()
        .flatten()
    }

    fn pattern(&self, key: &str, source: &str) -> Result<Regex, Wrong> {
        let built = RegexBuilder::new(source).case_insensitive(self.ignore_case).size_limit(4 << 20).build();
        built.map_err(|error| (key.into(), error.to_string()))
    }
}

impl Amount {
    fn checked(&self, key: &str) -> Result<(), Wrong> {
        if self.min.is_none() && self.max.is_none() && self.equals.is_none() {
            return Err((key.into(), "one of `min`, `max` and `equals` must be given".into()));
        }
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err((format!("{key}.tolerance"), format!("must be >= 0, got `{}`", self.tolerance)));
        }
        Ok(())
    }

    fn holds(&self, value: f64) -> bool {
        self.min.is_none_or(|it| value >= it)
            && self.max.is_none_or(|it| value <= it)
            && self.equals.is_none_or(|it| (value - it).abs() <= self.tolerance)
    }
}

impl Json {
    fn ready(&self) -> Result<Test, Wrong> {
        let path = Path::parse(&self.path).map_err(|message| ("json.path".to_owned(), message))?;
        let pattern = self.matches.as_ref().map(|it| Regex::new(it)).transpose();
        let pattern = pattern.map_err(|error| ("json.matches".to_owned(), error.to_string()))?;
        if let Some(length) = &self.length {
            length.checked("json.length")?;
        }
        let equals = self.equals.clone().map(Found::from);
        Ok(Test::Json { path, json: Box::new(self.clone()), equals, pattern })
    }

    fn holds(&self, value: &Found, equals: Option<&Found>, pattern: Option<&Regex>) -> bool {
        let kind = self.kind.is_none_or(|it| it.is_of(value));
        let equal = equals.is_none_or(|it| same(it, value));
        let number = |bound: Option<f64>, holds: fn(f64, f64) -> bool| {
            bound.is_none_or(|bound| as_f64(value).is_some_and(|it| holds(it, bound)))
        };
        let matches = pattern.is_none_or(|it| matches!(value, Found::Text(text) if it.is_match(text)));
        let length = || match value {
            Found::List(all) => Some(all.len()),
            Found::Object(all) => Some(all.len()),
            Found::Text(text) => Some(text.chars().count()),
            _ => None,
        };
        let length = self.length.is_none_or(|it| length().is_some_and(|length| it.holds(length as f64)));
        kind && equal
            && number(self.min, |a, b| a >= b)
            && number(self.max, |a, b| a <= b)
            && matches
            && length
    }
}

fn as_f64(value: &Found) -> Option<f64> {
    match value {
        Found::Number(number) => number.as_f64(),
        _ => None,
    }
}

/// As JSON Schema compares: 1 and 1.0 are the same number.
fn same(a: &Found, b: &Found) -> bool {
    match (a, b) {
        (Found::Number(a), Found::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Found::List(a), Found::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Found::Object(a), Found::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

impl Kind {
    fn is_of(self, value: &Found) -> bool {
        match self {
            Self::Object => matches!(value, Found::Object(_)),
            Self::Array => matches!(value, Found::List(_)),
            Self::String => matches!(value, Found::Text(_)),
            Self::Number => matches!(value, Found::Number(_)),
            Self::Integer => as_f64(value).is_some_and(|it| it.fract() == 0.0),
            Self::Boolean => matches!(value, Found::Bool(_)),
            Self::Null => matches!(value, Found::Null),
        }
    }
}

impl Script {
    fn ready(&self) -> Result<Test, Wrong> {
        if !(self.share > 0.0 && self.share <= 1.0) {
            return Err(("script.share".into(), format!("must be in (0, 1], got `{}`", self.share)));
        }
        let name = !self.is.is_empty() && self.is.chars().all(|it| it.is_ascii_alphabetic() || it == '_');
        let letter = name.then(|| Regex::new(&format!(r"\p{{Script={}}}", self.is)).ok()).flatten();
        let letter = letter
            .ok_or_else(|| ("script.is".to_owned(), format!("`{}` is no script of Unicode", self.is)))?;
        Ok(Test::Script { letter, share: self.share })
    }
}

/// An answer, read as JSON where a check first asks for it.
pub struct Answer<'a> {
    text: &'a str,
    json: OnceCell<Option<Found<'a>>>,
}

impl<'a> Answer<'a> {
    /// Of this text.
    pub fn new(text: &'a str) -> Self {
        Self { text, json: OnceCell::new() }
    }
}

impl Ready {
    /// Whether the answer is as asked.
    pub fn passes(&self, answer: &Answer) -> bool {
        let text = answer.text;
        let passes = match &self.test {
            Test::Pattern { pattern, absent } => pattern.is_match(text) != *absent,
            Test::Json { path, json, equals, pattern } => {
                let root = answer.json.get_or_init(|| json::parse(text.trim()));
                let value = root.as_ref().and_then(|it| path.find(it));
                value.is_some_and(|it| json.holds(it, equals.as_ref(), pattern.as_ref()))
            }
            Test::Amount { of, amount } => of(text).is_some_and(|it| amount.holds(it)),
            Test::Script { letter, share } => {
                let letters = text.chars().filter(|it| it.is_alphabetic()).count();
                let own =
                    letter.find_iter(text).filter(|it| it.as_str().chars().all(char::is_alphabetic)).count();
                letters > 0 && own as f64 >= share * letters as f64
            }
        };
        passes != self.negate
    }
}
