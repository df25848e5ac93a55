//! From the contract's batches to the roles' calls; `export!` writes calls of these.
#![allow(missing_docs)]

use crate::__private::{BuildOutcome, Derived};
use crate::bindings::types as wit;
use crate::record::{Detail, Example, Group, Row, Sample, Score, Variant};
use crate::role::{Augmenter, DataBuilder, Evaluator, Reward};

/// A panic's text would be lost with the instance: the host is told first.
pub fn catch_panics() {
    #[cfg(target_family = "wasm")]
    std::panic::set_hook(Box::new(|info| crate::log::error(&info.to_string())));
}

pub fn build(plugin: &mut impl DataBuilder, rows: Vec<wit::Row>) -> Result<Vec<BuildOutcome>, String> {
    let outcome = |row: wit::Row| {
        Ok(match plugin.build(&Row::try_from(row)?) {
            Ok(examples) => BuildOutcome::Examples(examples.into_iter().map(Into::into).collect()),
            Err(reason) => BuildOutcome::BadRow(reason),
        })
    };
    rows.into_iter().map(outcome).collect()
}

pub fn finish(plugin: &mut impl DataBuilder) -> Vec<wit::Example> {
    plugin.finish().into_iter().map(Into::into).collect()
}

pub fn augment(
    plugin: &mut impl Augmenter,
    examples: Vec<wit::Example>,
) -> Result<Vec<Vec<Derived>>, String> {
    let derived = |it: Variant| Derived { example: it.example.into(), operation: it.operation };
    let variants =
        |it: wit::Example| Ok(plugin.augment(&Example::try_from(it)?).into_iter().map(derived).collect());
    examples.into_iter().map(variants).collect()
}

pub fn score(plugin: &mut impl Reward, groups: Vec<wit::Group>) -> Result<Vec<Vec<wit::Outcome>>, String> {
    let outcomes = |it: wit::Group| {
        Ok(plugin.score(&Group::try_from(it)?).into_iter().map(|Score(outcome)| outcome).collect())
    };
    groups.into_iter().map(outcomes).collect()
}

pub fn grade(plugin: &mut impl Evaluator, samples: Vec<wit::Sample>) -> Result<Vec<wit::Detail>, String> {
    let detail = |it: wit::Sample| {
        let id = it.id;
        let Detail { values, note } = plugin.grade(&Sample::try_from(it)?);
        Ok(wit::Detail { id, values, note })
    };
    samples.into_iter().map(detail).collect()
}
