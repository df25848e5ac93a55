//! A host for a plugin's own tests, which run natively.
//!
//! ```
//! use fthost_plugin_sdk::{Prompt, model, testing};
//!
//! struct Echo;
//! impl testing::Host for Echo {
//!     fn generate(
//!         &mut self,
//!         _: &model::Model,
//!         prompts: &[Prompt],
//!         _: &model::Sampling,
//!     ) -> Result<Vec<Vec<fthost_plugin_sdk::Completion>>, String> {
//!         Ok(prompts.iter().map(|it| vec![testing::completion(&it.text())]).collect())
//!     }
//! }
//!
//! let answers = testing::with_host(Echo, || {
//!     model::generate(&model::Model::Run, vec![Prompt::Text("hi".into())], &testing::greedy(8))
//! });
//! assert_eq!(answers.unwrap()[0][0].text, "hi");
//! ```
//!
//! [`configure`] makes a plugin of a configuration and [`score`], [`grade`], [`augment`] and [`build`] call it, by the same
//! code as in the component: what is refused there is refused here.
//!
//! ```
//! use fthost_plugin_sdk::{Group, Reward, Score, plugin_config, serde_json::json, testing};
//!
//! #[plugin_config]
//! struct Short {
//!     #[default = 3]
//!     characters: usize,
//! }
//!
//! impl Reward for Short {
//!     fn score(&self, group: &Group) -> Vec<Score> {
//!         group.completions.iter().map(|it| Score::from(it.text.len() <= self.characters)).collect()
//!     }
//! }
//!
//! let mut short: Short = testing::configure::<Short, _>(json!({"characters": 2})).unwrap();
//! let scores = testing::score(&mut short, vec![testing::group(json!({}), &["ab", "abc"])]).unwrap();
//! assert_eq!([scores[0][0].value(), scores[0][1].value()], [Some(1.0), Some(0.0)]);
//! let problems = testing::configure::<Short, Short>(json!({"character": 2})).err().unwrap();
//! assert_eq!(problems[0].key, "character");
//! ```

use std::cell::RefCell;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::bindings::types as wit;
use crate::config::ConfigProblem;
use crate::glue;
use crate::host::{log::Level, model::Model, model::Sampling, model::TextLogprob, resources::File};
use crate::record::{
    Augmented, Columns, Completion, Detail, Example, Finish, Group, Prompt, Purpose, Row, Sample, Score,
    Variant,
};
use crate::role::{Augmenter, DataBuilder, Evaluator, Reward};

/// What a test's host answers. Every method has a default: no model, no resources, numbers that are always the same.
pub trait Host {
    /// A line of the log.
    fn log(&mut self, level: Level, message: &str) {
        eprintln!("{level:?}: {message}");
    }

    /// 64 bits; one after the other of SplitMix64 by default, seeded by 0 for each host.
    fn next_u64(&mut self) -> u64 {
        SPLIT_MIX.with_borrow_mut(|state| {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        })
    }

    /// Files.
    fn resources(&mut self) -> Vec<File> {
        Vec::new()
    }

    /// A file's bytes.
    ///
    /// # Errors
    /// A name that is not available.
    fn read_resource(&mut self, name: &str) -> Result<Vec<u8>, String> {
        Err(format!("no resource `{name}`"))
    }

    /// Completions, as many a prompt as asked for.
    ///
    /// # Errors
    /// The model's reason.
    fn generate(&mut self, _: &Model, _: &[Prompt], _: &Sampling) -> Result<Vec<Vec<Completion>>, String> {
        Err("the test's host has no model".into())
    }

    /// Log-probabilities of continuations.
    ///
    /// # Errors
    /// The model's reason.
    fn logprobs(&mut self, _: &Model, _: &[(Prompt, String)]) -> Result<Vec<TextLogprob>, String> {
        Err("the test's host has no model".into())
    }

    /// Vectors of texts.
    ///
    /// # Errors
    /// The model's reason.
    fn embed(&mut self, _: &Model, _: &[String]) -> Result<Vec<Vec<f32>>, String> {
        Err("the test's host has no model".into())
    }
}

/// The host without a model.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Host for Plain {}

