//! The contract's versions: a module a released version, and one for the version in work, each with its bindings.
//!
//! What crosses the boundary differs from version to version; the roles see the plain types of this module only.

#[macro_use]
mod bindings;
#[macro_use]
mod since_0_2;
mod v0_1;
mod v0_2;
mod v1;

use fthost_data::{Columns, Content, Detail, EvalSample, Example, Group, Metric, Outcome};
use wasmtime::component::{InstancePre, Linker};
use wasmtime::{Engine, Store};

use crate::component::RoleKind;
use crate::state::State;

/// The contract's version in work.
pub const CONTRACT_VERSION: &str = "1.0.0";

/// A version of the contract that this host speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Contract {
    /// `wit/released/0.1.0`.
    #[serde(rename = "0.1")]
    V0_1,
    /// `wit/released/0.2.0`.
    #[serde(rename = "0.2")]
    V0_2,
    /// `wit`: every version of the major 1.
    #[serde(rename = "1")]
    V1,
}

/// What a call gave: a trap, the plugin's own failure, or a result.
pub(crate) type Called<R> = wasmtime::Result<Result<R, String>>;

/// Problems of a configuration, each as key and message.
pub(crate) type Configured = wasmtime::Result<Result<(), Vec<(String, String)>>>;

/// An example as a guest makes it.
pub(crate) struct Made {
    pub(crate) row: u64,
    pub(crate) content: Content,
    /// JSON text that the guest wrote.
    pub(crate) columns: String,
}

pub(crate) enum Built {
    Examples(Vec<Made>),
    BadRow(String),
}

pub(crate) struct Derived {
    pub(crate) made: Made,
    pub(crate) operation: String,
}

pub(crate) struct MadeOfExample {
    pub(crate) dropped: Option<String>,
    pub(crate) variants: Vec<Derived>,
}

/// What a plugin says of itself, as text.
pub(crate) struct Described {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) summary: String,
    pub(crate) config_schema: String,
}

/// An instance of any role.
pub(crate) trait Guest: Send {
    fn describe(&self, store: &mut Store<State>) -> wasmtime::Result<Described>;
    fn configure(&self, store: &mut Store<State>, config: &str) -> Configured;
}

pub(crate) trait BuildGuest: Guest {
    /// Rows by id.
    fn build(&self, store: &mut Store<State>, rows: &[(u64, &Columns)]) -> Called<Vec<Built>>;
    fn finish(&self, store: &mut Store<State>) -> Called<Vec<Made>>;
}

pub(crate) trait AugmentGuest: Guest {
    fn augment(&self, store: &mut Store<State>, examples: &[Example]) -> Called<Vec<MadeOfExample>>;
}

pub(crate) trait ScoreGuest: Guest {
    fn score(&self, store: &mut Store<State>, groups: &[Group]) -> Called<Vec<Vec<Outcome>>>;
}

pub(crate) trait EvaluateGuest: Guest {
    fn grade(&self, store: &mut Store<State>, samples: &[EvalSample]) -> Called<Vec<Detail>>;
    /// A metric that is not finite is an error in words.
    fn finish(&self, store: &mut Store<State>) -> Called<Vec<Result<Metric, String>>>;
}

/// A guest of one role, in whatever version it speaks.
pub(crate) trait Bind: Guest + Sized {
    fn bind(contract: Contract, store: &mut Store<State>, pre: &InstancePre<State>)
    -> wasmtime::Result<Self>;
}

macro_rules! bind {
    ($($guest:ident => $role:ident),+ $(,)?) => {$(
        impl Guest for Box<dyn $guest> {
            fn describe(&self, store: &mut Store<State>) -> wasmtime::Result<Described> {
                (**self).describe(store)
            }

            fn configure(&self, store: &mut Store<State>, config: &str) -> Configured {
                (**self).configure(store, config)
            }
        }

        impl Bind for Box<dyn $guest> {
            fn bind(
                contract: Contract,
                store: &mut Store<State>,
                pre: &InstancePre<State>,
            ) -> wasmtime::Result<Self> {
                Ok(match contract {
                    Contract::V0_1 => Box::new(v0_1::$role::bind(store, pre)?),
                    Contract::V0_2 => Box::new(v0_2::$role::bind(store, pre)?),
                    Contract::V1 => Box::new(v1::$role::bind(store, pre)?),
                })
            }
        }
    )+};
}

bind!(
    Guest => Any,
    BuildGuest => Builder,
    AugmentGuest => Augmenter,
    ScoreGuest => Reward,
    EvaluateGuest => Evaluator,
);

impl Contract {
    /// Every version, the newest last.
    pub const ALL: [Self; 3] = [Self::V0_1, Self::V0_2, Self::V1];

    /// What versions that are compatible have in common: `0.minor`, or the major version.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1 => "0.1",
            Self::V0_2 => "0.2",
            Self::V1 => "1",
        }
    }

    /// Interfaces that a component of this version may import.
    pub(crate) fn offered(self) -> &'static [&'static str] {
        match self {
            Self::V0_1 => &["log", "random", "generate", "logprobs"],
            Self::V0_2 | Self::V1 => &["log", "random", "resources", "generate", "logprobs", "embed"],
        }
    }

    /// The version and interface of a name such as `fthost:plugin/score@0.2.0`; `None` for anything else.
    pub(crate) fn interface(name: &str) -> Option<(Self, &str)> {
        let (interface, version) = name.strip_prefix("fthost:plugin/")?.split_once('@')?;
        let compatible = |it: &Self| version.strip_prefix(it.as_str()).is_some_and(|it| it.starts_with('.'));
        Self::ALL.into_iter().find(compatible).map(|it| (it, interface))
    }

    /// The roles among `exports`, and the version they are of: that of `about`.
    pub(crate) fn of(exports: &[String]) -> Option<(Self, Vec<RoleKind>)> {
        let all: Vec<_> = exports.iter().filter_map(|it| Self::interface(it)).collect();
        let (contract, _) = *all.iter().find(|it| it.1 == "about")?;
        let has = |role: &RoleKind| all.contains(&(contract, role.interface()));
        let roles: Vec<RoleKind> = RoleKind::ALL.into_iter().filter(has).collect();
        (!roles.is_empty()).then_some((contract, roles))
    }
}

impl std::fmt::Display for Contract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Every import of every version; what needs a grant is refused when it is called.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    v0_1::add_to_linker(&mut linker)?;
    v0_2::add_to_linker(&mut linker)?;
    v1::add_to_linker(&mut linker)?;
    crate::wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

pub(crate) fn json(columns: &Columns) -> String {
    serde_json::to_string(columns).expect("JSON values serialise")
}

/// # Errors
/// Text that is no JSON object.
pub(crate) fn columns_from(text: &str) -> Result<Columns, String> {
    match serde_json::from_str(text) {
        Ok(serde_json::Value::Object(columns)) => Ok(columns),
        Ok(_) => Err("`columns` must be one JSON object".into()),
        Err(error) => Err(format!("`columns` must be one JSON object: {error}")),
    }
}
