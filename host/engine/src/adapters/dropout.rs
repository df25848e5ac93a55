//! Dropout on the input of an adapter's share, as PEFT's `lora_dropout`, from seeds instead of a running generator.
//!
//! A mask is a function of seed, step, micro-batch and linear alone: a block that is computed again, and a run that
//! is resumed, meet the same masks.

use fthost_kernels::Dropout;
use sha2::{Digest, Sha256};

use crate::models::CausalLm;

/// `model` with dropout on every adapted linear, for one micro-batch of one step.
pub fn with_dropout(model: &CausalLm, rate: f64, seed: u64, step: u64, micro_batch: u64) -> CausalLm {
    let mut model = model.clone();
    for (layer, block) in model.blocks.iter_mut().enumerate() {
        for (name, linear) in block.linears_mut() {
            if let Some(lora) = &mut linear.lora {
                let mut hasher = Sha256::new();
                for number in [seed, step, micro_batch, layer as u64] {
                    hasher.update(number.to_le_bytes());
                }
                hasher.update(name.as_bytes());
                lora.dropout = Some(Dropout { rate, seed: hasher.finalize().into() });
            }
        }
    }
    model
}

/// Takes back what [`with_dropout`] set.
pub fn without_dropout(model: &mut CausalLm) {
    for block in &mut model.blocks {
        for (_, linear) in block.linears_mut() {
            if let Some(lora) = &mut linear.lora {
                lora.dropout = None;
            }
        }
    }
}
