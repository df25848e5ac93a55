//! Safetensors files, single or sharded, mapped into memory and read tensor by tensor.
//!
//! `unsafe` here: mapping a file. The maps live only while weights are being copied out of them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::error::{EngineError, Result};

/// The tensors of a folder or of one file.
pub struct TensorFiles {
    folder: PathBuf,
    maps: Vec<(PathBuf, Mmap)>,
    /// Tensor name to position in `maps`.
    names: BTreeMap<String, usize>,
}

impl TensorFiles {
    /// Opens `model.safetensors`, or every shard that `model.safetensors.index.json` names.
    pub fn open_model(folder: &Path) -> Result<Self> {
        let index_path = folder.join("model.safetensors.index.json");
        if !index_path.exists() {
            return Self::open(folder, vec![folder.join("model.safetensors")]);
        }
        let text = std::fs::read_to_string(&index_path).map_err(EngineError::io("read", &index_path))?;
        let index: Value = serde_json::from_str(&text)
            .map_err(|source| EngineError::Json { path: index_path.clone(), source })?;
        let map = index["weight_map"].as_object().cloned().unwrap_or_default();
        let mut files: Vec<PathBuf> =
            map.values().filter_map(Value::as_str).map(|file| folder.join(file)).collect();
        files.sort();
        files.dedup();
        Self::open(folder, files)
    }

    /// Opens the given files.
    pub fn open(folder: &Path, files: Vec<PathBuf>) -> Result<Self> {
        let mut maps = Vec::with_capacity(files.len());
        let mut names = BTreeMap::new();
        for path in files {
            let file = std::fs::File::open(&path).map_err(EngineError::io("read", &path))?;
            // SAFETY: the map is only read, and every read is bounds-checked by `safetensors`; a file truncated by
            // another process while it is read would raise SIGBUS, as with every memory-mapped checkpoint.
            let map = unsafe { Mmap::map(&file) }.map_err(EngineError::io("map", &path))?;
            for name in parse(&path, &map)?.names() {
                names.insert(name.to_string(), maps.len());
            }
            maps.push((path, map));
        }
        Ok(Self { folder: folder.to_path_buf(), maps, names })
    }

    /// Names not in `known`.
    pub fn unknown(&self, known: &[String]) -> Vec<String> {
        self.names.keys().filter(|name| !known.contains(name)).cloned().collect()
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// One tensor as f32, its shape checked.
    ///
    /// # Errors
    /// A missing tensor, another shape, a type that is not a float, a value that is not finite.
    pub fn read<const D: usize>(&self, name: &str, expected: [usize; D]) -> Result<TensorData> {
        let missing = || EngineError::MissingTensor { folder: self.folder.clone(), name: name.to_string() };
        let (path, map) = &self.maps[*self.names.get(name).ok_or_else(missing)?];
        let tensors = parse(path, map)?;
        let view = tensors.tensor(name).map_err(|_| missing())?;
        if view.shape() != expected {
            return Err(EngineError::ShapeMismatch {
                name: name.to_string(),
                found: view.shape().to_vec(),
                expected: expected.to_vec(),
            });
        }
        let values = to_f32(name, &view)?;
        if let Some(index) = values.iter().position(|it| !it.is_finite()) {
            return Err(EngineError::NotFinite { name: name.to_string(), index });
        }
        Ok(TensorData::new(values, expected))
    }

    /// Shape of one tensor.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let missing = || EngineError::MissingTensor { folder: self.folder.clone(), name: name.to_string() };
        let (path, map) = &self.maps[*self.names.get(name).ok_or_else(missing)?];
        Ok(parse(path, map)?.tensor(name).map_err(|_| missing())?.shape().to_vec())
    }
}

fn parse<'a>(path: &Path, map: &'a Mmap) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(map)
        .map_err(|error| EngineError::Safetensors { path: path.to_path_buf(), reason: error.to_string() })
}

fn to_f32(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>> {
    let data = view.data();
    Ok(match view.dtype() {
        Dtype::F32 => data.as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect(),
        Dtype::F16 => data.as_chunks::<2>().0.iter().map(|it| f16::from_le_bytes(*it).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks::<2>().0.iter().map(|it| bf16::from_le_bytes(*it).to_f32()).collect(),
        other => return Err(EngineError::Dtype { name: name.to_string(), dtype: format!("{other:?}") }),
    })
}

/// Writes f32 tensors to `path`: to a temporary name in the same folder, synced, then renamed.
pub fn write_f32(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Result<()> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|it| it.to_le_bytes()).collect())
        .collect();
    let damaged = |error: safetensors::SafeTensorError| EngineError::Safetensors {
        path: path.to_path_buf(),
        reason: error.to_string(),
    };
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| {
            Ok((name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes)?))
        })
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(damaged)?;
    let metadata = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    let serialized = safetensors::serialize(views, Some(metadata)).map_err(damaged)?;
    write_whole(path, &serialized)
}

/// Writes a file whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(EngineError::io("write", path))?;
    file.write_all(bytes).map_err(EngineError::io("write", path))?;
    file.as_file().sync_all().map_err(EngineError::io("write", path))?;
    file.persist(path).map_err(|error| EngineError::io("write", path)(error.error))?;
    Ok(())
}
