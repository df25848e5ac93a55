//! A GGUF file as the weights of a folder: linears stay in the blocks they are stored in.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use fthost_kernels::{Packed, Weight as LinearWeight};

use super::GgufFile;
use super::plan::{Weight, plan};
use super::slots::Change;
use crate::checkpoint::build::Source;
use crate::checkpoint::load::LoadConfig;
use crate::checkpoint::safetensors::check_finite;
use crate::error::{EngineError, Result};
use crate::nn::precision::cast;

/// Its name in a folder.
pub const WEIGHTS: &str = "model.gguf";

impl Weight {
    /// Its rows in the tensor it stands in, which may hold those of other experts, too.
    fn rows(&self) -> Range<usize> {
        let rows = self.slot.shape.split_last().map_or(1, |it| it.1.iter().product());
        let first = self.slot.expert.map_or(0, |it| it[0]) * rows;
        first..first + rows
    }

    /// Where each row stands in the file, where that is not its own place.
    fn order(&self) -> Option<Vec<usize>> {
        let Change::Reordered { heads, rows } = self.slot.change else { return None };
        Some(row_order(rows, heads))
    }

    /// Its values in Hugging Face's order.
    ///
    /// # Errors
    /// A type of values that is not known.
    pub(super) fn values(&self, file: &GgufFile) -> Result<Vec<f32>> {
        let mut values = file.values_of(&self.source, self.rows())?;
        if self.slot.change == Change::PlusOne {
            values.iter_mut().for_each(|it| *it -= 1.0);
        }
        Ok(match self.order() {
            Some(order) => in_order(&values, &order),
            None => values,
        })
    }

    /// Its blocks in Hugging Face's order, a copy where that is another than the file's; `None` where it is stored as floats.
    ///
    /// # Errors
    /// As [`Weight::values`].
    fn blocks(&self, file: &GgufFile) -> Result<Option<Packed>> {
        let blocks = file.blocks_of(&self.source, self.rows())?;
        Ok(blocks.map(|it| match self.order() {
            Some(order) => it.with_rows(&order).into(),
            None => it.into(),
        }))
    }
}

/// The weights of a model by Hugging Face's names.
pub(crate) struct GgufWeights<'a> {
    file: GgufFile,
    weights: BTreeMap<String, Weight>,
    load: &'a LoadConfig,
}

impl<'a> GgufWeights<'a> {
    /// Opens the file of a folder.
    ///
    /// # Errors
    /// A file that can't be read or is not known here; weights in blocks that are to be trained, or packed anew.
    pub(crate) fn open(folder: &Path, load: &'a LoadConfig) -> Result<Self> {
        let file = GgufFile::open(&folder.join(WEIGHTS))?;
        let weights = plan(&file)?.weights;
        let of_layer = |it: &&Weight| it.source.name.starts_with("blk.");
        let in_blocks = weights.iter().filter(of_layer).find(|it| it.source.stored.is_blocks());
        if let Some(first) = in_blocks.filter(|_| load.to_train || load.quant.is_some()) {
            let (name, stored) = (&first.source.name, first.source.stored.name());
            let problem = match load.to_train {
                true => format!("`{name}` is stored as {stored}, which is frozen: train an adapter on it"),
                false => format!("`{name}` is stored as {stored} already, and `quant` is asked for"),
            };
            let what = format!("`{}`", file.path().display());
            return Err(EngineError::Invalid { what, problems: vec![problem] });
        }
        let weights = weights.into_iter().map(|it| (it.slot.name.clone(), it)).collect();
        Ok(Self { file, weights, load })
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<&Weight> {
        let folder = || self.file.path().to_path_buf();
        let missing = || EngineError::MissingTensor { folder: folder(), name: name.to_string() };
        let weight = self.weights.get(name).ok_or_else(missing)?;
        if weight.slot.shape != shape {
            let (found, expected) = (weight.slot.shape.clone(), shape.to_vec());
            return Err(EngineError::ShapeMismatch { name: name.to_string(), found, expected });
        }
        Ok(weight)
    }
}

impl Source for GgufWeights<'_> {
    fn values(&mut self, name: &str, shape: &[usize]) -> Result<TensorData> {
        let values = self.find(name, shape)?.values(&self.file)?;
        check_finite(name, &values, |it| it.to_bits())?;
        Ok(TensorData::new(values, shape.to_vec()))
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2], device: &Device) -> Result<Tensor<2>> {
        Ok(cast(Tensor::from_data(self.values(name, &shape)?, device), self.load.dtype.into()))
    }

    fn linear(&mut self, name: &str, shape: [usize; 2], device: &Device) -> Result<LinearWeight> {
        if let Some(packed) = self.find(name, &shape)?.blocks(&self.file)? {
            // A scale that is not finite makes values that are not: they are looked at once, a weight at a time.
            check_finite(name, &packed.dequantize(), |it| it.to_bits())?;
            return Ok(LinearWeight::Packed(packed.into()));
        }
        if let Some(packing) = self.load.quant.as_ref().filter(|it| it.packs_weight(name)) {
            let values = self.values(name, &shape)?;
            let packed = packing.pack(values.as_slice().expect("read as f32"), shape);
            return Ok(LinearWeight::Packed(packed.into()));
        }
        Ok(self.matrix(name, shape, device)?.into())
    }
}

