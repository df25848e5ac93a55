//! Reward the expected answer in an answer tag, and a little for the tag alone.
use fthost_plugin_sdk::{Group, Reward, Score, export, plugin_config, serde_json::Value};

/// `[plugins.answer-tag-rust.config]`.
#[plugin_config]
struct AnswerTag {
    /// The column that holds the expected answer.
    #[default = "answer"]
    column: String,
    /// The score of a tag with another answer.
    #[default = 0.1]
    partial: f64,
}

impl Reward for AnswerTag {
    fn score(&self, group: &Group) -> Vec<Score> {
        let Some(Value::String(expected)) = group.columns.get(&self.column) else {
            let reason = format!("no text in column `{}`", self.column);
            return vec![Score::abstain(reason); group.completions.len()];
        };
        group.completions.iter().map(|it| self.one(&it.text, expected.trim())).collect()
    }
}

impl AnswerTag {
    fn one(&self, text: &str, expected: &str) -> Score {
        let tagged = text.rsplit_once("<answer>").and_then(|it| it.1.split_once("</answer>"));
        let correct = tagged.is_some_and(|it| it.0.trim() == expected);
        let value = if correct { 1.0 } else if tagged.is_some() { self.partial } else { 0.0 };
        Score::new(value).with("format", f64::from(tagged.is_some())).with("correct", f64::from(correct))
    }
}

export!(reward: AnswerTag from AnswerTag);
