//! An adapter folded into its base model.

use std::path::Path;

use fthost_engine::Device;
use fthost_engine::adapters::merge::save_merged_as;
use fthost_engine::adapters::peft::load_adapter;
use fthost_engine::checkpoint::{StoredDtype, load_model};

use super::folder::write_folder;
use crate::error::Result;

/// Writes `model` with the PEFT adapter of `adapter` folded in as the folder `out`, its weights as `dtype`.
///
/// # Errors
/// A model or an adapter that can't be loaded, or that do not belong together; `out` is there and `force` is not given.
pub fn merge(model: &Path, adapter: &Path, out: &Path, dtype: StoredDtype, force: bool) -> Result<()> {
    let mut merged = load_model(model, &Device::flex())?;
    load_adapter(&mut merged, adapter)?;
    write_folder(out, force, |folder| Ok(save_merged_as(&mut merged, model, folder, dtype)?))
}
