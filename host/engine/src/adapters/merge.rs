//! Adapters folded into their weights: `weight + scaling * b a`, with DoRA each row brought to its length; rows or columns times
//! (IA)^3's factors.

use std::path::Path;

use burn::tensor::Tensor;

use crate::checkpoint::{SaveConfig, save_model};
use crate::error::{EngineError, Result};
use crate::models::{CausalLm, Trained};

/// Folds every adapter of `model` into the weight beside it, which is f32 then however it was stored. What was trained whole
/// with it is the model's already.
///
/// # Errors
/// Virtual tokens, which are no part of a weight.
pub fn merge_adapter(model: &mut CausalLm) -> Result<()> {
    let count = model.virtual_tokens();
    if count > 0 {
        return Err(EngineError::NotMerged { count });
    }
    let device = model.device();
    for block in &mut model.blocks {
        for (_, linear) in block.linears_mut() {
            if let Some(ia3) = linear.ia3.take() {
                linear.weight = (linear.weight.to_dense(&device) * ia3.scale.clone()).into();
                if !ia3.is_feedforward {
                    linear.bias = linear.bias.take().map(|it| it * ia3.scale.flatten(0, 1));
                }
            }
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
    model.trained = Trained::Base;
    Ok(())
}

/// Writes `model`, merged, as a Hugging Face folder in f32; configuration and tokenizer are copied from `base`. A reward
/// model is written as one for sequence classification; a value model's head is left out.
///
/// # Errors
/// As [`merge_adapter`], and files that can't be read or written.
pub fn save_merged(model: &mut CausalLm, base: &Path, folder: &Path) -> Result<()> {
    merge_adapter(model)?;
    save_model(model, base, folder, &SaveConfig::default())
}
