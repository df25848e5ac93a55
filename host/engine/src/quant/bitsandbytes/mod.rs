//! Weights as bitsandbytes and transformers store them in safetensors, and what `config.json` says of them.

mod four_bit;
mod int8;

use std::path::Path;
use std::sync::Arc;

use fthost_kernels::{FourBitKind, Packed, Weight};
use serde_json::{Value, json};

use crate::checkpoint::StoredDtype;
use crate::checkpoint::load::LoadConfig;
use crate::checkpoint::safetensors::TensorFiles;
use crate::checkpoint::write::LazyTensor;
use crate::error::{EngineError, Result};
use crate::models::CausalLm;

/// A weight that was found packed.
pub struct Found {
    /// As it is computed with.
    pub weight: Packed,
    /// The tensors it was read from.
    pub names: Vec<String>,
}

/// Checks what `config.json` says of how its weights are stored against what is asked for.
///
/// # Errors
/// Another method than bitsandbytes'; a packing besides the one that is there; weights to be trained.
pub fn check(config_path: &Path, load: &LoadConfig) -> Result<()> {
    let text = std::fs::read_to_string(config_path).map_err(EngineError::io("read", config_path))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|source| EngineError::Json { path: config_path.to_path_buf(), source })?;
    let stored = &value["quantization_config"];
    if stored.is_null() {
        return Ok(());
    }
    let method = stored["quant_method"].as_str().unwrap_or("bitsandbytes");
    let kind = match stored["load_in_8bit"] == true {
        true => "int8",
        false => stored["bnb_4bit_quant_type"].as_str().unwrap_or("fp4"),
    };
    let problem = if method != "bitsandbytes" {
        format!(
            "`quantization_config.quant_method` = \"{method}\" is not known here (known: \"bitsandbytes\")"
        )
    } else if load.to_train {
        format!("its weights are stored as {kind}, which is frozen: train an adapter on them")
    } else if let Some(asked) = load.quant.as_ref().filter(|it| it.name() != kind) {
        format!("its weights are stored as {kind} already, and `quant.{}` is asked for", asked.name())
    } else {
        return Ok(());
    };
    Err(EngineError::Invalid { what: format!("`{}`", config_path.display()), problems: vec![problem] })
}

/// The weight of that name and shape, where the files hold it packed.
///
/// # Errors
/// Parts that are missing or do not fit each other, by the weight's name.
pub fn read(files: &TensorFiles, name: &str, shape: [usize; 2]) -> Result<Option<Found>> {
    let found = match four_bit::read(files, name, shape)? {
        Some(found) => Some(found),
        None => int8::read(files, name, shape)?,
    };
    // What was read was copied.
    found.iter().flat_map(|it| &it.names).for_each(|it| files.release(it));
    Ok(found)
}

/// Name, shape and type of every weight, in the order of names: of a packed one as it is computed with.
///
/// # Errors
/// A packed weight whose state can't be read, by its name.
pub fn list(files: &TensorFiles) -> Result<Vec<(String, Vec<usize>, String)>> {
    let all = files.list();
    let parts = [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB", ".weight_format"];
    let is_part = |name: &str| name.contains(".quant_state.") || parts.iter().any(|it| name.ends_with(it));
    let weights = all.into_iter().filter(|it| !is_part(&it.0));
    weights
        .map(|(name, shape, dtype)| {
            Ok(match four_bit::shape(files, &name)? {
                Some((kind, shape)) => (name, shape, kind.to_uppercase()),
                None => (name, shape, dtype),
            })
        })
        .collect()
}

/// The tensors that bitsandbytes stores a weight as; `dtype` is what it is to come back in.
///
/// # Errors
/// A weight in blocks of a GGUF file, which are not bitsandbytes'.
pub(crate) fn tensors(
    name: &str,
    weight: &Arc<Packed>,
    dtype: StoredDtype,
) -> Result<Vec<LazyTensor<'static>>> {
    match &**weight {
        Packed::FourBit(_) => Ok(four_bit::tensors(name, weight, dtype)),
        Packed::Int8(_) => Ok(int8::tensors(name, weight)),
        Packed::Ggml(_) => Err(EngineError::PackedWeight {
            name: name.to_string(),
            reason: "blocks of a GGUF file have no form in safetensors".to_string(),
        }),
    }
}

/// `quantization_config` of a model, where linears of it are packed.
///
/// # Errors
/// Linears that are packed in more than one way.
pub(crate) fn config(model: &CausalLm, dtype: StoredDtype) -> Result<Option<Value>> {
    let (mut kinds, mut skipped) = (Vec::new(), vec!["lm_head".to_string()]);
    for (layer, block) in model.blocks.iter().enumerate() {
        for (name, linear) in block.linears() {
            match &linear.weight {
                Weight::Packed(it) => kinds.push(kind_of(it)),
                Weight::Dense(_) => skipped.push(format!("{}.{name}", model.block_path(layer))),
            }
        }
    }
    kinds.sort_unstable();
    kinds.dedup();
    let (kind, double) = match kinds[..] {
        [] => return Ok(None),
        [only] => only,
        _ => {
            let count = kinds.len();
            let problems =
                vec![format!("linears are packed in {count} ways, bitsandbytes knows one a model")];
            return Err(EngineError::Invalid { what: "packing".to_string(), problems });
        }
    };
    let mut found = json!({
        "quant_method": "bitsandbytes", "load_in_4bit": kind != INT8, "load_in_8bit": kind == INT8,
        "llm_int8_skip_modules": skipped,
    });
    if kind != INT8 {
        found["bnb_4bit_quant_type"] = kind.into();
        found["bnb_4bit_use_double_quant"] = double.into();
        found["bnb_4bit_compute_dtype"] = dtype.name().into();
        found["bnb_4bit_quant_storage"] = "uint8".into();
    }
    Ok(Some(found))
}

const INT8: &str = "int8";

/// Name of a packing, and whether factors are in 8 bits.
fn kind_of(weight: &Packed) -> (&'static str, bool) {
    match weight {
        Packed::FourBit(it) => (kind_name(it.config.kind), it.config.double_quant),
        Packed::Int8(_) => (INT8, false),
        Packed::Ggml(it) => (it.kind().name(), false),
    }
}

fn kind_name(kind: FourBitKind) -> &'static str {
    match kind {
        FourBitKind::Nf4 => "nf4",
        FourBitKind::Fp4 => "fp4",
    }
}

/// A vector of finite floats.
fn floats(files: &TensorFiles, name: &str) -> Result<Vec<f32>> {
    let length = files.shape(name)?.iter().product();
    let values = files.read(name, [length])?;
    Ok(values.try_into_vec().expect("read as f32"))
}
