//! A model written as a folder in Hugging Face's layout.

use std::cell::RefCell;
use std::path::Path;

use burn::tensor::Device;
use serde_json::Value;

use super::write::{LazyTensor, StoredDtype, To, write_model_files, write_whole};
use crate::error::{EngineError, Result};
use crate::models::{CausalLm, DecoderConfig, Parameter, Part, ScoreRole};
use crate::quant::bitsandbytes;

/// How a model is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SaveConfig {
    /// Type of floats.
    pub dtype: StoredDtype,
    /// Linears in fewer bits stay so, as bitsandbytes stores them; otherwise they are written as `dtype`, too.
    pub keep_packed: bool,
    /// Bytes of a file at most, unless one tensor has more; one file for all if `None`.
    pub max_shard_bytes: Option<u64>,
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

/// Writes the base weights of `model` as a Hugging Face folder, adapters apart; configuration and tokenizer are copied from
/// `base`. A reward model is written as one for sequence classification; a value model's head is left out.
///
/// Of a model that ranks share all call it: the first of them writes, and a part is gathered, written and let go of after the other.
///
/// # Errors
/// Files that can't be read or written; packed weights that bitsandbytes has no form for.
pub fn save_model(model: &mut CausalLm, base: &Path, folder: &Path, save: &SaveConfig) -> Result<()> {
    if save.keep_packed && model.is_hollow() {
        let problem =
            "packed weights that ranks share are not kept packed: write the model in floats".to_string();
        return Err(EngineError::Invalid { what: "model".into(), problems: vec![problem] });
    }
    let to = writer_of(model);
    if to == To::Files {
        std::fs::create_dir_all(folder).map_err(EngineError::io("write", folder))?;
        copy_companions(model, base, folder, save)?;
    }
    let parts = Parts { model: model.clone(), current: RefCell::new(None) };
    let (mut tensors, mut outcome) = (Vec::new(), Ok(()));
    let (names, is_reward) = (model.config.names, is_reward(model));
    for part in Part::all(model.blocks.len()) {
        let mut visit = |name: &str, parameter: Parameter<'_>| {
            let (dims, transposed) = (parameter.dims(), names.is_transposed(name));
            match parameter {
                // A model that classifies predicts no tokens.
                Parameter::Matrix(_) if is_reward && name == names.head => {}
                Parameter::Packed(weight) if save.keep_packed => {
                    match bitsandbytes::tensors(name, weight, save.dtype) {
                        Ok(found) => tensors.extend(found),
                        Err(error) => outcome = Err(error),
                    }
                }
                _ => {
                    let (parts, own) = (&parts, name.to_string());
                    let shape = if transposed { dims.into_iter().rev().collect() } else { dims };
                    let values = move || parts.values(part, &own, transposed);
                    tensors.push(LazyTensor::new(name.to_string(), shape, save.dtype, values));
                }
            }
        };
        part.visit_base(model, &mut visit);
        if is_reward && part == Part::Head {
            model.visit_score(&mut visit);
        }
    }
    outcome?;
    write_model_files(to, folder, tensors, save.max_shard_bytes)
}

/// What this rank does where `model` is written.
fn writer_of(model: &CausalLm) -> To {
    if model.shared_weights().is_none_or(|it| it.mesh.is_first()) { To::Files } else { To::Nowhere }
}

fn copy_companions(model: &mut CausalLm, base: &Path, folder: &Path, save: &SaveConfig) -> Result<()> {
    for name in COMPANIONS {
        let source = base.join(name);
        if source.exists() {
            let mut bytes = std::fs::read(&source).map_err(EngineError::io("read", &source))?;
            if name == "config.json" {
                bytes = stating(&source, &bytes, model, save)?;
            }
            write_whole(&folder.join(name), &bytes)?;
        }
    }
    Ok(())
}

/// The parts of a model, one of which is there at a time where ranks share it.
struct Parts {
    model: CausalLm,
    current: RefCell<Option<(Part, CausalLm)>>,
}

impl Parts {
    /// The values of a weight, the other way round where `transposed`.
    fn values(&self, part: Part, name: &str, transposed: bool) -> Vec<f32> {
        let mut current = self.current.borrow_mut();
        if current.as_ref().is_none_or(|it| it.0 != part) {
            // Let go of before the next one comes.
            *current = None;
            *current = Some((part, self.model.with_part(part)));
        }
        let (_, model) = current.as_mut().expect("it was just gathered");
        let mut found = None;
        let mut visit = |of: &str, parameter: Parameter<'_>| {
            if of == name {
                found = Some(values_of(&parameter, transposed));
            }
        };
        part.visit_base(model, &mut visit);
        if part == Part::Head {
            model.visit_score(&mut visit);
        }
        found.expect("a weight of that part")
    }
}

fn values_of(parameter: &Parameter<'_>, transposed: bool) -> Vec<f32> {
    let matrix = match parameter {
        Parameter::Matrix(tensor) if transposed => (*tensor).clone().inner(),
        Parameter::Packed(weight) if transposed => weight.to_tensor(&Device::flex()),
        _ => return parameter.to_f32().1,
    };
    matrix.transpose().try_into_vec_as::<f32>().expect("a float tensor is read as f32")
}

fn is_reward(model: &CausalLm) -> bool {
    model.score.as_ref().is_some_and(|it| it.role == ScoreRole::Reward)
}

/// `config.json` with the type the weights are written in, how those are packed that are and, of a reward model, the class
/// that has one score: transformers loads them as it says.
fn stating(path: &Path, bytes: &[u8], model: &mut CausalLm, save: &SaveConfig) -> Result<Vec<u8>> {
    let json = |source| EngineError::Json { path: path.to_path_buf(), source };
    let mut config: Value = serde_json::from_slice(bytes).map_err(json)?;
    let dtype = save.dtype;
    let packing = if save.keep_packed { bitsandbytes::config(model, dtype)? } else { None };
    let keys = config.as_object_mut().ok_or_else(|| {
        let problems = vec!["it is no JSON object".to_string()];
        EngineError::Invalid { what: format!("`{}`", path.display()), problems }
    })?;
    keys.remove("quantization_config");
    keys.extend(packing.map(|it| ("quantization_config".to_string(), it)));
    let stated: Vec<&str> =
        ["dtype", "torch_dtype"].into_iter().filter(|it| config.get(it).is_some()).collect();
    // A file that does not say is taken for f32.
    let silent = stated.is_empty() && dtype != StoredDtype::F32;
    for key in stated.into_iter().chain(silent.then_some("dtype")) {
        config[key] = dtype.name().into();
    }
    if model.lm_head.is_some() && DecoderConfig::read(path)?.tie_word_embeddings {
        // One of them was trained by itself: read as one, the other would be lost.
        config["tie_word_embeddings"] = false.into();
    }
    if is_reward(model) {
        config["architectures"] = serde_json::json!([model.config.names.classifier]);
        config["id2label"] = serde_json::json!({"0": "LABEL_0"});
        config["label2id"] = serde_json::json!({"LABEL_0": 0});
    }
    serde_json::to_vec_pretty(&config).map_err(json)
}
