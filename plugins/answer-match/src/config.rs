//! What may be set.

/// `[plugins.answer-match.config]`.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The column that holds the right answer: a text, a number, a truth value, or a list of such, any of which is right.
    pub column: String,
    /// Where the answer stands in a completion: tried in this order, the first that is found counts.
    pub extract: Vec<Place>,
    /// The same for the column's texts; a text in which none is found is taken whole.
    pub extract_reference: Vec<Place>,
    /// The tag of the place `tag`.
    pub tag: String,
    /// Numbers as numbers, texts as texts; `auto` decides by the right answer.
    pub compare: Compare,
    /// What the decimal sign of completions is.
    pub decimal: DecimalSign,
    /// What a percent sign does.
    pub percent: Percent,
    /// Numbers are equal within this distance.
    pub tolerance: f64,
    /// Numbers are equal within this share of the right answer.
    pub relative_tolerance: f64,
    /// What texts are compared without.
    pub ignore: Ignore,
    /// The score of each outcome.
    pub scores: Scores,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The line after the last `####`.
    Hash,
    /// Inside the last `\boxed{}`.
    Boxed,
    /// Inside the last `<answer>`, or what `tag` names.
    Tag,
    /// After the last "the answer is", 答案是 and the like.
    Phrase,
    /// The last number of the text.
    LastNumber,
    /// The last line with something on it.
    LastLine,
    /// The whole text.
    Whole,
}

impl Place {
    /// As the configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Boxed => "boxed",
            Self::Tag => "tag",
            Self::Phrase => "phrase",
            Self::LastNumber => "last_number",
            Self::LastLine => "last_line",
            Self::Whole => "whole",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// As numbers where the right answer is one.
    Auto,
    /// As numbers only.
    Number,
    /// As texts only.
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecimalSign {
    /// `1,234.5`.
    Point,
    /// `1.234,5`.
    Comma,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Percent {
    /// `50%` is 50.
    Ignore,
    /// `50%` is 0.5.
    Share,
    /// `50%` is either.
    Either,
}

#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ignore {
    /// Differences between capital and small letters.
    pub case: bool,
    /// Everything that is neither letter, digit, sign nor space.
    pub punctuation: bool,
    /// The English words `a`, `an`, `the`.
    pub articles: bool,
    /// All spaces; where false, runs of spaces count as one.
    pub spaces: bool,
}

#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Scores {
    /// The answer is right.
    pub right: f64,
    /// An answer was found and is wrong.
    pub wrong: f64,
    /// No answer was found.
    pub missing: f64,
}

impl Default for Config {
    fn default() -> Self {
        use Place::{Boxed, Hash, LastNumber, Phrase, Tag, Whole};
        Self {
            column: "answer".into(),
            extract: vec![Hash, Boxed, Tag, Phrase, LastNumber, Whole],
            extract_reference: vec![Hash, Boxed],
            tag: "answer".into(),
            compare: Compare::Auto,
            decimal: DecimalSign::Point,
            percent: Percent::Ignore,
            tolerance: 0.0,
            relative_tolerance: 0.0,
            ignore: Ignore::default(),
            scores: Scores::default(),
        }
    }
}

impl Default for Ignore {
    fn default() -> Self {
        Self { case: true, punctuation: true, articles: false, spaces: false }
    }
}

impl Default for Scores {
    fn default() -> Self {
        Self { right: 1.0, wrong: 0.0, missing: 0.0 }
    }
}
