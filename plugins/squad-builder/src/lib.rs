//! Question-answer examples of SQuAD-like data: one row a question, or articles with `paragraphs` and `qas`.
//!
//! SQuAD: <https://arxiv.org/abs/1606.05250>; unanswerable questions: <https://arxiv.org/abs/1806.03822>.

use fthost_plugin_sdk::{Columns, ConfigProblem, DataBuilder, Example, Row, export, plugin_config};
use row_tools::template::Templates;
use row_tools::{columns, example};
use serde_json::{Map, Value, json};

/// `[plugins.squad-builder.config]`.
#[plugin_config]
struct Config {
    /// What is asked, in Jinja's syntax: `context`, `question`, `title`.
    #[default = "{{ context }}\n\nQuestion: {{ question }}"]
    prompt: String,
    /// What stands above the conversation, in the same syntax; nothing where empty.
    #[default = ""]
    system: String,
    /// Which of several answers is trained on.
    #[default]
    answers: Answers,
    /// What becomes of a question without an answer.
    #[default]
    unanswerable: Unanswerable,
    /// The answer to it.
    #[default = "unanswerable"]
    no_answer: String,
    /// What becomes of an answer that does not stand at `answer_start` in the context.
    #[default]
    spans: Spans,
    /// Turns for a chat template, or plain text to continue.
    #[default]
    format: Format,
}

#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Answers {
    /// The first.
    #[default]
    First,
    /// The one given most often, the first of those.
    MostCommon,
    /// The shortest.
    Shortest,
    /// Each different one, an example apiece.
    Each,
}

#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Unanswerable {
    /// `no_answer` is the answer.
    #[default]
    Answer,
    /// It is left out.
    Skip,
}

#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Spans {
    /// The row is bad.
    #[default]
    Refuse,
    /// It is left as it is.
    Ignore,
}

#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Format {
    /// A conversation, written with the model's chat template.
    #[default]
    Chat,
    /// Plain text; the completion follows the prompt as it stands.
    Text,
}

struct SquadBuilder {
    config: Config,
    templates: Templates,
}

impl TryFrom<Config> for SquadBuilder {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        if !config.prompt.contains("question") {
            return Err(ConfigProblem::new("prompt", "must ask the `{{ question }}`"));
        }
        if config.no_answer.trim().is_empty() && config.unanswerable == Unanswerable::Answer {
            return Err(ConfigProblem::new("no_answer", "must not be empty"));
        }
        let mut templates = Templates::default();
        templates.add("prompt", &config.prompt)?;
        templates.add("system", &config.system)?;
        Ok(Self { config, templates })
    }
}

/// One question as it stands in a row.
struct Question<'a> {
    title: Option<&'a Value>,
    context: &'a str,
    question: &'a Map<String, Value>,
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    match object.get(key).and_then(Value::as_str).map(str::trim) {
        Some("") => Err(format!("`{key}` is empty")),
        Some(text) => Ok(text),
        None => Err(format!("there is no text `{key}`")),
    }
}

fn list<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Vec<&'a Map<String, Value>>, String> {
    let list = object.get(key).and_then(Value::as_array);
    let list = list.ok_or_else(|| format!("there is no list `{key}`"))?;
    list.iter()
        .map(|it| it.as_object().ok_or_else(|| format!("`{key}` holds {}", columns::kind(it))))
        .collect()
}

/// Every question of a row: flat, a paragraph with `qas`, an article with `paragraphs`, or a file with `data`.
fn questions<'a>(row: &'a Map<String, Value>, title: Option<&'a Value>) -> Result<Vec<Question<'a>>, String> {
    let title = row.get("title").or(title);
    if row.contains_key("data") || row.contains_key("paragraphs") {
        let key = if row.contains_key("data") { "data" } else { "paragraphs" };
        let nested = list(row, key)?
            .into_iter()
            .enumerate()
            .map(|(at, it)| questions(it, title).map_err(|reason| format!("{key}[{at}]: {reason}")));
        return Ok(nested.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect());
    }
    let context = row.get("context").or_else(|| row.get("paragraph")).and_then(Value::as_str);
    let context = context.filter(|it| !it.trim().is_empty()).ok_or("there is no text `context`")?;
    if row.contains_key("qas") {
        return Ok(list(row, "qas")?
            .into_iter()
            .map(|question| Question { title, context, question })
            .collect());
    }
    Ok(vec![Question { title, context, question: row }])
}

/// An accepted answer and where it begins in the context, in characters.
type Accepted = (String, Option<usize>);

