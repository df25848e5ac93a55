//! Prompts and answers from any columns, by templates: one's own, or those of a task in several phrasings.

use std::collections::BTreeMap;

use fthost_plugin_sdk::{Columns, ConfigProblem, DataBuilder, Example, Row, export, plugin_config};
use row_tools::random::Draws;
use row_tools::template::Templates;
use row_tools::{columns, example};
use serde_json::Value;

mod task;

use task::{Language, Task};

/// `[plugins.instruction-builder.config]`. Templates are Jinja's; columns are their variables.
#[plugin_config]
struct Config {
    /// What stands above the conversation; nothing where empty.
    #[default = ""]
    system: String,
    /// A task whose phrasings are used.
    #[default = None]
    task: Option<Task>,
    /// The language of the task's phrasings.
    #[default]
    language: Language,
    /// What is asked; without a task `instruction`, and below it `input` where there is one.
    #[default = None]
    prompt: Option<String>,
    /// Several ways to ask, in the place of `prompt` and of the task's.
    #[default]
    phrasings: Vec<String>,
    /// Which of several phrasings a row gets.
    #[default]
    choose: Choose,
    /// Decides the choice of phrasings, row by row.
    #[default = 0]
    seed: u64,
    /// What is to be answered; objects and lists are written as JSON on one line. Without a task `output`.
    #[default = None]
    completion: Option<String>,
    /// Names that the templates use for columns of other names: `question = "query"`.
    #[default]
    columns: BTreeMap<String, String>,
    /// Variables that are the same in every row and stand where a row has no such column: `target_language = "French"`.
    #[default]
    constants: BTreeMap<String, String>,
    /// Turns for a chat template, or plain text to continue.
    #[default]
    format: Format,
    /// Columns handed on to rewards and evaluators; all where absent.
    #[default = None]
    keep: Option<Vec<String>>,
}

#[plugin_config]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Format {
    /// A conversation, written with the model's chat template.
    #[default]
    Chat,
    /// Plain text; the completion follows the prompt as it stands.
    Text,
}

#[plugin_config]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Choose {
    /// One, drawn by `seed` and the row.
    #[default]
    One,
    /// All, an example apiece.
    All,
}

struct InstructionBuilder {
    config: Config,
    templates: Templates,
    /// Names of the phrasings' templates.
    phrasings: Vec<String>,
}

const PROMPT: &str = "{{ instruction }}{% if input %}\n\n{{ input }}{% endif %}";
const COMPLETION: &str = "{{ output }}";

impl TryFrom<Config> for InstructionBuilder {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if config.prompt.is_some() && !config.phrasings.is_empty() {
            return Err(ConfigProblem::new(
                "phrasings",
                "`prompt` is given too; it may be one of the phrasings",
            ));
        }
        let of_task = config.task.map(|it| it.templates(config.language));
        let mut phrasings: Vec<(String, String)> = match (&config.prompt, of_task) {
            (Some(prompt), _) => vec![("prompt".into(), prompt.clone())],
            (None, Some((phrasings, _))) if config.phrasings.is_empty() => phrasings
                .iter()
                .enumerate()
                .map(|(at, it)| (format!("task[{at}]"), (*it).to_owned()))
                .collect(),
            (None, _) => {
                let numbered = config.phrasings.iter().enumerate();
                numbered.map(|(at, it)| (format!("phrasings[{at}]"), it.clone())).collect()
            }
        };
        if phrasings.is_empty() {
            phrasings.push(("prompt".into(), PROMPT.into()));
        }
        let completion = config.completion.as_deref().or(of_task.map(|it| it.1)).unwrap_or(COMPLETION);
        let mut templates = Templates::default();
        templates.add("system", &config.system)?;
        for (name, text) in
            phrasings.iter().map(|(a, b)| (a.as_str(), b.as_str())).chain([("completion", completion)])
        {
            templates.add(name, text)?;
            if text.trim().is_empty() {
                return Err(ConfigProblem::new(name, "must not be empty"));
            }
        }
        Ok(Self { config, templates, phrasings: phrasings.into_iter().map(|it| it.0).collect() })
    }
}

impl InstructionBuilder {
    /// The row's columns under the names that templates use.
    fn variables(&self, columns: &Columns) -> Result<Columns, String> {
        let mut variables = columns.clone();
        for (name, column) in &self.config.columns {
            variables.insert(name.clone(), columns::value(columns, column)?.clone());
        }
        for (name, text) in &self.config.constants {
            variables.entry(name.clone()).or_insert_with(|| Value::String(text.clone()));
        }
        Ok(variables)
    }

