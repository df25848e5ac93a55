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

struct FormatTags {
    config: Config,
    /// Opening and closing tags in the order expected, without the one that the prompt holds.
    marks: Vec<Mark>,
    /// The opening tag that the prompt holds: a second one is one too many.
    opened: Option<String>,
}

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
        let both = |it: &String| {
            [
                Mark { text: format!("<{it}>"), closing: false },
                Mark { text: format!("</{it}>"), closing: true },
            ]
        };
        let mut marks: Vec<Mark> = config.tags.iter().flat_map(both).collect();
        let opened = config.opened.then(|| marks.remove(0).text);
        Ok(Self { config, marks, opened })
    }
}

/// A tag as it must stand.
struct Mark {
    text: String,
    closing: bool,
}

/// A tag that stands in a text: where it begins, and its place among the marks.
struct Standing {
    at: usize,
    mark: usize,
}

impl FormatTags {
    /// Every mark of the text in order, and whether what the prompt opened is opened again. No tag is part of another.
    fn standing(&self, text: &str) -> (Vec<Standing>, bool) {
        let (mut all, mut reopened) = (Vec::with_capacity(self.marks.len()), false);
        for at in memchr::memchr_iter(b'<', text.as_bytes()) {
            let rest = &text[at..];
            match self.marks.iter().position(|it| rest.starts_with(&it.text)) {
                Some(mark) => all.push(Standing { at, mark }),
                None => reopened |= self.opened.as_ref().is_some_and(|it| rest.starts_with(it)),
            }
        }
        (all, reopened)
    }

    /// Whether the tag at `at` has a line of its own: only the text's ends and line feeds beside it.
    fn has_own_line(text: &str, at: usize, mark: &Mark) -> bool {
        let (before, after) = (&text[..at], &text[at + mark.text.len()..]);
        (before.is_empty() || before.ends_with('\n')) && (after.is_empty() || after.starts_with('\n'))
    }

    fn counts_once(&self, text: &str, mark: usize, standing: &[Standing]) -> bool {
        let mut found = standing.iter().filter(|it| it.mark == mark);
        match (found.next(), found.next()) {
            (Some(it), None) => !self.config.own_lines || Self::has_own_line(text, it.at, &self.marks[mark]),
            _ => false,
        }
    }

    /// Whether the tags stand in order with only spaces outside, whatever else is wrong with them.
    fn is_ordered(&self, text: &str, standing: &[Standing]) -> Option<bool> {
        let mut from = 0;
        let mut clean = true;
        let mut standing = standing.iter();
        // What stands before an opening tag is outside; before a closing one it is what the tag holds.
        for (number, mark) in self.marks.iter().enumerate() {
            let at = standing.find(|it| it.mark == number)?.at;
            let before = &text[from..at];
            clean &= match mark.closing {
                false => before.trim().is_empty(),
                true => self.config.allow_empty || !before.trim().is_empty(),
            };
            from = at + mark.text.len();
        }
        Some(clean && (self.config.text_after || text[from..].trim().is_empty()))
    }

    fn judge(&self, text: &str) -> Score {
        let text = text.trim();
        let (standing, reopened) = self.standing(text);
        let counted = (0..self.marks.len()).filter(|it| self.counts_once(text, *it, &standing)).count();
        let once = counted as f64 / self.marks.len() as f64;
        let ordered = self.is_ordered(text, &standing);
        let strict = once == 1.0 && ordered == Some(true) && !reopened;
        let flag = |it: bool| f64::from(u8::from(it));
        let value = match self.config.mode {
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
