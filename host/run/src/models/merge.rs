//! An adapter folded into its base model.

use std::path::Path;

use fthost_engine::Device;
use fthost_engine::adapters::merge::merge_adapter;
use fthost_engine::checkpoint::{load_model, save_model};

use super::Written;
use super::folder::write_folder;
use crate::adapter_base::load_adapter;
use crate::error::{Result, RunError};

/// Writes `model` with the PEFT adapter of `adapter` folded in as the folder `out`. The weights of a packed model are
/// widened for it where `dequantize` says so, and packed again where `written` does: they are others than the adapter was
/// trained on then.
///
/// # Errors
/// A model or an adapter that can't be loaded, or that do not belong together; a packed model, unless it is widened; `out`
/// is there and `force` is not given.
pub fn merge(model: &Path, adapter: &Path, out: &Path, dequantize: bool, written: &Written) -> Result<()> {
    let mut merged = load_model(model, &Device::flex())?;
    if merged.is_packed() && !dequantize {
        return Err(RunError::MergesPacked { model: model.to_path_buf() });
    }
    load_adapter(&mut merged, adapter, model)?;
    merge_adapter(&mut merged)?;
    if let Some(quant) = &written.quant {
        merged.pack(quant);
    }
    write_folder(out, written.force, |folder| Ok(save_model(&mut merged, model, folder, &written.save())?))
}
