//! `cases/*.jsonl`: what a plugin is given and what is expected of it, one JSON object a line.

use std::path::{Path, PathBuf};

use fthost_data::{
    Candidate, Columns, EvalSample, Example, Finish, Group, Occasion, Origin, Prompt, Purpose, Record,
};
use fthost_sandbox::RoleKind;
use serde::Deserialize;
use serde_json::Value;

use crate::canned::Answers;
use crate::error::{AuthorError, Result, io};
use crate::play::{self, Items};

/// One line, checked: items of one role, and what is expected.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) config: Columns,
    pub(crate) tolerance: f64,
    pub(crate) answers: Answers,
    /// Its answers may depend on batches: it draws random numbers.
    pub(crate) random: bool,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// The configuration is refused, at this key.
    Refused(String),
    Played {
        role: RoleKind,
        items: Items,
        /// One an item, in the form of [`play`].
        expected: Option<Vec<Value>>,
        /// Metrics by name, or examples of `finish`.
        end: Option<Value>,
    },
}

/// As it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default)]
    config: Columns,
    role: Option<RoleKind>,
    #[serde(default = "default_tolerance")]
    tolerance: f64,
    #[serde(default)]
    host: Answers,
    #[serde(default)]
    random: bool,
    expected_problem: Option<String>,
    prompt: Option<Prompt>,
    completions: Option<Vec<WrittenCompletion>>,
    #[serde(default)]
    columns: Columns,
    #[serde(default)]
    step: u64,
    #[serde(default)]
    steps: u64,
    #[serde(default)]
    purpose: Purpose,
    #[serde(default)]
    max_tokens: u32,
    expected: Option<Vec<Value>>,
    samples: Option<Vec<WrittenSample>>,
    expected_metrics: Option<Columns>,
    expected_details: Option<Vec<Value>>,
    rows: Option<Vec<Columns>>,
    expected_finish: Option<Vec<Value>>,
    examples: Option<Vec<Columns>>,
}

fn default_tolerance() -> f64 {
    1e-9
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a completion is text, or an object of `text`, `token_count` and `finish`")]
enum WrittenCompletion {
    Text(String),
    Whole { text: String, token_count: Option<u32>, finish: Option<Finish> },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSample {
    prompt: Option<Prompt>,
    completion: WrittenCompletion,
    reference: Option<String>,
    #[serde(default)]
    columns: Columns,
}

impl From<WrittenCompletion> for Candidate {
    fn from(written: WrittenCompletion) -> Self {
        let (text, token_count, finish) = match written {
            WrittenCompletion::Text(text) => (text, None, None),
            WrittenCompletion::Whole { text, token_count, finish } => (text, token_count, finish),
        };
        let token_count = token_count.unwrap_or_else(|| text.split_whitespace().count() as u32);
        Self { text, token_count, finish: finish.unwrap_or(Finish::Stop) }
    }
}

/// The cases of a file, for a plugin that plays `roles`.
///
/// # Errors
/// A line that can't be understood, with what is wrong.
pub(crate) fn read(path: &Path, roles: &[RoleKind]) -> Result<Vec<Case>> {
    let text = std::fs::read_to_string(path).map_err(io("read", path))?;
    let mut cases = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|it| !it.1.trim().is_empty()) {
        let fail =
            |problem: String| AuthorError::Case { path: PathBuf::from(path), line: index + 1, problem };
        let written: Written = serde_json::from_str(line).map_err(|error| fail(error.to_string()))?;
        cases.push(checked(written, roles).map_err(fail)?);
    }
    Ok(cases)
}

fn checked(written: Written, roles: &[RoleKind]) -> std::result::Result<Case, String> {
    let (name, config, tolerance) = (written.name.clone(), written.config.clone(), written.tolerance);
    let (answers, random) = (written.host.clone(), written.random);
    let kind = match &written.expected_problem {
        Some(key) => Kind::Refused(key.clone()),
        None => played(written, roles)?,
    };
    Ok(Case { name, config, tolerance, answers, random, kind })
}

fn played(written: Written, roles: &[RoleKind]) -> std::result::Result<Kind, String> {
    let role = role_of(&written, roles)?;
    let (items, expected, end) = match role {
        RoleKind::Reward => {
            let completions: Vec<Candidate> =
                written.completions.unwrap_or_default().into_iter().map(Into::into).collect();
            let expected = written.expected.ok_or("`expected` is missing: one outcome a completion")?;
            count("expected", expected.len(), "completions", completions.len())?;
            let prompt = written.prompt.unwrap_or_else(|| Prompt::Text("?".into()));
            let Written { step, steps, purpose, max_tokens, columns, .. } = written;
            let occasion = Occasion { purpose, steps, max_tokens };
            let group = Group { id: 0, step, occasion, prompt, completions, columns };
            (Items::Groups(vec![group]), Some(vec![Value::Array(expected)]), None)
        }
        RoleKind::Evaluator => {
            let samples = written.samples.unwrap_or_default().into_iter().zip(0..);
            let of = (written.step, written.steps);
            let samples: Vec<EvalSample> = samples.map(|(it, id)| sample(it, id, of)).collect();
            if let Some(details) = &written.expected_details {
                count("expected_details", details.len(), "samples", samples.len())?;
            }
            if written.expected_metrics.is_none() && written.expected_details.is_none() {
                return Err("`expected_metrics` or `expected_details` is missing".into());
            }
            (Items::Samples(samples), written.expected_details, written.expected_metrics.map(Value::Object))
        }
        RoleKind::DataBuilder => {
            let rows = written.rows.unwrap_or_default();
            let expected = written.expected.ok_or("`expected` is missing: one answer a row")?;
            count("expected", expected.len(), "rows", rows.len())?;
            let record = |(columns, line)| Record { columns, origin: origin(line) };
            let end = written.expected_finish.map(|it| normal(Value::Array(it))).transpose()?;
            let expected = expected.into_iter().map(normal).collect::<std::result::Result<_, _>>()?;
            (Items::Rows(rows.into_iter().zip(1..).map(record).collect()), Some(expected), end)
        }
        RoleKind::Augmenter => {
            let examples = written.examples.unwrap_or_default().into_iter().zip(1..);
            let examples: Vec<Example> =
                examples.map(|(it, line)| example(it, line)).collect::<std::result::Result<_, _>>()?;
            let expected = written.expected.ok_or("`expected` is missing: one answer an example")?;
            count("expected", expected.len(), "examples", examples.len())?;
            let expected = expected.into_iter().map(normal).collect::<std::result::Result<_, _>>()?;
            (Items::Examples(examples), Some(expected), None)
        }
    };
    Ok(Kind::Played { role, items, expected, end })
}

/// The role of a case: that of what is given, which the plugin must play.
fn role_of(written: &Written, roles: &[RoleKind]) -> std::result::Result<RoleKind, String> {
    let given = [
        (RoleKind::Reward, written.completions.is_some()),
        (RoleKind::Evaluator, written.samples.is_some()),
        (RoleKind::DataBuilder, written.rows.is_some()),
        (RoleKind::Augmenter, written.examples.is_some()),
    ];
    let given: Vec<RoleKind> = given.iter().filter(|it| it.1).map(|it| it.0).collect();
    let role = match (written.role, given.as_slice()) {
        (None, [role]) => *role,
        (Some(role), [given]) if *given == role => role,
        (Some(role), _) => return Err(format!("`role` is {role}, which takes `{}` alone", takes(role))),
        (None, _) => {
            let known = RoleKind::ALL.map(|it| format!("`{}` ({it})", takes(it)));
            return Err(format!("a case has one of {}, or `expected_problem`", known.join(", ")));
        }
    };
    if !roles.contains(&role) {
        let roles: Vec<&str> = roles.iter().map(|it| it.as_str()).collect();
        return Err(format!("a case for {role}, but the plugin plays {}", roles.join(", ")));
    }
    Ok(role)
}

/// The key of what a role is given.
fn takes(role: RoleKind) -> &'static str {
    match role {
        RoleKind::Reward => "completions",
        RoleKind::Evaluator => "samples",
        RoleKind::DataBuilder => "rows",
        RoleKind::Augmenter => "examples",
    }
}

