//! A step on several ranks: the memory of one, and how long it takes where speeds are known.

use fthost_engine::estimate::scaling::{Cluster, RankMemory, Scaled, Work, rank_memory, scaled};
use serde::Serialize;

use super::Run;
use super::lengths::Micro;
use crate::error::Result;

/// A training step on the ranks that `[launch]` asks for, as `[parallel]` has them share. What is sampled, judged or asked of a reference
/// is not in it, nor what a process needs beside the model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OnRanks {
    /// Ranks.
    pub ranks: usize,
    /// Groups that have everything.
    pub replicate: usize,
    /// Ranks of a group, which have a share each.
    pub shard: usize,
    /// Memory of one at the peak.
    pub memory: RankMemory,
    /// How long it takes, where `[launch.speeds]` says what ranks compute and links carry.
    pub step: Option<Scaled>,
}

impl Run<'_> {
    /// A step over the longest micro-batch; `None` of one rank.
    ///
    /// # Errors
    /// Degrees of `[parallel]` that are not those of the ranks.
    pub(super) fn on_ranks(&self, training: &[Vec<Micro>]) -> Result<Option<OnRanks>> {
        let (launch, parallel) = (&self.config.launch, &self.config.parallel);
        let longest = training.iter().flatten().max_by_key(|it| it.batch.tokens);
        let Some(longest) = longest.filter(|_| launch.ranks() > 1) else { return Ok(None) };
        let ranks = launch.ranks();
        let [replicate, shard] = parallel.degrees(ranks)?;
        let load = self.config.load_config();
        let moments = self.config.optimizer.storage(&self.config.output.dir, parallel.offload);
        let micro_batches = self.config.train.gradient_accumulation_steps as u64;
        let work = Work {
            shape: &self.shape,
            load: &load,
            moments: &moments,
            how: self.how(micro_batches > 1),
            batch: longest.batch,
            segments: &longest.segments,
            micro_batches,
            parallel,
        };
        let step = launch.speeds.map(|speeds| {
            let cluster = Cluster { ranks_per_machine: launch.ranks_per_node, speeds };
            scaled(&work, &cluster, ranks)
        });
        let step = step.transpose()?;
        Ok(Some(OnRanks { ranks, replicate, shard, memory: rank_memory(&work, ranks)?, step }))
    }
}
