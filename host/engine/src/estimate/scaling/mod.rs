//! What a step takes on many ranks: a simulation of what a rank computes and what it waits for, part by part in the order of the
//! executor, and the memory of a rank.
//!
//! Two things go on at a time: computing, and one collective after the other in the order in which they are asked for. A part is
//! gathered while the one before it is computed with; the gradients of a part are summed up while those of the next are made. What a
//! rank computes in a second and what links carry is told to it: it is as right as they are. Not simulated are reading rows, uneven
//! micro-batches, ranks that differ in speed, generation and evaluations.

mod links;
mod memory;
mod timeline;

use serde::{Deserialize, Serialize};

pub use links::{Cluster, Link, Speeds};
pub use memory::RankMemory;

use super::memory::{BatchTokens, Held, WeightBytes, weight};
use super::shape::{ModelShape, WeightShape};
use super::{Segment, StepShape};
use crate::checkpoint::LoadConfig;
use crate::error::Result;
use crate::optim::MomentStorage;
use crate::shard::{ParallelConfig, Zero};
use links::Collectives;

/// What is trained, and how.
#[derive(Debug, Clone)]
pub struct Work<'a> {
    /// The model, with its adapter.
    pub shape: &'a ModelShape,
    /// How weights are stored.
    pub load: &'a LoadConfig,
    /// How moments are.
    pub moments: &'a MomentStorage,
    /// How a step is taken by one rank alone.
    pub how: StepShape,
    /// A micro-batch of a rank.
    pub batch: BatchTokens,
    /// Its sequences.
    pub segments: &'a [Segment],
    /// How many a rank computes in a step.
    pub micro_batches: u64,
    /// Who has a share of what.
    pub parallel: &'a ParallelConfig,
}

/// A step on so many ranks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scaled {
    /// Ranks.
    pub ranks: usize,
    /// Groups that have everything.
    pub replicate: usize,
    /// Ranks of a group.
    pub shard: usize,
    /// Seconds of a step.
    pub step_seconds: f64,
    /// Of these, those in which a rank computes.
    pub compute_seconds: f64,
    /// Of these, those of the update.
    pub update_seconds: f64,
    /// Bytes that a rank receives in a step.
    pub received_bytes: f64,
    /// Of all ranks together.
    pub tokens_per_second: f64,
    /// The share of a step in which a rank computes or updates, and does not wait for others.
    pub efficiency: f64,
    /// Of a rank.
    pub memory: RankMemory,
}

/// Bytes of a part of the model that is gathered at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct PartBytes {
    frozen: u64,
    /// In f32, as what is trained is kept and travels.
    trained: u64,
}

impl PartBytes {
    fn all(self) -> f64 {
        (self.frozen + self.trained) as f64
    }
}

/// Embeddings, every block, and what stands behind them.
struct Parts {
    embedding: PartBytes,
    blocks: Vec<PartBytes>,
    head: PartBytes,
    /// The embedding is the head, too.
    is_tied: bool,
}

impl Parts {
    fn of(work: &Work<'_>) -> Self {
        let (shape, trained_bytes) = (work.shape, size_of::<f32>() as u64);
        let frozen = |weights: &mut dyn Iterator<Item = WeightShape>| -> u64 {
            let frozen = weights.filter(|it| !shape.trained.selects(&it.name));
            // As they are in memory: a file's own pages are not what travels.
            frozen
                .map(|it| weight(&it, work.load, Held::Floats, false))
                .map(|it: WeightBytes| it.total())
                .sum()
        };
        let prompt = (shape.prompt * shape.config.hidden_size) as u64;
        let embedding = PartBytes {
            frozen: frozen(&mut shape.embeddings()),
            trained: trained_bytes * (shape.selected(shape.embeddings()) + prompt),
        };
        let head = PartBytes {
            frozen: frozen(&mut shape.heads()),
            trained: trained_bytes * shape.selected(shape.heads()),
        };
        let block = |it| PartBytes {
            frozen: frozen(&mut super::shape::BlockWeights::weights(it, &shape.config)),
            trained: trained_bytes * shape.trained_of(it) as u64,
        };
        let blocks = shape.blocks.iter().map(block).collect();
        Self { embedding, blocks, head, is_tied: shape.config.tie_word_embeddings }
    }

    fn all(&self) -> impl Iterator<Item = PartBytes> + '_ {
        [self.embedding].into_iter().chain(self.blocks.iter().copied()).chain([self.head])
    }

    /// What is gathered for the head.
    fn with_tied_head(&self) -> PartBytes {
        let embedding = if self.is_tied { self.embedding } else { PartBytes::default() };
        PartBytes {
            frozen: self.head.frozen + embedding.frozen,
            trained: self.head.trained + embedding.trained,
        }
    }

    fn total(&self) -> PartBytes {
        let sum = |of: fn(PartBytes) -> u64| self.all().map(of).sum();
        PartBytes { frozen: sum(|it| it.frozen), trained: sum(|it| it.trained) }
    }
}

/// A step of `work` on `ranks` ranks of `cluster`.
///
/// # Errors
/// Degrees that are not those of so many ranks.
pub fn scaled(work: &Work<'_>, cluster: &Cluster, ranks: usize) -> Result<Scaled> {
    let [replicate, shard] = work.parallel.degrees(ranks)?;
    let parts = Parts::of(work);
    let collectives = Collectives::new(cluster, [replicate, shard]);
    let mut step = timeline::Step::new(work, &parts, &collectives, cluster.speeds.flops_per_second);
    for _ in 0..work.micro_batches {
        step.pass();
    }
    step.sum_up();
    let own = work.shape.trained_values().div_ceil(shard as u64);
    let update = update_seconds(own, cluster.speeds.memory_bytes_per_second);
    let found = step.finish();
    let step_seconds = found.seconds + update;
    let tokens = (work.batch.tokens * work.micro_batches * ranks as u64) as f64;
    Ok(Scaled {
        ranks,
        replicate,
        shard,
        step_seconds,
        compute_seconds: found.computed,
        update_seconds: update,
        received_bytes: found.received,
        tokens_per_second: tokens / step_seconds,
        efficiency: (found.computed + update) / step_seconds,
        memory: memory::of_rank(work, &parts, shard),
    })
}

/// The memory of one of so many ranks, in a step of `work`.
///
/// # Errors
/// As [`scaled`].
pub fn rank_memory(work: &Work<'_>, ranks: usize) -> Result<RankMemory> {
    let [_, shard] = work.parallel.degrees(ranks)?;
    Ok(memory::of_rank(work, &Parts::of(work), shard))
}

/// Seconds of an update of so many values, in memory of this speed: value, gradient and both moments are read, value and moments written.
pub fn update_seconds(values: u64, memory_bytes_per_second: f64) -> f64 {
    (7 * size_of::<f32>() as u64 * values) as f64 / memory_bytes_per_second
}

/// Whether ranks share what this stage does.
fn shares(work: &Work<'_>, shard: usize, from: Zero) -> bool {
    shard > 1 && work.parallel.zero >= from
}

/// Whether blocks are computed again because their weights were let go of.
fn lets_go(work: &Work<'_>, shard: usize) -> bool {
    shares(work, shard, Zero::Three) && work.parallel.reshard_after_forward
}
