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

/// Ranks and what is between them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Ranks of a machine, each with a device of its own.
    pub ranks_per_machine: usize,
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

    /// Of a ring over `within` ranks a machine on `between` machines, which brings every rank what the others have of `bytes`; `at_once`
    /// such rings share a machine's link. Both kinds of links carry at a time, and the slower decides.
    fn ring(
        &self,
        bytes: f64,
        [within, between]: [usize; 2],
        at_once: usize,
        rate: fn(&Link) -> f64,
    ) -> Cost {
        let others = |of: usize| (of - 1) as f64 / of as f64;
        let (of_rank, of_machine) = (others(within * between), others(between));
        let inside = if within > 1 { bytes * of_rank / rate(&self.cluster.within) } else { 0.0 };
        let outside = at_once as f64 * bytes * of_machine / rate(&self.cluster.between);
        let hops = (within - 1) as f64 * self.cluster.within.latency_seconds
            + (between - 1) as f64 * self.cluster.between.latency_seconds;
        Cost { seconds: inside.max(outside) + hops, bytes: bytes * of_rank }
    }

    /// Of `bytes` of which each rank of a group has a stretch.
    pub(super) fn gather(&self, bytes: f64) -> Cost {
        self.ring(bytes, self.group(), self.in_machine(), |it| it.gather_bytes_per_second)
    }

    /// Of `bytes` that each rank of a group has, summed up and cut.
    pub(super) fn reduce_scatter(&self, bytes: f64) -> Cost {
        self.ring(bytes, self.group(), self.in_machine(), |it| it.reduce_bytes_per_second)
    }

    /// Groups on one machine: a group that lies on several has none beside it there.
    fn in_machine(&self) -> usize {
        let [on_machine, machines] = self.group();
        if machines > 1 { 1 } else { self.cluster.ranks_per_machine / on_machine }
    }

    /// Of `bytes` that a rank has a stretch of, or all, between the groups: a sum, and everybody has it.
    pub(super) fn all_reduce(&self, bytes: f64) -> Cost {
        let per_machine = self.cluster.ranks_per_machine;
        let [on_machine, machines] = self.group();
        let groups_here = if machines > 1 { 1 } else { (per_machine / on_machine).min(self.replicate) };
        let ring = [groups_here, self.replicate.div_ceil(groups_here)];
        // Every rank of a group on this machine does the same with its own stretch.
        let sums = self.ring(bytes, ring, on_machine, |it| it.reduce_bytes_per_second);
        let whole = self.ring(bytes, ring, on_machine, |it| it.gather_bytes_per_second);
        Cost { seconds: sums.seconds + whole.seconds, bytes: sums.bytes + whole.bytes }
    }
}
