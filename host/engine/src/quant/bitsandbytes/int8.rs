//! LLM.int8(): codes, `[out, in]`, with the largest magnitude of each row as `SCB` beside them.

use std::sync::Arc;

use fthost_kernels::{Int8Rows, Packed};
use safetensors::Dtype;

use super::{Found, floats};
use crate::checkpoint::StoredDtype;
use crate::checkpoint::safetensors::TensorFiles;
use crate::checkpoint::write::LazyTensor;
use crate::error::{EngineError, Result};

/// Names of what stands beside a weight.
fn beside(name: &str) -> [String; 2] {
    let path = name.strip_suffix(".weight").unwrap_or(name);
    ["SCB", "weight_format"].map(|it| format!("{path}.{it}"))
}

/// The weight of that name and shape, where the files hold it in 8 bits.
///
/// # Errors
/// Parts that are missing or do not fit each other, by the weight's name.
pub(super) fn read(files: &TensorFiles, name: &str, shape: [usize; 2]) -> Result<Option<Found>> {
    let [scb, format] = beside(name);
    if !files.contains(&scb) {
        return Ok(None);
    }
    let damaged = |reason: String| EngineError::PackedWeight { name: name.to_string(), reason };
    let (bytes, dtype) = files.bytes(name)?;
    if files.shape(name)? != shape {
        let (expected, found) = (shape.to_vec(), files.shape(name)?);
        return Err(EngineError::ShapeMismatch { name: name.to_string(), found, expected });
    }
    if dtype != "I8" {
        return Err(damaged(format!("`{scb}` stands beside codes of {dtype}, known are I8")));
    }
    let absmax = floats(files, &scb)?;
    if absmax.len() != shape[0] {
        return Err(damaged(format!(
            "`{scb}` has {} factors, {} belong to {shape:?}",
            absmax.len(),
            shape[0]
        )));
    }
    let mut names = vec![name.to_string(), scb];
    if files.contains(&format) {
        // 0 is rows, the only order that a CPU has.
        if files.bytes(&format)?.0.iter().any(|it| *it != 0) {
            return Err(damaged(format!("`{format}` says another order than that of rows")));
        }
        names.push(format);
    }
    let codes = bytes.iter().map(|it| *it as i8).collect();
    Ok(Some(Found { weight: Int8Rows { codes, absmax, shape }.into(), names }))
}

/// The tensors that bitsandbytes stores a weight as.
pub(super) fn tensors(name: &str, weight: &Arc<Packed>) -> Vec<LazyTensor<'static>> {
    let Packed::Int8(rows) = &**weight else { unreachable!("asked for such a weight") };
    let ([scb, format], shape) = (beside(name), rows.shape.to_vec());
    let (codes, absmax) = (Arc::clone(weight), rows.absmax.clone());
    let codes = move || {
        let Packed::Int8(rows) = &*codes else { unreachable!("looked at before") };
        rows.codes.iter().map(|it| *it as u8).collect()
    };
    vec![
        LazyTensor::of_bytes(name.to_string(), shape, Dtype::I8, codes),
        LazyTensor::new(scb, vec![absmax.len()], StoredDtype::F32, move || absmax.clone()),
        LazyTensor::of_bytes(format, Vec::new(), Dtype::U8, || vec![0]),
    ]
}
