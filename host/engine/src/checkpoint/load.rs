//! A model from a folder in Hugging Face's layout.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use fthost_kernels::Weight;

use super::build::{Sharing, Source, build};
use super::gguf::{self, GgufWeights};
use super::safetensors::TensorFiles;
use crate::error::{EngineError, Result};
use crate::models::score::SCORE;
use crate::models::{CausalLm, DecoderConfig, ScoreHead, ScoreRole, Trained};
use crate::nn::FloatDtype;
use crate::quant::{QuantConfig, bitsandbytes};
use crate::shard::Mesh;

/// What a model is loaded for, and what its frozen weights are stored in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadConfig {
    /// Every weight is about to be trained: each is read into memory of its own, so that the file's pages and what they
    /// were copied to do not both count. Goes with neither of the others.
    pub to_train: bool,
    /// Linears, embedding and head: half the memory in bf16, rounded once where the file holds more.
    pub dtype: FloatDtype,
    /// Linears: fewer bits still. Each is packed before the next is read.
    pub quant: Option<QuantConfig>,
}

/// Loads `config.json` and the safetensors, or the GGUF file, beside it, as f32, onto `device`; linears that the file holds
/// in fewer bits stay as they are.
///
/// On the CPU, weights that are stored as f32 are the file's own pages until they are trained
/// ([`TensorFiles::in_place`]): the file must not be written to while the model is used.
///
/// # Errors
/// Everything [`DecoderConfig::read`] refuses; missing, mis-shaped, unknown or non-finite weights, by name.
pub fn load_model(folder: &Path, device: &Device) -> Result<CausalLm> {
    load_model_as(folder, device, &LoadConfig::default())
}

/// As [`load_model`], stored as `load` says.
///
/// # Errors
/// As [`load_model`]; a folder whose weights are packed already, where another packing is asked for, or all are to be
/// trained.
pub fn load_model_as(folder: &Path, device: &Device, load: &LoadConfig) -> Result<CausalLm> {
    load_with(folder, device, load, None)
}

/// As [`load_model_as`], shared with the ranks of `mesh`: of what was read a rank keeps its stretches alone, so that the model
/// is never there as a whole. Nothing of it is trained, unless `load` says that it is read to be.
///
/// # Errors
/// As [`load_model_as`].
pub fn load_shared(folder: &Path, device: &Device, load: &LoadConfig, mesh: &Mesh) -> Result<CausalLm> {
    let trained = if load.to_train { Trained::Base } else { Trained::Adapter([].into()) };
    load_with(folder, device, load, Some(Sharing { mesh, trained: &trained }))
}

fn load_with(
    folder: &Path,
    device: &Device,
    load: &LoadConfig,
    sharing: Option<Sharing<'_>>,
) -> Result<CausalLm> {
    let config_path = folder.join("config.json");
    let mut config = DecoderConfig::read(&config_path)?;
    bitsandbytes::check(&config_path, load)?;
    if folder.join(gguf::WEIGHTS).is_file() {
        return build(&config, device, &mut GgufWeights::open(folder, load)?, sharing);
    }
    let files = TensorFiles::open_model(folder)?;
    let names = config.names;
    // A model that classifies predicts no tokens: nobody asks its embedding as a head.
    config.tie_word_embeddings |= files.contains(SCORE) && !files.contains(names.head);
    // Some files hold the trunk alone, whose names then lack their first part.
    let is_bare = !files.contains(names.embedding) && files.contains(&bare(names.embedding));
    // What is shared is let go of at once: no page is there twice for long.
    let in_place = !load.to_train || sharing.is_some();
    let mut source =
        Folder { files: &files, load, in_place, is_bare, config: &config, read: Vec::new(), let_go: 0 };
    let mut model = build(&config, device, &mut source, sharing)?;
    let mut read = source.read;
    if files.contains(SCORE) {
        let weight = files.read(SCORE, [1, config.hidden_size])?;
        read.push(SCORE.to_string());
        model.score = Some(ScoreHead {
            weight: Tensor::from_data(weight, device),
            bias: None,
            role: ScoreRole::Reward,
        });
    }
    // Files of tied models sometimes repeat the head; older ones store rotary frequencies and masks.
    let mut unknown = files.unknown(&read);
    unknown.retain(|name| {
        let is_buffer = BUFFERS.iter().any(|it| name.ends_with(it));
        !(is_buffer || config.tie_word_embeddings && name == names.head)
    });
    let repeats = config.tie_word_embeddings && model.score.is_none() && files.contains(names.head);
    if repeats && !files.are_equal(names.head, &source_name(is_bare, names.embedding))? {
        let problem = format!(
            "`tie_word_embeddings` is true, and `{}` holds other values than `{}`: one of them would be dropped",
            names.head, names.embedding
        );
        return Err(EngineError::Invalid {
            what: format!("`{}`", folder.display()),
            problems: vec![problem],
        });
    }
    if !unknown.is_empty() {
        return Err(EngineError::UnknownTensors { folder: folder.to_path_buf(), names: unknown });
    }
    Ok(model)
}