thread_local! {
    static HOST: RefCell<Option<Box<dyn Host>>> = const { RefCell::new(None) };
    static SPLIT_MIX: RefCell<u64> = const { RefCell::new(0) };
}

/// Runs `plugin` with `host` in the place of the real one.
pub fn with_host<R>(host: impl Host + 'static, plugin: impl FnOnce() -> R) -> R {
    struct Restore(Option<Box<dyn Host>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            HOST.set(self.0.take());
        }
    }
    SPLIT_MIX.set(0);
    let _restore = Restore(HOST.replace(Some(Box::new(host))));
    plugin()
}

/// Without [`with_host`] the answers are those of [`Plain`].
#[cfg(not(target_family = "wasm"))]
pub(crate) fn ask<R>(import: &str, ask: impl FnOnce(&mut dyn Host) -> R) -> R {
    // Taken out while it answers: a host that calls a plugin which asks the host is a test that went wrong.
    let mut host = HOST.take().unwrap_or_else(|| Box::new(Plain));
    let answer = ask(host.as_mut());
    HOST.with_borrow_mut(|slot| {
        assert!(slot.is_none(), "the test's host called `{import}` itself");
        *slot = Some(host);
    });
    answer
}

/// Greedy sampling of one completion a prompt.
pub fn greedy(max_new_tokens: u32) -> Sampling {
    let (temperature, top_p, completions_per_prompt) = (0.0, 1.0, 1);
    Sampling { max_new_tokens, temperature, top_p, completions_per_prompt, stop: Vec::new(), seed: 0 }
}

/// An answer that ended by itself; a token a word.
pub fn completion(text: &str) -> Completion {
    let token_count = text.split_whitespace().count() as u32;
    Completion { text: text.into(), token_count, finish: Finish::Stop }
}

/// A JSON object as columns.
///
/// # Panics
/// On anything else.
pub fn columns(value: Value) -> Columns {
    match value {
        Value::Object(columns) => columns,
        other => panic!("columns are one JSON object, got {other}"),
    }
}

/// A row with these columns.
///
/// # Panics
/// As [`columns`].
pub fn row(value: Value) -> Row {
    Row { id: 0, columns: columns(value) }
}

/// A group of `answers` to the prompt `?`.
///
/// # Panics
/// As [`columns`].
pub fn group(value: Value, answers: &[&str]) -> Group {
    let completions = answers.iter().map(|it| completion(it)).collect();
    Group {
        id: 0,
        step: 0,
        steps: 0,
        purpose: Purpose::Evaluation,
        prompt: Prompt::Text("?".into()),
        completions,
        max_tokens: 0,
        columns: columns(value),
    }
}

/// An answer with what was expected.
pub fn sample(reference: Option<&str>, answer: &str) -> Sample {
    Sample {
        id: 0,
        step: 0,
        steps: 0,
        prompt: Prompt::Text("?".into()),
        completion: completion(answer),
        reference: reference.map(Into::into),
        columns: Columns::new(),
    }
}

/// A plugin made of the configuration `C`, as `export!(...: P from C)` makes it.
///
/// # Errors
/// What the run file's author would be told, key by key.
pub fn configure<C, P>(config: Value) -> Result<P, Vec<ConfigProblem>>
where
    C: DeserializeOwned,
    P: TryFrom<C>,
    ConfigProblem: From<P::Error>,
{
    let config = crate::config::configure::<C>(&config.to_string()).map_err(|all| {
        all.into_iter().map(|it| ConfigProblem::new(it.key, it.message)).collect::<Vec<_>>()
    })?;
    P::try_from(config).map_err(|problem| vec![problem.into()])
}

/// Scores groups: for each one score a completion.
///
/// # Errors
/// What the component would return.
pub fn score(plugin: &mut impl Reward, groups: Vec<Group>) -> Result<Vec<Vec<Score>>, String> {
    let groups = groups.into_iter().map(|it| wit::Group {
        id: it.id,
        step: it.step,
        steps: it.steps,
        purpose: it.purpose,
        max_tokens: it.max_tokens,
        prompt: it.prompt.into(),
        completions: it.completions.into_iter().map(candidate).collect(),
        columns: text(&it.columns),
    });
    let outcomes = glue::score(plugin, groups.collect())?;
    Ok(outcomes.into_iter().map(|it| it.into_iter().map(Score).collect()).collect())
}

