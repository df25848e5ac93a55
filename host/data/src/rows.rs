//! Row shapes that are known without a plugin: TRL's data set types, Alpaca and ShareGPT.

use serde_json::Value;

use crate::error::{DataError, Result};
use crate::record::{Columns, Completion, Content, Example, Message, PreferencePair, Prompt, Record, Role};

/// Shapes named in the error for an unknown row.
const KNOWN: &str = "messages; prompt + completion; prompt + chosen + rejected; text; \
                     instruction + output (Alpaca); conversations (ShareGPT); prompt";

/// Makes an example of a row of a known shape; columns not used are kept beside it.
///
/// # Errors
/// [`DataError::BadRow`] with the columns found and the shapes known, or with the column that is of the wrong type.
pub fn example(record: Record) -> Result<Example> {
    let Record { mut columns, origin } = record;
    match content(&mut columns) {
        Ok(content) => Ok(Example { content, columns, origin, provenance: Vec::new() }),
        Err(reason) => Err(DataError::BadRow { origin, reason }),
    }
}

fn content(columns: &mut Columns) -> std::result::Result<Content, String> {
    let has = |names: &[&str]| names.iter().all(|name| columns.contains_key(*name));
    if has(&["messages"]) {
        return Ok(Content::Messages(messages(take(columns, "messages"), "messages")?));
    }
    if has(&["conversations"]) {
        return Ok(Content::Messages(sharegpt(take(columns, "conversations"))?));
    }
    if has(&["prompt", "chosen", "rejected"]) {
        let prompt = prompt(take(columns, "prompt"))?;
        let chosen = completion(take(columns, "chosen"), "chosen", &prompt)?;
        let rejected = completion(take(columns, "rejected"), "rejected", &prompt)?;
        return Ok(Content::Preference(PreferencePair { prompt, chosen, rejected }));
    }
    if has(&["prompt", "completion"]) {
        let prompt = prompt(take(columns, "prompt"))?;
        let completion = completion(take(columns, "completion"), "completion", &prompt)?;
        return Ok(Content::PromptCompletion { prompt, completion });
    }
    if has(&["instruction", "output"]) {
        return alpaca(columns);
    }
    if has(&["text"]) {
        return Ok(Content::Text(string(take(columns, "text"), "text")?));
    }
    if has(&["prompt"]) {
        return Ok(Content::Prompt(prompt(take(columns, "prompt"))?));
    }
    let found: Vec<&str> = columns.keys().map(String::as_str).collect();
    Err(format!(
        "no known shape: the columns are {} (known: {KNOWN}); a data-builder plugin maps anything else",
        found.join(", ")
    ))
}

fn take(columns: &mut Columns, name: &str) -> Value {
    // `shift_remove` keeps the order of the columns that stay.
    columns.shift_remove(name).unwrap_or(Value::Null)
}

fn string(value: Value, column: &str) -> std::result::Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("column `{column}` must be text, got `{other}`")),
    }
}

fn messages(value: Value, column: &str) -> std::result::Result<Vec<Message>, String> {
    let messages: Vec<Message> =
        serde_json::from_value(value).map_err(|error| format!("column `{column}`: {error}"))?;
    if messages.is_empty() {
        return Err(format!("column `{column}` is empty"));
    }
    Ok(messages)
}

fn prompt(value: Value) -> std::result::Result<Prompt, String> {
    match value {
        Value::String(text) => Ok(Prompt::Text(text)),
        other => Ok(Prompt::Messages(messages(other, "prompt")?)),
    }
}

fn completion(value: Value, column: &str, prompt: &Prompt) -> std::result::Result<Completion, String> {
    match (prompt, value) {
        (Prompt::Text(_), value) => Ok(Completion::Text(string(value, column)?)),
        (Prompt::Messages(_), Value::String(_)) => {
            Err(format!("column `{column}` is text while `prompt` is a conversation"))
        }
        (Prompt::Messages(_), value) => Ok(Completion::Messages(messages(value, column)?)),
    }
}

/// Stanford Alpaca's columns as a conversation: instruction and input are the person's turn.
fn alpaca(columns: &mut Columns) -> std::result::Result<Content, String> {
    let instruction = string(take(columns, "instruction"), "instruction")?;
    let input = match take(columns, "input") {
        Value::Null => String::new(),
        value => string(value, "input")?,
    };
    let asked = if input.is_empty() { instruction } else { format!("{instruction}\n\n{input}") };
    let output = string(take(columns, "output"), "output")?;
    Ok(Content::Messages(vec![Message::new(Role::User, asked), Message::new(Role::Assistant, output)]))
}

fn sharegpt(value: Value) -> std::result::Result<Vec<Message>, String> {
    let Value::Array(turns) = value else {
        return Err("column `conversations` must be a list of turns".into());
    };
    turns
        .into_iter()
        .map(|mut turn| {
            let role = match turn["from"].as_str() {
                Some("human" | "user") => Role::User,
                Some("gpt" | "assistant" | "model") => Role::Assistant,
                Some("system") => Role::System,
                Some("tool" | "function" | "observation") => Role::Tool,
                _ => return Err(format!("column `conversations`: speaker `{}` is not known", turn["from"])),
            };
            Ok(Message::new(role, string(turn["value"].take(), "conversations.value")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Origin;
    use serde_json::json;

    fn made(value: Value) -> std::result::Result<Example, String> {
        let Value::Object(columns) = value else { unreachable!() };
        let origin = Origin { source: "rows.jsonl".into(), line: 4 };
        example(Record { columns, origin }).map_err(|error| error.to_string())
    }

    fn turns(user: &str, assistant: &str) -> Content {
        Content::Messages(vec![Message::new(Role::User, user), Message::new(Role::Assistant, assistant)])
    }

    #[test]
    fn alpaca_and_sharegpt_rows_become_conversations() {
        let alpaca = made(json!({"instruction": "Add.", "input": "1 2", "output": "3", "id": 9})).unwrap();
        assert_eq!(alpaca.content, turns("Add.\n\n1 2", "3"));
        assert_eq!(Value::Object(alpaca.columns), json!({"id": 9}));
        let turn = |from, value| json!({"from": from, "value": value});
        let sharegpt = made(json!({"conversations": [turn("human", "Hi"), turn("gpt", "Hello")]})).unwrap();
        assert_eq!(sharegpt.content, turns("Hi", "Hello"));
    }

    #[test]
    fn a_preference_wins_over_a_prompt_alone() {
        let row = made(json!({"prompt": "a", "chosen": "b", "rejected": "c"})).unwrap();
        assert!(matches!(row.content, Content::Preference(_)));
    }

    #[test]
    fn an_unknown_row_names_its_columns_and_the_way_out() {
        insta::assert_snapshot!(made(json!({"question": "a", "answer": "b"})).unwrap_err(), @"rows.jsonl:4: no known shape: the columns are question, answer (known: messages; prompt + completion; prompt + chosen + rejected; text; instruction + output (Alpaca); conversations (ShareGPT); prompt); a data-builder plugin maps anything else");
    }

    #[test]
    fn a_column_of_the_wrong_type_is_named() {
        insta::assert_snapshot!(made(json!({"prompt": "a", "completion": 3})).unwrap_err(), @"rows.jsonl:4: column `completion` must be text, got `3`");
    }
}
