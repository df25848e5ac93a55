//! `fthost.lock.json`: everything an adapter was made of, by digest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_data::digest::sha256;
use fthost_sandbox::{CONTRACT_VERSION, GrantedFile, Plugin, PluginConfig, PluginTable};
use serde_json::{Value, json};

use crate::config::RunConfig;
use crate::digest;
use crate::error::{Result, RunError};
use crate::models::ModelConfig;
use crate::plugins::Plugins;
use crate::reward_model::RewardModels;

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
    let mut lock = json!({
        "version": 1,
        "fthost": env!("CARGO_PKG_VERSION"),
        "contract": CONTRACT_VERSION,
        "seed": config.train.seed,
        "run": {"digest": sha256(json!(config).to_string().as_bytes()), "settings": config},
        "data": {"digest": data_digest},
        "model": {"digest": base_digest, "reference": config.model},
        "plugins": plugins.loaded.iter().map(plugin).collect::<Vec<Value>>(),
        "result": {"digest": digest::of_model(result)?},
    });
    // One says nothing.
    if config.train.data_parallel > 1 {
        lock["ranks"] = config.train.data_parallel.into();
    }
    let path = config.output.dir.join(FILE);
    let temporary = config.output.dir.join(format!(".{FILE}"));
    std::fs::write(&temporary, format!("{lock:#}\n"))
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(RunError::output(&path))
}

/// What a lock file says of a run.
#[derive(Debug, Clone)]
pub struct Locked {
    /// The run's plugins, granted what they were granted when it ended. Files of a plugin's own package stand among the
    /// granted ones, by digest alone.
    pub plugins: PluginTable,
    /// The run's reward models.
    pub rewards: RewardModels,
    /// The model that was trained.
    pub model: ModelConfig,
    /// `train.seed`.
    pub seed: u64,
}

/// What the lock file of the run in `folder` says.
///
/// # Errors
/// A folder without a lock file, and one that can't be read.
pub fn read(folder: &Path) -> Result<Locked> {
    let path = folder.join(FILE);
    let bad = |reason: String| RunError::NoAudit { path: path.clone(), reason };
    let text = std::fs::read_to_string(&path).map_err(|error| bad(error.to_string()))?;
    let lock: Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let read = || {
        let settings = &lock["run"]["settings"];
        let mut plugins: PluginTable = serde_json::from_value(settings["plugins"].clone()).ok()?;
        for (name, config) in &mut plugins.0 {
            if let Some(loaded) = lock["plugins"].as_array()?.iter().find(|it| it["name"] == **name) {
                as_loaded(config, loaded)?;
            }
        }
        let rewards = settings.get("rewards").cloned().unwrap_or_else(|| json!({}));
        let rewards = serde_json::from_value(rewards).ok()?;
        let model = serde_json::from_value(lock["model"]["reference"].clone()).ok()?;
        Some(Locked { plugins, rewards, model, seed: lock["seed"].as_u64()? })
    };
    read().ok_or_else(|| bad("it names no plugins, model and seed".into()))
}

/// What [`plugin`] wrote of a plugin, over what its run file said.
fn as_loaded(config: &mut PluginConfig, loaded: &Value) -> Option<()> {
    config.config = serde_json::from_value(loaded["config"].clone()).ok()?;
    config.limits = serde_json::from_value(loaded["limits"].clone()).ok()?;
    config.grants = serde_json::from_value(loaded["grants"].clone()).ok()?;
    let files: BTreeMap<String, String> = serde_json::from_value(loaded["resources"].clone()).ok()?;
    for (name, digest) in files {
        let of_the_package = GrantedFile { file: PathBuf::new(), digest };
        config.grants.resources.entry(name).or_insert(of_the_package);
    }
    Some(())
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
