//! Safetensors files written: one tensor in memory at a time, a file whole or not at all.

use std::io::Write;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use crate::error::{EngineError, Result};

/// How floats are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoredDtype {
    /// Four bytes, exact.
    #[default]
    F32,
    /// Two bytes, the range of f32.
    Bf16,
    /// Two bytes, more digits and a smaller range.
    F16,
}

impl StoredDtype {
    /// As `config.json` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }

    /// Rounds to the nearest, ties to even; a few values at a time, so that a large weight is not there twice.
    fn write(self, values: &[f32], file: &mut dyn Write) -> std::io::Result<()> {
        /// Values at a time.
        const VALUES: usize = 64 * 1024;
        values.chunks(VALUES).try_for_each(|values| {
            let bytes: Vec<u8> = match self {
                Self::F32 => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
                Self::Bf16 => values.iter().flat_map(|it| bf16::from_f32(*it).to_le_bytes()).collect(),
                Self::F16 => values.iter().flat_map(|it| f16::from_f32(*it).to_le_bytes()).collect(),
            };
            file.write_all(&bytes)
        })
    }
}

/// Writes a tensor's bytes.
type Written<'a> = Box<dyn Fn(&mut dyn Write) -> std::io::Result<()> + 'a>;

/// A tensor whose bytes are made when they are written.
pub(crate) struct LazyTensor<'a> {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    write: Written<'a>,
}

impl<'a> LazyTensor<'a> {
    /// `values`, which must give as many as `shape` says, rounded to `dtype`.
    pub(crate) fn new(
        name: String,
        shape: Vec<usize>,
        dtype: StoredDtype,
        values: impl Fn() -> Vec<f32> + 'a,
    ) -> Self {
        Self { name, shape, dtype: dtype.dtype(), write: Box::new(move |file| dtype.write(&values(), file)) }
    }

    /// Its bytes in the file.
    fn length(&self) -> u64 {
        (self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8) as u64
    }

    /// Bytes of any type, as they lie.
    pub(crate) fn of_bytes(
        name: String,
        shape: Vec<usize>,
        dtype: Dtype,
        bytes: impl Fn() -> Vec<u8> + 'a,
    ) -> Self {
        Self { name, shape, dtype, write: Box::new(move |file| file.write_all(&bytes())) }
    }
}

/// Writes f32 tensors to `path`: to a temporary name in the same folder, synced, then renamed.
pub fn write_f32(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Result<()> {
    write_as(path, tensors, StoredDtype::F32)
}

/// As [`write_f32`], every value rounded to `dtype`.
pub fn write_as(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)], dtype: StoredDtype) -> Result<()> {
    let lazy = tensors
        .iter()
        .map(|(name, shape, values)| LazyTensor::new(name.clone(), shape.clone(), dtype, || values.clone()));
    write_lazy(path, lazy.collect())
}

/// Writes tensors one by one, the file whole or not at all.
pub(crate) fn write_lazy(path: &Path, tensors: Vec<LazyTensor<'_>>) -> Result<()> {
    write_lazy_to(To::Files, path, tensors)
}

/// Where tensors go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// To files.
    Files,
    /// Nowhere: they are made in the same order, because others need the ranks of this one to make theirs.
    Nowhere,
}

fn write_lazy_to(to: To, path: &Path, mut tensors: Vec<LazyTensor<'_>>) -> Result<()> {
    // Wide types first, as the format's own writer has them: every tensor then begins at a multiple of its type's bytes.
    tensors.sort_by(|a, b| b.dtype.bitsize().cmp(&a.dtype.bitsize()).then_with(|| a.name.cmp(&b.name)));
    if to == To::Nowhere {
        let made = tensors.iter().try_for_each(|it| (it.write)(&mut std::io::sink()));
        return made.map_err(EngineError::io("write", path));
    }
    let mut end = 0;
    let infos = tensors.iter().map(|it| {
        let start = end;
        end += it.length() as usize;
        let info = TensorInfo { dtype: it.dtype, shape: it.shape.clone(), data_offsets: (start, end) };
        (it.name.clone(), info)
    });
    let damaged = |reason: String| EngineError::Safetensors { path: path.to_path_buf(), reason };
    let format = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    let metadata =
        Metadata::new(Some(format), infos.collect()).map_err(|error| damaged(error.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| damaged(error.to_string()))?;
    // The values begin at a multiple of 8.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|it| (it.write)(file))
    })
}

/// Writes `model.safetensors` into `folder`, or, where it would hold more than `max_shard_bytes`, as many files as it takes
/// and `model.safetensors.index.json`, as transformers names and reads them. A tensor is never cut.
pub(crate) fn write_model_files(
    to: To,
    folder: &Path,
    mut tensors: Vec<LazyTensor<'_>>,
    max_shard_bytes: Option<u64>,
) -> Result<()> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let total = tensors.iter().map(LazyTensor::length).sum::<u64>();
    let Some(most) = max_shard_bytes.filter(|it| total > *it) else {
        return write_lazy_to(to, &folder.join("model.safetensors"), tensors);
    };
    let mut shards: Vec<Vec<LazyTensor<'_>>> = Vec::new();
    let mut room = 0;
    for tensor in tensors {
        let length = tensor.length();
        if shards.is_empty() || length > room {
            shards.push(Vec::new());
            room = most;
        }
        room = room.saturating_sub(length);
        shards.last_mut().expect("pushed").push(tensor);
    }
    let (count, mut places) = (shards.len(), serde_json::Map::new());
    for (index, shard) in shards.into_iter().enumerate() {
        let name = format!("model-{:05}-of-{count:05}.safetensors", index + 1);
        places.extend(shard.iter().map(|it| (it.name.clone(), name.clone().into())));
        write_lazy_to(to, &folder.join(&name), shard)?;
    }
    if to == To::Nowhere {
        return Ok(());
    }
    let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": places });
    let text = serde_json::to_vec_pretty(&index).expect("a JSON value serialises");
    write_whole(&folder.join("model.safetensors.index.json"), &text)
}

/// Writes a file whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

pub(crate) fn write_with(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let io = || EngineError::io("write", path);
    let mut builder = tempfile::Builder::new();
    // As any new file, not private as temporary ones are: others may load the model too.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(io())?;
    write(&mut file).map_err(io())?;
    file.as_file().sync_all().map_err(io())?;
    file.persist(path).map_err(|error| io()(error.error))?;
    Ok(())
}
