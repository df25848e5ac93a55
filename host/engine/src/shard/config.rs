//! Who has a share of what.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};
use crate::parallel::{Collective, Patience, Ranks};

/// `[parallel]` of a run file. Its names of degrees are torchtitan's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParallelConfig {
    /// Groups of ranks that have everything; -1 is as many as there are ranks for.
    pub data_parallel_replicate: i64,
    /// Ranks of a group, which have a share each; -1 is as many as there are.
    pub data_parallel_shard: i64,
    /// What is shared.
    pub zero: Zero,
    /// Whether a block is let go of behind its forward pass and gathered again for its backward one, which computes it again;
    /// of `zero = 3` alone. Where it is kept, every block is there in the end, as it is with its activations.
    pub reshard_after_forward: bool,
    /// What is kept in the memory of the host and not in that of the device.
    pub offload: Offload,
    /// How long a rank waits for another that gives signs of life and does not come; evaluations by plugins, which the first rank
    /// makes alone, are waited for as well.
    pub timeout_seconds: u64,
    /// How long a rank may give no sign of life.
    pub heartbeat_timeout_seconds: u64,
}

impl Default for ParallelConfig {
    fn default() -> Self {
        Self {
            data_parallel_replicate: -1,
            data_parallel_shard: 1,
            zero: Zero::Three,
            reshard_after_forward: true,
            offload: Offload::None,
            timeout_seconds: 1800,
            heartbeat_timeout_seconds: 60,
        }
    }
}

/// The stages of <https://arxiv.org/abs/1910.02054>: each shares what the one before it does, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Zero {
    /// Moments, and the update.
    One,
    /// Gradients, too.
    Two,
    /// Weights, too.
    Three,
}

impl From<Zero> for u8 {
    fn from(stage: Zero) -> Self {
        match stage {
            Zero::One => 1,
            Zero::Two => 2,
            Zero::Three => 3,
        }
    }
}

impl TryFrom<u8> for Zero {
    type Error = String;

    fn try_from(stage: u8) -> std::result::Result<Self, String> {
        match stage {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            3 => Ok(Self::Three),
            _ => Err(format!("`zero` must be 1, 2 or 3, got `{stage}`")),
        }
    }
}

/// What is kept in the memory of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offload {
    /// Nothing.
    #[default]
    None,
    /// Moments: updates are made there.
    Optimizer,
    /// Moments and a rank's stretches.
    All,
}

