//! What a plugin used up, and what came of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Counts over all instances of a plugin since it was loaded. Times are the clock's: they belong into no result.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Calls of a role's functions.
    pub calls: u64,
    /// Rows, examples, completions or samples in them.
    pub items: u64,
    /// Instances that were started.
    pub instances: u64,
    /// Seconds in the guest.
    pub guest_s: f64,
    /// Seconds in which the guest waited for a model.
    pub host_s: f64,
    /// Longest call, in seconds, without the host's time.
    pub longest_call_s: f64,
    /// Fuel used; 0 where it is not counted.
    pub fuel: u64,
    /// Greatest linear memory of an instance, in bytes.
    pub memory_bytes: u64,
    /// Calls of the host by import, as in `generate(run)`.
    pub asked: BTreeMap<String, u64>,
    /// Outcomes of scored completions, and failures of other calls, by kind.
    pub outcomes: BTreeMap<String, u64>,
}

impl Usage {
    /// Outcomes that a limit of the run file caused, by kind.
    pub fn limits_hit(&self) -> impl Iterator<Item = (&str, u64)> {
        const OF_LIMITS: [&str; 8] = [
            "out_of_fuel",
            "timeout",
            "memory",
            "stack_overflow",
            "tables",
            "output_too_large",
            "log_too_large",
            "host_calls",
        ];
        let hit = self.outcomes.iter().filter(|it| OF_LIMITS.contains(&it.0.as_str()));
        hit.map(|(kind, count)| (kind.as_str(), *count))
    }

    pub(crate) fn outcome(&mut self, kind: &str, count: u64) {
        *self.outcomes.entry(kind.to_string()).or_default() += count;
    }
}

/// Shared by the instances of a plugin.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<Mutex<Usage>>);

impl Meter {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Usage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call has ended.
    pub(crate) fn call(&self, items: u64, guest: Duration, host: Duration, fuel: u64, memory: u64) {
        let mut usage = self.lock();
        usage.calls += 1;
        usage.items += items;
        usage.guest_s += guest.as_secs_f64();
        usage.host_s += host.as_secs_f64();
        usage.longest_call_s = usage.longest_call_s.max(guest.as_secs_f64());
        usage.fuel += fuel;
        usage.memory_bytes = usage.memory_bytes.max(memory);
    }
}
