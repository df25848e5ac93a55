//! What a file says of its model, and where each weight of it stands.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::architectures::{self, Architecture};
use super::keys::Asked;
use super::slots::{self, Slot};
use super::{GgufFile, TensorInfo};
use crate::error::{EngineError, Result};
use crate::models::DecoderConfig;

/// A model as Hugging Face would have it.
pub(super) struct Plan {
    /// `config.json`, its `dtype` apart.
    pub config: Json,
    /// What that means.
    pub decoder: DecoderConfig,
    /// Every weight, in the order of the model.
    pub weights: Vec<Weight>,
}

/// One weight and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Weight {
    pub slot: Slot,
    pub source: TensorInfo,
}

/// Reads what the file says of its model and finds every weight.
///
/// # Errors
/// Another architecture, metadata that is missing or can't be honoured here (all of it at once), weights that are
/// missing, left over or of another shape.
pub(super) fn plan(file: &GgufFile) -> Result<Plan> {
    let architecture = architecture(file)?;
    let (config, decoder, known) = configuration(file, architecture)?;
    let by_name: BTreeMap<&str, &TensorInfo> =
        file.tensors().iter().map(|it| (it.name.as_str(), it)).collect();
    let (mut weights, mut taken) = (Vec::new(), known);
    slots::each(&decoder, architecture.reordered, &mut |slot| {
        let missing =
            || EngineError::MissingTensor { folder: file.path().to_path_buf(), name: slot.source.clone() };
        let source = (*by_name.get(slot.source.as_str()).ok_or_else(missing)?).clone();
        let expected = slot.stored_shape();
        if source.shape != expected {
            return Err(EngineError::ShapeMismatch { name: slot.source, found: source.shape, expected });
        }
        if !taken.contains(&slot.source) {
            taken.insert(slot.source.clone());
        }
        weights.push(Weight { slot, source });
        Ok(())
    })?;
    let names = file.tensors().iter().map(|it| it.name.clone());
    let unknown: Vec<String> = names.filter(|it| !taken.contains(it)).collect();
    if !unknown.is_empty() {
        return Err(EngineError::UnknownTensors { folder: file.path().to_path_buf(), names: unknown });
    }
    Ok(Plan { config, decoder, weights })
}

/// That of the file.
///
/// # Errors
/// One that is not known here.
fn architecture(file: &GgufFile) -> Result<&'static Architecture> {
    let found = file.text("general.architecture").unwrap_or("none");
    architectures::named(found).ok_or_else(|| EngineError::UnknownArchitecture {
        path: file.path().to_path_buf(),
        found: found.to_string(),
        known: architectures::known(),
    })
}

/// `config.json`, what it means, and the tensors that say so.
pub(super) fn configuration(
    file: &GgufFile,
    architecture: &'static Architecture,
) -> Result<(Json, DecoderConfig, BTreeSet<String>)> {
    let (config, Asked { tensors, problems }) = architecture.config(file);
    if !problems.is_empty() {
        let what = format!("`{}`", file.path().display());
        return Err(EngineError::Invalid { what, problems });
    }
    let decoder = DecoderConfig::of(file.path(), &config)?;
    Ok((config, decoder, tensors))
}

/// What a file's metadata says of its model.
///
/// # Errors
/// As [`super::write_model`]; weights are not looked for.
pub fn decoder_config(file: &GgufFile) -> Result<DecoderConfig> {
    Ok(configuration(file, architecture(file)?)?.1)
}
