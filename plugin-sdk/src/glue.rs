//! From the contract's batches to the roles' calls; `export!` writes calls of these.
#![allow(missing_docs)]

use crate::__private::{BuildOutcome, Derived, Fate, WitAugmented};
use crate::bindings::types as wit;
use crate::record::{Augmented, Detail, Example, Group, Row, Sample, Score, Variant};
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
) -> Result<Vec<WitAugmented>, String> {
    let examples = parsed::<_, Example>(examples)?;
    let derived = |it: Variant| Derived { example: it.example.into(), operation: it.operation };
    let augmented = |it: Augmented| WitAugmented {
        original: it.dropped.map_or(Fate::Keep, Fate::Drop),
        variants: it.variants.into_iter().map(derived).collect(),
    };
    Ok(plugin.augment_all(&examples)?.into_iter().map(augmented).collect())
}

pub fn score(plugin: &mut impl Reward, groups: Vec<wit::Group>) -> Result<Vec<Vec<wit::Outcome>>, String> {
    let groups = parsed::<_, Group>(groups)?;
    let outcomes = |it: Vec<Score>| it.into_iter().map(|Score(outcome)| outcome).collect();
    Ok(plugin.score_all(&groups).into_iter().map(outcomes).collect())
}

pub fn grade(plugin: &mut impl Evaluator, samples: Vec<wit::Sample>) -> Result<Vec<wit::Detail>, String> {
    let samples = parsed::<_, Sample>(samples)?;
    let details = plugin.grade_all(&samples)?;
    if details.len() != samples.len() {
        return Err(format!("{} details for {} samples", details.len(), samples.len()));
    }
    let detail =
        |(sample, Detail { values, note }): (&Sample, Detail)| wit::Detail { id: sample.id, values, note };
    Ok(samples.iter().zip(details).map(detail).collect())
}

fn parsed<W, T: TryFrom<W, Error = String>>(all: Vec<W>) -> Result<Vec<T>, String> {
    all.into_iter().map(T::try_from).collect()
}
