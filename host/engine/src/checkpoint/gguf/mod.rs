//! GGUF files, versions 2 and 3: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! A file is mapped and checked once; strings, arrays and weights are read out of the map when they are asked for,
//! so that a file that lies about a length costs an error and no memory.
//!
//! `unsafe` here: mapping a file. The map lives as long as the [`GgufFile`] and all blocks taken from it.

mod import;
mod llama;
mod parse;
mod quant;
mod weights;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fthost_kernels::{GgmlBlocks, Packed};
use memmap2::Mmap;

pub use import::{check, write_in_place, write_model};
pub use parse::Value;
pub use quant::TensorType;
pub(crate) use weights::GgufWeights;
pub use weights::WEIGHTS;

use crate::error::{EngineError, Result};
use parse::Parsed;

/// A mapped GGUF file whose every length was checked.
pub struct GgufFile {
    path: PathBuf,
    map: Bytes,
    version: u32,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<TensorInfo>,
}

/// Where one weight stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// As llama.cpp names it: `blk.0.attn_q.weight`.
    pub name: String,
    /// Outermost dimension first, as in Hugging Face's files; GGUF stores them the other way round.
    pub shape: Vec<usize>,
    /// How values are stored.
    pub stored: TensorType,
    /// First byte, from the start of the file.
    start: usize,
}

impl TensorInfo {
    /// Values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl GgufFile {
    /// Maps and checks a file.
    ///
    /// # Errors
    /// A file that can't be read, is of another version, or is damaged: what and where.
    pub fn open(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(EngineError::io("read", path))?;
        // SAFETY: the map is only read, and every read is bounds-checked; a file truncated by another process while
        // it is read would raise SIGBUS, as with every memory-mapped checkpoint.
        let map = unsafe { Mmap::map(&file) }.map_err(EngineError::io("map", path))?;
        let Parsed { version, metadata, tensors } =
            parse::parse(&map).map_err(|reason| EngineError::Gguf { path: path.to_path_buf(), reason })?;
        Ok(Self { path: path.to_path_buf(), map: Bytes::from_owner(map), version, metadata, tensors })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Every weight, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// One weight's place.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|it| it.name == name)
    }

    /// Every metadata key with its value, in the order of keys.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// A text of the metadata.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key)?.text(&self.map)
    }

    /// A whole number of the metadata that is not negative.
    pub fn whole(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.whole()
    }

    /// A number of the metadata.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.metadata.get(key)?.number()
    }

    /// A truth value of the metadata.
    pub fn truth(&self, key: &str) -> Option<bool> {
        self.metadata.get(key)?.truth()
    }

    /// An array of texts of the metadata.
    pub fn texts(&self, key: &str) -> Option<Vec<&str>> {
        self.metadata.get(key)?.texts(&self.map)
    }

    /// An array of whole numbers of the metadata.
    pub fn wholes(&self, key: &str) -> Option<Vec<i64>> {
        self.metadata.get(key)?.wholes(&self.map)
    }

    /// One weight as f32, in the order of [`TensorInfo::shape`].
    ///
    /// # Errors
    /// A type that is not known here, by tensor and type.
    pub fn values(&self, tensor: &TensorInfo) -> Result<Vec<f32>> {
        match self.blocks(tensor)? {
            Some(blocks) => Ok(Packed::from(blocks).dequantize()),
            None => Ok(tensor.stored.floats(&self.data(tensor)?)),
        }
    }

    /// One weight as it lies in the mapped file, every dimension but the last taken as rows; `None` where it is stored as
    /// floats.
    ///
    /// # Errors
    /// As [`GgufFile::values`].
    pub fn blocks(&self, tensor: &TensorInfo) -> Result<Option<GgmlBlocks>> {
        Ok(tensor.stored.blocks(self.data(tensor)?, &tensor.shape))
    }

    /// The bytes of a weight, in the map.
    fn data(&self, tensor: &TensorInfo) -> Result<Bytes> {
        let bytes = self.check_type(tensor)?;
        Ok(self.map.slice(tensor.start..tensor.start + bytes))
    }

    /// Bytes of a weight whose type is known here.
    fn check_type(&self, tensor: &TensorInfo) -> Result<usize> {
        tensor.stored.bytes(&tensor.shape).ok_or_else(|| EngineError::GgufType {
            path: self.path.clone(),
            tensor: tensor.name.clone(),
            found: tensor.stored.name(),
            known: TensorType::KNOWN,
        })
    }

    fn damaged(&self, reason: impl Into<String>) -> EngineError {
        EngineError::Gguf { path: self.path.clone(), reason: reason.into() }
    }
}
