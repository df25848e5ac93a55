//! `fthost plugin run`: a plugin, tried on a file of rows.

use std::path::Path;

use fthost_data::{
    Candidate, Columns, Content, EvalSample, Finish, Group, Prompt, Record, Role, rows, source,
};
use fthost_sandbox::RoleKind;
use serde_json::{Value, json};

use crate::error::{AuthorError, Result};
use crate::play::{Items, Player};
use crate::session::Session;

/// What is tried.
#[derive(Debug, Clone)]
pub struct Trial<'a> {
    /// JSONL, JSON, CSV or Parquet.
    pub data: &'a Path,
    /// Needed where the plugin plays several.
    pub role: Option<RoleKind>,
    /// What the plugin is told.
    pub config: Columns,
    /// Rows read at most.
    pub rows: usize,
    /// Items a call.
    pub batch: usize,
}

/// What a plugin made of one row.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Tried {
    /// File and line.
    pub row: String,
    /// What was judged, built or augmented, in short.
    pub given: String,
    /// In the form of a case's `expected`.
    pub answer: Value,
}

/// The rows, and what came at the end: metrics, or examples that were kept back.
#[derive(Debug, Clone, PartialEq)]
pub struct Trials {
    /// The role that was played.
    pub role: RoleKind,
    /// One a row.
    pub rows: Vec<Tried>,
    /// Metrics of an evaluator, examples that a builder kept back.
    pub end: Vec<Value>,
}

/// Plays a role on every row.
///
/// # Errors
/// A row that is of no use to the role, a configuration that is refused, a call that fails.
pub fn try_on(session: &Session, trial: &Trial<'_>) -> Result<Trials> {
    let role = role(&session.inspection.roles, trial.role)?;
    let records: Vec<Record> =
        source::read_rows(trial.data)?.take(trial.rows).collect::<std::result::Result<_, _>>()?;
    let places: Vec<String> = records.iter().map(|it| it.origin.to_string()).collect();
    let (items, given) = items(role, records)?;
    let plugin = session.load(&trial.config)?;
    let mut player = Player::of(&plugin, role)?;
    let mut answers = Vec::new();
    let all: Vec<usize> = (0..items.len()).collect();
    for batch in all.chunks(trial.batch.max(1)) {
        answers.extend(player.play(&items.at(batch))?);
    }
    let rows = places.into_iter().zip(given).zip(answers);
    let rows = rows.map(|((row, given), answer)| Tried { row, given, answer }).collect();
    Ok(Trials { role, rows, end: player.finish()? })
}

pub(crate) fn role(roles: &[RoleKind], asked: Option<RoleKind>) -> Result<RoleKind> {
    let known = || roles.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ");
    match (asked, roles) {
        (Some(role), roles) if roles.contains(&role) => Ok(role),
        (Some(role), _) => Err(AuthorError::Usage {
            problem: format!("the plugin does not play {role}"),
            hint: format!("it plays {}", known()),
        }),
        (None, [role]) => Ok(*role),
        (None, _) => Err(AuthorError::Usage {
            problem: format!("the plugin plays {}", known()),
            hint: "say which by `--role`".into(),
        }),
    }
}

/// Items of the role, and what each is in short.
fn items(role: RoleKind, records: Vec<Record>) -> Result<(Items, Vec<String>)> {
    let mut given = Vec::new();
    let items = match role {
        RoleKind::DataBuilder => {
            given.extend(records.iter().map(|it| Value::Object(it.columns.clone()).to_string()));
            Items::Rows(records)
        }
        RoleKind::Augmenter => {
            let examples =
                records.into_iter().map(rows::example).collect::<std::result::Result<Vec<_>, _>>()?;
            given.extend(examples.iter().map(|it| crate::play::content(&it.content).to_string()));
            Items::Examples(examples)
        }
        RoleKind::Reward => {
            let mut groups = Vec::new();
            for (record, id) in records.into_iter().zip(0..) {
                let Asked { prompt, completions, columns, .. } = asked(record)?;
                given.push(completions.iter().map(|it| it.text.as_str()).collect::<Vec<_>>().join(" | "));
                let occasion = Default::default();
                groups.push(Group { id, step: 0, occasion, prompt, completions, columns });
            }
            Items::Groups(groups)
        }
        RoleKind::Evaluator => {
            let mut samples = Vec::new();
            for (record, id) in records.into_iter().zip(0..) {
                let place = record.origin.to_string();
                let Asked { prompt, completions, reference, columns } = asked(record)?;
                let [completion] =
                    <[Candidate; 1]>::try_from(completions).map_err(|all| AuthorError::Usage {
                        problem: format!(
                            "{place}: an evaluator judges one completion a row, this one has {}",
                            all.len()
                        ),
                        hint: "give `completion`, and `reference` where there is an expected answer".into(),
                    })?;
                given.push(completion.text.clone());
                samples.push(EvalSample { id, step: 0, steps: 0, prompt, completion, reference, columns });
            }
            Items::Samples(samples)
        }
    };
    Ok((items, given))
}

