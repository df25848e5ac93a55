//! What a checkpoint holds of a stretch of a parameter, whoever wrote it: one process, with everything in whole tensors, or ranks,
//! each with a file of its pieces. Who reads it may be any other number of ranks: what is asked for is put together from whatever
//! pieces meet it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use fthost_kernels::BlockMoments;
use fthost_kernels::adamw::{BLOCK, Blocks};
use serde::{Deserialize, Serialize};

use super::moments::SUFFIXES;
use super::safetensors::TensorFiles;
use crate::error::{EngineError, Result};
use crate::optim::adamw::Moments;
use crate::optim::{MomentStorage, PagedMoments};

/// A piece of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// Which of the files has it.
    pub shard: usize,
    /// Its first value, of the parameter's.
    pub begin: usize,
    /// Its values.
    pub length: usize,
}

/// Where the pieces of every parameter are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    /// A file of each rank.
    pub shards: Vec<String>,
    /// By the parameter's name, in the order of its values.
    pub parameters: BTreeMap<String, Vec<Place>>,
}

/// A checkpoint's values.
pub(super) struct Saved {
    files: Vec<TensorFiles>,
    /// Of whole tensors there is none.
    index: Option<Index>,
}

impl Saved {
    /// Whole tensors, in these files of `checkpoint`.
    pub fn whole(checkpoint: &Path, names: impl Iterator<Item = &'static str>) -> Result<Self> {
        let files = TensorFiles::open(checkpoint, names.map(|it| checkpoint.join(it)).collect())?;
        Ok(Self { files: vec![files], index: None })
    }

    /// Pieces, in the files of `checkpoint` that `index` names.
    pub fn shards(checkpoint: &Path, index: Index) -> Result<Self> {
        let open = |it: &String| TensorFiles::open(checkpoint, vec![checkpoint.join(it)]);
        Ok(Self { files: index.shards.iter().map(open).collect::<Result<_>>()?, index: Some(index) })
    }

    /// Whether anything is known of a parameter's own values.
    pub fn contains(&self, name: &str) -> bool {
        match &self.index {
            Some(index) => index.parameters.contains_key(name),
            None => self.files[0].contains(name),
        }
    }

    /// The pieces of a parameter that has `whole` values.
    fn places(&self, name: &str, whole: usize) -> Result<Vec<Place>> {
        let Some(index) = &self.index else { return Ok(vec![Place { shard: 0, begin: 0, length: whole }]) };
        let places = index.parameters.get(name).cloned().unwrap_or_default();
        let mut end = 0;
        for place in &places {
            if place.begin != end || place.shard >= self.files.len() {
                break;
            }
            end += place.length;
        }
        match end == whole {
            true => Ok(places),
            false => Err(EngineError::ShapeMismatch {
                name: name.to_string(),
                found: vec![end],
                expected: vec![whole],
            }),
        }
    }

    /// What `read` finds of the pieces that meet `stretch` of a parameter of `whole` values: it is given a file, how many values the
    /// piece there has, and which of them are asked for.
    fn gathered<T>(
        &self,
        name: &str,
        whole: usize,
        stretch: &Range<usize>,
        mut read: impl FnMut(&TensorFiles, usize, Range<usize>) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::with_capacity(stretch.len());
        for Place { shard, begin, length } in self.places(name, whole)? {
            let (from, to) = (stretch.start.max(begin), stretch.end.min(begin + length));
            if from < to {
                found.extend(read(&self.files[shard], length, from - begin..to - begin)?);
            }
        }
        Ok(found)
    }

    /// The values of a stretch of a parameter of `whole` values.
    ///
    /// # Errors
    /// Values that are missing, or are not finite.
    pub fn values(&self, name: &str, whole: usize, stretch: &Range<usize>) -> Result<Vec<f32>> {
        self.gathered(name, whole, stretch, |files, length, values| files.read_stretch(name, length, values))
    }

    /// The moments of a stretch, which begins where a block of 8-bit ones does; those in f32 in `storage`. `None` where the
    /// parameter had not been updated yet.
    ///
    /// # Errors
    /// As [`Saved::values`].
    pub fn moments(
        &self,
        name: &str,
        whole: usize,
        stretch: &Range<usize>,
        storage: &MomentStorage,
        device: &Device,
    ) -> Result<Option<Moments>> {
        let [first, second] = SUFFIXES.map(|it| format!("{name}.{it}"));
        let Some(files) = self.files.iter().find(|it| it.contains(&first)) else { return Ok(None) };
        if files.contains(&format!("{first}.absmax")) {
            let [first, second] = [first, second].map(|it| self.blocks(name, &it, whole, stretch));
            return Ok(Some(Moments::Blocks(BlockMoments { first: first?, second: second? })));
        }
        let [first, second] = [first, second].map(|moment| {
            self.gathered(name, whole, stretch, |files, length, it| files.read_stretch(&moment, length, it))
        });
        let (first, second) = (first?, second?);
        if let MomentStorage::Paged(folder) = storage {
            return Ok(Some(Moments::Paged(PagedMoments::of(&first, &second, folder)?)));
        }
        if *storage == MomentStorage::Host {
            return Ok(Some(Moments::Host([first, second])));
        }
        let tensor = |values: Vec<f32>| {
            let length = values.len();
            Tensor::from_data(TensorData::new(values, [length]), device)
        };
        let (first, second) = (tensor(first), tensor(second));
        Ok(Some(Moments::F32(fthost_kernels::Moments { first, second })))
    }

    fn blocks(&self, name: &str, moment: &str, whole: usize, stretch: &Range<usize>) -> Result<Blocks> {
        let codes = self.gathered(name, whole, stretch, |files, length, it| {
            Ok(files.read_u8(moment, length)?[it].to_vec())
        })?;
        let absmax = self.gathered(name, whole, stretch, |files, length, it| {
            let blocks = it.start / BLOCK..it.end.div_ceil(BLOCK);
            files.read_stretch(&format!("{moment}.absmax"), length.div_ceil(BLOCK), blocks)
        })?;
        Ok(Blocks { codes, absmax })
    }
}
