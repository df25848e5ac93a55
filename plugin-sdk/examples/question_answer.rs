//! A data builder: rows of `question` and `answer` become prompts and completions.
use fthost_plugin_sdk::{Answer, Content, DataBuilder, Example, Prompt, Row, export};

struct QuestionAnswer;

impl DataBuilder for QuestionAnswer {
    fn build(&mut self, row: &Row) -> Result<Vec<Example>, String> {
        let text = |column: &str| match row.columns.get(column).and_then(|it| it.as_str()) {
            Some(text) => Ok(text.trim().to_string()),
            None => Err(format!("column `{column}` is missing or no text")),
        };
        let prompt = Prompt::Text(format!("Q: {}\nA:", text("question")?));
        let completion = Answer::Text(format!(" {}", text("answer")?));
        let content = Content::PromptCompletion { prompt, completion };
        Ok(vec![Example { row: row.id, content, columns: Default::default() }])
    }
}

export!(data_builder: QuestionAnswer);
