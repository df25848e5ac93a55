//! A model to be trained from nothing.

use std::path::Path;

use fthost_engine::Device;
use fthost_engine::checkpoint::{init_model, save_model};

use super::Written;
use super::folder::write_folder;
use crate::error::Result;

/// Writes a model of the `config.json` and the tokenizer in `source`, its weights drawn from `seed`, as the folder `out`.
///
/// # Errors
/// A configuration that is not known here; `out` is there and `force` is not given.
pub fn init(source: &Path, out: &Path, seed: u64, written: &Written) -> Result<()> {
    let mut model = init_model(source, seed, &Device::flex())?;
    if let Some(quant) = &written.quant {
        model.pack(quant);
    }
    write_folder(out, written.force, |folder| Ok(save_model(&mut model, source, folder, &written.save())?))
}
