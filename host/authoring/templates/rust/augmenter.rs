//! {{ description }}.
use fthost_plugin_sdk::{Answer, Augmented, Augmenter, Content, Example, Prompt, Variant, export, plugin_config};

/// `[plugins.{{ name }}.config]`.
#[plugin_config]
struct Config {
    /// Words up to which an answer is short.
    #[default = 5]
    words: usize,
}

struct {{ type }}(Config);

impl From<Config> for {{ type }} {
    fn from(config: Config) -> Self {
        Self(config)
    }
}

impl Augmenter for {{ type }} {
    fn augment(&mut self, example: &Example) -> Augmented {
        let Content::PromptCompletion { prompt: Prompt::Text(asked), completion: Answer::Text(answer) } =
            &example.content
        else {
            return Augmented::default();
        };
        if answer.trim().is_empty() {
            return Augmented::drop("an empty answer");
        }
        if answer.split_whitespace().count() > self.0.words {
            return Augmented::default();
        }
        let prompt = Prompt::Text(format!("Answer in at most {} words. {asked}", self.0.words));
        let content = Content::PromptCompletion { prompt, completion: Answer::Text(answer.clone()) };
        let example = Example { content, ..example.clone() };
        vec![Variant { example, operation: "short-answer".into() }].into()
    }
}

export!(augmenter: {{ type }} from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::{Columns, serde_json::json, testing};

    #[test]
    fn a_short_answer_is_asked_for_once_more() {
        let mut augmenter: {{ type }} = testing::configure::<Config, _>(json!({"words": 1})).unwrap();
        let example = |answer: &str| {
            let (prompt, completion) = (Prompt::Text("1 + 1?".into()), Answer::Text(answer.into()));
            Example { row: 0, content: Content::PromptCompletion { prompt, completion }, columns: Columns::new() }
        };
        let all = vec![example("2"), example("It is 2."), example("")];
        let augmented = testing::augment(&mut augmenter, all).unwrap();
        assert_eq!(augmented.iter().map(|it| it.variants.len()).collect::<Vec<_>>(), [1, 0, 0]);
        assert!(augmented[2].dropped.is_some());
    }
}
