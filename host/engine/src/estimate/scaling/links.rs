//! What carries the collectives, and how long they take.

use serde::{Deserialize, Serialize};

/// A connection, while all that have it use it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Bytes that come in a second when they are gathered.
    pub gather_bytes_per_second: f64,
    /// The same when sums are made of them.
    pub reduce_bytes_per_second: f64,
    /// From one to the next.
    pub latency_seconds: f64,
}

/// What no shape decides: what a rank computes, and what is between ranks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speeds {
    /// Floating point operations of matrix products that a rank does in a second, all that a step does besides included: a step's
    /// operations over the seconds that it was measured to take.
    pub flops_per_second: f64,
    /// Of a rank's memory, which an update reads and writes.
    pub memory_bytes_per_second: f64,
    /// Between ranks of a machine: what a rank receives.
    pub within: Link,
    /// Between machines: what a machine receives, for all of its ranks together.
    pub between: Link,
}

impl Speeds {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let links = [("within", self.within), ("between", self.between)];
        let mut rates = vec![
            ("flops_per_second".to_string(), self.flops_per_second),
            ("memory_bytes_per_second".to_string(), self.memory_bytes_per_second),
        ];
        for (link, it) in links {
            rates.push((format!("{link}.gather_bytes_per_second"), it.gather_bytes_per_second));
            rates.push((format!("{link}.reduce_bytes_per_second"), it.reduce_bytes_per_second));
        }
        rates.retain(|it| !(it.1.is_finite() && it.1 > 0.0));
        let rates = rates.into_iter().map(|(name, it)| format!("`{name}` must be > 0, got `{it}`"));
        let late = links.map(|(link, it)| (link, it.latency_seconds)).into_iter();
        let late = late.filter(|it| !(it.1.is_finite() && it.1 >= 0.0));
        let late = late.map(|(link, it)| format!("`{link}.latency_seconds` must be >= 0, got `{it}`"));
        rates.chain(late).collect()
    }
}

/// Machines of so many ranks each, every rank with a device of its own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cluster {
    /// Ranks of a machine.
    pub ranks_per_machine: usize,
    /// What they compute, and what is between them.
    pub speeds: Speeds,
}

/// Collectives of the ranks of a run.
pub(super) struct Collectives<'a> {
    cluster: &'a Cluster,
    pub(super) replicate: usize,
    pub(super) shard: usize,
}

/// Seconds, and bytes that a rank receives.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Cost {
    pub(super) seconds: f64,
    pub(super) bytes: f64,
}

impl<'a> Collectives<'a> {
    pub(super) fn new(cluster: &'a Cluster, [replicate, shard]: [usize; 2]) -> Self {
        Self { cluster, replicate, shard }
    }

    /// Ranks of a group on one machine, and machines of a group: neighbours share.
    fn group(&self) -> [usize; 2] {
        let on_machine = self.shard.min(self.cluster.ranks_per_machine);
        [on_machine, self.shard.div_ceil(self.cluster.ranks_per_machine)]
    }

    /// Of a ring of `ranks`, `within` of them on each of `between` machines, which brings every rank what the others have of `bytes`, and
    /// so as much through each of its links; `at_once` such rings share a machine's. Both kinds of links carry at a time, and the slower
    /// decides.
    fn ring(
        &self,
        bytes: f64,
        ranks: usize,
        [within, between]: [usize; 2],
        at_once: usize,
        rate: fn(&Link) -> f64,
    ) -> Cost {
        let bytes = bytes * (ranks - 1) as f64 / ranks as f64;
        let Speeds { within: of_rank, between: of_machine, .. } = &self.cluster.speeds;
        let inside = if within > 1 { bytes / rate(of_rank) } else { 0.0 };
        let outside = if between > 1 { at_once as f64 * bytes / rate(of_machine) } else { 0.0 };
        let hops = (between * (within - 1)) as f64 * of_rank.latency_seconds
            + (between - 1) as f64 * of_machine.latency_seconds;
        Cost { seconds: inside.max(outside) + hops, bytes }
    }

    /// Of `bytes` of which each rank of a group has a stretch.
    pub(super) fn gather(&self, bytes: f64) -> Cost {
        self.ring(bytes, self.shard, self.group(), 1, |it| it.gather_bytes_per_second)
    }

    /// Of `bytes` that each rank of a group has, summed up and cut.
    pub(super) fn reduce_scatter(&self, bytes: f64) -> Cost {
        self.ring(bytes, self.shard, self.group(), 1, |it| it.reduce_bytes_per_second)
    }

    /// Of `bytes` that a rank has a stretch of, or all, between the groups: a sum, and everybody has it.
    pub(super) fn all_reduce(&self, bytes: f64) -> Cost {
        let [on_machine, machines] = self.group();
        let per_machine = if machines > 1 { 1 } else { self.cluster.ranks_per_machine / on_machine };
        let groups_here = per_machine.min(self.replicate);
        let ring = [groups_here, self.replicate.div_ceil(groups_here)];
        // Every rank of a group on this machine does the same with its own stretch.
        let of = |rate| self.ring(bytes, self.replicate, ring, on_machine, rate);
        let (sums, whole) = (of(|it| it.reduce_bytes_per_second), of(|it| it.gather_bytes_per_second));
        Cost { seconds: sums.seconds + whole.seconds, bytes: sums.bytes + whole.bytes }
    }
}
