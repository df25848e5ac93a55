//! A GGUF file's model, written as Hugging Face's files.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::llama::{Weight, plan, unpermute};
use super::{GgufFile, TensorInfo};
use crate::checkpoint::write::{LazyTensor, StoredDtype, write_lazy, write_whole};
use crate::error::Result;

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
    let mut config = plan.config;
    config["dtype"] = dtype.name().into();
    config["torch_dtype"] = dtype.name().into();
    write_json(&folder.join("config.json"), &config)?;
    write_json(&folder.join("generation_config.json"), &generation_config(file))?;
    let tensors = plan.weights.iter().map(|weight| {
        let Weight { name, source, heads } = weight;
        LazyTensor::new(name.clone(), source.shape.clone(), dtype, move || values(file, source, *heads))
    });
    write_lazy(&folder.join("model.safetensors"), tensors.collect())
}

fn values(file: &GgufFile, source: &TensorInfo, heads: Option<usize>) -> Vec<f32> {
    let values = file.values(source).expect("its type was checked");
    match heads {
        Some(heads) => unpermute(&values, source.shape[0], heads),
        None => values,
    }
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
