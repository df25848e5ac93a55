//! A model written as a GGUF file, as llama.cpp's converter writes it.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Tensor;
use fthost_kernels::GgmlType;

use super::architectures::{self, Out};
use super::entries::{ALIGNMENT, Entry, Place, head};
use super::plan::configuration;
use super::quant::TensorType;
use super::slots::{self, Change, Slot};
use super::weights::{in_order, row_order};
use super::{GgufFile, same};
use crate::checkpoint::write::{StoredDtype, write_with};
use crate::error::{EngineError, Result};
use crate::models::{CausalLm, DecoderConfig, Parameter, ScoreRole};

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GgufStored {
    /// Matrices. Norms, biases, routers and learned positions are f32, whatever is said here.
    pub dtype: StoredDtype,
    /// Linears, in blocks in place of that. Embedding and head are Q8_0 then; rows that are no whole blocks are F16.
    pub blocks: Option<GgmlType>,
}

/// Makes a weight's values.
type Values = Box<dyn Fn() -> Vec<f32>>;

/// A tensor of the file: one weight, or the same one of every expert.
struct Made {
    name: String,
    shape: Vec<usize>,
    stored: TensorType,
    parts: Vec<(Slot, Values)>,
}

/// Writes `path`: what `about` says (the model's name and its tokenizer), what the architecture says, and every weight, one in
/// memory at a time. Adapters are left out.
///
/// # Errors
/// A model that a GGUF file can't say, by what is different of it in one; values that blocks can't hold; a file that can't be
/// written.
pub fn write_gguf(
    model: &mut CausalLm,
    path: &Path,
    about: &[(String, Entry)],
    stored: GgufStored,
) -> Result<()> {
    let refuse =
        |problems: Vec<String>| EngineError::Invalid { what: "model for a GGUF file".to_string(), problems };
    if model.score.as_ref().is_some_and(|it| it.role == ScoreRole::Reward) {
        return Err(refuse(vec![
            "it scores texts, and a GGUF file holds models that continue them".to_string(),
        ]));
    }
    let config = model.config.clone();
    let architecture = architectures::of_class(config.names.causal_lm);
    let Out { entries, factors, problems } = architecture.metadata(&config);
    if !problems.is_empty() {
        return Err(refuse(problems));
    }
    let mut all = vec![
        ("general.architecture".to_string(), architecture.name.into()),
        ("general.file_type".to_string(), Entry::Whole(stored.file_type())),
    ];
    if stored.blocks.is_some() {
        all.push(("general.quantization_version".to_string(), Entry::Whole(QUANTIZATION_VERSION)));
    }
    all.extend(about.iter().cloned().chain(entries));

    let mut tensors: Vec<Made> = factors.into_iter().map(Made::of_factors).collect();
    tensors.extend(weights(model, architecture.reordered, stored)?);
    let places = tensors.iter().map(Made::place).collect::<Result<Vec<_>>>()?;
    let head = head(&all, &places);
    // What is read of it must be the model, before gigabytes are written.
    let first: Vec<u8> = tensors
        .iter()
        .take_while(|it| it.parts[0].0.name.is_empty())
        .map(|it| it.bytes().map(padded))
        .collect::<Result<Vec<_>>>()?
        .concat();
    let read = GgufFile::of_head(path, [head.as_slice(), &first].concat())?;
    let differences = same::differences(&config, &configuration(&read, architecture)?.1);
    if !differences.is_empty() {
        let tell = |it: String| format!("{it}, because files of `{}` do not say it", architecture.name);
        return Err(refuse(differences.into_iter().map(tell).collect()));
    }
    write(path, &head, &tensors)
}

/// `general.architecture` of a model's file.
pub fn architecture_of(config: &DecoderConfig) -> &'static str {
    architectures::of_class(config.names.causal_lm).name
}

/// Of ggml's blocks, which have had other layouts once.
const QUANTIZATION_VERSION: u32 = 2;