    fn chosen(&self, row: u64) -> &[String] {
        match self.config.choose {
            Choose::All => &self.phrasings,
            Choose::One if self.phrasings.len() == 1 => &self.phrasings,
            Choose::One => {
                let at = Draws::of_row(self.config.seed, row).below(self.phrasings.len());
                &self.phrasings[at..=at]
            }
        }
    }
}

impl DataBuilder for InstructionBuilder {
    fn build(&mut self, row: &Row) -> Result<Vec<Example>, String> {
        let variables = self.variables(&row.columns)?;
        let render = |name: &str| match self.templates.render(name, &variables)? {
            text if text.trim().is_empty() && name != "system" => Err(format!("`{name}` is empty")),
            text => Ok(text),
        };
        let system = render("system")?;
        let prompts = self.chosen(row.id).iter().map(|it| render(it)).collect::<Result<Vec<_>, _>>()?;
        let completion = render("completion")?;
        let kept = columns::kept(&row.columns, self.config.keep.as_deref());
        let example = |prompt| {
            let chat = self.config.format == Format::Chat;
            let mut example = example::pair(row.id, &system, prompt, completion.clone(), chat);
            example.columns = kept.clone();
            example
        };
        Ok(prompts.into_iter().map(example).collect())
    }
}

export!(data_builder: InstructionBuilder from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::{Answer, Content, Message, Prompt, testing};
    use serde_json::json;

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

    /// Every prompt of rows 0 to 39.
    fn prompts(config: Value, columns: &Value) -> Vec<String> {
        let mut builder: InstructionBuilder = testing::configure::<Config, _>(config).unwrap();
        let rows = (0..40).map(|id| Row { id, ..testing::row(columns.clone()) });
        let built = testing::build(&mut builder, rows.collect()).unwrap();
        let examples = built.outcomes.into_iter().flat_map(Result::unwrap);
        examples.map(|it| example::prompt(&it.content).unwrap().to_owned()).collect()
    }

    #[test]
    fn a_task_is_asked_in_several_ways_and_a_row_always_in_the_same() {
        let row = json!({"q": "Who?", "context": "Ada.", "answer": "Ada"});
        let config = json!({"task": "question_answering", "columns": {"question": "q"}});
        let drawn = prompts(config.clone(), &row);
        assert_eq!(drawn, prompts(config.clone(), &row));
        assert!(drawn.iter().all(|it| it.contains("Who?") && it.contains("Ada.")));
        let mut other = config.clone();
        other["seed"] = json!(1);
        assert_ne!(drawn, prompts(other, &row));
        let mut all = config;
        all["choose"] = json!("all");
        let all = prompts(all, &row);
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!((all.len() / 40, all.len() % 40), (different.len(), 0));
        assert!(different.len() >= 4 && drawn.iter().all(|it| different.contains(it)));
    }

    #[test]
    fn every_task_is_phrased_in_every_language() {
        let row = json!({
            "instruction": "I", "input": "N", "output": "O", "question": "Q", "context": "C", "answer": "A", "text": "T",
            "summary": "S", "source": "U", "target": "V", "source_language": "X", "target_language": "Y",
        });
        for (task, completion) in
            [("general", "O"), ("question_answering", "A"), ("summarisation", "S"), ("translation", "V")]
        {
            for language in ["english", "chinese"] {
                let config = json!({"task": task, "language": language, "choose": "all"});
                let mut builder: InstructionBuilder = testing::configure::<Config, _>(config).unwrap();
                let examples = builder.build(&testing::row(row.clone())).unwrap();
                assert!(examples.len() >= 4, "{task} {language}");
                for example in &examples {
                    assert_eq!(example::completion(&example.content), Some(completion));
                    let prompt = example::prompt(&example.content).unwrap();
                    let chinese = prompt.chars().any(|it| ('\u{4e00}'..='\u{9fff}').contains(&it));
                    assert_eq!(chinese, language == "chinese" && task != "general", "{prompt}");
                }
            }
        }
    }

    #[test]
    fn constants_stand_where_a_row_has_no_such_column() {
        let config = json!({"phrasings": ["{{ text }} in {{ language }}"], "completion": "x", "constants": {"language": "French"}});
        assert_eq!(built(config.clone(), json!({"text": "a"})).unwrap().0, "a in French");
        assert_eq!(built(config, json!({"text": "a", "language": "Thai"})).unwrap().0, "a in Thai");
        let error = built(json!({"prompt": "a", "phrasings": ["b"]}), json!({})).unwrap_err();
        assert!(error.contains("phrasings"), "{error}");
        assert!(built(json!({"phrasings": ["a", "{{ b"]}), json!({})).unwrap_err().contains("phrasings[1]"));
    }
}
