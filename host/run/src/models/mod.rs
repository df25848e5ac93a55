//! Where models come from, and what is done with their files.

pub mod combine;
pub mod convert;
pub mod embedded;
pub mod export;
pub mod folder;
pub mod hub;
pub mod init;
pub mod inspect;
pub mod merge;

use std::path::{Path, PathBuf};

use fthost_engine::checkpoint::SaveConfig;
pub use fthost_engine::checkpoint::StoredDtype;
pub use fthost_engine::checkpoint::gguf::GgmlType;
use fthost_engine::models::DecoderConfig;
pub use fthost_engine::quant::{FourBitOptions, Int8Options, QuantConfig};
use serde::{Deserialize, Serialize};

use crate::config::RunConfig;
use crate::error::Result;

/// `[model]`: a folder, or a model of the hub; with neither, the model that is part of the program.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// A folder in Hugging Face's layout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// A model of the hub, `owner/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// Branch, tag or commit on the hub; `main` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Where the model was found.
    #[serde(skip)]
    found: Option<PathBuf>,
}

impl ModelConfig {
    /// The same model, found in `folder`.
    pub fn found_in(&self, folder: PathBuf) -> Self {
        Self { found: Some(folder), ..self.clone() }
    }

    /// The model's folder; empty where it was not looked for and is not named.
    pub fn folder(&self) -> &Path {
        self.found.as_deref().or(self.path.as_deref()).unwrap_or(Path::new(""))
    }

    /// What another program is told to load the model from: the hub's name, or the folder.
    pub fn reference(&self) -> String {
        let folder = || self.folder().to_string_lossy().into_owned();
        self.hub.clone().filter(|_| self.path.is_none()).unwrap_or_else(folder)
    }

    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let (Some(path), Some(hub)) = (&self.path, &self.hub) {
            let path = path.display();
            problems.push(format!("`path` and `hub` can't both be given, got `{path}` and `{hub}`"));
        }
        if let (Some(revision), None) = (&self.revision, &self.hub) {
            problems.push(format!("`revision` is of the hub and needs `hub`, got `{revision}`"));
        }
        problems
    }
}

/// How a model's folder is written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Written {
    /// Type of floats.
    pub dtype: StoredDtype,
    /// What linears are packed in; not at all if `None`.
    pub quant: Option<QuantConfig>,
    /// What linears of a GGUF file are stored in; not in blocks if `None`.
    pub blocks: Option<GgmlType>,
    /// Bytes of a file at most, unless one tensor has more.
    pub max_shard_bytes: Option<u64>,
    /// A GGUF file becomes the folder's weights as it is, its linears stay in its blocks.
    pub keep_blocks: bool,
    /// A model that is there is replaced.
    pub force: bool,
}

impl Written {
    fn save(&self) -> SaveConfig {
        SaveConfig {
            dtype: self.dtype,
            keep_packed: self.quant.is_some(),
            max_shard_bytes: self.max_shard_bytes,
        }
    }
}

/// Where a model was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A folder that the run file names.
    Folder,
    /// The hub, or what was fetched from it before.
    Hub,
    /// The program itself.
    Embedded,
}

/// A model's folder on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedModel {
    /// In Hugging Face's layout.
    pub folder: PathBuf,
    /// Where it is from.
    pub origin: Origin,
}

/// The run with its model found, and rows no longer than that model's context.
///
/// # Errors
/// As [`resolve`].
pub fn found(config: &RunConfig) -> Result<RunConfig> {
    let model = config.model.found_in(resolve(&config.model)?.folder);
    let mut data = config.data.clone();
    // A folder that holds no model is told of by whoever loads it.
    if let Ok(read) = DecoderConfig::read(&model.folder().join("config.json")) {
        // So is a folder that holds no adapter.
        let adapter = config.adapter.as_ref().and_then(|it| it.on(&read).ok());
        adapter.iter().try_for_each(|it| it.check_place(&read))?;
        let before = adapter.map_or(0, |it| it.virtual_tokens());
        data.max_length = data.max_length.min(read.context_length() - before);
    }
    Ok(RunConfig { model, data, ..config.clone() })
}

/// Finds the model: a folder, the hub's, or the embedded one where nothing is named.
///
/// # Errors
/// A hub that does not give the model, and why; a cache that can't be written. Whether a folder that is named holds a
/// model is told by whoever loads it.
pub fn resolve(config: &ModelConfig) -> Result<ResolvedModel> {
    if let Some(folder) = &config.path {
        return Ok(ResolvedModel { folder: folder.clone(), origin: Origin::Folder });
    }
    if let Some(repo) = &config.hub {
        let folder = hub::Hub::from_env().fetch(repo, config.revision.as_deref(), &mut |_| {})?;
        return Ok(ResolvedModel { folder, origin: Origin::Hub });
    }
    Ok(ResolvedModel { folder: embedded::unpack()?, origin: Origin::Embedded })
}