fn write(path: &Path, head: &[u8], tensors: &[Made]) -> Result<()> {
    let mut outcome = Ok(());
    let written = write_with(path, |file| {
        file.write_all(head)?;
        for tensor in tensors {
            match tensor.bytes() {
                Ok(bytes) => file.write_all(&padded(bytes))?,
                Err(error) => {
                    outcome = Err(error);
                    return Err(std::io::Error::other("a weight can't be stored"));
                }
            }
        }
        Ok(())
    });
    outcome?;
    written
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

impl GgufStored {
    /// llama.cpp's `llama_ftype`.
    fn file_type(self) -> u32 {
        match (self.blocks, self.dtype) {
            (Some(GgmlType::Q4_0), _) => 2,
            (Some(GgmlType::Q4_1), _) => 3,
            (Some(GgmlType::Q8_0), _) => 7,
            (Some(GgmlType::Q5_0), _) => 8,
            (Some(GgmlType::Q5_1), _) => 9,
            // 1024: guessed, of types that are not written here.
            (Some(_), _) => 1024,
            (None, StoredDtype::F32) => 0,
            (None, StoredDtype::F16) => 1,
            (None, StoredDtype::Bf16) => 32,
        }
    }

    /// The type of one tensor.
    fn of(self, slot: &Slot) -> TensorType {
        let source = slot.source.as_str();
        if slot.shape.len() == 1 || source.contains("ffn_gate_inp") || source.contains("position_embd") {
            return TensorType::of_float(StoredDtype::F32);
        }
        let is_table = ["token_embd.weight", "output.weight"].contains(&source);
        match self.blocks {
            None => TensorType::of_float(self.dtype),
            Some(kind) if !slot.shape[1].is_multiple_of(kind.block_values()) => {
                TensorType::of_float(StoredDtype::F16)
            }
            Some(_) if is_table => TensorType::of_blocks(GgmlType::Q8_0),
            Some(kind) => TensorType::of_blocks(kind),
        }
    }
}

/// Every weight of the model in the file's order, experts together.
fn weights(model: &mut CausalLm, reordered: bool, stored: GgufStored) -> Result<Vec<Made>> {
    let mut held: BTreeMap<String, Values> = BTreeMap::new();
    model.visit_base(&mut |name, parameter| {
        let values: Values = match parameter {
            Parameter::Vector(it) => values_of(it.clone()),
            Parameter::Matrix(it) => values_of(it.clone()),
            Parameter::Packed(it) => {
                let weight = it.clone();
                Box::new(move || weight.dequantize())
            }
        };
        held.insert(name.to_string(), values);
    });
    let (mut made, mut places): (Vec<Made>, BTreeMap<String, usize>) = Default::default();
    let config = model.config.clone();
    slots::each(&config, reordered, &mut |slot| {
        let missing = || EngineError::MissingTensor { folder: "the model".into(), name: slot.name.clone() };
        let values = held.remove(&slot.name).ok_or_else(missing)?;
        let place = *places.entry(slot.source.clone()).or_insert(made.len());
        if place == made.len() {
            let (name, shape, stored) = (slot.source.clone(), slot.stored_shape(), stored.of(&slot));
            made.push(Made { name, shape, stored, parts: Vec::new() });
        }
        made[place].parts.push((slot, values));
        Ok(())
    })?;
    // What no place was found for would be lost without a sign.
    if !held.is_empty() {
        let problems = held.keys().map(|it| format!("`{it}` has no place in a GGUF file")).collect();
        return Err(EngineError::Invalid { what: "model for a GGUF file".to_string(), problems });
    }
    Ok(made)
}

fn values_of<const D: usize>(tensor: Tensor<D>) -> Values {
    Box::new(move || tensor.clone().inner().try_into_vec_as::<f32>().expect("a float tensor is read as f32"))
}

impl Made {
    /// Factors of a rotary embedding, which are no weight.
    fn of_factors((name, factors): (String, Vec<f32>)) -> Self {
        let shape = vec![factors.len()];
        let (source, change) = (name.clone(), Change::None);
        let slot = Slot { name: String::new(), source, shape: shape.clone(), expert: None, change };
        let stored = TensorType::of_float(StoredDtype::F32);
        Self { name, shape, stored, parts: vec![(slot, Box::new(move || factors.clone()))] }
    }

    fn place(&self) -> Result<Place<'_>> {
        let bytes = self.stored.bytes(&self.shape).ok_or_else(|| EngineError::Invalid {
            what: format!("`{}`", self.name),
            problems: vec![format!("{} can't hold the shape {:?}", self.stored.name(), self.shape)],
        })?;
        Ok(Place { name: &self.name, shape: &self.shape, stored: self.stored, bytes })
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        for (slot, values) in &self.parts {
            let width = slot.shape.last().copied().unwrap_or(1);
            let stored = self.stored.encode(&changed(slot.change, values()), width);
            all.extend(stored.map_err(|error| EngineError::PackedWeight {
                name: slot.name.clone(),
                reason: error.to_string(),
            })?);
        }
        Ok(all)
    }
}

/// The values that a file holds.
fn changed(change: Change, mut values: Vec<f32>) -> Vec<f32> {
    match change {
        Change::None => values,
        Change::PlusOne => {
            values.iter_mut().for_each(|it| *it += 1.0);
            values
        }
        Change::Reordered { heads, rows } => {
            let order = row_order(rows, heads);
            let mut inverse = vec![0; rows];
            order.iter().enumerate().for_each(|(to, from)| inverse[*from] = to);
            in_order(&values, &inverse)
        }
    }
}
