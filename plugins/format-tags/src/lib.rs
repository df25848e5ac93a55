//! Whether an answer is laid out in tags: each once, in order, nothing outside.
//!
//! `strict` is the format reward of DeepSeek-R1, <https://arxiv.org/abs/2501.12948>; `soft` counts tags as open-r1's
//! `tag_count_reward` does; with `text_after` it is TRL's `think_format_reward`.

use fthost_plugin_sdk::{ConfigProblem, Group, Reward, Score, export};

/// `[plugins.format-tags.config]`.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Names of the tags, in the order in which they are expected.
    tags: Vec<String>,
    /// All or nothing, or a share for each tag.
    mode: Mode,
    /// Opening and closing tags stand on lines of their own.
    own_lines: bool,
    /// The prompt ends with the first opening tag, so that the answer begins inside of it.
    opened: bool,
    /// Text may follow the last closing tag.
    text_after: bool,
    /// Tags may hold nothing but spaces.
    allow_empty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// 1 where everything is as it should be, 0 otherwise.
    Strict,
    /// The share of opening and closing tags that stand exactly once.
    Soft,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tags: vec!["think".into(), "answer".into()],
            mode: Mode::Strict,
            own_lines: false,
            opened: false,
            text_after: false,
            allow_empty: false,
        }
    }
}

struct FormatTags(Config);

impl TryFrom<Config> for FormatTags {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.tags.is_empty() {
            return Err(ConfigProblem::new("tags", "must name at least one"));
        }
        for (at, tag) in config.tags.iter().enumerate() {
            let key = || format!("tags[{at}]");
            if tag.is_empty() || tag.contains(|it: char| it.is_whitespace() || "<>/".contains(it)) {
                return Err(ConfigProblem::new(key(), format!("must be a tag's name, got `{tag}`")));
            }
            if config.tags[..at].contains(tag) {
                return Err(ConfigProblem::new(key(), format!("`{tag}` is named twice")));
            }
        }
        Ok(Self(config))
    }
}

/// A tag as it must stand.
struct Mark {
    text: String,
    closing: bool,
}

impl FormatTags {
    /// Opening and closing tags in the order expected, without the one that the prompt holds.
    fn marks(&self) -> Vec<Mark> {
        let both = self.0.tags.iter().flat_map(|it| {
            [
                Mark { text: format!("<{it}>"), closing: false },
                Mark { text: format!("</{it}>"), closing: true },
            ]
        });
        both.skip(usize::from(self.0.opened)).collect()
    }

    /// Whether the tag at `at` has a line of its own: only the text's ends and line feeds beside it.
    fn has_own_line(text: &str, at: usize, mark: &Mark) -> bool {
        let (before, after) = (&text[..at], &text[at + mark.text.len()..]);
        (before.is_empty() || before.ends_with('\n')) && (after.is_empty() || after.starts_with('\n'))
    }

    fn counts_once(&self, text: &str, mark: &Mark) -> bool {
        let mut found = text.match_indices(&mark.text).map(|it| it.0);
        match (found.next(), found.next()) {
            (Some(at), None) => !self.0.own_lines || Self::has_own_line(text, at, mark),
            _ => false,
        }
    }

    /// Whether the tags stand in order with only spaces outside, whatever else is wrong with them.
    fn is_ordered(&self, text: &str, marks: &[Mark]) -> Option<bool> {
        let mut from = 0;
        let mut clean = true;
        // What stands before an opening tag is outside; before a closing one it is what the tag holds.
        for mark in marks {
            let at = from + text[from..].find(&mark.text)?;
            let before = &text[from..at];
            clean &= match mark.closing {
                false => before.trim().is_empty(),
                true => self.0.allow_empty || !before.trim().is_empty(),
            };
            from = at + mark.text.len();
        }
        Some(clean && (self.0.text_after || text[from..].trim().is_empty()))
    }