fn count(key: &str, found: usize, of: &str, there: usize) -> std::result::Result<(), String> {
    match found == there {
        true => Ok(()),
        false => Err(format!("`{key}` has {found} entries for {there} {of}")),
    }
}

fn origin(line: u64) -> Origin {
    Origin { source: "case".into(), line }
}

fn sample(written: WrittenSample, id: u64, (step, steps): (u64, u64)) -> EvalSample {
    let WrittenSample { prompt, completion, reference, columns } = written;
    let (prompt, completion) = (prompt.unwrap_or_else(|| Prompt::Text("?".into())), completion.into());
    EvalSample { id, step, steps, prompt, completion, reference, columns }
}

/// A known row with its other columns under `columns`.
fn example(mut row: Columns, line: u64) -> std::result::Result<Example, String> {
    let columns = match row.shift_remove("columns") {
        None => Columns::new(),
        Some(Value::Object(columns)) => columns,
        Some(other) => return Err(format!("`columns` must be an object, got `{other}`")),
    };
    let made = fthost_data::rows::example(Record { columns: row, origin: origin(line) });
    let made = made.map_err(|error| error.to_string())?;
    if let Some(key) = made.columns.keys().next() {
        return Err(format!("`{key}` belongs to no content; other columns stand under `columns`"));
    }
    Ok(Example { columns, ..made })
}

/// Contents in the one form in which [`play`] writes them.
fn normal(expected: Value) -> std::result::Result<Value, String> {
    match expected {
        Value::Array(all) => {
            Ok(Value::Array(all.into_iter().map(normal).collect::<std::result::Result<_, _>>()?))
        }
        Value::Object(mut fields) => {
            if fields.contains_key("bad_row") {
                return Ok(Value::Object(fields));
            }
            if fields.contains_key("drop") {
                if let Some(variants) = fields.get_mut("variants") {
                    *variants = normal(variants.take())?;
                }
                return Ok(Value::Object(fields));
            }
            let beside: Vec<(&str, Value)> = ["columns", "operation"]
                .into_iter()
                .filter_map(|it| Some((it, fields.shift_remove(it)?)))
                .collect();
            let mut content = play::content(&example(fields, 1)?.content);
            for (key, value) in beside {
                content[key] = value;
            }
            Ok(content)
        }
        other => Err(format!("expected a content, a list of contents or a reason, got `{other}`")),
    }
}
