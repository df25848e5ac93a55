//! From the text of a run file and its overrides to a [`RunConfig`]: every unknown key at once, each with its line.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::RunConfig;

/// Reads `text` with `overrides` (`key=value`, the value TOML or bare text) laid over it, and the whole over `sets`, which
/// are documents of `[plugins]` tables that were checked before.
///
/// # Errors
/// What is no TOML; an override that is no `key=value` or reaches into something that is no table; every unknown
/// key; the first value of a wrong type or missing key. Each problem says its line, or the override it came from.
pub fn parse(text: &str, overrides: &[String], sets: &[String]) -> Result<RunConfig, Vec<String>> {
    let whole = |error: Error| vec![error.to_string().trim_end().to_string()];
    let sources = Sources::new(text, overrides)?;
    let mut table = DeTable::parse(text).map_err(whole)?.into_inner();
    for source in &sources.overrides {
        source.apply(&mut table).map_err(|problem| vec![problem])?;
    }
    for set in sets.iter().rev() {
        let mut below = DeTable::parse(set).map_err(whole)?.into_inner();
        lay_over(&mut below, table);
        table = below;
    }
    let mut problems = Vec::new();
    loop {
        let root = Spanned::new(0..text.len(), table.clone());
        match RunConfig::deserialize(Deserializer::from(root)) {
            Ok(config) if problems.is_empty() => return Ok(config),
            Ok(_) => return Err(problems),
            Err(error) => {
                let path = error.span().and_then(|span| find(&table, &span));
                problems.push(sources.describe(&error, path.as_deref(), &table));
                // An unknown key is taken out and the rest read again, so that all are told at once.
                let unknown = error.message().starts_with("unknown field");
                let removed = path.filter(|_| unknown).is_some_and(|path| remove(&mut table, &path));
                if !removed {
                    return Err(problems);
                }
            }
        }
    }
}

/// The sets that a run file names; what is wrong with the file is told when it is read whole.
pub fn plugin_sets(text: &str) -> Vec<String> {
    #[derive(Default, Deserialize)]
    struct Named {
        #[serde(default)]
        plugin_sets: Vec<String>,
    }
    toml::from_str::<Named>(text).unwrap_or_default().plugin_sets
}

/// What the reader says of a table that should have one key, and has more.
const SEVERAL: &str = "wanted exactly 1 element, more than 1 element";

/// The keys of the table at `path`.
fn keys_of(table: &DeTable<'_>, path: &[String]) -> Option<Vec<String>> {
    let Some((first, rest)) = path.split_first() else {
        return Some(table.keys().map(|it| format!("`{}`", it.get_ref())).collect());
    };
    let below = table.iter().find(|it| it.0.get_ref() == first.as_str())?.1;
    match below.get_ref() {
        DeValue::Table(below) => keys_of(below, rest),
        _ => None,
    }
}

/// Makes a document of a value.
const ASSIGNED: &str = "v = ";

/// The run file's text and what was laid over it. A position past the text's end belongs to an override.
struct Sources<'a> {
    text: &'a str,
    overrides: Vec<Override>,
}

struct Override {
    /// As typed, after `--set `.
    pair: String,
    path: Vec<String>,
    /// The value as TOML, shifted so that positions in it belong to this override alone.
    shifted: String,
    span: Range<usize>,
}

impl<'a> Sources<'a> {
    fn new(text: &'a str, pairs: &[String]) -> Result<Self, Vec<String>> {
        let mut overrides = Vec::new();
        let mut problems = Vec::new();
        let mut start = text.len() + ASSIGNED.len();
        for pair in pairs {
            let Some((key, value)) = pair.split_once('=') else {
                problems.push(format!("`--set {pair}` must be `key=value`"));
                continue;
            };
            let value = value.trim();
            // What is no TOML is meant as text: `--set model.path=some/folder`.
            let value = match DeValue::parse(value) {
                Ok(_) => value.to_string(),
                Err(_) => toml::Value::String(value.to_string()).to_string(),
            };
            let span = start..start + value.len();
            let shifted = format!("{}{ASSIGNED}{value}", " ".repeat(start - ASSIGNED.len()));
            start = span.end + ASSIGNED.len();
            let path = key.trim().split('.').map(str::to_string).collect();
            overrides.push(Override { pair: pair.clone(), path, shifted, span });
        }
        if problems.is_empty() { Ok(Self { text, overrides }) } else { Err(problems) }
    }

