//! What matches regular expressions: any, all, none of them, or how often. Time is linear in the text, always.

use fthost_plugin_sdk::{Columns, ConfigProblem, Group, Reward, Score, export};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

/// `[plugins.pattern.config]`.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Regular expressions in the syntax of Rust's `regex`: like Python's, without look-around and back-references.
    patterns: Vec<String>,
    /// A column that holds a row's own patterns, a text or a list of texts, beside those of `patterns`.
    column: Option<String>,
    /// What is asked of the patterns.
    mode: Mode,
    /// Anywhere in the text, or the text as a whole.
    scope: Scope,
    /// In the mode `count`: so many matches make the score 1.
    target: u32,
    /// Capital and small letters are the same.
    ignore_case: bool,
    /// `.` matches a line feed too.
    dot_matches_line_feed: bool,
    /// `^` and `$` match at the ends of lines too.
    multi_line: bool,
    /// The score of what is asked.
    reward: f64,
    /// The score of its opposite.
    penalty: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// At least one matches.
    Any,
    /// Each matches.
    All,
    /// None matches.
    None,
    /// The share of the patterns that match.
    Share,
    /// How many matches there are of all patterns together, over `target`, 1 at most.
    Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Scope {
    /// Anywhere in the text.
    Search,
    /// The text as a whole.
    Full,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            patterns: Vec::new(),
            column: None,
            mode: Mode::Any,
            scope: Scope::Search,
            target: 1,
            ignore_case: false,
            dot_matches_line_feed: false,
            multi_line: false,
            reward: 1.0,
            penalty: 0.0,
        }
    }
}

/// Memory that one pattern may take when compiled.
const PATTERN_BYTES: usize = 4 << 20;

impl Config {
    fn compile(&self, pattern: &str) -> Result<Regex, String> {
        // The line feed ends a comment of `(?x)`, which else would swallow the end; elsewhere it would be matched.
        let closing = if pattern.starts_with("(?x") { "\n" } else { "" };
        let whole = format!("\\A(?:{pattern}{closing})\\z");
        let pattern = if self.scope == Scope::Full { &whole } else { pattern };
        RegexBuilder::new(pattern)
            .case_insensitive(self.ignore_case)
            .dot_matches_new_line(self.dot_matches_line_feed)
            .multi_line(self.multi_line)
            .size_limit(PATTERN_BYTES)
            .build()
            .map_err(|error| error.to_string())
    }
}

struct Pattern {
    config: Config,
    patterns: Vec<Regex>,
}

impl TryFrom<Config> for Pattern {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.patterns.is_empty() && config.column.is_none() {
            return Err(ConfigProblem::new(
                "patterns",
                "must name at least one, or `column` where they stand",
            ));
        }
        if config.target == 0 {
            return Err(ConfigProblem::new("target", "must be at least 1"));
        }
        for (key, value) in [("reward", config.reward), ("penalty", config.penalty)] {
            if !value.is_finite() {
                return Err(ConfigProblem::new(key, "must be finite"));
            }
        }
        let compiled = config.patterns.iter().enumerate().map(|(at, pattern)| {
            config.compile(pattern).map_err(|error| ConfigProblem::new(format!("patterns[{at}]"), error))
        });
        let patterns = compiled.collect::<Result<_, _>>()?;
        Ok(Self { config, patterns })
    }
}

impl Pattern {
    /// `Ok(Err(reason))` where the row has no pattern, `Err` where it has one that is none.
    fn of_row(&self, columns: &Columns) -> Result<Result<Vec<Regex>, String>, String> {
        let Some(column) = &self.config.column else { return Ok(Ok(Vec::new())) };
        let texts: Option<Vec<&str>> = match columns.get(column) {
            Some(Value::String(text)) => Some(vec![text.as_str()]),
            Some(Value::Array(all)) => all.iter().map(Value::as_str).collect(),
            _ => None,
        };
        let Some(texts) = texts else {
            return Ok(Err(format!("column `{column}` holds neither a text nor a list of texts")));
        };
        if texts.is_empty() && self.patterns.is_empty() {
            return Ok(Err(format!("column `{column}` is an empty list")));
        }
        let compile = |it: &&str| {
            self.config.compile(it).map_err(|error| format!("column `{column}`, pattern `{it}`: {error}"))
        };
        texts.iter().map(compile).collect::<Result<_, _>>().map(Ok)
    }

