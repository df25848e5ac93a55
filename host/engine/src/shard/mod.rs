//! Models of which every rank has a share: ZeRO (<https://arxiv.org/abs/1910.02054>) and fully sharded data parallelism
//! (<https://arxiv.org/abs/2304.11277>), by block.
//!
//! A part of a model, mostly a block, is two flat buffers, what is trained and what is frozen, and a rank has a stretch of each.
//! Where the part is computed with, forward or backward, it is gathered, while the one before it is still computed, and let go
//! of behind it. Gradients of a part are summed up and cut as soon as they are there, while the next part's are made. Gradients,
//! moments and updates are of stretches. Frozen weights are gathered as they are stored, packed ones as their codes.

mod config;
mod group;
mod layout;
mod shards;
mod weights;

pub use config::{Mesh, Offload, ParallelConfig, Zero};
pub use shards::Shards;
pub(crate) use weights::Weights;
