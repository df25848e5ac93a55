//! Which weights an adapter was trained on, noted in its folder: on others it would load, and say nothing sensible.

use std::path::Path;

use fthost_data::DataError;
use fthost_engine::adapters::combine::{self, Combination, Weighted};
use fthost_engine::adapters::{AdapterConfig, peft};
use fthost_engine::checkpoint::StoredDtype;
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
    note(adapter, &Base { reference, digest: digest::of_weights(base)? })
}

fn note(adapter: &Path, base: &Base) -> Result<()> {
    let path = adapter.join(FILE);
    let text = serde_json::to_string_pretty(base).expect("texts serialise");
    std::fs::write(&path, text + "\n").map_err(RunError::output(&path))
}

/// Puts the adapter on `model`, whose weights are those in `base`.
///
/// # Errors
/// An adapter that was trained on others, or that can't be loaded.
pub(crate) fn load_adapter(model: &mut CausalLm, adapter: &Path, base: &Path) -> Result<AdapterConfig> {
    check(adapter, base)?;
    Ok(peft::load_adapter(model, adapter)?)
}

/// Puts several adapters on `model` at once, each times its weight: their exact sum. The configuration is that of an
/// adapter of all their ranks.
///
/// # Errors
/// As [`load_adapter`]; adapters that can't be added up.
pub(crate) fn load_adapters(
    model: &mut CausalLm,
    adapters: &[Weighted],
    base: &Path,
) -> Result<Option<AdapterConfig>> {
    match adapters {
        [] => return Ok(None),
        [Weighted { folder, weight: 1.0 }] => return load_adapter(model, folder, base).map(Some),
        _ => {}
    }
    adapters.iter().try_for_each(|it| check(&it.folder, base))?;
    let summed = tempfile::tempdir().map_err(RunError::output(&std::env::temp_dir()))?;
    // They are put on one base here, whatever they call it.
    let name = base.to_string_lossy();
    combine::combine(adapters, &Combination::Cat, Some(&name))?.save(summed.path(), StoredDtype::F32)?;
    Ok(Some(peft::load_adapter(model, summed.path())?))
}

/// What is noted of an adapter; `None` of one that another program made.
fn noted(adapter: &Path) -> Result<Option<Base>> {
    let path = adapter.join(FILE);
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let noted = serde_json::from_str(&text)
        .map_err(|error| DataError::Damaged { path: path.clone(), reason: error.to_string() })?;
    Ok(Some(noted))
}

/// Notes in the folder of an adapter what all of `adapters`, of which it is made, have noted; nothing where one has not.
///
/// # Errors
/// Two that were trained on different weights; files that can't be read or written.
pub(crate) fn hand_on<'a>(adapters: impl Iterator<Item = &'a Path>, to: &Path) -> Result<()> {
    let mut shared: Option<(&Path, Base)> = None;
    for adapter in adapters {
        let Some(found) = noted(adapter)? else { return Ok(()) };
        match &shared {
            Some((first, Base { reference, digest })) if *digest != found.digest => {
                let [first, second] = [*first, adapter].map(Path::to_path_buf);
                let (one, other) = (reference.clone(), found.reference);
                return Err(RunError::TwoBases { first, one, second, other });
            }
            Some(_) => {}
            None => shared = Some((adapter, found)),
        }
    }
    shared.map_or(Ok(()), |(_, base)| note(to, &base))
}

fn check(adapter: &Path, base: &Path) -> Result<()> {
    let Some(noted) = noted(adapter)? else { return Ok(()) };
    let found = digest::of_weights(base)?;
    if found == noted.digest {
        return Ok(());
    }
    let (adapter, base) = (adapter.to_path_buf(), base.to_path_buf());
    let (reference, expected) = (noted.reference, noted.digest);
    Err(RunError::OtherBase { adapter, base, found, reference, expected })
}
