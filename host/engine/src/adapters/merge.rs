//! Adapters folded into their weights: `weight + scaling * b a`.

use std::path::Path;

use crate::checkpoint::safetensors::{write_f32, write_whole};
use crate::error::{EngineError, Result};
use crate::models::CausalLm;

/// Folds every adapter of `model` into the weight beside it.
pub fn merge_lora(model: &mut CausalLm) {
    for block in &mut model.blocks {
        for (_, linear) in block.linears_mut() {
            if let Some(lora) = linear.lora.take() {
                let delta = lora.b.inner().matmul(lora.a.inner()).mul_scalar(lora.scaling);
                linear.weight = linear.weight.clone().inner() + delta;
            }
        }
    }
}

/// Files beside the weights that make a Hugging Face folder complete.
const COMPANIONS: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "added_tokens.json",
    "LICENSE",
];

/// Writes `model`, merged, as a Hugging Face folder; configuration and tokenizer are copied from `base`.
///
/// # Errors
/// Files that can't be read or written.
pub fn save_merged(model: &mut CausalLm, base: &Path, folder: &Path) -> Result<()> {
    merge_lora(model);
    std::fs::create_dir_all(folder).map_err(EngineError::io("write", folder))?;
    for name in COMPANIONS {
        let source = base.join(name);
        if source.exists() {
            let mut bytes = std::fs::read(&source).map_err(EngineError::io("read", &source))?;
            if name == "config.json" {
                bytes = stating_f32(&source, &bytes)?;
            }
            write_whole(&folder.join(name), &bytes)?;
        }
    }
    let mut tensors = Vec::new();
    model.visit_base(&mut |name, parameter| {
        let (shape, values) = parameter.to_f32();
        tensors.push((name.to_string(), shape, values));
    });
    write_f32(&folder.join("model.safetensors"), &tensors)
}

/// `config.json` with the type the weights are written in: transformers loads them as it says.
fn stating_f32(path: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    let json = |source| EngineError::Json { path: path.to_path_buf(), source };
    let mut config: serde_json::Value = serde_json::from_slice(bytes).map_err(json)?;
    for key in ["dtype", "torch_dtype"] {
        if config.get(key).is_some() {
            config[key] = "float32".into();
        }
    }
    serde_json::to_vec_pretty(&config).map_err(json)
}
