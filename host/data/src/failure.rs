//! What went wrong in a call into a plugin, and what the run file says of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a call into a plugin gave no result. Limits carry the run file's key that raises them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The plugin returned an error of its own.
    #[error("returned an error: {message}")]
    Plugin {
        /// The plugin's words.
        message: String,
    },
    /// The guest trapped; its instance was dropped.
    #[error("trapped: {message}")]
    Trap {
        /// Trap and, where the guest logged one, its panic message.
        message: String,
    },
    /// The fuel of a call was used up.
    #[error("ran out of fuel")]
    OutOfFuel {
        /// `limits.fuel`.
        limit: u64,
    },
    /// The deadline of a call passed.
    #[error("ran past its deadline")]
    Timeout {
        /// `limits.deadline_ms`.
        limit: Duration,
    },
    /// The guest asked for more memory than it may have.
    #[error("asked for more memory than its limit")]
    Memory {
        /// `limits.memory_bytes`.
        limit: u64,
    },
    /// The guest recursed past its stack.
    #[error("overflowed its stack")]
    StackOverflow {
        /// `limits.stack_bytes`.
        limit: u64,
    },
    /// The guest asked for more table elements than it may have.
    #[error("asked for more table elements than its limit")]
    Tables {
        /// `limits.table_elements`.
        limit: u64,
    },
    /// The guest returned more than it may.
    #[error("produced more output than its limit")]
    OutputTooLarge {
        /// `limits.output_bytes`.
        limit: u64,
    },
    /// The guest logged more than it may.
    #[error("logged more than its limit")]
    LogTooLarge {
        /// `limits.log_bytes`.
        limit: u64,
    },
    /// The guest called imports more often than it may.
    #[error("called the host more often than its limit")]
    HostCalls {
        /// `limits.host_calls`.
        limit: u64,
    },
    /// The guest called an import it was not granted.
    #[error("called `{import}`, which it was not granted")]
    Denied {
        /// The import.
        import: String,
        /// The line that would grant it.
        grant: String,
    },
    /// The answer does not fit the question: a wrong number of scores, a NaN.
    #[error("broke the contract: {message}")]
    Contract {
        /// What was wrong.
        message: String,
    },
}

impl Failure {
    /// Short name for counts and metrics: `error`, `trap`, `out_of_fuel`, `timeout`, ...
    pub fn kind(&self) -> &'static str {
        match self {
            Failure::Plugin { .. } => "error",
            Failure::Trap { .. } => "trap",
            Failure::OutOfFuel { .. } => "out_of_fuel",
            Failure::Timeout { .. } => "timeout",
            Failure::Memory { .. } => "memory",
            Failure::StackOverflow { .. } => "stack_overflow",
            Failure::Tables { .. } => "tables",
            Failure::OutputTooLarge { .. } => "output_too_large",
            Failure::LogTooLarge { .. } => "log_too_large",
            Failure::HostCalls { .. } => "host_calls",
            Failure::Denied { .. } => "denied",
            Failure::Contract { .. } => "contract",
        }
    }

    /// Key (under `plugins.<name>`) and value of the limit that was hit, if one was.
    pub fn limit(&self) -> Option<(&'static str, String)> {
        match self {
            Failure::OutOfFuel { limit } => Some(("limits.fuel", limit.to_string())),
            Failure::Timeout { limit } => Some(("limits.deadline_ms", limit.as_millis().to_string())),
            Failure::Memory { limit } => Some(("limits.memory_bytes", limit.to_string())),
            Failure::StackOverflow { limit } => Some(("limits.stack_bytes", limit.to_string())),
            Failure::Tables { limit } => Some(("limits.table_elements", limit.to_string())),
            Failure::OutputTooLarge { limit } => Some(("limits.output_bytes", limit.to_string())),
            Failure::LogTooLarge { limit } => Some(("limits.log_bytes", limit.to_string())),
            Failure::HostCalls { limit } => Some(("limits.host_calls", limit.to_string())),
            Failure::Plugin { .. }
            | Failure::Trap { .. }
            | Failure::Denied { .. }
            | Failure::Contract { .. } => None,
        }
    }
}

impl Failure {
    /// The limit that was hit, by its full key, and what to do; empty where none was.
    pub fn advice(&self, plugin: &str) -> String {
        match (self, self.limit()) {
            (_, Some((key, value))) => format!(
                "\n  limit: `plugins.{plugin}.{key}` = {value}\nhint: raise the limit, or give the plugin less to do"
            ),
            (Self::Denied { grant, .. }, None) => format!("\nhint: {grant} would grant it"),
            _ => String::new(),
        }
    }
}

/// A call into a plugin that gave no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("plugin `{plugin}` {failure} in `{call}` of {items} items{}", failure.advice(plugin))]
pub struct RoleError {
    /// The plugin's name.
    pub plugin: String,
    /// The exported function (`build`, `augment`, `grade`, ...).
    pub call: &'static str,
    /// Items in the batch.
    pub items: usize,
    /// What happened.
    #[source]
    pub failure: Failure,
}

/// `[plugins.<name>] on_failure`: what follows when a reward or an evaluator fails on something.
///
/// Written `"stop"`, `"skip"`, or `{ retry = 2 }` with an optional `then = "skip"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct OnFailure {
    /// Tries after the first, each in a fresh instance.
    pub retry: u32,
    /// What follows when the last one has failed.
    pub then: Then,
}

/// How a failure ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The run ends.
    #[default]
    Stop,
    /// The answer has no score from this plugin and is counted; it is never given a number.
    Skip,
}

/// [`OnFailure`] as run files write it.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected `\"stop\"`, `\"skip\"` or `{ retry = <tries>, then = \"stop\" | \"skip\" }`"
)]
enum Written {
    Then(Then),
    Retry(Retry),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    retry: u32,
    #[serde(default)]
    then: Then,
}

impl From<Written> for OnFailure {
    fn from(written: Written) -> Self {
        match written {
            Written::Then(then) => Self { retry: 0, then },
            Written::Retry(Retry { retry, then }) => Self { retry, then },
        }
    }
}

impl From<OnFailure> for Written {
    fn from(OnFailure { retry, then }: OnFailure) -> Self {
        if retry == 0 { Self::Then(then) } else { Self::Retry(Retry { retry, then }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_failure_is_a_word_or_a_number_of_tries() {
        let read = |text: &str| serde_json::from_str::<OnFailure>(text);
        assert_eq!(read("\"skip\"").unwrap(), OnFailure { retry: 0, then: Then::Skip });
        assert_eq!(read(r#"{"retry": 2}"#).unwrap(), OnFailure { retry: 2, then: Then::Stop });
        let both = OnFailure { retry: 1, then: Then::Skip };
        assert_eq!(read(&serde_json::to_string(&both).unwrap()).unwrap(), both);
        let error = read(r#"{"retry": 1, "than": "skip"}"#).unwrap_err().to_string();
        assert!(error.starts_with("expected `\"stop\"`, `\"skip\"` or `{ retry"), "{error}");
    }
}
