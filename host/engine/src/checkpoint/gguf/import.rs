//! A GGUF file's model, written as Hugging Face's files.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::GgufFile;
use super::plan::plan;
use super::weights::WEIGHTS;
use crate::checkpoint::write::{LazyTensor, StoredDtype, write_lazy, write_whole};
use crate::error::{EngineError, Result};

/// Whether [`write_model`] would know the model, without reading any weight.
///
/// # Errors
/// As [`write_model`].
pub fn check(file: &GgufFile) -> Result<()> {
    plan(file)?.weights.iter().try_for_each(|it| file.check_type(&it.source).map(|_| ()))
}

/// Writes `config.json`, `generation_config.json` and `model.safetensors` into `folder`, weights as `dtype`.
///
/// Only f32 holds every value of a quantised file as it is: a 4-bit value times an f16 scale needs up to 15 bits.
/// One weight is in memory at a time.
///
/// # Errors
/// A model that is not known here or that its file does not hold whole; a type of values that is not known, by tensor;
/// files that can't be written.
pub fn write_model(file: &GgufFile, folder: &Path, dtype: StoredDtype) -> Result<()> {
    check(file)?;
    let plan = plan(file)?;
    write_config(file, plan.config, folder, dtype)?;
    let names = plan.decoder.names;
    let tensors = plan.weights.iter().map(|weight| {
        let slot = &weight.slot;
        let transposed = slot.shape.len() == 2 && names.is_transposed(&slot.name);
        let values = move || {
            let values = weight.values(file).expect("its type was checked");
            if transposed { in_columns(&values, slot.shape[1]) } else { values }
        };
        let mut shape = slot.shape.clone();
        if transposed {
            shape.reverse();
        }
        LazyTensor::new(slot.name.clone(), shape, dtype, values)
    });
    write_lazy(&folder.join("model.safetensors"), tensors.collect())
}

/// Writes `config.json` and `generation_config.json` into `folder`, and the file itself as the model's weights: a link where
/// the file system allows one, otherwise a copy. What [`crate::checkpoint::load_model`] reads of it stays as it is stored.
///
/// # Errors
/// As [`write_model`].
pub fn write_in_place(file: &GgufFile, folder: &Path) -> Result<()> {
    check(file)?;
    write_config(file, plan(file)?.config, folder, StoredDtype::F32)?;
    let to = folder.join(WEIGHTS);
    let source = std::fs::canonicalize(file.path()).map_err(EngineError::io("read", file.path()))?;
    if std::fs::hard_link(&source, &to).is_err() {
        std::fs::copy(&source, &to).map_err(EngineError::io("write", &to))?;
    }
    Ok(())
}

/// The values of rows of `width`, column by column.
fn in_columns(values: &[f32], width: usize) -> Vec<f32> {
    (0..width).flat_map(|column| values[column..].iter().step_by(width)).copied().collect()
}

fn write_config(file: &GgufFile, mut config: Json, folder: &Path, dtype: StoredDtype) -> Result<()> {
    config["dtype"] = dtype.name().into();
    config["torch_dtype"] = dtype.name().into();
    write_json(&folder.join("config.json"), &config)?;
    write_json(&folder.join("generation_config.json"), &generation_config(file))
}

/// Ids that end generation: the end of a text, and of a turn where the file tells them apart.
fn generation_config(file: &GgufFile) -> Json {
    let id = |key: &str| file.whole(&format!("tokenizer.ggml.{key}_token_id"));
    let mut ends: Vec<u64> = ["eos", "eot"].iter().filter_map(|key| id(key)).collect();
    ends.dedup();
    let ends = if ends.len() == 1 { json!(ends[0]) } else { json!(ends) };
    json!({ "bos_token_id": id("bos"), "eos_token_id": ends, "pad_token_id": id("padding") })
}

fn write_json(path: &Path, value: &Json) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("a JSON value serialises");
    write_whole(path, format!("{text}\n").as_bytes())
}
