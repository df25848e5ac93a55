//! Which weights an adapter was trained on, noted in its folder: on others it would load, and say nothing sensible.

use std::path::Path;

use fthost_data::DataError;
use fthost_engine::adapters::{LoraConfig, peft};
use fthost_engine::models::CausalLm;
use serde::{Deserialize, Serialize};

use crate::digest;
use crate::error::{Result, RunError};

/// In the adapter's folder.
pub const FILE: &str = "fthost.base.json";

#[derive(Debug, Serialize, Deserialize)]
struct Base {
    /// As the run file named it.
    reference: String,
    /// Of its weights.
    digest: String,
}

/// Notes in the folder of `adapter` that it was trained on the weights in `base`, which are called `reference`.
///
/// # Errors
/// Files that can't be read or written.
pub(crate) fn write(adapter: &Path, base: &Path, reference: String) -> Result<()> {
    let text = serde_json::to_string_pretty(&Base { reference, digest: digest::of_weights(base)? });
    let path = adapter.join(FILE);
    std::fs::write(&path, text.expect("texts serialise") + "\n").map_err(RunError::output(&path))
}

/// Puts the adapter on `model`, whose weights are those in `base`.
///
/// # Errors
/// An adapter that was trained on others, or that can't be loaded.
pub(crate) fn load_adapter(model: &mut CausalLm, adapter: &Path, base: &Path) -> Result<LoraConfig> {
    check(adapter, base)?;
    Ok(peft::load_adapter(model, adapter)?)
}

fn check(adapter: &Path, base: &Path) -> Result<()> {
    let path = adapter.join(FILE);
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    let noted: Base = serde_json::from_str(&text)
        .map_err(|error| DataError::Damaged { path: path.clone(), reason: error.to_string() })?;
    let found = digest::of_weights(base)?;
    if found == noted.digest {
        return Ok(());
    }
    let (adapter, base) = (adapter.to_path_buf(), base.to_path_buf());
    let (reference, expected) = (noted.reference, noted.digest);
    Err(RunError::OtherBase { adapter, base, found, reference, expected })
}
