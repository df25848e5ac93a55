//! Adapters folded into their weights: `weight + scaling * b a`, with DoRA each row brought to its length.

use std::path::Path;

use burn::tensor::Tensor;

use crate::checkpoint::{SaveConfig, save_model};
use crate::error::Result;
use crate::models::CausalLm;

/// Folds every adapter of `model` into the weight beside it, which is f32 then however it was stored.
pub fn merge_lora(model: &mut CausalLm) {
    let device = model.device();
    for block in &mut model.blocks {
        for (_, linear) in block.linears_mut() {
            if let Some(lora) = linear.lora.take() {
                let norms = lora.norms(&linear.weight);
                let [a, b] = lora.pair().map(Tensor::inner);
                let delta = b.matmul(a).mul_scalar(lora.scaling);
                let merged = linear.weight.to_dense(&device) + delta;
                linear.weight = match (lora.magnitude, norms) {
                    (Some(magnitude), Some(norms)) => {
                        merged * (magnitude.length.inner() / norms).unsqueeze_dim::<2>(1)
                    }
                    _ => merged,
                }
                .into();
            }
        }
    }
}

/// Writes `model`, merged, as a Hugging Face folder in f32; configuration and tokenizer are copied from `base`. A reward
/// model is written as one for sequence classification; a value model's head is left out.
///
/// # Errors
/// Files that can't be read or written.
pub fn save_merged(model: &mut CausalLm, base: &Path, folder: &Path) -> Result<()> {
    merge_lora(model);
    save_model(model, base, folder, &SaveConfig::default())
}
