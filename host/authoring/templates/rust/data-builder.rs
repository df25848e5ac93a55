//! {{ description }}.
use fthost_plugin_sdk::{Answer, Columns, Content, DataBuilder, Example, Prompt, Row, export, plugin_config};

/// `[plugins.{{ name }}.config]`.
#[plugin_config]
struct Config {
    /// The column that holds the question.
    #[default = "question"]
    question: String,
    /// The column that holds the answer.
    #[default = "answer"]
    answer: String,
}

struct {{ type }}(Config);

impl From<Config> for {{ type }} {
    fn from(config: Config) -> Self {
        Self(config)
    }
}

impl DataBuilder for {{ type }} {
    fn build(&mut self, row: &Row) -> Result<Vec<Example>, String> {
        let prompt = Prompt::Text(format!("Q: {}\nA:", text(row, &self.0.question)?));
        let completion = Answer::Text(format!(" {}", text(row, &self.0.answer)?));
        let content = Content::PromptCompletion { prompt, completion };
        Ok(vec![Example { row: row.id, content, columns: Columns::new() }])
    }
}

fn text(row: &Row, column: &str) -> Result<String, String> {
    let text = row.columns.get(column).and_then(|it| it.as_str());
    Ok(text.ok_or_else(|| format!("no text in column `{column}`"))?.trim().to_string())
}

export!(data_builder: {{ type }} from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::{serde_json::json, testing};

    #[test]
    fn a_row_without_an_answer_is_refused() {
        let mut builder: {{ type }} = testing::configure::<Config, _>(json!({})).unwrap();
        let rows = vec![testing::row(json!({"question": "1 + 1?", "answer": "2"})), testing::row(json!({}))];
        let built = testing::build(&mut builder, rows).unwrap();
        assert_eq!(built.outcomes[0].as_ref().unwrap().len(), 1);
        assert!(built.outcomes[1].is_err());
    }
}
