//! Chat templates, rendered as transformers' `apply_chat_template` renders them, and the spans that are supervised.
//!
//! A template marks what the model says by `{% generation %}`; one that does not is rendered prefix by prefix: what a
//! further assistant turn adds after its generation prompt is the model's. Whitespace that a template writes after
//! the end-of-turn token is not: at generation time nobody asks the model for it.

use std::ops::Range;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, context};
use serde_json::Value;

use crate::error::{DataError, Result};
use crate::record::{Message, Role};

/// Stand for the generation tags in rendered text. Private-use characters: no template writes them.
const OPEN: char = '\u{f8f0}';
const CLOSE: char = '\u{f8f1}';

/// A model's chat template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    source: String,
    bos_token: String,
    eos_token: String,
    marks_generation: bool,
}

/// A conversation as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The whole text.
    pub text: String,
    /// What the model is to say, in bytes of `text`, in order.
    pub supervised: Vec<Range<usize>>,
}

/// The template that a `chat_template` of `tokenizer_config.json` is: a text, or the one named `default` of a list.
pub(crate) fn default_of(found: &Value) -> Option<&str> {
    let named = found.as_array().and_then(|all| all.iter().find(|it| it["name"] == "default"));
    named.map_or(found, |it| &it["template"]).as_str()
}

impl ChatTemplate {
    /// A template with the special tokens it may write.
    pub fn new(source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Self {
        let marked = replace_tag(&replace_tag(source, "generation", OPEN), "endgeneration", CLOSE);
        Self {
            marks_generation: marked != source,
            source: marked,
            bos_token: bos_token.unwrap_or_default().to_string(),
            eos_token: eos_token.unwrap_or_default().to_string(),
        }
    }

    /// The template of a folder: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json` (a list's
    /// `default`).
    pub(crate) fn find(
        folder: &Path,
        config: &Value,
        bos_token: Option<&str>,
        eos_token: Option<&str>,
    ) -> Result<Option<Self>> {
        let path = folder.join("chat_template.jinja");
        let source = if path.exists() {
            Some(std::fs::read_to_string(&path).map_err(|source| DataError::Io { path, source })?)
        } else {
            default_of(&config["chat_template"]).map(str::to_string)
        };
        Ok(source.map(|source| Self::new(&source, bos_token, eos_token)))
    }

    /// The conversation as text; `add_generation_prompt` opens the assistant's next turn.
    ///
    /// # Errors
    /// A template that is no sound Jinja, or that refuses the conversation.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let text = self.render_marked(messages, add_generation_prompt)?;
        Ok(text.replace([OPEN, CLOSE], ""))
    }

    /// The conversation as text with the assistant's share of it.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`]; also a template whose text of a shorter conversation is no prefix of the longer.
    pub fn render_supervised(&self, messages: &[Message]) -> Result<Rendered> {
        let marked = self.render_marked(messages, false)?;
        if self.marks_generation {
            return Ok(strip_marks(&marked));
        }
        let mut supervised = Vec::new();
        for (index, _) in messages.iter().enumerate().filter(|(_, it)| it.role == Role::Assistant) {
            let before = self.render(&messages[..index], true)?;
            let after = self.render(&messages[..=index], false)?;
            if !(after.starts_with(&before) && marked.starts_with(&after)) {
                return Err(DataError::ChatTemplate(format!(
                    "the text before message {} is no prefix of the whole, so its share can't be told apart; \
                     mark it by {{% generation %}} in the template",
                    index + 1
                )));
            }
            supervised.push(before.len()..after.trim_end().len().max(before.len()));
        }
        Ok(Rendered { text: marked, supervised })
    }

    fn render_marked(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| DataError::ChatTemplate(error.to_string()))?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<String, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        let rendered = environment.render_str(
            &self.source,
            context! {
                messages => messages.iter().map(template_value).collect::<minijinja::Value>(),
                add_generation_prompt => add_generation_prompt,
                bos_token => self.bos_token.as_str(),
                eos_token => self.eos_token.as_str(),
            },
        );
        rendered.map_err(|error| DataError::ChatTemplate(error.to_string()))
    }
}

fn template_value(message: &Message) -> minijinja::Value {
    minijinja::Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
}

/// Replaces `{% name %}`, with any whitespace control, by an expression that writes `mark`.
fn replace_tag(source: &str, name: &str, mark: char) -> String {
    let tag = regex::Regex::new(&format!(r"\{{%(-?)\s*{name}\s*(-?)%\}}(\n?)")).expect("a constant pattern");
    // `trim_blocks` drops the newline after a tag; an expression would keep it.
    tag.replace_all(source, format!("{{{{$1 '{mark}' $2}}}}")).into_owned()
}

fn strip_marks(marked: &str) -> Rendered {
    let (mut text, mut supervised, mut start) = (String::with_capacity(marked.len()), Vec::new(), 0);
    for character in marked.chars() {
        match character {
            OPEN => start = text.len(),
            CLOSE => supervised.push(start..text.len()),
            other => text.push(other),
        }
    }
    Rendered { text, supervised }
}
