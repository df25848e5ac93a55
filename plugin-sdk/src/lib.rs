//! Write plugins for fthost: one trait a role, one `export!`.
//!
//! ```
//! use fthost_plugin_sdk::{Group, Reward, Score, export};
//!
//! struct Short;
//!
//! impl Reward for Short {
//!     fn score(&self, group: &Group) -> Vec<Score> {
//!         group.completions.iter().map(|it| Score::from(it.text.len() < 80)).collect()
//!     }
//! }
//!
//! export!(reward: Short);
//! # fn main() {}
//! ```
//!
//! Name, version and summary are those of the plugin's `Cargo.toml`. A plugin with a configuration is made `from` it:
//! `export!(reward: Short from ShortConfig)`, where `ShortConfig` is a [`macro@plugin_config`], and `Short` is
//! `From<ShortConfig>`, or `TryFrom` with a [`ConfigProblem`] for what is impossible.
//!
//! There is no clock, no network, no file system: see [`log`], [`random`], [`resources`] and [`model`] for what the host
//! offers, and [`testing`] for running a plugin natively, with a host that its own tests bring.

// `#[plugin_config]` names this crate as a plugin does; its own tests and examples use it too.
extern crate self as fthost_plugin_sdk;

#[doc(hidden)]
pub mod bindings;
mod config;
mod glue;
mod host;
mod record;
mod role;
pub mod testing;

pub use config::{ConfigProblem, NoConfig};
/// Makes a type the configuration of a plugin, or a part of one: it is read from the run file, unknown keys are refused
/// by name, and its JSON Schema is what `fthost plugin inspect` shows, with the fields' doc comments.
///
/// A field without a default must be given. A default is `#[default = value]`, or `#[default]` for that of the field's
/// type; where every field has one, the type gets `Default`. A type that has a `Default` of its own says
/// `#[plugin_config(default)]`, or derives it below. Variants of an enum are written in snake case.
///
/// ```
/// use fthost_plugin_sdk::{plugin_config, serde_json};
///
/// #[plugin_config]
/// struct Config {
///     /// The column that holds the answer.
///     #[default = "answer"]
///     column: String,
///     /// Characters from which on an answer is long.
///     #[default = 80]
///     characters: usize,
///     /// How texts are compared.
///     #[default]
///     compare: Compare,
/// }
///
/// #[plugin_config]
/// #[derive(Default)]
/// enum Compare {
///     #[default]
///     AsWritten,
///     IgnoreCase,
/// }
///
/// let config: Config = serde_json::from_str(r#"{"compare": "ignore_case"}"#).unwrap();
/// assert_eq!((config.column.as_str(), config.characters), ("answer", 80));
/// assert!(matches!(config.compare, Compare::IgnoreCase));
/// assert!(serde_json::from_str::<Config>(r#"{"colum": "a"}"#).is_err());
/// assert_eq!(Config::default().characters, 80);
/// ```
pub use fthost_plugin_macros::plugin_config;
pub use host::{log, model, random, resources};
pub use record::{
    Answer, Augmented, Columns, Completion, Content, Detail, Direction, Example, Finish, Group, Message,
    Metric, Prompt, Purpose, Role, Row, Sample, Score, Variant,
};
pub use role::{Augmenter, DataBuilder, Evaluator, Reward};
pub use {schemars, serde, serde_json};

#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::about::exports::fthost::plugin::about::{
        ConfigProblem as WitProblem, Description, Guest as About,
    };
    pub use crate::bindings::augment::exports::fthost::plugin::augment::{
        Augmented as WitAugmented, Derived, Fate, Guest as Augment,
    };
    pub use crate::bindings::build::exports::fthost::plugin::build::{BuildOutcome, Guest as Build};
    pub use crate::bindings::evaluate::exports::fthost::plugin::evaluate::Guest as Evaluate;
    pub use crate::bindings::score::exports::fthost::plugin::score::Guest as Score;
    pub use crate::bindings::types;
    pub use crate::config::{configure, schema};
    pub use crate::glue::{augment, build, catch_panics, finish, grade, score};
}

