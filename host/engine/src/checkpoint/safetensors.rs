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
use safetensors::tensor::{Dtype, Metadata, TensorInfo, TensorView};
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

    /// Name, shape and type of every tensor, in the order of names.
    ///
    /// # Errors
    /// A file that is no longer sound.
    pub fn list(&self) -> Result<Vec<(String, Vec<usize>, String)>> {
        let mut all = Vec::with_capacity(self.names.len());
        for (path, map) in &self.maps {
            for (name, view) in parse(path, map)?.iter() {
                all.push((name.to_string(), view.shape().to_vec(), format!("{:?}", view.dtype())));
            }
        }
        all.sort();
        Ok(all)
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

    /// A vector of bytes, its length checked.
    ///
    /// # Errors
    /// A missing tensor, another shape or type.
    pub fn read_u8(&self, name: &str, length: usize) -> Result<Vec<u8>> {
        let missing = || EngineError::MissingTensor { folder: self.folder.clone(), name: name.to_string() };
        let (path, map) = &self.maps[*self.names.get(name).ok_or_else(missing)?];
        let tensors = parse(path, map)?;
        let view = tensors.tensor(name).map_err(|_| missing())?;
        if view.shape() != [length] {
            let (found, expected) = (view.shape().to_vec(), vec![length]);
            return Err(EngineError::ShapeMismatch { name: name.to_string(), found, expected });
        }
        if view.dtype() != Dtype::U8 {
            return Err(EngineError::Dtype { name: name.to_string(), dtype: format!("{:?}", view.dtype()) });
        }
        Ok(view.data().to_vec())
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

    /// Rounds to the nearest, ties to even.
    fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|it| bf16::from_f32(*it).to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|it| f16::from_f32(*it).to_le_bytes()).collect(),
        }
    }
}

/// A tensor whose values are made when they are written.
pub(crate) struct LazyTensor<'a> {
    name: String,
    shape: Vec<usize>,
    values: Box<dyn Fn() -> Vec<f32> + 'a>,
}

impl<'a> LazyTensor<'a> {
    /// `values` must give as many as `shape` says.
    pub(crate) fn new(name: String, shape: Vec<usize>, values: impl Fn() -> Vec<f32> + 'a) -> Self {
        Self { name, shape, values: Box::new(values) }
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
        .map(|(name, shape, values)| LazyTensor::new(name.clone(), shape.clone(), || values.clone()));
    write_lazy(path, lazy.collect(), dtype)
}

/// Writes tensors one by one, the file whole or not at all.
pub(crate) fn write_lazy(path: &Path, mut tensors: Vec<LazyTensor<'_>>, dtype: StoredDtype) -> Result<()> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut end = 0;
    let infos = tensors.iter().map(|it| {
        let start = end;
        end += it.shape.iter().product::<usize>() * dtype.dtype().bitsize() / 8;
        let info = TensorInfo { dtype: dtype.dtype(), shape: it.shape.clone(), data_offsets: (start, end) };
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
        tensors.iter().try_for_each(|it| file.write_all(&dtype.bytes(&(it.values)())))
    })
}

/// Writes a file whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

fn write_with(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
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