    fn judge(&self, text: &str, own: &[Regex]) -> Score {
        let patterns = || self.patterns.iter().chain(own);
        let all = self.patterns.len() + own.len();
        let matching = patterns().filter(|it| it.is_match(text)).count();
        let flag = |it: bool| f64::from(u8::from(it));
        let share = match self.config.mode {
            Mode::Any => flag(matching > 0),
            Mode::All => flag(matching == all),
            Mode::None => flag(matching == 0),
            Mode::Share => matching as f64 / all as f64,
            Mode::Count => {
                let target = self.config.target as usize;
                let count = patterns().flat_map(|it| it.find_iter(text)).take(target).count();
                count as f64 / target as f64
            }
        };
        let Config { reward, penalty, .. } = self.config;
        Score::new(penalty + (reward - penalty) * share).with("matching", matching as f64)
    }
}

impl Reward for Pattern {
    fn score(&self, group: &Group) -> Vec<Score> {
        match self.of_row(&group.columns) {
            Err(error) => vec![Score::error(error); group.completions.len()],
            Ok(Err(reason)) => vec![Score::abstain(reason); group.completions.len()],
            Ok(Ok(own)) => group.completions.iter().map(|it| self.judge(&it.text, &own)).collect(),
        }
    }
}

export!(reward: Pattern from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing::group;
    use serde_json::json;

    fn values(config: Value, columns: Value, answers: &[&str]) -> Vec<Option<f64>> {
        let config: Config = serde_json::from_value(config).unwrap();
        let scores = Pattern::try_from(config).map_err(|it| it.key).unwrap().score(&group(columns, answers));
        scores.iter().map(Score::value).collect()
    }

    #[test]
    fn each_mode_asks_something_else_of_the_same_patterns() {
        let of = |mode: &str| {
            values(
                json!({"patterns": ["a+", r"\d"], "mode": mode, "target": 4}),
                json!({}),
                &["aa b a", "a1", "x"],
            )
        };
        assert_eq!(of("any"), [Some(1.0), Some(1.0), Some(0.0)]);
        assert_eq!(of("all"), [Some(0.0), Some(1.0), Some(0.0)]);
        assert_eq!(of("none"), [Some(0.0), Some(0.0), Some(1.0)]);
        assert_eq!(of("share"), [Some(0.5), Some(1.0), Some(0.0)]);
        assert_eq!(of("count"), [Some(0.5), Some(0.5), Some(0.0)]);
    }

    #[test]
    fn the_whole_text_and_flags() {
        let full = json!({"patterns": ["yes|no"], "scope": "full", "ignore_case": true});
        assert_eq!(values(full, json!({}), &["YES", "yes!"]), [Some(1.0), Some(0.0)]);
        let script = json!({"patterns": [r"\p{Han}{2,}"], "mode": "none", "penalty": -1.0});
        assert_eq!(values(script, json!({}), &["hello", "说中文"]), [Some(1.0), Some(-1.0)]);
        let verbose = json!({"patterns": ["(?x) a  # one\n b # two"], "scope": "full"});
        assert_eq!(values(verbose, json!({}), &["ab", "abc"]), [Some(1.0), Some(0.0)]);
    }

    #[test]
    fn a_row_s_own_patterns_count_and_bad_ones_are_errors() {
        let config = json!({"column": "p", "mode": "all"});
        assert_eq!(values(config.clone(), json!({"p": ["a", "b"]}), &["ab", "a"]), [Some(1.0), Some(0.0)]);
        assert_eq!(values(config.clone(), json!({"p": "("}), &["ab"]), [None]);
        assert_eq!(values(config, json!({}), &["ab"]), [None]);
    }

    #[test]
    fn a_pattern_that_is_none_names_its_key() {
        let config: Config = serde_json::from_value(json!({"patterns": ["a", "(?<=x)y"]})).unwrap();
        let problem = Pattern::try_from(config).err().unwrap();
        assert_eq!(problem.key, "patterns[1]");
        assert!(problem.message.contains("look-around"), "{}", problem.message);
        assert_eq!(Pattern::try_from(Config::default()).err().unwrap().key, "patterns");
    }
}
