//! A role over JSON: what goes in and what comes out, as cases write it.

use fthost_data::{
    Augmenter, BuildOutcome, Content, DataBuilder, EvalSample, Evaluator, Example, Failure, Group, Outcome,
    Record, Reward, RoleError,
};
use fthost_sandbox::{Plugin, RoleKind};
use serde_json::{Map, Value, json};

use crate::error::Result;

/// What a role is given.
#[derive(Debug, Clone)]
pub(crate) enum Items {
    Groups(Vec<Group>),
    Samples(Vec<EvalSample>),
    Rows(Vec<Record>),
    Examples(Vec<Example>),
}

impl Items {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Groups(all) => all.len(),
            Self::Samples(all) => all.len(),
            Self::Rows(all) => all.len(),
            Self::Examples(all) => all.len(),
        }
    }

    /// The items at `places`, in that order.
    pub(crate) fn at(&self, places: &[usize]) -> Self {
        fn chosen<T: Clone>(all: &[T], places: &[usize]) -> Vec<T> {
            places.iter().map(|it| all[*it].clone()).collect()
        }
        match self {
            Self::Groups(all) => Self::Groups(chosen(all, places)),
            Self::Samples(all) => Self::Samples(chosen(all, places)),
            Self::Rows(all) => Self::Rows(chosen(all, places)),
            Self::Examples(all) => Self::Examples(chosen(all, places)),
        }
    }

    /// The items of both, where they are of one kind.
    pub(crate) fn extend(&mut self, more: Self) {
        match (self, more) {
            (Self::Groups(all), Self::Groups(more)) => all.extend(more),
            (Self::Samples(all), Self::Samples(more)) => all.extend(more),
            (Self::Rows(all), Self::Rows(more)) => all.extend(more),
            (Self::Examples(all), Self::Examples(more)) => all.extend(more),
            _ => unreachable!("one role takes items of one kind"),
        }
    }

    /// Numbers items anew: no two of a run share an id.
    pub(crate) fn number(&mut self) {
        match self {
            Self::Groups(all) => all.iter_mut().zip(0..).for_each(|(it, id)| it.id = id),
            Self::Samples(all) => all.iter_mut().zip(0..).for_each(|(it, id)| it.id = id),
            Self::Rows(all) => all.iter_mut().zip(1..).for_each(|(it, line)| it.origin.line = line),
            Self::Examples(all) => all.iter_mut().zip(1..).for_each(|(it, line)| it.origin.line = line),
        }
    }
}

/// A role, being played.
pub(crate) enum Player {
    Reward(Box<dyn Reward>),
    Evaluator(Box<dyn Evaluator>),
    Builder(Box<dyn DataBuilder>),
    Augmenter(Box<dyn Augmenter>),
}

impl Player {
    pub(crate) fn of(plugin: &Plugin, role: RoleKind) -> Result<Self> {
        Ok(match role {
            RoleKind::Reward => Self::Reward(plugin.reward()?),
            RoleKind::Evaluator => Self::Evaluator(plugin.evaluator()?),
            RoleKind::DataBuilder => Self::Builder(plugin.data_builder()?),
            RoleKind::Augmenter => Self::Augmenter(plugin.augmenter()?),
        })
    }

    /// One answer an item. A reward's is a list: an outcome a completion.
    pub(crate) fn play(&mut self, items: &Items) -> std::result::Result<Vec<Value>, RoleError> {
        match (self, items) {
            (Self::Reward(reward), Items::Groups(groups)) => {
                let outcomes = reward.score(groups);
                Ok(outcomes.iter().map(|it| it.iter().map(outcome).collect()).collect())
            }
            (Self::Evaluator(evaluator), Items::Samples(samples)) => {
                let details = evaluator.grade(samples)?;
                let detail = |it: &fthost_data::Detail| {
                    let mut values: Map<String, Value> =
                        it.values.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
                    if let Some(note) = &it.note {
                        values.insert("note".into(), json!(note));
                    }
                    Value::Object(values)
                };
                Ok(details.iter().map(detail).collect())
            }
            (Self::Builder(builder), Items::Rows(rows)) => {
                let outcomes = builder.build(rows)?;
                let outcome = |it: &BuildOutcome| match it {
                    BuildOutcome::Examples(all) => all.iter().map(|it| example(it, false)).collect(),
                    BuildOutcome::BadRow { reason } => json!({"bad_row": reason}),
                };
                Ok(outcomes.iter().map(outcome).collect())
            }
            (Self::Augmenter(augmenter), Items::Examples(examples)) => {
                let answer = |it: &fthost_data::Augmented| {
                    let variants: Vec<Value> = it.variants.iter().map(|it| example(it, true)).collect();
                    match &it.dropped {
                        None => Value::Array(variants),
                        Some(reason) if variants.is_empty() => json!({"drop": reason}),
                        Some(reason) => json!({"drop": reason, "variants": variants}),
                    }
                };
                Ok(augmenter.augment(examples)?.iter().map(answer).collect())
            }
            _ => unreachable!("a role is given items of its own kind"),
        }
    }

    /// What comes once everything was given: metrics of an evaluator, examples that a builder kept back.
    pub(crate) fn finish(&mut self) -> std::result::Result<Vec<Value>, RoleError> {
        match self {
            Self::Evaluator(evaluator) => {
                let metrics = evaluator.finish()?;
                Ok(metrics.iter().map(|it| serde_json::to_value(it).expect("plain figures")).collect())
            }
            Self::Builder(builder) => Ok(builder.finish()?.iter().map(|it| example(it, false)).collect()),
            Self::Reward(_) | Self::Augmenter(_) => Ok(Vec::new()),
        }
    }
}

fn outcome(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Ok(score) if score.components.is_empty() => json!({"value": score.value}),
        Outcome::Ok(score) => {
            let components: Map<String, Value> =
                score.components.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            json!({"value": score.value, "components": components})
        }
        Outcome::Abstain { reason } => json!({"abstain": reason}),
        Outcome::Failed(Failure::Plugin { message }) => json!({"error": message}),
        Outcome::Failed(failure) => json!({"failure": failure.kind(), "message": failure.to_string()}),
    }
}

/// An example as a row that is known without a plugin; its columns beside it, and where `operation` what was done.
fn example(it: &Example, operation: bool) -> Value {
    let mut row = content(&it.content);
    let fields = row.as_object_mut().expect("a content is an object");
    if !it.columns.is_empty() {
        fields.insert("columns".into(), Value::Object(it.columns.clone()));
    }
    if let Some(done) = it.provenance.last().filter(|_| operation) {
        fields.insert("operation".into(), json!(done.operation));
    }
    row
}

/// A content in the shape of a known row.
pub(crate) fn content(content: &Content) -> Value {
    match content {
        Content::Messages(messages) => json!({"messages": messages}),
        Content::PromptCompletion { prompt, completion } => {
            json!({"prompt": prompt, "completion": completion})
        }
        Content::Preference(it) => json!({"prompt": it.prompt, "chosen": it.chosen, "rejected": it.rejected}),
        Content::Text(text) => json!({"text": text}),
        Content::Prompt(prompt) => json!({"prompt": prompt}),
    }
}
