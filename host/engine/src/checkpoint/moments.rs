//! The optimizer's moments on disk, named as torch names them: `<parameter>.exp_avg` and `<parameter>.exp_avg_sq`. Those
//! in blocks of 8 bits are codes (u8), with `<name>.absmax` beside them.

use std::borrow::Cow;
use std::fs::File;
use std::path::Path;

use burn::tensor::Tensor;
use fthost_kernels::adamw::Blocks;
use safetensors::{Dtype, SafeTensorError, View};

use crate::error::{EngineError, Result};
use crate::optim::AdamW;
use crate::optim::adamw::Moments;

pub(super) const SUFFIXES: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// A tensor whose bytes are made when they are written.
pub(super) enum Stored<'a> {
    F32(&'a Tensor<1>, [usize; 1]),
    Values(&'a [f32], [usize; 1]),
    Codes(&'a [u8], [usize; 1]),
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        if matches!(self, Self::Codes(..)) { Dtype::U8 } else { Dtype::F32 }
    }

    fn shape(&self) -> &[usize] {
        let (Self::F32(_, shape) | Self::Values(_, shape) | Self::Codes(_, shape)) = self;
        shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = |values: &[f32]| values.iter().flat_map(|it| it.to_le_bytes()).collect();
        match self {
            Self::F32(tensor, _) => {
                let values = (*tensor).clone().try_into_vec_as::<f32>();
                Cow::Owned(bytes(&values.expect("a float tensor is read as f32")))
            }
            Self::Values(values, _) => Cow::Owned(bytes(values)),
            Self::Codes(codes, _) => Cow::Borrowed(codes),
        }
    }

    fn data_len(&self) -> usize {
        self.shape()[0] * self.dtype().bitsize() / 8
    }
}

/// All moments, by name.
pub(super) fn tensors_of(optimizer: &AdamW) -> impl Iterator<Item = (String, Stored<'_>)> {
    optimizer.moments.iter().flat_map(|(name, moments)| {
        let names = SUFFIXES.map(|it| format!("{name}.{it}"));
        let mut tensors = Vec::new();
        match moments {
            Moments::F32(moments) => {
                for (name, tensor) in names.into_iter().zip([&moments.first, &moments.second]) {
                    tensors.push((name, Stored::F32(tensor, tensor.dims())));
                }
            }
            Moments::Paged(moments) => {
                for (name, values) in names.into_iter().zip(moments.halves()) {
                    tensors.push((name, Stored::Values(values, [values.len()])));
                }
            }
            Moments::Host(moments) => {
                for (name, values) in names.into_iter().zip(moments) {
                    tensors.push((name, Stored::Values(values, [values.len()])));
                }
            }
            Moments::Blocks(moments) => {
                for (name, Blocks { codes, absmax }) in
                    names.into_iter().zip([&moments.first, &moments.second])
                {
                    tensors.push((format!("{name}.absmax"), Stored::Values(absmax, [absmax.len()])));
                    tensors.push((name, Stored::Codes(codes, [codes.len()])));
                }
            }
        }
        tensors
    })
}

/// Writes `tensors` to `path`, one at a time, and syncs.
pub(super) fn write(path: &Path, tensors: Vec<(String, Stored<'_>)>) -> Result<()> {
    let format = [("format".to_string(), "pt".to_string())].into();
    safetensors::serialize_to_file(tensors, Some(format), path).map_err(|error| match error {
        SafeTensorError::IoError(source) => EngineError::io("write", path)(source),
        other => EngineError::Safetensors { path: path.to_path_buf(), reason: other.to_string() },
    })?;
    File::open(path).and_then(|it| it.sync_all()).map_err(EngineError::io("write", path))
}