/// What older files hold beside weights.
const BUFFERS: [&str; 3] = ["rotary_emb.inv_freq", "attn.bias", "attn.masked_bias"];

/// A name as files have it that hold the trunk alone.
fn bare(name: &str) -> String {
    name.split_once('.').map_or(name, |it| it.1).to_string()
}

/// A name in files that may hold the trunk alone.
fn source_name(is_bare: bool, name: &str) -> String {
    if is_bare { bare(name) } else { name.to_string() }
}

/// The files of a folder, and what was read of them.
struct Folder<'a> {
    files: &'a TensorFiles,
    load: &'a LoadConfig,
    /// Whether the pages of the files may be the values.
    in_place: bool,
    is_bare: bool,
    config: &'a DecoderConfig,
    read: Vec<String>,
    /// How many of them nobody has in place any more.
    let_go: usize,
}

impl Folder<'_> {
    /// The name in the files.
    fn name(&self, name: &str) -> String {
        source_name(self.is_bare, name)
    }

    /// A linear's values in f32, which may be stored the other way round.
    fn rows(&mut self, name: &str, shape: [usize; 2]) -> Result<TensorData> {
        if !self.config.names.transposed {
            return self.values(name, &shape);
        }
        let [rows, columns] = shape;
        let stored = Tensor::<2>::from_data(self.values(name, &[columns, rows])?, &Device::flex());
        // As values in order, not as a view: kernels read rows.
        Ok(stored.transpose().into_data())
    }
}

impl Source for Folder<'_> {
    fn let_go(&mut self) {
        self.read[self.let_go..].iter().for_each(|it| self.files.release(it));
        self.let_go = self.read.len();
    }

    fn values(&mut self, name: &str, shape: &[usize]) -> Result<TensorData> {
        let name = self.name(name);
        let in_place = self.in_place;
        let found = match *shape {
            [length] if in_place => self.files.in_place(&name, [length]),
            [rows, columns] if in_place => self.files.in_place(&name, [rows, columns]),
            [length] => self.files.read(&name, [length]),
            [rows, columns] => self.files.read(&name, [rows, columns]),
            _ => unreachable!("a model has vectors and matrices"),
        };
        self.read.push(name);
        found
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2], device: &Device) -> Result<Tensor<2>> {
        if self.load.dtype == FloatDtype::F32 {
            return Ok(Tensor::from_data(self.values(name, &shape)?, device));
        }
        let name = self.name(name);
        let found = self.files.in_place_bf16(&name, shape)?;
        self.read.push(name);
        Ok(Tensor::from_data(found, (device, DType::BF16)))
    }

    fn linear(&mut self, name: &str, shape: [usize; 2], device: &Device) -> Result<Weight> {
        let stored = self.name(name);
        if let Some(found) = bitsandbytes::read(self.files, &stored, shape)? {
            self.read.extend(found.names);
            return Ok(Weight::Packed(found.weight.into()));
        }
        if let Some(packing) = self.load.quant.as_ref().filter(|it| it.packs_weight(name)) {
            let values = self.rows(name, shape)?;
            let packed = packing.pack(values.as_slice().expect("read as f32"), shape);
            drop(values);
            self.files.release(&stored);
            return Ok(Weight::Packed(packed.into()));
        }
        if !self.config.names.transposed {
            return Ok(self.matrix(name, shape, device)?.into());
        }
        let tensor = Tensor::<2>::from_data(self.rows(name, shape)?, device);
        Ok(crate::nn::precision::cast(tensor, self.load.dtype.into()).into())
    }
}
