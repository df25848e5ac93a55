//! GGUF files, versions 2 and 3: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! A file is mapped and checked once; strings, arrays and weights are read out of the map when they are asked for,
//! so that a file that lies about a length costs an error and no memory.
//!
//! `unsafe` here: mapping a file. The map lives as long as the [`GgufFile`] and all blocks taken from it.

mod architectures;
mod entries;
mod export;
mod import;
mod keys;
mod parse;
mod plan;
mod quant;
mod same;
mod slots;
mod weights;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
pub use fthost_kernels::GgmlType;
use fthost_kernels::{GgmlBlocks, Packed};
use memmap2::Mmap;

pub use entries::Entry;
pub use export::architecture_of;
pub use export::{GgufStored, write_gguf};
pub use import::{check, write_in_place, write_model};
pub use parse::Value;
pub use plan::decoder_config;
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

    /// Every dimension but the last as one.
    fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |it| it.1.iter().product())
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

    /// What a file's head says that is not written yet. Only tensors that `head` holds may be read.
    fn of_head(path: &Path, head: Vec<u8>) -> Result<Self> {
        let Parsed { version, metadata, tensors } = parse::parse_head(&head)
            .map_err(|reason| EngineError::Gguf { path: path.to_path_buf(), reason })?;
        Ok(Self { path: path.to_path_buf(), map: head.into(), version, metadata, tensors })
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

    /// An array of numbers of the metadata.
    pub fn numbers(&self, key: &str) -> Option<Vec<f64>> {
        self.metadata.get(key)?.numbers(&self.map)
    }

    /// An array of truth values of the metadata.
    pub fn truths(&self, key: &str) -> Option<Vec<bool>> {
        self.metadata.get(key)?.truths(&self.map)
    }

    /// One weight as f32, in the order of [`TensorInfo::shape`].
    ///
    /// # Errors
    /// A type that is not known here, by tensor and type.
    pub fn values(&self, tensor: &TensorInfo) -> Result<Vec<f32>> {
        self.values_of(tensor, 0..tensor.rows())
    }

    /// The values of some of a weight's rows.
    ///
    /// # Errors
    /// As [`GgufFile::values`].
    fn values_of(&self, tensor: &TensorInfo, rows: Range<usize>) -> Result<Vec<f32>> {
        match self.blocks_of(tensor, rows.clone())? {
            Some(blocks) => Ok(Packed::from(blocks).dequantize()),
            None => Ok(tensor.stored.floats(&self.data(tensor, rows)?)),
        }
    }

    /// One weight as it lies in the mapped file, every dimension but the last taken as rows; `None` where it is stored as
    /// floats.
    ///
    /// # Errors
    /// As [`GgufFile::values`].
    pub fn blocks(&self, tensor: &TensorInfo) -> Result<Option<GgmlBlocks>> {
        self.blocks_of(tensor, 0..tensor.rows())
    }

    /// Some of a weight's rows as they lie in the mapped file.
    ///
    /// # Errors
    /// As [`GgufFile::values`].
    fn blocks_of(&self, tensor: &TensorInfo, rows: Range<usize>) -> Result<Option<GgmlBlocks>> {
        let width = tensor.shape.last().copied().unwrap_or(1);
        Ok(tensor.stored.blocks(self.data(tensor, rows.clone())?, &[rows.len(), width]))
    }

    /// The bytes of some of a weight's rows, in the map.
    fn data(&self, tensor: &TensorInfo, rows: Range<usize>) -> Result<Bytes> {
        // Blocks run along rows: each takes as many bytes as the others.
        let bytes = self.check_type(tensor)? / tensor.rows();
        Ok(self.map.slice(tensor.start + rows.start * bytes..tensor.start + rows.end * bytes))
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
}