/// Grades samples: one detail each.
///
/// # Errors
/// As [`score`].
pub fn grade(plugin: &mut impl Evaluator, samples: Vec<Sample>) -> Result<Vec<Detail>, String> {
    let samples = samples.into_iter().map(|it| wit::Sample {
        id: it.id,
        step: it.step,
        steps: it.steps,
        prompt: it.prompt.into(),
        completion: candidate(it.completion),
        reference: it.reference,
        columns: text(&it.columns),
    });
    let details = glue::grade(plugin, samples.collect())?;
    Ok(details.into_iter().map(|it| Detail { values: it.values, note: it.note }).collect())
}

/// Augments examples: one answer each.
///
/// # Errors
/// As [`score`].
pub fn augment(plugin: &mut impl Augmenter, examples: Vec<Example>) -> Result<Vec<Augmented>, String> {
    let answers = glue::augment(plugin, examples.into_iter().map(Into::into).collect())?;
    let variant = |it: crate::__private::Derived| {
        Ok(Variant { example: it.example.try_into()?, operation: it.operation })
    };
    let augmented = |it: crate::__private::WitAugmented| {
        let dropped = match it.original {
            crate::__private::Fate::Keep => None,
            crate::__private::Fate::Drop(reason) => Some(reason),
        };
        Ok(Augmented {
            dropped,
            variants: it.variants.into_iter().map(variant).collect::<Result<_, String>>()?,
        })
    };
    answers.into_iter().map(augmented).collect()
}

/// What a data builder made.
#[derive(Debug, Clone)]
pub struct Built {
    /// For each row its examples, or why it can't be used.
    pub outcomes: Vec<Result<Vec<Example>, String>>,
    /// What was kept back until the rows had ended.
    pub finished: Vec<Example>,
}

/// Builds examples of rows, to the end.
///
/// # Errors
/// As [`score`].
pub fn build(plugin: &mut impl DataBuilder, rows: Vec<Row>) -> Result<Built, String> {
    let examples =
        |it: Vec<wit::Example>| it.into_iter().map(Example::try_from).collect::<Result<Vec<_>, String>>();
    let rows = rows.into_iter().map(|it| wit::Row { id: it.id, columns: text(&it.columns) });
    let outcome = |it: crate::__private::BuildOutcome| match it {
        crate::__private::BuildOutcome::Examples(all) => examples(all).map(Ok),
        crate::__private::BuildOutcome::BadRow(reason) => Ok(Err(reason)),
    };
    let outcomes =
        glue::build(plugin, rows.collect())?.into_iter().map(outcome).collect::<Result<_, String>>()?;
    Ok(Built { outcomes, finished: examples(glue::finish(plugin))? })
}

fn candidate(it: Completion) -> wit::Candidate {
    wit::Candidate { text: it.text, token_count: it.token_count, finish: it.finish }
}

fn text(columns: &Columns) -> String {
    serde_json::to_string(columns).expect("JSON values serialise")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{log, model, random, resources};

    struct Echo;

    impl Host for Echo {
        fn read_resource(&mut self, name: &str) -> Result<Vec<u8>, String> {
            Ok(name.as_bytes().to_vec())
        }

        fn embed(&mut self, _: &Model, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
            Ok(texts.iter().map(|it| vec![it.len() as f32]).collect())
        }
    }

    #[test]
    fn a_test_brings_its_own_host_for_as_long_as_it_runs() {
        with_host(Echo, || {
            log::info("seen");
            assert_eq!(resources::read_text("words").unwrap(), "words");
            assert_eq!(model::embed(&Model::Run, &["four".into()]).unwrap(), [[4.0]]);
        });
        assert!(model::embed(&Model::Run, &["four".into()]).is_err());
    }

    #[test]
    fn each_host_draws_the_same_numbers() {
        let draw = || with_host(Plain, || [random::next_u64(), random::next_u64()]);
        // The first two of SplitMix64 seeded by 0, as its author's program prints them.
        assert_eq!(draw(), [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        assert_eq!(draw(), draw());
        assert!(with_host(Plain, || (0..100).all(|_| (0.0..1.0).contains(&random::unit()))));
    }
}
