//! Examples that reason step by step to a final answer, with calculations that are checked.
//!
//! Chain of thought: <https://arxiv.org/abs/2201.11903>; GSM8K's notation: <https://arxiv.org/abs/2110.14168>.

use fthost_plugin_sdk::{Columns, ConfigProblem, DataBuilder, Example, Row, export, plugin_config};
use row_tools::{columns, example};
use serde_json::Value;
use text_tools::extract;
use text_tools::number::{self, Decimal};

mod calculate;

/// `[plugins.chain-of-thought-builder.config]`.
#[plugin_config]
struct Config {
    /// The column that holds the question.
    #[default = "question"]
    question: String,
    /// The column that holds the steps: a text, a list of texts, or a list of objects with `reasoning` and, where there
    /// is one, `calculation` (`3*4`) and `result`. Where absent, the steps stand before the answer in `answer`.
    #[default = None]
    steps: Option<String>,
    /// The column that holds the final answer; GSM8K's holds the steps too, then `#### 42`.
    #[default = "answer"]
    answer: String,
    /// How the completion is written.
    #[default]
    style: Style,
    /// What stands above the conversation; nothing where empty.
    #[default = ""]
    system: String,
    /// What stands before each step; `{n}` is its number.
    #[default = ""]
    step_prefix: String,
    /// Whether `<<3*4=12>>` stays in the text.
    #[default = false]
    keep_calculations: bool,
    /// A row with a wrong calculation is a bad row.
    #[default = true]
    check_calculations: bool,
    /// A row whose last calculation does not give the final answer is a bad row.
    #[default = false]
    check_answer: bool,
    /// Turns for a chat template, or plain text to continue.
    #[default]
    format: Format,
    /// Columns handed on to rewards and evaluators, beside the final answer, which stands in the column `answer`.
    #[default = None]
    keep: Option<Vec<String>>,
}

#[plugin_config]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Style {
    /// The steps, then `#### 42` on a line of its own.
    #[default]
    Hash,
    /// The steps in `<think>`, the answer in `<answer>`.
    Think,
    /// The steps in `<think>`, the answer plainly after it.
    ThinkPlain,
    /// The steps, then `The answer is \boxed{42}.`
    Boxed,
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

struct ChainOfThoughtBuilder(Config);

impl TryFrom<Config> for ChainOfThoughtBuilder {
    type Error = ConfigProblem;

    fn try_from(config: Config) -> Result<Self, ConfigProblem> {
        for (key, column) in [("question", &config.question), ("answer", &config.answer)] {
            if column.is_empty() {
                return Err(ConfigProblem::new(key, "must name a column"));
            }
        }
        Ok(Self(config))
    }
}