impl ParallelConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let degrees = [
            ("data_parallel_replicate", self.data_parallel_replicate),
            ("data_parallel_shard", self.data_parallel_shard),
        ];
        let bad = degrees.iter().filter(|it| !(it.1 == -1 || it.1 > 0));
        let mut problems: Vec<String> =
            bad.map(|it| format!("`{}` must be > 0, or -1, got `{}`", it.0, it.1)).collect();
        if degrees.iter().all(|it| it.1 == -1) {
            problems.push(
                "one of `data_parallel_replicate` and `data_parallel_shard` may be -1, not both".into(),
            );
        }
        if self.data_parallel_shard == 1 {
            let default = Self::default();
            let idle = [
                ("zero", self.zero != default.zero),
                ("reshard_after_forward", self.reshard_after_forward != default.reshard_after_forward),
            ];
            problems.extend(
                idle.iter()
                    .filter(|it| it.1)
                    .map(|it| format!("`{}` is for `data_parallel_shard` other than 1", it.0)),
            );
        }
        if self.data_parallel_shard == 1 && self.offload == Offload::All {
            problems.push("`offload` = \"all\" is for `data_parallel_shard` other than 1".into());
        }
        let times = [
            ("timeout_seconds", self.timeout_seconds),
            ("heartbeat_timeout_seconds", self.heartbeat_timeout_seconds),
        ];
        problems
            .extend(times.iter().filter(|it| it.1 == 0).map(|it| format!("`{}` must be > 0, got `0`", it.0)));
        if self.zero != Zero::Three && !self.reshard_after_forward {
            problems.push("`reshard_after_forward` is for `zero` = 3".into());
        }
        problems
    }

    /// How long ranks wait for each other.
    pub fn patience(&self) -> Patience {
        let seconds = Duration::from_secs;
        Patience { call: seconds(self.timeout_seconds), sign: seconds(self.heartbeat_timeout_seconds) }
    }

    /// Groups, and ranks of each, of `size` ranks.
    ///
    /// # Errors
    /// Degrees that are not those of so many ranks.
    pub fn degrees(&self, size: usize) -> Result<[usize; 2]> {
        let (replicate, shard) = (self.data_parallel_replicate, self.data_parallel_shard);
        let known = |it: i64| usize::try_from(it).ok();
        let degrees = match (known(replicate), known(shard)) {
            (Some(replicate), Some(shard)) => [replicate, shard],
            (None, Some(shard)) => [size / shard.max(1), shard],
            (Some(replicate), None) => [replicate, size / replicate.max(1)],
            (None, None) => [1, size],
        };
        if degrees[0] * degrees[1] == size {
            return Ok(degrees);
        }
        let problem = format!(
            "`data_parallel_replicate` = {replicate} and `data_parallel_shard` = {shard} are not the degrees of {size} rank{}: \
             start as many as their product, or set one to -1",
            if size == 1 { "" } else { "s" }
        );
        Err(EngineError::Invalid { what: "parallel".into(), problems: vec![problem] })
    }

    /// Who has a share of what, of `ranks`; `None` where every rank has everything.
    ///
    /// # Errors
    /// As [`ParallelConfig::degrees`]; as [`Collective::barrier`].
    pub fn mesh(&self, ranks: &Ranks) -> Result<Option<Mesh>> {
        let [_, shard] = self.degrees(ranks.size())?;
        if shard == 1 {
            return Ok(None);
        }
        let (group, place) = (ranks.global_rank() / shard, ranks.global_rank() % shard);
        // Neighbours, which mostly are on one machine, share: what is gathered travels between them.
        let (shard, replicate) = (ranks.of_group(group)?, ranks.of_group(place)?);
        Ok(Some(Mesh { config: self.clone(), shard, replicate }))
    }
}

/// The ranks that a rank shares with.
#[derive(Debug, Clone)]
pub struct Mesh {
    /// What is shared.
    pub config: ParallelConfig,
    /// Those who have a share each of what this one has a share of.
    pub shard: Ranks,
    /// Those who have the same share.
    pub replicate: Ranks,
}

impl Mesh {
    /// Whether weights are shared.
    pub fn shares_weights(&self) -> bool {
        self.config.zero == Zero::Three
    }

    /// Whether this is the first of all ranks.
    pub fn is_first(&self) -> bool {
        self.shard.is_first() && self.replicate.is_first()
    }

    /// `ranks` as they train on it: what is shared in every pass has all of them make as many.
    #[must_use]
    pub fn ranks(&self, ranks: &Ranks) -> Ranks {
        match self.config.zero {
            Zero::One => ranks.clone(),
            Zero::Two | Zero::Three => ranks.clone().in_lockstep(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_are_those_of_the_ranks() {
        let of = |replicate, shard| ParallelConfig {
            data_parallel_replicate: replicate,
            data_parallel_shard: shard,
            ..ParallelConfig::default()
        };
        for (replicate, shard, size, expected) in [
            (-1, 1, 4, Some([4, 1])),
            (-1, 1, 1, Some([1, 1])),
            (1, -1, 4, Some([1, 4])),
            (2, -1, 4, Some([2, 2])),
            (-1, 2, 4, Some([2, 2])),
            (2, 2, 4, Some([2, 2])),
            (-1, 3, 4, None),
            (2, 2, 2, None),
            (3, -1, 4, None),
            (-1, 2, 1, None),
        ] {
            assert_eq!(of(replicate, shard).degrees(size).ok(), expected, "{replicate} {shard} {size}");
        }
        let said = of(2, 2).degrees(3).unwrap_err().to_string();
        assert!(said.contains("`data_parallel_shard` = 2 are not the degrees of 3 ranks"), "{said}");
        assert!(of(-1, -1).problems().len() == 1 && of(0, -2).problems().len() == 2);
    }
}