impl Question<'_> {
    /// `{"text": [...], "answer_start": [...]}`, a list of `{"text", "answer_start"}`, a list of texts, or one text.
    fn answers(&self) -> Result<Vec<Accepted>, String> {
        let start = |it: Option<&Value>| it.and_then(Value::as_u64).and_then(|it| usize::try_from(it).ok());
        let one = |it: &Value| match it {
            Value::String(text) => Ok((text.clone(), None)),
            Value::Object(answer) => {
                Ok((text(answer, "text")?.to_owned(), start(answer.get("answer_start"))))
            }
            other => Err(format!("an answer is {}", columns::kind(other))),
        };
        let found = self.question.get("answers").or_else(|| self.question.get("answer"));
        match found {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(all)) => all.iter().map(one).collect(),
            Some(Value::Object(columns)) if columns.get("text").is_some_and(Value::is_array) => {
                let starts = columns.get("answer_start").and_then(Value::as_array);
                let texts = columns["text"].as_array().into_iter().flatten().enumerate();
                let pair = |(at, it): (usize, &Value)| {
                    let (text, _) = one(it)?;
                    Ok((text, start(starts.and_then(|all| all.get(at)))))
                };
                texts.map(pair).collect()
            }
            Some(other) => Ok(vec![one(other)?]),
        }
    }

    fn is_impossible(&self) -> bool {
        self.question.get("is_impossible") == Some(&Value::Bool(true))
    }
}

impl SquadBuilder {
    fn chosen(&self, answers: &[Accepted]) -> Vec<String> {
        let mut different: Vec<&str> = Vec::new();
        for (text, _) in answers {
            if !different.contains(&&**text) {
                different.push(text);
            }
        }
        let count = |text: &str| answers.iter().filter(|it| it.0 == text).count();
        let first_of = |key: &dyn Fn(&str) -> usize| different.iter().copied().min_by_key(|it| key(it));
        let one = match self.config.answers {
            Answers::Each => return different.into_iter().map(str::to_owned).collect(),
            Answers::First => different.first().copied(),
            Answers::MostCommon => first_of(&|it| usize::MAX - count(it)),
            Answers::Shortest => first_of(&|it| it.chars().count()),
        };
        one.map(str::to_owned).into_iter().collect()
    }

    fn examples(&self, row: u64, question: &Question) -> Result<Vec<Example>, String> {
        let asked = text(question.question, "question")?;
        let answers = if question.is_impossible() { Vec::new() } else { question.answers()? };
        if self.config.spans == Spans::Refuse {
            for (answer, start) in &answers {
                let from = |start: usize| question.context.chars().skip(start);
                if start.is_some_and(|it| !from(it).take(answer.chars().count()).eq(answer.chars())) {
                    let start = start.unwrap_or_default();
                    return Err(format!(
                        "answer `{answer}` does not stand at character {start} of the context"
                    ));
                }
            }
        }
        let impossible = answers.is_empty();
        let completions = match (impossible, self.config.unanswerable) {
            (true, Unanswerable::Skip) => return Ok(Vec::new()),
            (true, Unanswerable::Answer) => vec![self.config.no_answer.clone()],
            (false, _) => self.chosen(&answers),
        };
        let mut accepted: Vec<Value> = Vec::new();
        for text in answers.iter().map(|it| &it.0).chain(impossible.then_some(&self.config.no_answer)) {
            if !accepted.contains(&json!(text)) {
                accepted.push(json!(text));
            }
        }
        let mut values = Columns::new();
        values.insert("context".into(), json!(question.context.trim()));
        values.insert("question".into(), json!(asked));
        values.insert("title".into(), question.title.cloned().unwrap_or_else(|| json!("")));
        let (system, prompt) =
            (self.templates.render("system", &values)?, self.templates.render("prompt", &values)?);
        let mut kept = Columns::new();
        if let Some(id) = question.question.get("id") {
            kept.insert("id".into(), id.clone());
        }
        kept.insert("question".into(), json!(asked));
        kept.insert("answer".into(), Value::Array(accepted));
        kept.insert("is_impossible".into(), json!(impossible));
        let chat = self.config.format == Format::Chat;
        let made = completions.into_iter().map(|it| {
            let mut example = example::pair(row, &system, prompt.clone(), it, chat);
            example.columns = kept.clone();
            example
        });
        Ok(made.collect())
    }
}

