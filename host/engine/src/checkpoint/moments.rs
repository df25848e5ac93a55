//! The optimizer's moments on disk, named as torch names them: `<parameter>.exp_avg` and `<parameter>.exp_avg_sq`. Those
//! in blocks of 8 bits are codes (u8), with `<name>.absmax` beside them.

use std::borrow::Cow;
use std::fs::File;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use fthost_kernels::BlockMoments;
use fthost_kernels::adamw::{BLOCK, Blocks};
use safetensors::{Dtype, SafeTensorError, View};

use super::safetensors::TensorFiles;
use crate::error::{EngineError, Result};
use crate::optim::adamw::Moments;
use crate::optim::{AdamW, MomentStorage, PagedMoments};

const SUFFIXES: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// A tensor whose bytes are made when they are written.
enum Stored<'a> {
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

/// Writes all moments to `path`, one tensor at a time, and syncs.
pub(super) fn write(path: &Path, optimizer: &AdamW) -> Result<()> {
    let mut tensors = Vec::new();
    for (name, moments) in &optimizer.moments {
        let names = SUFFIXES.map(|it| format!("{name}.{it}"));
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
            Moments::Blocks(moments) => {
                for (name, Blocks { codes, absmax }) in
                    names.into_iter().zip([&moments.first, &moments.second])
                {
                    tensors.push((format!("{name}.absmax"), Stored::Values(absmax, [absmax.len()])));
                    tensors.push((name, Stored::Codes(codes, [codes.len()])));
                }
            }
        }
    }
    let format = [("format".to_string(), "pt".to_string())].into();
    safetensors::serialize_to_file(tensors, Some(format), path).map_err(|error| match error {
        SafeTensorError::IoError(source) => EngineError::io("write", path)(source),
        other => EngineError::Safetensors { path: path.to_path_buf(), reason: other.to_string() },
    })?;
    File::open(path).and_then(|it| it.sync_all()).map_err(EngineError::io("write", path))
}

/// The moments of a parameter of `length` values, those in f32 in `storage`; `None` where it had not been updated yet.
pub(super) fn read(
    files: &TensorFiles,
    name: &str,
    length: usize,
    storage: &MomentStorage,
    device: &Device,
) -> Result<Option<Moments>> {
    let [first, second] = SUFFIXES.map(|it| format!("{name}.{it}"));
    if !files.contains(&first) {
        return Ok(None);
    }
    if !files.contains(&format!("{first}.absmax")) {
        let (first, second) = (files.read(&first, [length])?, files.read(&second, [length])?);
        if let MomentStorage::Paged(folder) = storage {
            let [first, second] = [&first, &second].map(|it| it.as_slice().expect("read as f32"));
            return Ok(Some(Moments::Paged(PagedMoments::of(first, second, folder)?)));
        }
        let [first, second] = [first, second].map(|it| Tensor::from_data(it, device));
        return Ok(Some(Moments::F32(fthost_kernels::Moments { first, second })));
    }
    let moment = |name: &str| {
        let absmax = files.read(&format!("{name}.absmax"), [length.div_ceil(BLOCK)])?;
        let absmax = absmax.try_into_vec::<f32>().expect("read as f32");
        Ok(Blocks { codes: files.read_u8(name, length)?, absmax })
    };
    Ok(Some(Moments::Blocks(BlockMoments { first: moment(&first)?, second: moment(&second)? })))
}
