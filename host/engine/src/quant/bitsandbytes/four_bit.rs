//! 4 bits: beside the codes, `[bytes, 1]`, their factors, the maps they were made by, and a JSON text of the rest.

use std::sync::Arc;

use fthost_kernels::adamw::signed_map;
use fthost_kernels::{Absmax, FourBit, FourBitConfig, FourBitKind, Packed};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::{Found, floats, kind_name};
use crate::checkpoint::StoredDtype;
use crate::checkpoint::safetensors::TensorFiles;
use crate::checkpoint::write::LazyTensor;
use crate::error::{EngineError, Result};

/// Factors that share one in f32.
const NESTED_BLOCK: usize = 256;

/// What stands in `quant_state.bitsandbytes__nf4`.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    quant_type: String,
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nested_blocksize: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nested_dtype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nested_offset: Option<f64>,
}

/// What is said of a weight, and the tensor that says it.
fn state(files: &TensorFiles, name: &str) -> Result<Option<(FourBitKind, String, State)>> {
    for kind in [FourBitKind::Nf4, FourBitKind::Fp4] {
        let state_name = format!("{name}.quant_state.bitsandbytes__{}", kind_name(kind));
        if files.contains(&state_name) {
            let state = serde_json::from_slice(&files.bytes(&state_name)?.0).map_err(|error| {
                let reason = format!("its state can't be read: {error}");
                EngineError::PackedWeight { name: name.to_string(), reason }
            })?;
            return Ok(Some((kind, state_name, state)));
        }
    }
    Ok(None)
}

/// Kind and shape of a weight that is stored in 4 bits.
///
/// # Errors
/// A state that can't be read, by the weight's name.
pub(super) fn shape(files: &TensorFiles, name: &str) -> Result<Option<(&'static str, Vec<usize>)>> {
    Ok(state(files, name)?.map(|(kind, _, state)| (kind_name(kind), state.shape)))
}

/// The weight of that name and shape, where the files hold it packed.
///
/// # Errors
/// Parts that are missing or do not fit each other, by the weight's name.
pub(super) fn read(files: &TensorFiles, name: &str, shape: [usize; 2]) -> Result<Option<Found>> {
    let Some((kind, state_name, state)) = state(files, name)? else { return Ok(None) };
    let damaged = |reason: String| EngineError::PackedWeight { name: name.to_string(), reason };
    let config =
        FourBitConfig { kind, block_size: state.blocksize, double_quant: state.nested_offset.is_some() };
    if state.shape != shape {
        let (expected, found) = (shape.to_vec(), state.shape);
        return Err(EngineError::ShapeMismatch { name: name.to_string(), found, expected });
    }
    if config.block_size == 0 || !config.block_size.is_multiple_of(2) {
        return Err(damaged(format!("blocks of {} values", config.block_size)));
    }
    let (map_name, absmax_name) = (format!("{name}.quant_map"), format!("{name}.absmax"));
    let map = floats(files, &map_name)?;
    if map != kind.fractions() {
        return Err(damaged(format!("`{map_name}` is not the map of {}", state.quant_type)));
    }
    let (codes, _) = files.bytes(name)?;
    let values = shape[0] * shape[1];
    let expect = |what: &str, found: usize, expected: usize| match found == expected {
        true => Ok(()),
        false => Err(damaged(format!("{what} are {found}, {expected} belong to {shape:?}"))),
    };
    expect("its bytes", codes.len(), values.div_ceil(2))?;
    let blocks = values.div_ceil(config.block_size);
    let mut names = vec![name.to_string(), state_name.clone(), map_name, absmax_name.clone()];
    let absmax = match state.nested_offset {
        None => Absmax::Plain(floats(files, &absmax_name)?),
        Some(offset) => {
            let nested = ["nested_absmax", "nested_quant_map"].map(|it| format!("{name}.{it}"));
            let (absmax, map) = (floats(files, &nested[0])?, floats(files, &nested[1])?);
            if map != signed_map().values() {
                return Err(damaged(format!("`{}` is not bitsandbytes' dynamic map", nested[1])));
            }
            if state.nested_blocksize != Some(NESTED_BLOCK) {
                return Err(damaged(format!("its factors are not in blocks of {NESTED_BLOCK}")));
            }
            let codes = files.bytes(&absmax_name)?.0.to_vec();
            expect("factors of its factors", absmax.len(), blocks.div_ceil(NESTED_BLOCK))?;
            names.extend(nested);
            Absmax::Nested { codes, absmax, offset: offset as f32 }
        }
    };
    let found = match &absmax {
        Absmax::Plain(it) => it.len(),
        Absmax::Nested { codes, .. } => codes.len(),
    };
    expect("its factors", found, blocks)?;
    let codes = codes.to_vec();
    Ok(Some(Found { weight: FourBit { codes, absmax, shape, config }.into(), names }))
}

/// The tensors that bitsandbytes stores a weight as; `dtype` is what it is to come back in.
pub(super) fn tensors(name: &str, weight: &Arc<Packed>, dtype: StoredDtype) -> Vec<LazyTensor<'static>> {
    let Packed::FourBit(four_bit) = &**weight else { unreachable!("asked for such a weight") };
    let kind = kind_name(four_bit.config.kind);
    let nested_offset = match &four_bit.absmax {
        Absmax::Plain(_) => None,
        Absmax::Nested { offset, .. } => Some(f64::from(*offset)),
    };
    let state = State {
        quant_type: kind.to_string(),
        blocksize: four_bit.config.block_size,
        dtype: dtype.name().to_string(),
        shape: four_bit.shape.to_vec(),
        nested_blocksize: nested_offset.map(|_| NESTED_BLOCK),
        nested_dtype: nested_offset.map(|_| "float32".to_string()),
        nested_offset,
    };
    let state = serde_json::to_vec(&state).expect("a state serialises");
    let floats = |part: &str, values: Vec<f32>| {
        let shape = vec![values.len()];
        LazyTensor::new(format!("{name}.{part}"), shape, StoredDtype::F32, move || values.clone())
    };
    let bytes = |name: String, shape: Vec<usize>, of: fn(&FourBit) -> &[u8]| {
        let weight = Arc::clone(weight);
        LazyTensor::of_bytes(name, shape, Dtype::U8, move || {
            let Packed::FourBit(four_bit) = &*weight else { unreachable!("looked at before") };
            of(four_bit).to_vec()
        })
    };
    let mut found = vec![
        bytes(name.to_string(), vec![four_bit.codes.len(), 1], |it| &it.codes),
        floats("quant_map", four_bit.config.kind.fractions().to_vec()),
    ];
    match &four_bit.absmax {
        Absmax::Plain(absmax) => found.push(floats("absmax", absmax.clone())),
        Absmax::Nested { codes, absmax, .. } => {
            found.push(bytes(format!("{name}.absmax"), vec![codes.len()], |it| match &it.absmax {
                Absmax::Nested { codes, .. } => codes,
                Absmax::Plain(_) => unreachable!("looked at before"),
            }));
            found.push(floats("nested_absmax", absmax.clone()));
            found.push(floats("nested_quant_map", signed_map().values().to_vec()));
        }
    }
    let length = vec![state.len()];
    let name = format!("{name}.quant_state.bitsandbytes__{kind}");
    found.push(LazyTensor::of_bytes(name, length, Dtype::U8, move || state.clone()));
    found
}
