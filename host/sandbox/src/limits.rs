//! What a plugin may use up. All but fuel are on by default.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[plugins.<name>.limits]`: bounds of one call, and of the memory between calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of linear memory, all memories of the plugin together.
    pub memory_bytes: u64,
    /// Milliseconds of a call, the time of the host's own work (`generate`) left out.
    pub deadline_ms: u64,
    /// Instructions of a call, about one unit each; `none` is no bound. Exact where the deadline is not: the same call uses
    /// the same fuel on every machine. Costs some 8% of speed.
    pub fuel: Option<u64>,
    /// Bytes of a call's result, and of the arguments of each import that it calls.
    pub output_bytes: u64,
    /// Bytes that a call may log.
    pub log_bytes: u64,
    /// Calls of the host (`log`, `random`, `resources`, models) in a call.
    pub host_calls: u64,
    /// Bytes of the guest's stack: what bounds its recursion.
    pub stack_bytes: u64,
    /// Elements of all tables together.
    pub table_elements: u64,
    /// Core instances a component may be made of. Components of Python code have more than 100.
    pub instances: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            deadline_ms: 10_000,
            fuel: None,
            output_bytes: 16 << 20,
            log_bytes: 1 << 20,
            host_calls: 1_000_000,
            stack_bytes: 512 << 10,
            table_elements: 100_000,
            instances: 256,
        }
    }
}

impl Limits {
    /// The deadline of a call.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }

    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let counts = [
            ("memory_bytes", self.memory_bytes),
            ("deadline_ms", self.deadline_ms),
            ("fuel", self.fuel.unwrap_or(1)),
            ("output_bytes", self.output_bytes),
            ("log_bytes", self.log_bytes),
            ("host_calls", self.host_calls),
            ("table_elements", self.table_elements),
            ("instances", self.instances),
        ];
        let zero = counts.iter().filter(|it| it.1 == 0);
        let mut problems: Vec<String> = zero.map(|it| format!("`{}` must be > 0, got `0`", it.0)).collect();
        // The guest's stack lies on the calling thread's.
        if !(16 << 10..=1 << 20).contains(&self.stack_bytes) {
            problems.push(format!("`stack_bytes` must be in [16384, 1048576], got `{}`", self.stack_bytes));
        }
        problems
    }
}
