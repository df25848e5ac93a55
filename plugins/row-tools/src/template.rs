//! Jinja templates of columns.

use fthost_plugin_sdk::{Columns, ConfigProblem};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};

/// Templates by name. Objects and lists are written as JSON on one line; a column that is absent is an error unless
/// `{% if column %}` asks.
#[derive(Debug)]
pub struct Templates(Environment<'static>);

impl Default for Templates {
    fn default() -> Self {
        let mut templates = Environment::new();
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
        Self(templates)
    }
}

impl Templates {
    /// Adds a template under the name of its key.
    ///
    /// # Errors
    /// What is no Jinja; the problem names `key`.
    pub fn add(&mut self, key: &str, text: &str) -> Result<(), ConfigProblem> {
        self.0
            .add_template_owned(key.to_owned(), text.to_owned())
            .map_err(|error| ConfigProblem::new(key, error.to_string()))
    }

    /// The template with these texts as variables.
    ///
    /// # Errors
    /// As [`Templates::render`].
    pub fn fill(&self, name: &str, texts: &[(&str, &str)]) -> Result<String, String> {
        let texts = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).into()));
        self.render(name, &texts.collect())
    }

    /// The template with these columns as variables.
    ///
    /// # Errors
    /// A column that the template asks for and that is not there, and what else fails in it.
    pub fn render(&self, name: &str, columns: &Columns) -> Result<String, String> {
        let template = self.0.get_template(name).map_err(|error| error.to_string())?;
        template.render(minijinja::value::Serde(columns)).map_err(|error| {
            let found: Vec<&str> = columns.keys().map(String::as_str).collect();
            match error.kind() {
                ErrorKind::UndefinedError => {
                    let found = found.join(", ");
                    format!("template `{name}` asks for a column that is not there; columns: {found}")
                }
                _ => format!("template `{name}`: {error}"),
            }
        })
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
