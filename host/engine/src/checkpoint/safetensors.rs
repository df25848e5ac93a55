//! Safetensors files, single or sharded, mapped into memory: tensors are copied out of the map, or used in place.
//!
//! A tensor that is used in place is the file's pages: no memory of its own, shared by every process that maps the
//! file, and copied when something writes to it. The file must stay as it is for as long. One that is replaced by a
//! rename, as every file is that this crate writes, stays what it was; one that is written to in place, or cut short,
//! changes weights under way, or ends the program with SIGBUS, as with every memory-mapped checkpoint.
//!
//! `unsafe` here: mapping a file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{AllocationProperty, Bytes, DType, TensorData};
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::Value;

use crate::error::{EngineError, Result};

/// The tensors of a folder or of one file.
pub struct TensorFiles {
    folder: PathBuf,
    files: Vec<MappedFile>,
    /// Tensor name to position in `files`.
    names: BTreeMap<String, usize>,
}

struct MappedFile {
    metadata: Metadata,
    /// The tensors' bytes; the map lives as long as what uses it in place.
    data: bytes::Bytes,
    map: Arc<Mmap>,
}

/// What `data` keeps alive.
struct Pages(Arc<Mmap>);

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl MappedFile {
    fn open(path: PathBuf) -> Result<Self> {
        let file = std::fs::File::open(&path).map_err(EngineError::io("read", &path))?;
        // SAFETY: the map is only read, and every read is bounds-checked. What becomes of it when another process
        // changes the file is said in this file's head.
        let map = unsafe { Mmap::map(&file) }.map_err(EngineError::io("map", &path))?;
        // Checks that the tensors lie in the file, end to end.
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|error| EngineError::Safetensors { path: path.clone(), reason: error.to_string() })?;
        let map = Arc::new(map);
        let data = bytes::Bytes::from_owner(Pages(Arc::clone(&map))).split_off(size_of::<u64>() + header);
        Ok(Self { metadata, data, map })
    }

    /// Gives the pages of a tensor back: whoever reads them again has them read from the file again.
    fn release(&self, info: &TensorInfo) {
        #[cfg(unix)]
        {
            let (begin, end) = info.data_offsets;
            let offset = self.map.len() - self.data.len() + begin;
            // SAFETY: the map is of a file and is only read, so that the values of its pages do not depend on their being
            // there.
            let advised = unsafe {
                self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, end - begin)
            };
            // It is a matter of memory alone.
            drop(advised);
        }
        #[cfg(not(unix))]
        let _ = info;
    }

    fn bytes(&self, info: &TensorInfo) -> bytes::Bytes {
        self.data.slice(info.data_offsets.0..info.data_offsets.1)
    }
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
    pub fn open(folder: &Path, paths: Vec<PathBuf>) -> Result<Self> {
        let mut files = Vec::with_capacity(paths.len());
        let mut names = BTreeMap::new();
        for path in paths {
            let file = MappedFile::open(path)?;
            names.extend(file.metadata.offset_keys().into_iter().map(|name| (name, files.len())));
            files.push(file);
        }
        Ok(Self { folder: folder.to_path_buf(), files, names })
    }

    /// Name, shape and type of every tensor, in the order of names.
    pub fn list(&self) -> Vec<(String, Vec<usize>, String)> {
        let told = |(name, file): (&String, &usize)| {
            let info = self.files[*file].metadata.info(name).expect("a name of that file");
            (name.clone(), info.shape.clone(), format!("{:?}", info.dtype))
        };
        self.names.iter().map(told).collect()
    }

    /// Names not in `known`.
    pub fn unknown(&self, known: &[String]) -> Vec<String> {
        self.names.keys().filter(|name| !known.contains(name)).cloned().collect()
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// One tensor as f32, its shape checked, in memory of its own.
    ///
    /// # Errors
    /// A missing tensor, another shape, a type that is not a float, a value that is not finite.
    pub fn read<const D: usize>(&self, name: &str, expected: [usize; D]) -> Result<TensorData> {
        let (dtype, bytes) = self.tensor(name, &expected)?;
        let values = to_f32(name, dtype, &bytes)?;
        self.release(name);
        check_finite(name, &values, |it| it.to_bits())?;
        Ok(TensorData::new(values, expected))
    }

    /// Some of the values of one of `length` values, whatever its shape, as f32.
    ///
    /// # Errors
    /// A missing tensor, one of another length, a type that is not a float, a value that is not finite.
    pub fn read_stretch(&self, name: &str, length: usize, stretch: Range<usize>) -> Result<Vec<f32>> {
        let (file, info) = self.info(name)?;
        let (shape, dtype) = (info.shape.clone(), info.dtype);
        if shape.iter().product::<usize>() != length {
            let (name, expected) = (name.to_string(), vec![length]);
            return Err(EngineError::ShapeMismatch { name, found: shape, expected });
        }
        let size = dtype.bitsize() / 8;
        let values = to_f32(name, dtype, &file.bytes(info)[stretch.start * size..stretch.end * size])?;
        check_finite(name, &values, |it| it.to_bits())?;
        Ok(values)
    }

    /// Says that the pages of a tensor are not needed any more where they are used in place by nobody: they count as
    /// memory of the process until then. Does nothing where there is no such tensor.
    pub fn release(&self, name: &str) {
        if let Ok((file, info)) = self.info(name) {
            file.release(info);
        }
    }

    /// As [`TensorFiles::read`]; a tensor that is stored as f32 stays where it is in the file, and is copied only when
    /// something writes to it.
    ///
    /// # Errors
    /// As [`TensorFiles::read`].
    pub fn in_place<const D: usize>(&self, name: &str, expected: [usize; D]) -> Result<TensorData> {
        let (dtype, bytes) = self.tensor(name, &expected)?;
        // Files of other writers need not be aligned.
        let aligned = bytes.as_ptr().align_offset(align_of::<f32>()) == 0;
        if !(cfg!(target_endian = "little") && dtype == Dtype::F32 && aligned) {
            return self.read(name, expected);
        }
        check_finite(name, bytes.as_chunks().0, |it| u32::from_le_bytes(*it))?;
        Ok(TensorData::from_bytes(Bytes::from_shared(bytes, AllocationProperty::File), expected, DType::F32))
    }

    /// As [`TensorFiles::in_place`], as bf16: a tensor that is stored so stays where it is, another is rounded.
    ///
    /// # Errors
    /// As [`TensorFiles::read`].
    pub fn in_place_bf16<const D: usize>(&self, name: &str, expected: [usize; D]) -> Result<TensorData> {
        let (dtype, bytes) = self.tensor(name, &expected)?;
        let aligned = bytes.as_ptr().align_offset(align_of::<bf16>()) == 0;
        if !(cfg!(target_endian = "little") && dtype == Dtype::BF16 && aligned) {
            let values = self.read(name, expected)?;
            let values: &[f32] = values.as_slice().expect("read as f32");
            let rounded: Vec<bf16> = values.iter().map(|it| bf16::from_f32(*it)).collect();
            return Ok(TensorData::new(rounded, expected));
        }
        check_finite(name, bytes.as_chunks().0, |it| u32::from(u16::from_le_bytes(*it)) << 16)?;
        Ok(TensorData::from_bytes(Bytes::from_shared(bytes, AllocationProperty::File), expected, DType::BF16))
    }

    /// Type and bytes of a tensor of the `expected` shape.
    fn tensor(&self, name: &str, expected: &[usize]) -> Result<(Dtype, bytes::Bytes)> {
        let (file, info) = self.info(name)?;
        if info.shape != expected {
            return Err(EngineError::ShapeMismatch {
                name: name.to_string(),
                found: info.shape.clone(),
                expected: expected.to_vec(),
            });
        }
        Ok((info.dtype, file.bytes(info)))
    }

    fn info(&self, name: &str) -> Result<(&MappedFile, &TensorInfo)> {
        let file = self.names.get(name).map(|it| &self.files[*it]);
        file.and_then(|it| Some((it, it.metadata.info(name)?)))
            .ok_or_else(|| EngineError::MissingTensor { folder: self.folder.clone(), name: name.to_string() })
    }

    /// The bytes of a tensor of any type and shape, and its type's name.
    ///
    /// # Errors
    /// A missing tensor.
    pub fn bytes(&self, name: &str) -> Result<(bytes::Bytes, String)> {
        let (file, info) = self.info(name)?;
        Ok((file.bytes(info), format!("{:?}", info.dtype)))
    }

    /// Whether two tensors have the same type and bytes.
    ///
    /// # Errors
    /// A missing tensor.
    pub fn are_equal(&self, one: &str, other: &str) -> Result<bool> {
        Ok(self.bytes(one)? == self.bytes(other)?)
    }

    /// A vector of bytes, its length checked.
    ///
    /// # Errors
    /// A missing tensor, another shape or type.
    pub fn read_u8(&self, name: &str, length: usize) -> Result<Vec<u8>> {
        let (dtype, bytes) = self.tensor(name, &[length])?;
        if dtype != Dtype::U8 {
            return Err(EngineError::Dtype { name: name.to_string(), dtype: format!("{dtype:?}") });
        }
        Ok(bytes.to_vec())
    }

    /// Shape of one tensor.
    ///
    /// # Errors
    /// A missing tensor.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.info(name)?.1.shape.clone())
    }
}

