//! What is judged, and how the judge is asked.

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};

use fthost_plugin_sdk::{Message, Prompt, Role};

/// One line of the rubric.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// Key in the judge's JSON, and in the metric's name.
    pub name: String,
    /// What the judge is told of it.
    pub description: String,
    /// Other words by which a judge may call it.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// Language in which the judge is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Chinese.
    Zh,
}

const NAMES: [(&str, &[&str]); 4] = [
    ("relevance", &["相关性", "相关度", "切题"]),
    ("fluency", &["流畅性", "流畅度", "通顺"]),
    ("informativeness", &["信息量", "信息性", "信息丰富度"]),
    ("correctness", &["正确性", "准确性", "准确度"]),
];

impl Language {
    /// The prompt's template: Jinja, of `prompt`, `answer`, `reference`, `criteria` and `form`.
    pub fn template(self) -> &'static str {
        match self {
            Self::En => include_str!("prompt.en.jinja"),
            Self::Zh => include_str!("prompt.zh.jinja"),
        }
    }

    /// Relevance, fluency, informativeness, correctness.
    pub fn rubric(self) -> Vec<Criterion> {
        let descriptions = match self {
            Self::En => [
                "it addresses what was asked and stays with it",
                "it reads as a careful native writer would put it",
                "it says what the reader needs to know, neither thin nor padded",
                "what it says is true; where an expected answer is given, it agrees with it",
            ],
            Self::Zh => [
                "回答针对所提的问题，没有偏题",
                "语言通顺自然，像认真的母语作者所写",
                "提供了读者需要的信息，不空泛也不冗余",
                "内容属实；若给出参考答案，则与其一致",
            ],
        };
        let criterion = |((name, labels), description): ((&str, &[&str]), &str)| Criterion {
            name: name.into(),
            description: description.into(),
            labels: labels.iter().map(|it| (*it).into()).collect(),
        };
        NAMES.into_iter().zip(descriptions).map(criterion).collect()
    }
}

/// What a template may ask for.
#[derive(serde::Serialize)]
struct Values<'a> {
    prompt: &'a str,
    answer: &'a str,
    reference: Option<&'a str>,
    criteria: &'a [Criterion],
    form: &'a str,
}

/// The template, compiled.
pub struct Question(Environment<'static>);

impl Question {
    /// # Errors
    /// What is wrong with the template.
    pub fn new(template: String) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.add_template_owned("judge", template).map_err(|error| error.to_string())?;
        let question = Self(environment);
        // A name that is not there is told now, not at the first answer.
        question.render("?", "?", Some("?"), &Language::En.rubric())?;
        Ok(question)
    }

    /// # Errors
    /// What the template asks for in vain.
    pub fn render(
        &self,
        prompt: &str,
        answer: &str,
        reference: Option<&str>,
        criteria: &[Criterion],
    ) -> Result<String, String> {
        let parts: Vec<_> = criteria.iter().map(|it| format!("\"{}\": <1-5>", it.name)).collect();
        let form = format!("{{{}}}", parts.join(", "));
        let template = self.0.get_template("judge").map_err(|error| error.to_string())?;
        let values = Values { prompt, answer, reference, criteria, form: &form };
        template.render(Serde(&values)).map_err(|error| format!("{error:#}"))
    }
}

/// A conversation as the judge reads it; a single question without its role.
pub fn conversation(prompt: &Prompt) -> String {
    let messages = match prompt {
        Prompt::Text(text) => return text.clone(),
        Prompt::Messages(messages) => messages,
    };
    if let [Message { content, .. }] = messages.as_slice() {
        return content.clone();
    }
    let role = |role: Role| match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let lines: Vec<_> = messages.iter().map(|it| format!("{}: {}", role(it.role), it.content)).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_answer_is_named_where_there_is_one() {
        for language in [Language::En, Language::Zh] {
            let (question, rubric) = (Question::new(language.template().into()).unwrap(), language.rubric());
            let with = question.render("Q {{ x }}", "A", Some("R"), &rubric).unwrap();
            let without = question.render("Q", "A", None, &rubric).unwrap();
            assert!(with.contains("<expected-answer>\nR\n") && with.contains("Q {{ x }}"), "{with}");
            assert!(!without.contains("expected-answer"), "{without}");
            assert!(without.contains(r#"{"relevance": <1-5>, "fluency": <1-5>, "#), "{without}");
        }
    }

    #[test]
    fn a_template_that_asks_for_what_is_not_there_is_refused() {
        assert!(Question::new("{{ question }}".into()).is_err());
        assert!(Question::new("{% if %}".into()).is_err());
    }
}
