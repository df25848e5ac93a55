//! The training engine: models, adapters, optimisers, training steps, ranks, generation and checkpoints, on Burn.
//!
//! Knows tokens and numbers; plugins, run files and terminals are none of its business.

pub mod adapters;
pub mod allocator;
pub mod checkpoint;
pub mod device;
pub mod error;
pub mod estimate;
pub mod generate;
pub mod models;
pub mod nn;
pub mod objectives;
pub mod optim;
pub mod parallel;
pub mod quant;
pub mod shard;
pub mod train;

pub use burn::tensor::Device;
pub use error::{EngineError, Result};
