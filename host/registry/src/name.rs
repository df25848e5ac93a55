//! Names of packages, and patterns over them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of a name at most; registries allow 255 for a whole address.
const LONGEST: usize = 100;

/// `bleu`, or with its publisher `team/bleu`: parts of `[a-z][a-z0-9-]*`, two at most.
///
/// Nothing else is allowed because a name is a folder's name, a part of a registry's address and a key of a run file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageName(String);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no package's name: a name is `[a-z][a-z0-9-]*`, or two of those as in `team/bleu`")]
pub struct NameError(pub String);

impl PackageName {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the publisher: `bleu` of `team/bleu`.
    pub fn last(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

/// One part of a name.
fn is_part(text: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-')
}

impl FromStr for PackageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let sound = text.len() <= LONGEST && text.split('/').count() <= 2 && text.split('/').all(is_part);
        if sound { Ok(Self(text.to_string())) } else { Err(NameError(text.to_string())) }
    }
}

impl TryFrom<String> for PackageName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<PackageName> for String {
    fn from(name: PackageName) -> Self {
        name.0
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name, or with one `*` at its end the beginning of names: `team/*`, `team/judge-*`, `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePattern {
    begins: String,
    open: bool,
}

impl NamePattern {
    /// Whether `name` is meant.
    pub fn matches(&self, name: &str) -> bool {
        if self.open { name.starts_with(&self.begins) } else { name == self.begins }
    }

    /// How much of a name the pattern says: a whole name says more than any beginning.
    pub fn precision(&self) -> (bool, usize) {
        (!self.open, self.begins.len())
    }
}

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (begins, open) = match text.strip_suffix('*') {
            Some(begins) => (begins, true),
            None => (text, false),
        };
        // The beginning of a name becomes a name by one more letter.
        let whole = if open { format!("{begins}a") } else { begins.to_string() };
        match whole.parse::<PackageName>() {
            Ok(_) => Ok(Self { begins: begins.to_string(), open }),
            Err(_) => Err(format!("`{text}` is no pattern: a pattern is a name, or `*` after its beginning")),
        }
    }
}

impl TryFrom<String> for NamePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.begins, if self.open { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folders_addresses_and_keys_at_once() {
        for good in ["bleu", "team/bleu", "a1-b2", "a/b"] {
            assert!(good.parse::<PackageName>().is_ok(), "{good}");
        }
        let long = "a".repeat(101);
        for bad in [
            "", "Bleu", "1a", "-a", "a-", "a/b/c", "a//b", "/a", "a/", "..", "a/..", "a.b", "a b", "ü", &long,
        ] {
            assert!(bad.parse::<PackageName>().is_err(), "{bad}");
        }
        assert_eq!("team/bleu".parse::<PackageName>().unwrap().last(), "bleu");
    }

    #[test]
    fn a_pattern_means_one_name_or_all_that_begin_so() {
        let matches = |pattern: &str, name: &str| pattern.parse::<NamePattern>().unwrap().matches(name);
        assert!(
            matches("team/*", "team/bleu") && !matches("team/*", "teams/bleu") && !matches("team/*", "team")
        );
        assert!(matches("bleu", "bleu") && !matches("bleu", "team/bleu"));
        assert!(matches("*", "bleu") && matches("*", "team/bleu") && matches("team/judge-*", "team/judge-a"));
        for bad in ["", "te*am", "**", "team/**", "Team/*", "*/bleu"] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_whole_name_says_more_than_a_beginning() {
        let precision = |it: &str| it.parse::<NamePattern>().unwrap().precision();
        assert!(precision("a") > precision("team/long-*"));
        assert!(precision("team/*") > precision("*"));
    }
}
