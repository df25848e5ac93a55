//! Who plays the roles of a run.

use std::path::Path;
use std::sync::Arc;

use fthost_data::{Augmenter, DataBuilder, Evaluator, PluginIdentity, Reward};
use fthost_sandbox::{
    LogSink, ModelSlot, Plugin, PluginConfig, PluginTable, RoleKind, Sandbox, SandboxConfig, SearchPath,
};

use crate::error::{Result, RunError};
use crate::place::cache_dir;

/// Every role of a run and whoever plays it: components of the sandbox, or closures in a test.
#[derive(Default)]
pub struct Plugins {
    /// Makes examples of records; without one the known row shapes are used.
    pub builder: Option<Box<dyn DataBuilder>>,
    /// Derive further training examples, in this order, each from what the one before left.
    pub augmenters: Vec<Box<dyn Augmenter>>,
    /// Score answers.
    pub rewards: Vec<Box<dyn Reward>>,
    /// Judge answers to held-out prompts.
    pub evaluators: Vec<Box<dyn Evaluator>>,
    /// The model that plugins may ask.
    pub model: ModelSlot,
    /// The components behind the roles, in the run file's order.
    pub loaded: Vec<Plugin>,
}

impl Plugins {
    /// Nobody plays anything.
    pub fn none() -> Self {
        Self::default()
    }

    /// Loads `table`'s components and lets each play its roles. `seed` is the run's.
    ///
    /// # Errors
    /// A component that is not found or refused, and a second data builder.
    pub fn load(table: &PluginTable, search: &SearchPath, seed: u64, log: LogSink) -> Result<Self> {
        let mut plugins = Self::default();
        if table.0.is_empty() {
            return Ok(plugins);
        }
        let model = plugins.model.clone();
        let cache_dir = Some(cache_dir().join("components"));
        let sandbox = Sandbox::new(SandboxConfig { cache_dir, seed, log, model })?;
        for (name, config) in &table.0 {
            let plugin = sandbox.load(name, &search.component(name, config)?, config)?;
            plugins.admit(&plugin)?;
            plugins.loaded.push(plugin);
        }
        Ok(plugins)
    }

    fn admit(&mut self, plugin: &Plugin) -> Result<()> {
        for role in plugin.roles() {
            match role {
                RoleKind::DataBuilder => {
                    if let Some(first) = &self.builder {
                        return Err(RunError::TwoBuilders {
                            first: first.identity().name.clone(),
                            second: plugin.identity().name.clone(),
                        });
                    }
                    self.builder = Some(plugin.data_builder()?);
                }
                RoleKind::Augmenter => self.augmenters.push(plugin.augmenter()?),
                RoleKind::Reward => self.rewards.push(plugin.reward()?),
                RoleKind::Evaluator => self.evaluators.push(plugin.evaluator()?),
            }
        }
        Ok(())
    }

    /// Whether any plugin was granted to ask the model.
    pub fn asks_model(&self) -> bool {
        self.loaded.iter().map(|it| it.config().grants).any(|it| it.generate || it.logprobs)
    }

    /// Role and identity of every plugin, in the order in which they are asked.
    pub fn identities(&self) -> Vec<(&'static str, &PluginIdentity)> {
        let builder = self.builder.iter().map(|it| ("builder", it.identity()));
        let augmenters = self.augmenters.iter().map(|it| ("augmenter", it.identity()));
        let rewards = self.rewards.iter().map(|it| ("reward", it.identity()));
        let evaluators = self.evaluators.iter().map(|it| ("evaluator", it.identity()));
        builder.chain(augmenters).chain(rewards).chain(evaluators).collect()
    }
}

/// What a component says of itself, for people who choose one.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PluginReport {
    /// Its own name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// `sha256:<hex>`.
    pub digest: String,
    /// The roles it exports.
    pub roles: Vec<String>,
    /// Interfaces of the host that it imports.
    pub imports: Vec<String>,
    /// JSON Schema of its configuration.
    pub config_schema: serde_json::Value,
}

impl PluginReport {
    /// Loads the component at `path` as `name` and asks it.
    ///
    /// # Errors
    /// A component that is refused. One that can't do without configuration refuses its default.
    pub fn of(name: &str, path: &Path) -> Result<Self> {
        let cache_dir = Some(cache_dir().join("components"));
        let (log, model) = (Arc::new(|_: &str, _, _: &str| {}), ModelSlot::default());
        let sandbox = Sandbox::new(SandboxConfig { cache_dir, seed: 0, log, model })?;
        let plugin = sandbox.load(name, path, &PluginConfig::default())?;
        let description = plugin.description().clone();
        Ok(Self {
            name: description.name,
            version: description.version,
            summary: description.summary,
            digest: plugin.identity().digest.clone(),
            roles: plugin.roles().iter().map(ToString::to_string).collect(),
            imports: plugin.imports().to_vec(),
            config_schema: description.config_schema,
        })
    }
}