/// Every exponent is looked at, in parallel and without a branch a value: this is most of what loading a model costs.
pub(crate) fn check_finite<T: Sync>(name: &str, values: &[T], bits: impl Fn(&T) -> u32 + Sync) -> Result<()> {
    const EXPONENT: u32 = 0x7f80_0000;
    const AT_A_TIME: usize = 1 << 14;
    let not_finite = |(chunk, values): (usize, &[T])| {
        let largest = values.iter().fold(0, |largest, it| largest.max(bits(it) & EXPONENT));
        let first = || values.iter().position(|it| bits(it) & EXPONENT == EXPONENT);
        (largest == EXPONENT).then(|| chunk * AT_A_TIME + first().unwrap_or_default())
    };
    match values.par_chunks(AT_A_TIME).enumerate().find_map_first(not_finite) {
        Some(index) => Err(EngineError::NotFinite { name: name.to_string(), index }),
        None => Ok(()),
    }
}

fn to_f32(name: &str, dtype: Dtype, data: &[u8]) -> Result<Vec<f32>> {
    Ok(match dtype {
        Dtype::F32 => data.as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect(),
        Dtype::F16 => data.as_chunks::<2>().0.iter().map(|it| f16::from_le_bytes(*it).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks::<2>().0.iter().map(|it| bf16::from_le_bytes(*it).to_f32()).collect(),
        other => return Err(EngineError::Dtype { name: name.to_string(), dtype: format!("{other:?}") }),
    })
}