/// Exports a plugin's roles: `export!(reward: MyReward)`, `export!(reward: MyReward from MyConfig)`, or several roles,
/// as in `export!(reward: MyReward, evaluator: MyEvaluator)`; roles of one plugin take one configuration.
#[macro_export]
macro_rules! export {
    ($($role:ident : $plugin:ident $(from $config:ty)?),+ $(,)?) => {
        const _: () = {
            struct Component;

            impl $crate::__private::About for Component {
                fn describe() -> $crate::__private::Description {
                    $crate::__private::catch_panics();
                    $crate::__private::Description {
                        name: env!("CARGO_PKG_NAME").into(),
                        version: env!("CARGO_PKG_VERSION").into(),
                        summary: env!("CARGO_PKG_DESCRIPTION").into(),
                        config_schema: $crate::__private::schema(&[$($crate::__schema!($($config)?)),+]),
                    }
                }

                fn configure(config: String) -> Result<(), Vec<$crate::__private::WitProblem>> {
                    $crate::__private::catch_panics();
                    $($crate::__configure!($role, $plugin, &config $(, $config)?);)+
                    Ok(())
                }
            }

            $crate::bindings::about::export!(Component with_types_in $crate::bindings::about);
            $($crate::__role!($role, $plugin, Component);)+
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __schema {
    () => {
        $crate::schemars::schema_for!($crate::NoConfig)
    };
    ($config:ty) => {
        $crate::schemars::schema_for!($config)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __configure {
    ($role:ident, $plugin:ident, $text:expr) => {
        $crate::__private::configure::<$crate::NoConfig>($text)?;
        $role::PLUGIN.set(Some($plugin));
    };
    ($role:ident, $plugin:ident, $text:expr, $config:ty) => {
        let made = $plugin::try_from($crate::__private::configure::<$config>($text)?);
        let made = made.map_err(|problem| vec![$crate::ConfigProblem::from(problem).into()])?;
        $role::PLUGIN.set(Some(made));
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __role {
    (data_builder, $plugin:ident, $component:ident) => {
        $crate::__slot!(data_builder, $plugin);
        impl $crate::__private::Build for $component {
            fn build(
                rows: Vec<$crate::__private::types::Row>,
            ) -> Result<Vec<$crate::__private::BuildOutcome>, String> {
                data_builder::with(|it| $crate::__private::build(it, rows))
            }
            fn finish() -> Result<Vec<$crate::__private::types::Example>, String> {
                data_builder::with(|it| Ok($crate::__private::finish(it)))
            }
        }
        $crate::bindings::build::export!($component with_types_in $crate::bindings::build);
    };
    (augmenter, $plugin:ident, $component:ident) => {
        $crate::__slot!(augmenter, $plugin);
        impl $crate::__private::Augment for $component {
            fn augment(
                examples: Vec<$crate::__private::types::Example>,
            ) -> Result<Vec<$crate::__private::WitAugmented>, String> {
                augmenter::with(|it| $crate::__private::augment(it, examples))
            }
        }
        $crate::bindings::augment::export!($component with_types_in $crate::bindings::augment);
    };
    (reward, $plugin:ident, $component:ident) => {
        $crate::__slot!(reward, $plugin);
        impl $crate::__private::Score for $component {
            fn score(
                groups: Vec<$crate::__private::types::Group>,
            ) -> Result<Vec<Vec<$crate::__private::types::Outcome>>, String> {
                reward::with(|it| $crate::__private::score(it, groups))
            }
        }
        $crate::bindings::score::export!($component with_types_in $crate::bindings::score);
    };
    (evaluator, $plugin:ident, $component:ident) => {
        $crate::__slot!(evaluator, $plugin);
        impl $crate::__private::Evaluate for $component {
            fn grade(
                samples: Vec<$crate::__private::types::Sample>,
            ) -> Result<Vec<$crate::__private::types::Detail>, String> {
                evaluator::with(|it| $crate::__private::grade(it, samples))
            }
            fn finish() -> Result<Vec<$crate::Metric>, String> {
                evaluator::with(|it| Ok($crate::Evaluator::finish(it)))
            }
        }
        $crate::bindings::evaluate::export!($component with_types_in $crate::bindings::evaluate);
    };
}

/// Where a component keeps its plugin between `configure` and the calls.
#[doc(hidden)]
#[macro_export]
macro_rules! __slot {
    ($role:ident, $plugin:ident) => {
        mod $role {
            use super::$plugin;
            use std::cell::RefCell;

            thread_local! {
                pub static PLUGIN: RefCell<Option<$plugin>> = const { RefCell::new(None) };
            }

            pub fn with<R>(call: impl FnOnce(&mut $plugin) -> Result<R, String>) -> Result<R, String> {
                PLUGIN.with_borrow_mut(|it| match it {
                    Some(plugin) => call(plugin),
                    None => Err("called before it was configured".into()),
                })
            }
        }
    };
}
