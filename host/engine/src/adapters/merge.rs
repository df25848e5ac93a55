//! Adapters folded into their weights: `weight + scaling * b a`, with DoRA each row brought to its length.

use std::path::Path;

use crate::checkpoint::safetensors::{StoredDtype, write_as, write_whole};
use crate::error::{EngineError, Result};
use crate::models::{CausalLm, ScoreRole};
use crate::nn::dora;

/// Folds every adapter of `model` into the weight beside it.
pub fn merge_lora(model: &mut CausalLm) {
    for block in &mut model.blocks {
        for (_, linear) in block.linears_mut() {
            if let Some(lora) = linear.lora.take() {
                let norms = lora.magnitude.is_some().then(|| dora::norms(&linear.weight, &lora));
                let delta = lora.b.inner().matmul(lora.a.inner()).mul_scalar(lora.scaling);
                let merged = linear.weight.clone().inner() + delta;
                linear.weight = match (lora.magnitude, norms) {
                    (Some(magnitude), Some(norms)) => {
                        merged * (magnitude.length.inner() / norms).unsqueeze_dim::<2>(1)
                    }
                    _ => merged,
                };
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

/// Writes `model`, merged, as a Hugging Face folder; configuration and tokenizer are copied from `base`. A reward model
/// is written as one for sequence classification; a value model's head is left out.
///
/// # Errors
/// Files that can't be read or written.
pub fn save_merged(model: &mut CausalLm, base: &Path, folder: &Path) -> Result<()> {
    save_merged_as(model, base, folder, StoredDtype::F32)
}

/// As [`save_merged`], the weights as `dtype`.
///
/// # Errors
/// Files that can't be read or written.
pub fn save_merged_as(model: &mut CausalLm, base: &Path, folder: &Path, dtype: StoredDtype) -> Result<()> {
    merge_lora(model);
    std::fs::create_dir_all(folder).map_err(EngineError::io("write", folder))?;
    for name in COMPANIONS {
        let source = base.join(name);
        if source.exists() {
            let mut bytes = std::fs::read(&source).map_err(EngineError::io("read", &source))?;
            if name == "config.json" {
                let is_reward = is_reward(model);
                let class = is_reward.then_some(model.config.names.classifier);
                bytes = stating(&source, &bytes, dtype, class)?;
            }
            write_whole(&folder.join(name), &bytes)?;
        }
    }
    let mut tensors = Vec::new();
    let names = model.config.names;
    model.visit_base(&mut |name, parameter| {
        let (mut shape, mut values) = parameter.to_f32();
        if let (true, &[rows, columns]) = (names.is_transposed(name), shape.as_slice()) {
            values = (0..columns).flat_map(|it| values[it..].iter().step_by(columns).copied()).collect();
            shape = vec![columns, rows];
        }
        tensors.push((name.to_string(), shape, values));
    });
    if is_reward(model) {
        // A model that classifies predicts no tokens.
        tensors.retain(|it| it.0 != names.head);
        model.visit_score(&mut |name, parameter| {
            let (shape, values) = parameter.to_f32();
            tensors.push((name.to_string(), shape, values));
        });
    }
    write_as(&folder.join("model.safetensors"), &tensors, dtype)
}

fn is_reward(model: &CausalLm) -> bool {
    model.score.as_ref().is_some_and(|it| it.role == ScoreRole::Reward)
}

/// `config.json` with the type the weights are written in and, of a reward model, the class that has one score:
/// transformers loads them as it says.
fn stating(path: &Path, bytes: &[u8], dtype: StoredDtype, class: Option<&str>) -> Result<Vec<u8>> {
    let json = |source| EngineError::Json { path: path.to_path_buf(), source };
    let mut config: serde_json::Value = serde_json::from_slice(bytes).map_err(json)?;
    let stated: Vec<&str> =
        ["dtype", "torch_dtype"].into_iter().filter(|it| config.get(it).is_some()).collect();
    // A file that does not say is taken for f32.
    let silent = stated.is_empty() && dtype != StoredDtype::F32;
    for key in stated.into_iter().chain(silent.then_some("dtype")) {
        config[key] = dtype.name().into();
    }
    if let Some(class) = class {
        config["architectures"] = serde_json::json!([class]);
        config["id2label"] = serde_json::json!({"0": "LABEL_0"});
        config["label2id"] = serde_json::json!({"LABEL_0": 0});
    }
    serde_json::to_vec_pretty(&config).map_err(json)
}
