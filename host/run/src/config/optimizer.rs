//! `[optimizer]`: which one, and where its state is.

use std::path::Path;

use fthost_engine::optim::{AdamWConfig, MomentStorage};
use fthost_engine::shard::Offload;
use serde::{Deserialize, Serialize};

/// `[optimizer.<kind>]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Optimizer {
    /// AdamW with torch's semantics.
    Adamw(AdamWConfig),
    /// The same with moments in blocks of 8 bits, as bitsandbytes' `AdamW8bit`: 2.03 bytes a trained value, not 8.
    Adamw8bit(AdamWConfig),
    /// [`Optimizer::Adamw`] with its moments in mapped files of the output folder, which the system keeps in memory while
    /// there is room.
    PagedAdamw(AdamWConfig),
}

impl Optimizer {
    /// Its key.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Adamw(_) => "adamw",
            Self::Adamw8bit(_) => "adamw8bit",
            Self::PagedAdamw(_) => "paged_adamw",
        }
    }

    /// What is set of it.
    pub fn adamw(&self) -> &AdamWConfig {
        let (Self::Adamw(config) | Self::Adamw8bit(config) | Self::PagedAdamw(config)) = self;
        config
    }

    /// What its moments are stored in, for a run that writes to `output`.
    pub fn storage(&self, output: &Path, offload: Offload) -> MomentStorage {
        match self {
            Self::Adamw(_) if offload == Offload::Optimizer => MomentStorage::Host,
            Self::Adamw(_) => MomentStorage::F32,
            Self::Adamw8bit(_) => MomentStorage::BLOCKS,
            Self::PagedAdamw(_) => MomentStorage::Paged(output.to_path_buf()),
        }
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adamw(AdamWConfig::default())
    }
}
