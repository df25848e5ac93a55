//! Which linears get an adapter, matched as PEFT matches them.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};

/// `"all-linear"`, one regular expression over the whole path, or a list of names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetModules {
    /// `all-linear`, or a regular expression that must match a linear's whole path.
    Pattern(String),
    /// Path endings: `q_proj`, `mlp.up_proj`.
    Names(Vec<String>),
}

impl Default for TargetModules {
    fn default() -> Self {
        Self::Pattern("all-linear".into())
    }
}

impl TargetModules {
    /// A predicate over paths such as `model.layers.0.self_attn.q_proj`.
    ///
    /// # Errors
    /// A regular expression that does not compile.
    pub fn matcher(&self) -> Result<impl Fn(&str) -> bool + '_> {
        let pattern = match self {
            Self::Pattern(pattern) if pattern != "all-linear" => Some(compile("target_modules", pattern)?),
            _ => None,
        };
        Ok(move |path: &str| match (self, &pattern) {
            (Self::Names(names), _) => {
                names.iter().any(|name| path == name || path.ends_with(&format!(".{name}")))
            }
            (Self::Pattern(_), Some(pattern)) => pattern.is_match(path),
            (Self::Pattern(_), None) => true,
        })
    }
}

/// Paths by their ends, as PEFT matches `feedforward_modules`: by one regular expression over the whole path, or by names, not
/// at a dot alone.
pub(crate) struct Ends<'a> {
    names: &'a [String],
    pattern: Option<Regex>,
}

impl<'a> Ends<'a> {
    /// Of none where nothing is given.
    ///
    /// # Errors
    /// A regular expression that does not compile.
    pub fn of(given: Option<&'a TargetModules>) -> Result<Self> {
        let (names, pattern) = match given {
            None => (&[][..], None),
            Some(TargetModules::Names(names)) => (&names[..], None),
            Some(TargetModules::Pattern(pattern)) => {
                (&[][..], Some(compile("feedforward_modules", pattern)?))
            }
        };
        Ok(Self { names, pattern })
    }

    /// Whether the path is one of them.
    pub fn matches(&self, path: &str) -> bool {
        let by_name = self.names.iter().any(|it| path.ends_with(it.as_str()));
        by_name || self.pattern.as_ref().is_some_and(|it| it.is_match(path))
    }
}

/// Values by patterns over paths, of which at most one may match a path.
pub(super) struct Patterns<'a, T> {
    key: &'static str,
    all: Vec<(&'a str, Regex, &'a T)>,
}

impl<'a, T> Patterns<'a, T> {
    /// Those of the key `key`.
    ///
    /// # Errors
    /// A regular expression that does not compile.
    pub fn of(key: &'static str, given: &'a BTreeMap<String, T>) -> Result<Self> {
        // As PEFT matches: the whole path, or its end behind a dot.
        let one = |(pattern, value): (&'a String, &'a T)| {
            compile(key, &format!(r"(?:.*\.)?(?:{pattern})")).map(|regex| (pattern.as_str(), regex, value))
        };
        Ok(Self { key, all: given.iter().map(one).collect::<Result<_>>()? })
    }

    /// The value of the pattern that matches `path`.
    pub fn find(&self, path: &str) -> std::result::Result<Option<&'a T>, String> {
        let mut found = self.all.iter().filter(|it| it.1.is_match(path));
        match (found.next(), found.next()) {
            (Some(first), Some(second)) => {
                Err(format!("`{}`: `{}` and `{}` both match `{path}`", self.key, first.0, second.0))
            }
            (first, _) => Ok(first.map(|it| it.2)),
        }
    }
}

fn compile(key: &str, pattern: &str) -> Result<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| EngineError::Invalid {
        what: "adapter.lora".into(),
        problems: vec![format!("`{key}`: `{pattern}` is not a regular expression: {error}")],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "model.layers.1.self_attn.q_proj";

    #[test]
    fn names_match_whole_path_endings_only() {
        let matches = |name: &str| TargetModules::Names(vec![name.into()]).matcher().unwrap()(PATH);
        assert!(matches("q_proj") && matches("self_attn.q_proj") && !matches("proj") && !matches("k_proj"));
    }

    #[test]
    fn a_pattern_must_match_the_whole_path() {
        let matches = |pattern: &str| TargetModules::Pattern(pattern.into()).matcher().unwrap()(PATH);
        assert!(matches("all-linear") && matches(r".*\.(q|v)_proj") && !matches("q_proj"));
    }

    #[test]
    fn a_broken_pattern_names_its_key() {
        let error = TargetModules::Pattern("(".into()).matcher().err().unwrap().to_string();
        assert!(error.contains("`target_modules`"), "{error}");
    }
}
