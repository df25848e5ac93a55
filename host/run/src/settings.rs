//! The settings that decide what a run computes, as one JSON object: its digest tells two runs apart, its keys say how.

use std::path::Path;

use fthost_data::digest::sha256;
use serde_json::{Value, json};

use crate::config::{Adapter, RunConfig};
use crate::error::{Result, RunError};
use crate::plugins::Plugins;

/// In the run's output folder.
const FILE: &str = "settings.json";

/// What a run computes, apart from its base model.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings(Value);

impl Settings {
    /// Of a run over the examples of `data_digest`.
    ///
    /// # Errors
    /// An adapter to go on with that can't be read.
    pub fn new(config: &RunConfig, data_digest: &str, plugins: &Plugins) -> Result<Self> {
        let adapter = match &config.adapter {
            Some(Adapter::Peft { path }) => json!({"peft": crate::digest::of_model(path)?}),
            other => json!(other),
        };
        let plugins: Vec<Value> = plugins
            .identities()
            .into_iter()
            .map(|(role, it)| json!({"role": role, "name": it.name, "digest": it.digest}))
            .collect();
        let data = json!({
            "digest": data_digest, "max_length": config.data.max_length, "packing": config.data.packing,
        });
        let rewards: Vec<Value> =
            config.rewards.iter().map(|(name, it)| json!({"name": name, "term": it.term()})).collect();
        let mut settings = json!({
            "rewards": rewards, "data": data, "plugins": plugins, "adapter": adapter, "quant": config.quant, "objective": config.objective,
            "rollout": config.rollout, "optimizer": config.optimizer, "schedule": config.schedule, "train": config.train,
            "eval": config.eval, "early_stop": config.early_stop, "plugin_settings": config.plugins,
        });
        // Passes over the rows are as many steps as ranks make of them.
        if config.train.epochs.is_some() && config.train.data_parallel > 1 {
            settings["ranks"] = config.train.data_parallel.into();
        }
        Ok(Self(settings))
    }

    /// `sha256:<hex>`.
    pub fn digest(&self) -> String {
        sha256(self.0.to_string().as_bytes())
    }

    /// Writes them into the run's output folder.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        std::fs::write(&path, format!("{:#}\n", self.0)).map_err(RunError::output(&path))
    }

    /// Every key that differs from what was written into `folder`, with both values.
    pub fn changes_since(&self, folder: &Path) -> Vec<String> {
        let written = std::fs::read_to_string(folder.join(FILE)).unwrap_or_default();
        // Both go through text: reading may round the last bit of a number.
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let mut changes = Vec::new();
        compare("", &read(&written), &read(&self.0.to_string()), &mut changes);
        changes
    }
}

fn compare(key: &str, before: &Value, now: &Value, changes: &mut Vec<String>) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => {
            let added = now.keys().filter(|it| !before.contains_key(*it));
            for name in before.keys().chain(added) {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                let value = |it: &serde_json::Map<String, Value>| it.get(name).cloned().unwrap_or_default();
                compare(&key, &value(before), &value(now), changes);
            }
        }
        (before, now) if before != now => changes.push(format!("`{key}` was `{before}`, is `{now}`")),
        _ => {}
    }
}