impl DataBuilder for SquadBuilder {
    fn build(&mut self, row: &Row) -> Result<Vec<Example>, String> {
        let made = questions(&row.columns, None)?.into_iter().map(|question| {
            let named = question.question.get("id").and_then(Value::as_str).map(str::to_owned);
            let reason = |why: String| named.map_or(why.clone(), |id| format!("question `{id}`: {why}"));
            self.examples(row.id, &question).map_err(reason)
        });
        Ok(made.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

export!(data_builder: SquadBuilder from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing;

    const CONTEXT: &str = "Ada Lovelace wrote the first program in 1843.";

    fn built(config: Value, row: Value) -> Result<Vec<(String, String, Columns)>, String> {
        let mut builder: SquadBuilder =
            testing::configure::<Config, _>(config).map_err(|it| it[0].key.clone())?;
        let examples = builder.build(&testing::row(row))?;
        let texts = |it: Example| {
            let (prompt, answer) = (example::prompt(&it.content), example::completion(&it.content));
            (prompt.unwrap().to_owned(), answer.unwrap().to_owned(), it.columns)
        };
        Ok(examples.into_iter().map(texts).collect())
    }

    fn flat() -> Value {
        json!({
            "id": "q1", "title": "Ada", "context": CONTEXT, "question": "Who?",
            "answers": {"text": ["Ada Lovelace", "Lovelace", "Lovelace"], "answer_start": [0, 4, 4]}
        })
    }

    #[test]
    fn a_flat_row_is_one_example_with_every_accepted_answer() {
        let (prompt, answer, columns) = built(json!({}), flat()).unwrap().remove(0);
        assert_eq!((prompt, &*answer), (format!("{CONTEXT}\n\nQuestion: Who?"), "Ada Lovelace"));
        assert_eq!(columns["answer"], json!(["Ada Lovelace", "Lovelace"]));
        assert_eq!((&columns["id"], &columns["is_impossible"]), (&json!("q1"), &json!(false)));
        let of = |choice: &str| {
            built(json!({ "answers": choice }), flat())
                .unwrap()
                .into_iter()
                .map(|it| it.1)
                .collect::<Vec<_>>()
        };
        assert_eq!(of("most_common"), ["Lovelace"]);
        assert_eq!(of("shortest"), ["Lovelace"]);
        assert_eq!(of("each"), ["Ada Lovelace", "Lovelace"]);
    }

    #[test]
    fn articles_are_unfolded_and_questions_without_an_answer_answered() {
        let article = json!({"title": "Ada", "paragraphs": [{"context": CONTEXT, "qas": [
            {"id": "a", "question": "When?", "answers": [{"text": "1843", "answer_start": 40}], "is_impossible": false},
            {"id": "b", "question": "Where?", "answers": [], "is_impossible": true},
        ]}]});
        let config = json!({"prompt": "{{ title }}: {{ question }}"});
        let answers = |row: Value, config: Value| {
            built(config, row).unwrap().into_iter().map(|it| (it.0, it.1)).collect::<Vec<_>>()
        };
        let expected = [("Ada: When?", "1843"), ("Ada: Where?", "unanswerable")];
        let expected: Vec<_> = expected.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        assert_eq!(answers(article.clone(), config.clone()), expected);
        assert_eq!(answers(json!({ "data": [article.clone()] }), config), expected);
        assert_eq!(answers(article, json!({"unanswerable": "skip"})).len(), 1);
    }

    #[test]
    fn an_answer_that_is_not_where_it_should_be_is_a_bad_row() {
        let mut row = flat();
        row["answers"]["answer_start"] = json!([1, 4, 4]);
        let reason = built(json!({}), row.clone()).unwrap_err();
        assert_eq!(
            reason,
            "question `q1`: answer `Ada Lovelace` does not stand at character 1 of the context"
        );
        assert_eq!(built(json!({"spans": "ignore"}), row).unwrap().len(), 1);
        // Characters, not bytes.
        let chinese = json!({"context": "北京是首都。", "question": "哪里？", "answers": [{"text": "首都", "answer_start": 3}]});
        assert_eq!(built(json!({}), chinese).unwrap()[0].1, "首都");
    }

    #[test]
    fn bad_rows_say_where() {
        assert_eq!(built(json!({}), json!({"question": "a"})).unwrap_err(), "there is no text `context`");
        let row = json!({"paragraphs": [{"context": "c"}, {"qas": []}]});
        assert_eq!(built(json!({}), row).unwrap_err(), "paragraphs[1]: there is no text `context`");
        assert_eq!(built(json!({}), json!({"context": "c"})).unwrap_err(), "there is no text `question`");
        assert_eq!(built(json!({"prompt": "{{ context }}"}), flat()).unwrap_err(), "prompt");
        assert_eq!(built(json!({"prompt": "{{ question"}), flat()).unwrap_err(), "prompt");
        assert_eq!(built(json!({"no_answer": ""}), flat()).unwrap_err(), "no_answer");
    }
}
