//! `adapter_model.safetensors`: what all kinds of adapters read of it and write into it.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use super::{PREFIX, WEIGHTS};
use crate::checkpoint::safetensors::TensorFiles;
use crate::error::{EngineError, Result};
use crate::models::score::SCORE;
use crate::models::{CausalLm, Parameter, ScoreHead, ScoreRole, Trained};

/// Name, shape and values of each.
pub(super) type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// The file, and what of it has been read.
pub(super) struct AdapterFiles {
    files: TensorFiles,
    folder: std::path::PathBuf,
    read: Vec<String>,
}

impl AdapterFiles {
    /// That of `folder`.
    ///
    /// # Errors
    /// A file that can't be read, or is damaged.
    pub fn open(folder: &Path) -> Result<Self> {
        let files = TensorFiles::open(folder, vec![folder.join(WEIGHTS)])?;
        Ok(Self { files, folder: folder.to_path_buf(), read: Vec::new() })
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.files.contains(name)
    }

    /// A tensor's shape.
    ///
    /// # Errors
    /// A missing tensor.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        self.files.shape(name)
    }

    /// A tensor of that shape, in f32.
    ///
    /// # Errors
    /// As [`TensorFiles::read`].
    pub fn read<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<TensorData> {
        self.read.push(name.to_string());
        self.files.read(name, shape)
    }

    /// Modules of the base that are trained with the adapter.
    ///
    /// # Errors
    /// As [`TensorFiles::read`].
    pub fn read_saved(&mut self, model: &mut CausalLm) -> Result<()> {
        let Trained::Adapter(_) = model.trained else { return Ok(()) };
        let (trained, device, names) = (model.trained.clone(), model.device(), model.config.names);
        let mut outcome = Ok(());
        model.visit_base(&mut |name, parameter| {
            if outcome.is_ok() && trained.selects(name) {
                outcome = self.read_parameter(name, names.is_transposed(name), parameter, &device);
            }
        });
        outcome?;
        // PEFT writes one that stays one with the embedding a second time.
        let head = format!("{PREFIX}{}", names.head);
        if model.trains_tied_head() && self.contains(&head) {
            if !self.files.are_equal(&head, &format!("{PREFIX}{}", names.embedding))? {
                let (folder, name) = (self.folder.clone(), head);
                return Err(EngineError::UnknownTensors { folder, names: vec![name] });
            }
            self.read.push(head);
        }
        Ok(())
    }

    fn read_parameter(
        &mut self,
        name: &str,
        is_transposed: bool,
        parameter: Parameter<'_>,
        device: &Device,
    ) -> Result<()> {
        let name = format!("{PREFIX}{name}");
        match parameter {
            Parameter::Vector(tensor) => {
                *tensor = Tensor::from_data(self.read(&name, tensor.dims())?, device);
            }
            Parameter::Matrix(tensor) if is_transposed => {
                let [out, width] = tensor.dims();
                *tensor = Tensor::<2>::from_data(self.read(&name, [width, out])?, device).transpose();
            }
            Parameter::Matrix(tensor) => {
                *tensor = Tensor::from_data(self.read(&name, tensor.dims())?, device);
            }
            Parameter::Packed(_) => unreachable!("a packed module is refused when it is to be trained"),
        }
        Ok(())
    }

    /// The head of a reward model.
    ///
    /// # Errors
    /// As [`TensorFiles::read`].
    pub fn read_score(&mut self, model: &mut CausalLm) -> Result<()> {
        let weight = self.read(&format!("{PREFIX}{SCORE}"), [1, model.config.hidden_size])?;
        let weight = Tensor::from_data(weight, &model.device());
        model.score = Some(ScoreHead { weight, bias: None, role: ScoreRole::Reward });
        Ok(())
    }

    /// # Errors
    /// Tensors that nobody has read.
    pub fn check_whole(&self) -> Result<()> {
        let names = self.files.unknown(&self.read);
        if names.is_empty() {
            return Ok(());
        }
        Err(EngineError::UnknownTensors { folder: self.folder.clone(), names })
    }
}

/// Modules of the base that are trained with the adapter.
pub(super) fn push_saved(model: &mut CausalLm, tensors: &mut Tensors) {
    let Trained::Adapter(_) = model.trained else { return };
    let (trained, names) = (model.trained.clone(), model.config.names);
    model.visit_base(&mut |name, parameter| {
        if !trained.selects(name) {
            return;
        }
        let (shape, values) = match parameter {
            Parameter::Matrix(tensor) if names.is_transposed(name) => {
                Parameter::Matrix(&mut tensor.clone().transpose()).to_f32()
            }
            parameter => parameter.to_f32(),
        };
        tensors.push((format!("{PREFIX}{name}"), shape, values));
    });
    // PEFT asks for both of what stays one.
    let (embedding, head) = (format!("{PREFIX}{}", names.embedding), format!("{PREFIX}{}", names.head));
    let tied = tensors.iter().find(|it| model.trains_tied_head() && it.0 == embedding);
    if let Some((_, shape, values)) = tied {
        let again = (head, shape.clone(), values.clone());
        tensors.push(again);
    }
}

/// A visitor that puts what it sees into `tensors`, as PEFT names it.
pub(super) fn push(tensors: &mut Tensors) -> impl FnMut(&str, Parameter<'_>) {
    move |name, parameter| {
        let (shape, values) = parameter.to_f32();
        tensors.push((format!("{PREFIX}{name}"), shape, values));
    }
}
