//! A model to be trained from nothing.

use std::path::Path;

use fthost_engine::Device;
use fthost_engine::adapters::merge::save_merged_as;
use fthost_engine::checkpoint::{StoredDtype, init_model};

use super::folder::write_folder;
use crate::error::Result;

/// Writes a model of the `config.json` and the tokenizer in `source`, its weights drawn from `seed`, as the folder `out`.
///
/// # Errors
/// A configuration that is not known here; `out` is there and `force` is not given.
pub fn init(source: &Path, out: &Path, seed: u64, dtype: StoredDtype, force: bool) -> Result<()> {
    let mut model = init_model(source, seed, &Device::flex())?;
    write_folder(out, force, |folder| Ok(save_merged_as(&mut model, source, folder, dtype)?))
}