/// Where each row stands in the file: neighbouring pairs of a head become its two halves.
pub(super) fn row_order(rows: usize, heads: usize) -> Vec<usize> {
    let head_dim = rows / heads;
    let of_head = |row: usize| 2 * (row % (head_dim / 2)) + row / (head_dim / 2);
    (0..rows).map(|row| row / head_dim * head_dim + of_head(row % head_dim)).collect()
}

/// The values of those rows.
pub(super) fn in_order(values: &[f32], order: &[usize]) -> Vec<f32> {
    let width = values.len() / order.len().max(1);
    order.iter().flat_map(|row| &values[row * width..(row + 1) * width]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::gguf::{write_in_place, write_model};
    use crate::checkpoint::{StoredDtype, load_model, load_model_as};
    use crate::models::CausalLm;

    fn tiny() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gguf/tiny.gguf")
    }

    fn folder_of(path: &Path) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        write_in_place(&GgufFile::open(path).unwrap(), folder.path()).unwrap();
        folder
    }

    fn weights(model: &mut CausalLm) -> Vec<(String, Vec<usize>, Vec<u32>)> {
        let mut found = Vec::new();
        model.visit_base(&mut |name, parameter| {
            let (shape, values) = parameter.to_f32();
            found.push((name.to_string(), shape, values.into_iter().map(f32::to_bits).collect()));
        });
        found
    }

    /// llama.cpp's permutation of `[0, 1, 2, 3]`, two heads of four rows each, undone.
    #[test]
    fn rows_of_a_head_return_to_their_halves() {
        let permuted = [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        assert_eq!(in_order(&permuted, &row_order(8, 2)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }

    /// Queries and keys with their rows put back; bit for bit what an import makes of the file.
    #[test]
    fn a_file_in_place_has_the_weights_of_its_import() {
        let (kept, imported) = (folder_of(&tiny()), tempfile::tempdir().unwrap());
        write_model(&GgufFile::open(&tiny()).unwrap(), imported.path(), StoredDtype::F32).unwrap();
        let mut in_place = load_model(kept.path(), &Device::flex()).unwrap();
        let mut dense = load_model(imported.path(), &Device::flex()).unwrap();
        assert!(in_place.is_packed() && !dense.is_packed());
        assert!(weights(&mut in_place) == weights(&mut dense));
    }

    #[test]
    fn blocks_are_neither_trained_nor_packed_anew() {
        let kept = folder_of(&tiny());
        let refused = |load: LoadConfig| {
            let error = load_model_as(kept.path(), &Device::flex(), &load).map(drop).unwrap_err();
            error.to_string().replace(&kept.path().display().to_string(), ".")
        };
        let to_train = LoadConfig { to_train: true, ..Default::default() };
        insta::assert_snapshot!(refused(to_train), @"invalid `./model.gguf`: `blk.0.attn_q.weight` is stored as Q4_0, which is frozen: train an adapter on it");
        let quant = Some(crate::quant::QuantConfig::Nf4(Default::default()));
        insta::assert_snapshot!(refused(LoadConfig { quant, ..Default::default() }), @"invalid `./model.gguf`: `blk.0.attn_q.weight` is stored as Q4_0 already, and `quant` is asked for");
    }

    /// The scale of the first block of a weight becomes NaN.
    #[test]
    fn a_block_that_is_not_finite_is_refused_by_name() {
        let (file, mut bytes) = (GgufFile::open(&tiny()).unwrap(), std::fs::read(tiny()).unwrap());
        let linear =
            |it: &&super::super::TensorInfo| it.stored.is_blocks() && it.name.starts_with("blk.0.ffn");
        let damaged = file.tensors().iter().find(linear).unwrap();
        bytes[damaged.start..damaged.start + 2].copy_from_slice(&[0xff, 0x7f]);
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("damaged.gguf");
        std::fs::write(&path, bytes).unwrap();
        let error = load_model(folder_of(&path).path(), &Device::flex()).map(drop).unwrap_err();
        assert!(
            matches!(&error, EngineError::NotFinite { name, index: 0 } if name.contains("mlp")),
            "{error}"
        );
    }
}