    /// One line: key, place, and the reader's words.
    fn describe(&self, error: &Error, path: Option<&[String]>, table: &DeTable<'_>) -> String {
        let place = error.span().map(|span| {
            match self.overrides.iter().find(|it| it.span.start <= span.start && span.start <= it.span.end) {
                Some(source) => format!("`--set {}`", source.pair),
                None => {
                    format!("line {}", 1 + self.text[..span.start.min(self.text.len())].matches('\n').count())
                }
            }
        });
        let key = path.filter(|it| !it.is_empty()).map(|it| format!("`{}`", it.join(".")));
        // What is missing at the top is missing everywhere.
        let place = place.filter(|_| key.is_some() || !error.message().starts_with("missing field"));
        let told: Vec<String> = [key, place.map(|it| format!("({it})"))].into_iter().flatten().collect();
        let several = path.filter(|_| error.message().starts_with(SEVERAL)).and_then(|it| keys_of(table, it));
        let message = match several {
            Some(keys) => format!("one of {} is meant: take the others out", keys.join(", ")),
            None => error.message().trim_end().to_string(),
        };
        if told.is_empty() { message } else { format!("{}: {message}", told.join(" ")) }
    }
}

impl Override {
    fn apply<'i>(&'i self, table: &mut DeTable<'i>) -> Result<(), String> {
        let refuse = |reason: String| format!("`--set {}`: {reason}", self.pair);
        let mut document =
            DeTable::parse(&self.shifted).map_err(|error| refuse(error.message().into()))?.into_inner();
        let value = document.remove("v").ok_or_else(|| refuse("no value".into()))?;
        // No width: a key that leads to the value is never taken for the value's own.
        let nowhere = self.span.start..self.span.start;
        let (last, parents) = self.path.split_last().expect("splitting gives one part at least");
        let mut inner = table;
        for part in parents {
            if !inner.contains_key(part.as_str()) {
                let empty = Spanned::new(nowhere.clone(), DeValue::Table(DeTable::new()));
                inner.insert(Spanned::new(nowhere.clone(), part.clone().into()), empty);
            }
            inner = match inner.get_mut(part.as_str()).map(Spanned::get_mut) {
                Some(DeValue::Table(table)) => table,
                _ => return Err(refuse(format!("`{part}` is not a table"))),
            };
        }
        // A key that is replaced would keep the place it had in the file.
        inner.remove(last.as_str());
        inner.insert(Spanned::new(self.span.clone(), last.clone().into()), value);
        Ok(())
    }
}

/// Lays `above` over `below`, table by table; keys of `below` keep their places and come first.
fn lay_over<'a>(below: &mut DeTable<'a>, above: DeTable<'a>) {
    for (key, value) in above {
        match below.get_mut(key.get_ref().as_ref()) {
            None => {
                below.insert(key, value);
            }
            Some(there) => {
                let span = value.span();
                match (there.get_mut(), value.into_inner()) {
                    (DeValue::Table(below), DeValue::Table(above)) => lay_over(below, above),
                    (_, value) => *there = Spanned::new(span, value),
                }
            }
        }
    }
}

/// The path of the key, or of the value, that stands exactly at `span`.
fn find(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<String>> {
    for (key, value) in table {
        let name = key.get_ref().to_string();
        if key.span() == *span || value.span() == *span {
            return Some(vec![name]);
        }
        let inner = match value.get_ref() {
            DeValue::Table(inner) => find(inner, span),
            _ => None,
        };
        if let Some(mut path) = inner {
            path.insert(0, name);
            return Some(path);
        }
    }
    None
}

/// Removes the key at `path`; whether it was there.
fn remove(table: &mut DeTable<'_>, path: &[String]) -> bool {
    match path {
        [] => false,
        [last] => table.remove(last.as_str()).is_some(),
        [first, rest @ ..] => match table.get_mut(first.as_str()).map(Spanned::get_mut) {
            Some(DeValue::Table(inner)) => remove(inner, rest),
            _ => false,
        },
    }
}