    fn judge(&self, text: &str) -> Score {
        let text = text.trim();
        let marks = self.marks();
        let once = marks.iter().filter(|it| self.counts_once(text, it)).count() as f64 / marks.len() as f64;
        let ordered = self.is_ordered(text, &marks);
        // A second opening of what the prompt opened is one too many.
        let reopened = self.0.opened && text.contains(&format!("<{}>", self.0.tags[0]));
        let strict = once == 1.0 && ordered == Some(true) && !reopened;
        let flag = |it: bool| f64::from(u8::from(it));
        let value = match self.0.mode {
            Mode::Strict => flag(strict),
            Mode::Soft => once,
        };
        Score::new(value)
            .with("tags_once", once)
            .with("in_order", flag(ordered.is_some()))
            .with("nothing_outside", flag(ordered == Some(true)))
    }
}

impl Reward for FormatTags {
    fn score(&self, group: &Group) -> Vec<Score> {
        group.completions.iter().map(|it| self.judge(&it.text)).collect()
    }
}

export!(reward: FormatTags from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing::group;
    use serde_json::{Value, json};

    fn scores(config: Value, answers: &[&str]) -> Vec<Score> {
        let config: Config = serde_json::from_value(config).unwrap();
        FormatTags::try_from(config).unwrap().score(&group(json!({}), answers))
    }

    fn values(config: Value, answers: &[&str]) -> Vec<f64> {
        scores(config, answers).iter().map(|it| it.value().unwrap()).collect()
    }

    const GOOD: &str = "<think>\na\n</think>\n<answer>\nb\n</answer>";

    #[test]
    fn strict_asks_for_each_tag_once_in_order_and_nothing_outside() {
        let broken = [
            "<think>a</think>b<answer>c</answer>",
            "<answer>b</answer><think>a</think>",
            "<think>a</think><think>a</think><answer>b</answer>",
            "<think>a</think><answer></answer>",
            "<think>a<answer>b</answer></think>",
            "so <think>a</think><answer>b</answer>",
            "<think>a</think><answer>b</answer> bye",
            "",
        ];
        assert_eq!(values(json!({}), &broken), [0.0; 8]);
        assert_eq!(values(json!({}), &[GOOD, "<think>a</think> <answer>b</answer>\n"]), [1.0, 1.0]);
        assert_eq!(values(json!({"allow_empty": true}), &["<think></think><answer></answer>"]), [1.0]);
    }

    #[test]
    fn soft_gives_each_tag_its_share() {
        let texts = [GOOD, "<think>a</think>", "<think><think></think>", "none"];
        assert_eq!(values(json!({"mode": "soft"}), &texts), [1.0, 0.5, 0.25, 0.0]);
        let lines = json!({"mode": "soft", "own_lines": true});
        assert_eq!(values(lines, &[GOOD, "<think>\na</think>"]), [1.0, 0.25]);
    }

    #[test]
    fn a_prompt_that_opens_the_first_tag_and_text_after_the_last() {
        let opened = json!({"opened": true, "tags": ["think"], "text_after": true});
        let texts = ["a</think>b", "<think>a</think>b", "a", "</think>b"];
        assert_eq!(values(opened, &texts), [1.0, 0.0, 0.0, 0.0]);
    }

    /// Oracle: TRL's `think_format_reward`, `tests/golden/generate/rewards.py`.
    #[test]
    fn think_tags_score_as_trl_scores_them() {
        let golden: Value =
            serde_json::from_str(include_str!("../../../tests/golden/rewards/format.json")).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() >= 12);
        for case in cases {
            let config = json!({"tags": ["think"], "text_after": true, "allow_empty": true});
            let value = values(config, &[case["text"].as_str().unwrap()])[0];
            assert_eq!(Some(value), case["reward"].as_f64(), "{case}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let score = &scores(json!({}), &["x <think>a</think><answer>b</answer>"])[0];
        assert_eq!(score.component("tags_once"), Some(1.0));
        assert_eq!(score.component("in_order"), Some(1.0));
        assert_eq!(score.component("nothing_outside"), Some(0.0));
    }

    #[test]
    fn names_that_are_no_tags_are_refused() {
        let key = |tags: Value| {
            FormatTags::try_from(serde_json::from_value::<Config>(json!({ "tags": tags })).unwrap())
                .err()
                .unwrap()
                .key
        };
        assert_eq!(key(json!([])), "tags");
        assert_eq!(key(json!(["a", "<b>"])), "tags[1]");
        assert_eq!(key(json!(["a", "a"])), "tags[1]");
    }
}