struct Asked {
    prompt: Prompt,
    completions: Vec<Candidate>,
    reference: Option<String>,
    columns: Columns,
}

/// A row whose answers are judged: `completions`, or a known row with an answer. What else it has stays a column.
fn asked(mut record: Record) -> Result<Asked> {
    let reference = match record.columns.get("reference") {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    if let Some(Value::Array(texts)) = record.columns.shift_remove("completions") {
        let texts = texts.into_iter().map(|it| it.as_str().map_or_else(|| it.to_string(), str::to_string));
        let prompt = record.columns.shift_remove("prompt").and_then(|it| serde_json::from_value(it).ok());
        let prompt = prompt.unwrap_or_else(|| Prompt::Text(String::new()));
        return Ok(Asked {
            prompt,
            completions: texts.map(candidate).collect(),
            reference,
            columns: record.columns,
        });
    }
    let place = record.origin.to_string();
    let example = rows::example(record)?;
    let columns = example.columns;
    let (prompt, text) = match example.content {
        Content::PromptCompletion { prompt, completion: fthost_data::Completion::Text(text) } => {
            (prompt, text)
        }
        Content::PromptCompletion { prompt, completion: fthost_data::Completion::Messages(mut messages) }
            if messages.len() == 1 =>
        {
            (prompt, messages.remove(0).content)
        }
        Content::Messages(mut messages) if messages.last().is_some_and(|it| it.role == Role::Assistant) => {
            let last = messages.pop().map(|it| it.content).unwrap_or_default();
            (Prompt::Messages(messages), last)
        }
        other => {
            return Err(AuthorError::Usage {
                problem: format!("{place}: no answer to judge in `{}`", crate::play::content(&other)),
                hint: "rows need `prompt` and `completion`, `completions`, or `messages` that end with the assistant".into(),
            });
        }
    };
    Ok(Asked { prompt, completions: vec![candidate(text)], reference, columns })
}

fn candidate(text: String) -> Candidate {
    let token_count = text.split_whitespace().count() as u32;
    Candidate { text, token_count, finish: Finish::Stop }
}

impl Trials {
    /// A JSON object a row, and one for the end where there is something.
    pub fn json_lines(&self) -> String {
        let mut lines: Vec<String> =
            self.rows.iter().map(|it| serde_json::to_string(it).expect("plain values")).collect();
        if !self.end.is_empty() {
            lines.push(json!({"end": self.end}).to_string());
        }
        lines.join("\n")
    }

    /// A line a row, cut to `width` characters.
    pub fn table(&self, width: usize) -> String {
        let short = |text: &str, most: usize| {
            let text: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
            match text.chars().count() > most {
                true => text.chars().take(most.saturating_sub(1)).chain(['\u{2026}']).collect(),
                false => text,
            }
        };
        let place = self.rows.iter().map(|it| it.row.chars().count()).max().unwrap_or(0);
        let told: Vec<String> = self.rows.iter().map(|it| told(&it.answer)).collect();
        let half = width.saturating_sub(place + 4) / 2;
        let answer = told.iter().map(|it| it.chars().count()).max().unwrap_or(0).min(half.max(20));
        let line = |(row, told): (&Tried, &String)| {
            let left = width.saturating_sub(place + answer + 4).max(10);
            format!("{:<place$}  {:<answer$}  {}", row.row, short(told, answer), short(&row.given, left))
        };
        let mut lines: Vec<String> = self.rows.iter().zip(&told).map(line).collect();
        for it in &self.end {
            match (it["name"].as_str(), it.get("value")) {
                (Some(name), Some(value)) => {
                    let interval = it["confidence"].as_array().map(|it| format!("  [{}, {}]", it[0], it[1]));
                    lines.push(format!(
                        "{name} {value}{} over {}",
                        interval.unwrap_or_default(),
                        it["count"]
                    ));
                }
                _ => lines.push(format!("at the end: {it}")),
            }
        }
        lines.join("\n")
    }
}

/// An answer in few words.
fn told(answer: &Value) -> String {
    match answer {
        Value::Array(all) if all.is_empty() => "-".into(),
        Value::Array(all) => all.iter().map(told).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => match (fields.get("value"), fields.get("components")) {
            (Some(value), Some(Value::Object(parts))) => {
                let parts: Vec<String> = parts.iter().map(|(name, it)| format!("{name} {it}")).collect();
                format!("{value} ({})", parts.join(", "))
            }
            (Some(value), None) => value.to_string(),
            _ => fields.iter().map(|(key, it)| format!("{key} {}", plain(it))).collect::<Vec<_>>().join("  "),
        },
        other => plain(other),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}