/// One step of an object: its reasoning, with the calculation as GSM8K writes it.
fn step(value: &Value) -> Result<String, String> {
    let text = |key: &str| match value.get(key) {
        Some(Value::String(text)) => Some(text.trim().to_owned()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    match value {
        Value::String(text) => Ok(text.trim().to_owned()),
        Value::Object(_) => {
            let reasoning = text("reasoning").or_else(|| text("text"));
            let calculation = match (text("calculation"), text("result")) {
                (Some(calculation), Some(result)) => {
                    let left = calculation.split('=').next().unwrap_or_default().trim();
                    Some(format!("{left} = <<{left}={result}>>{result}"))
                }
                // `3*4=12` holds its own result.
                (Some(calculation), None) => match calculation.split_once('=') {
                    Some((left, result)) => {
                        let (left, result) = (left.trim(), result.trim());
                        Some(format!("{left} = <<{left}={result}>>{result}"))
                    }
                    None => return Err(format!("calculation `{calculation}` has no `result`")),
                },
                (None, _) => None,
            };
            match (reasoning, calculation) {
                (Some(reasoning), Some(calculation)) => Ok(format!("{reasoning} {calculation}")),
                (one, other) => {
                    one.or(other).ok_or_else(|| "an object has neither `reasoning` nor `calculation`".into())
                }
            }
        }
        other => Err(format!("is {}", columns::kind(other))),
    }
}

impl ChainOfThoughtBuilder {
    /// The steps and the final answer.
    fn parts(&self, columns: &Columns) -> Result<(Vec<String>, String), String> {
        let answer = columns::text(columns, &self.0.answer)?;
        let answer = answer.trim();
        let marked = extract::hash(answer);
        let Some(name) = &self.0.steps else {
            let marked = marked.ok_or_else(|| {
                format!("column `{}` has no `#### answer`, and `steps` names no column", self.0.answer)
            })?;
            let before = &answer[..answer.rfind("####").unwrap_or(0)];
            return Ok((lines(before), marked.to_owned()));
        };
        let steps = match columns::value(columns, name)? {
            Value::String(text) => lines(text),
            Value::Array(list) => {
                let numbered = list.iter().enumerate();
                let steps =
                    numbered.map(|(at, it)| step(it).map_err(|why| format!("step {}: {why}", at + 1)));
                steps.collect::<Result<_, _>>()?
            }
            other => return Err(format!("column `{name}` holds no steps but {}", columns::kind(other))),
        };
        Ok((steps, marked.unwrap_or(answer).to_owned()))
    }

    fn check(&self, steps: &[String], answer: &str) -> Result<(), String> {
        let all: Vec<_> = steps.iter().flat_map(|it| calculate::calculations(it)).collect();
        if self.0.check_calculations {
            all.iter().try_for_each(|it| it.check())?;
        }
        if let Some(last) = all.last().filter(|_| self.0.check_answer) {
            let result = last.text.rsplit('=').next().map(calculate::evaluate);
            let answer_value = number::whole(answer, Decimal::Point).map(|it| it.number);
            if let (Some(Ok(result)), Some(value)) = (result, answer_value)
                && !result.close_to(value, 1e-9, 1e-9)
            {
                return Err(format!(
                    "the last calculation `{}` does not give the answer `{answer}`",
                    last.text
                ));
            }
        }
        Ok(())
    }

    fn completion(&self, steps: &[String], answer: &str) -> String {
        let numbered = steps.iter().enumerate().map(|(at, step)| {
            let step = if self.0.keep_calculations { step.clone() } else { calculate::without(step) };
            format!("{}{step}", self.0.step_prefix.replace("{n}", &(at + 1).to_string()))
        });
        let steps = numbered.collect::<Vec<_>>().join("\n");
        match self.0.style {
            Style::Hash => format!("{steps}\n#### {answer}"),
            Style::Think => format!("<think>\n{steps}\n</think>\n<answer>\n{answer}\n</answer>"),
            Style::ThinkPlain => format!("<think>\n{steps}\n</think>\n{answer}"),
            Style::Boxed => format!("{steps}\nThe answer is \\boxed{{{answer}}}."),
        }
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

impl DataBuilder for ChainOfThoughtBuilder {
    fn build(&mut self, row: &Row) -> Result<Vec<Example>, String> {
        let question = columns::text(&row.columns, &self.0.question)?.trim().to_owned();
        let (steps, answer) = self.parts(&row.columns)?;
        if steps.iter().all(|it| it.is_empty()) {
            return Err("there are no steps".into());
        }
        self.check(&steps, &answer)?;
        let completion = self.completion(&steps, &answer);
        let chat = self.0.format == Format::Chat;
        // Plain text has no turns that part the question from the steps.
        let question = if chat { question } else { format!("{question}\n") };
        let mut example = example::pair(row.id, &self.0.system, question, completion, chat);
        example.columns = columns::kept(&row.columns, self.0.keep.as_deref());
        example.columns.insert("answer".into(), Value::String(answer));
        Ok(vec![example])
    }
}

export!(data_builder: ChainOfThoughtBuilder from Config);

#[cfg(test)]
mod tests {
    use super::*;
    use fthost_plugin_sdk::testing;
    use serde_json::json;

    fn built(config: Value, columns: Value) -> Result<(String, Value), String> {
        let mut builder: ChainOfThoughtBuilder =
            testing::configure::<Config, _>(config).map_err(|it| it[0].key.clone())?;
        let example = builder.build(&testing::row(columns))?.remove(0);
        let text = example::completion(&example.content).unwrap().to_owned();
        Ok((text, example.columns["answer"].clone()))
    }

    fn gsm8k() -> Value {
        json!({"question": "Clips?", "answer": "She sold 48/2 = <<48/2=24>>24 clips.\nIn all 48+24 = <<48+24=72>>72.\n#### 72"})
    }

    #[test]
    fn gsm8k_rows_are_written_in_every_style() {
        let steps = "She sold 48/2 = 24 clips.\nIn all 48+24 = 72.";
        let of = |style: &str| built(json!({ "style": style }), gsm8k()).unwrap();
        assert_eq!(of("hash"), (format!("{steps}\n#### 72"), json!("72")));
        assert_eq!(of("think").0, format!("<think>\n{steps}\n</think>\n<answer>\n72\n</answer>"));
        assert_eq!(of("think_plain").0, format!("<think>\n{steps}\n</think>\n72"));
        assert_eq!(of("boxed").0, format!("{steps}\nThe answer is \\boxed{{72}}."));
        let kept = built(json!({"keep_calculations": true, "step_prefix": "{n}. "}), gsm8k()).unwrap().0;
        assert!(kept.starts_with("1. She sold 48/2 = <<48/2=24>>24 clips.\n2. In all"), "{kept}");
    }

    #[test]
    fn steps_may_be_lists_of_texts_or_of_objects() {
        let config = json!({"steps": "steps", "keep_calculations": true});
        let steps = json!([
            "First.", {"reasoning": "Twelve:", "calculation": "3*4", "result": 12}, {"calculation": "12-2=10"}
        ]);
        let (text, answer) =
            built(config.clone(), json!({"question": "?", "steps": steps, "answer": 10})).unwrap();
        assert_eq!(text, "First.\nTwelve: 3*4 = <<3*4=12>>12\n12-2 = <<12-2=10>>10\n#### 10");
        assert_eq!(answer, json!("10"));
        let row = json!({"question": "?", "steps": [{"calculation": "3*4"}], "answer": 12});
        assert_eq!(built(config, row).unwrap_err(), "step 1: calculation `3*4` has no `result`");
    }

    #[test]
    fn wrong_calculations_are_bad_rows_unless_they_are_not_checked() {
        let row = json!({"question": "?", "answer": "So <<3*4=13>>13.\n#### 13"});
        assert_eq!(built(json!({}), row.clone()).unwrap_err(), "calculation `3*4=13` gives 12");
        assert_eq!(built(json!({"check_calculations": false}), row).unwrap().0, "So 13.\n#### 13");
        let row = json!({"question": "?", "answer": "So <<3*4=12>>12.\n#### 13"});
        let reason = built(json!({"check_answer": true}), row).unwrap_err();
        assert_eq!(reason, "the last calculation `3*4=12` does not give the answer `13`");
    }

    #[test]
    fn rows_without_steps_or_answer_are_bad_rows() {
        let reason = |row| built(json!({}), row).unwrap_err();
        assert!(reason(json!({"question": "?", "answer": "42"})).contains("no `#### answer`"));
        assert_eq!(reason(json!({"question": "?", "answer": "#### 42"})), "there are no steps");
        assert!(reason(json!({"answer": "a\n#### 42"})).contains("no column `question`"));
        assert_eq!(built(json!({"question": ""}), json!({})).unwrap_err(), "question");
    }
}
