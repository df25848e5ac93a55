//! `fthost.lock.json`: everything an adapter was made of, by digest.

use std::collections::BTreeMap;
use std::path::Path;

use fthost_sandbox::{CONTRACT_VERSION, Plugin, PluginTable};
use serde_json::{Value, json};

use crate::config::RunConfig;
use crate::digest;
use crate::error::{Result, RunError};
use crate::plugins::Plugins;

/// Beside the adapter.
pub const FILE: &str = "fthost.lock.json";

/// Writes the lock file into the run's output folder, whole or not at all.
///
/// `result` is the adapter's or model's folder, whose files are named by their digests too.
///
/// # Errors
/// Files that can't be read or written.
pub fn write(
    config: &RunConfig,
    plugins: &Plugins,
    data_digest: &str,
    base_digest: &str,
    result: &Path,
) -> Result<()> {
    let lock = json!({
        "version": 1,
        "fthost": env!("CARGO_PKG_VERSION"),
        "contract": CONTRACT_VERSION,
        "seed": config.train.seed,
        "run": {"digest": digest::of_bytes(json!(config).to_string().as_bytes()), "settings": config},
        "data": {"digest": data_digest},
        "model": {"digest": base_digest, "reference": config.model},
        "plugins": plugins.loaded.iter().map(plugin).collect::<Vec<Value>>(),
        "result": {"digest": digest::of_model(result)?},
    });
    let path = config.output.dir.join(FILE);
    let temporary = config.output.dir.join(format!(".{FILE}"));
    std::fs::write(&temporary, format!("{lock:#}\n"))
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(RunError::output(&path))
}

/// The plugins and the seed of the run in `folder`.
///
/// # Errors
/// A folder without a lock file, and one that can't be read.
pub fn read(folder: &Path) -> Result<(PluginTable, u64)> {
    let path = folder.join(FILE);
    let bad = |reason: String| RunError::NoAudit { path: path.clone(), reason };
    let text = std::fs::read_to_string(&path).map_err(|error| bad(error.to_string()))?;
    let lock: Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let read = || {
        let table = serde_json::from_value(lock["run"]["settings"]["plugins"].clone()).ok()?;
        Some((table, lock["seed"].as_u64()?))
    };
    read().ok_or_else(|| bad("it names no plugins and seed".into()))
}

fn plugin(plugin: &Plugin) -> Value {
    let (identity, config) = (plugin.identity(), plugin.config());
    json!({
        "name": identity.name,
        "version": identity.version,
        "digest": identity.digest,
        "contract": plugin.contract(),
        "roles": plugin.roles(),
        "config": config.config,
        "limits": config.limits,
        "grants": config.grants,
        "resources": plugin.resources().into_iter().collect::<BTreeMap<_, _>>(),
    })
}
