//! Prompts and answers from any columns, by templates.

use fthost_plugin_sdk::{
    Answer, Columns, ConfigProblem, Content, DataBuilder, Example, Message, Prompt, Role, Row, export,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, value::ValueKind};

/// `[plugins.instruction-builder.config]`. Templates are Jinja's; columns are their variables.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// What stands above the conversation; nothing where empty.
    system: String,
    /// What is asked.
    prompt: String,
    /// What is to be answered; objects and lists are written as JSON on one line.
    completion: String,
    /// Turns for a chat template, or plain text to continue.
    format: Format,
    /// Columns handed on to rewards and evaluators; all where absent.
    keep: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// A conversation, written with the model's chat template.
    #[default]
    Chat,
    /// Plain text; the completion follows the prompt as it stands.
    Text,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            system: String::new(),
            prompt: "{{ instruction }}{% if input %}\n\n{{ input }}{% endif %}".into(),
            completion: "{{ output }}".into(),
            format: Format::default(),
            keep: None,
        }
    }
}

struct InstructionBuilder {
    config: Config,
    templates: Environment<'static>,
}

const TEMPLATES: [&str; 3] = ["system", "prompt", "completion"];

impl TryFrom<Config> for InstructionBuilder {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        let mut templates = Environment::new();
        // A column that is absent is a bad row, not an empty answer; `{% if column %}` may still ask.
        templates.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        templates.set_syntax(syntax.expect("Jinja's own delimiters are sound"));
        templates.set_formatter(|out, state, value| match value.kind() {
            ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => {
                let json = serde_json::to_string(value)
                    .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))?;
                out.write_str(&spaced(&json)).map_err(Into::into)
            }
            _ => minijinja::escape_formatter(out, state, value),
        });
        for (name, text) in TEMPLATES.into_iter().zip([&config.system, &config.prompt, &config.completion]) {
            templates
                .add_template_owned(name, text.clone())
                .map_err(|error| ConfigProblem::new(name, error.to_string()))?;
        }
        for (name, text) in [("prompt", &config.prompt), ("completion", &config.completion)] {
            if text.trim().is_empty() {
                return Err(ConfigProblem::new(name, "must not be empty"));
            }
        }
        Ok(Self { config, templates })
    }
}

/// JSON as people and Python's `json.dumps` write it on one line: a space after each `,` and `:` outside of strings.
fn spaced(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + json.len() / 8);
    let (mut inside, mut escaped) = (false, false);
    for character in json.chars() {
        text.push(character);
        match character {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            ',' | ':' if !inside => text.push(' '),
            _ => {}
        }
    }
    text
}

impl InstructionBuilder {
    fn render(&self, name: &str, columns: &Columns) -> Result<String, String> {
        let template = self.templates.get_template(name).map_err(|error| error.to_string())?;
        template.render(minijinja::value::Serde(columns)).map_err(|error| {
            let found: Vec<&str> = columns.keys().map(String::as_str).collect();
            match error.kind() {
                ErrorKind::UndefinedError => {
                    format!(
                        "template `{name}` asks for a column that is not there; columns: {}",
                        found.join(", ")
                    )
                }
                _ => format!("template `{name}`: {error}"),
            }
        })
    }
}

impl DataBuilder for InstructionBuilder {
    fn build(&mut self, row: &Row) -> Result<Vec<Example>, String> {
        let [system, prompt, completion] = TEMPLATES.map(|name| self.render(name, &row.columns));
        let (system, prompt, completion) = (system?, prompt?, completion?);
        for (name, text) in [("prompt", &prompt), ("completion", &completion)] {
            if text.trim().is_empty() {
                return Err(format!("`{name}` is empty"));
            }
        }
        let message = |role, content| Message { role, content };
        let content = match self.config.format {
            Format::Text => Content::PromptCompletion {
                prompt: Prompt::Text(format!("{system}{prompt}")),
                completion: Answer::Text(completion),
            },
            Format::Chat => {
                let system = (!system.is_empty()).then(|| message(Role::System, system));
                let turns = system.into_iter().chain([message(Role::User, prompt)]).collect();
                Content::PromptCompletion {
                    prompt: Prompt::Messages(turns),
                    completion: Answer::Messages(vec![message(Role::Assistant, completion)]),
                }
            }
        };
        let mut columns = row.columns.clone();
        if let Some(keep) = &self.config.keep {
            columns.retain(|name, _| keep.contains(name));
        }
        Ok(vec![Example { row: row.id, content, columns }])
    }
}

export!(data_builder: InstructionBuilder from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn built(config: Value, columns: Value) -> Result<(String, String), String> {
        let config: Config = serde_json::from_value(config).unwrap();
        let Value::Object(columns) = columns else { unreachable!() };
        let mut builder = InstructionBuilder::try_from(config).map_err(|it| format!("{it:?}"))?;
        let examples = builder.build(&Row { id: 3, columns })?;
        assert_eq!(examples[0].row, 3);
        let Content::PromptCompletion { prompt, completion } = examples[0].content.clone() else {
            unreachable!()
        };
        let turns = |all: Vec<Message>| all.into_iter().map(|it| it.content).collect::<Vec<_>>().join("|");
        Ok(match (prompt, completion) {
            (Prompt::Messages(prompt), Answer::Messages(completion)) => (turns(prompt), turns(completion)),
            (Prompt::Text(prompt), Answer::Text(completion)) => (prompt, completion),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn objects_are_written_as_json_on_one_line_in_their_order() {
        let config =
            json!({"system": "JSON only.", "prompt": "Text: {{ text }}", "completion": "{{ fields }}"});
        let row =
            json!({"text": "Zoe, 7", "fields": {"name": "Zoe: \"a, b\"", "age": 7, "tags": ["x", "y"]}});
        let (prompt, completion) = built(config, row).unwrap();
        assert_eq!(prompt, "JSON only.|Text: Zoe, 7");
        assert_eq!(completion, r#"{"name": "Zoe: \"a, b\"", "age": 7, "tags": ["x", "y"]}"#);
    }

    #[test]
    fn alpaca_rows_are_the_default() {
        let row = json!({"instruction": "Add.", "input": "1 2", "output": "3"});
        assert_eq!(built(json!({}), row).unwrap(), ("Add.\n\n1 2".into(), "3".into()));
        let row = json!({"instruction": "Say hi.", "output": "Hi"});
        assert_eq!(built(json!({"format": "text"}), row).unwrap(), ("Say hi.".into(), "Hi".into()));
    }

    #[test]
    fn a_column_that_is_absent_or_an_empty_answer_is_a_bad_row() {
        let error = built(json!({}), json!({"question": "a"})).unwrap_err();
        assert!(error.contains("`prompt` asks for a column that is not there; columns: question"), "{error}");
        let error = built(json!({}), json!({"instruction": "a", "output": " "})).unwrap_err();
        assert_eq!(error, "`completion` is empty");
    }

    #[test]
    fn a_template_that_is_no_jinja_names_its_key() {
        assert!(built(json!({"prompt": "{{ a"}), json!({})).unwrap_err().contains("key: \"prompt\""));
    }
}
