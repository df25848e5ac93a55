//! A plugin, loaded and configured, and the roles it plays.

use std::path::Path;
use std::sync::Arc;

use fthost_data::{Augmenter, DataBuilder, Evaluator, Failure, PluginIdentity, Reward};
use sha2::{Digest, Sha256};

use crate::component::{Compiled, RoleKind, Sandbox};
use crate::error::{Result, SandboxError};
use crate::handle::{Handle, Parts, World, begin, failure, store};
use crate::roles::{AnyRole, AugmenterRole, BuilderRole, EvaluatorRole, RewardRole};
use crate::set::PluginConfig;
use crate::state::StateParts;
use crate::wit;

/// What a plugin says of itself.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Description {
    /// Its own name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// JSON Schema of its configuration.
    pub config_schema: serde_json::Value,
}

/// A plugin that has accepted its configuration.
pub struct Plugin {
    identity: PluginIdentity,
    description: Description,
    roles: Vec<RoleKind>,
    imports: Vec<String>,
    config: PluginConfig,
    compiled: Compiled,
    parts: Parts,
}

impl Sandbox {
    /// Loads `path` as `name` and lets it check its configuration.
    ///
    /// # Errors
    /// Everything [`SandboxError`] knows but `NotFound` and `Set`.
    pub fn load(&self, name: &str, path: &Path, config: &PluginConfig) -> Result<Plugin> {
        let problems = config.limits.problems();
        if !problems.is_empty() {
            let prefix = format!("`plugins.{name}.limits.");
            let problems = problems.iter().map(|it| it.replacen('`', &prefix, 1)).collect();
            return Err(SandboxError::Config { plugin: name.to_string(), problems });
        }
        let compiled = self.compile(name, path, config.digest.as_deref(), &config.limits)?;
        let roles = match &config.roles {
            None => compiled.roles.clone(),
            Some(asked) => {
                if let Some(role) = asked.iter().find(|it| !compiled.roles.contains(it)) {
                    return Err(SandboxError::Role {
                        plugin: name.to_string(),
                        role: role.to_string(),
                        roles: compiled.roles.iter().map(ToString::to_string).collect(),
                    });
                }
                asked.clone()
            }
        };
        let parts = self.parts(name, config, &compiled)?;
        let description = introduce(name, &parts)?;
        let identity = PluginIdentity {
            name: name.to_string(),
            version: description.version.clone(),
            digest: compiled.digest.clone(),
        };
        let imports = compiled.imports.clone();
        Ok(Plugin { identity, description, roles, imports, config: config.clone(), compiled, parts })
    }

    fn parts(&self, name: &str, config: &PluginConfig, compiled: &Compiled) -> Result<Parts> {
        let pre = compiled.linker.instantiate_pre(&compiled.component);
        let pre = pre.map_err(|error| SandboxError::NotAComponent {
            plugin: name.to_string(),
            path: name.into(),
            reason: format!("{error:#}").replace('\n', " "),
        })?;
        let seed = Sha256::new()
            .chain_update(self.config.seed.to_le_bytes())
            .chain_update(&compiled.digest)
            .chain_update(name)
            .finalize();
        let (plugin, limits, grants) = (name.to_string(), config.limits.clone(), config.grants);
        let (model, log) = (self.config.model.clone(), Arc::clone(&self.config.log));
        let state = Arc::new(move || StateParts {
            plugin: plugin.clone(),
            limits: limits.clone(),
            grants,
            model: model.clone(),
            log: Arc::clone(&log),
            seed: seed.into(),
        });
        let config = serde_json::to_string(&config.config).expect("JSON values serialise");
        Ok(Parts { engine: compiled.engine.clone(), pre, state, config })
    }
}

/// Asks a plugin what it is and gives it its configuration.
fn introduce(name: &str, parts: &Parts) -> Result<Description> {
    let mut store = store(parts);
    begin(&mut store, u64::MAX);
    let start = |call, failure| SandboxError::Start { plugin: name.to_string(), call, failure };
    let world = AnyRole::bind(&mut store, &parts.pre)
        .map_err(|error| start("describe", failure(&error, store.data())))?;
    let about = world.0.fthost_plugin_about();
    let described = about.call_describe(&mut store);
    let described = described.map_err(|error| start("describe", failure(&error, store.data())))?;
    let config_schema = serde_json::from_str(&described.config_schema).map_err(|error| {
        let message = format!("`config-schema` is no JSON: {error}");
        start("describe", Failure::Contract { message })
    })?;
    begin(&mut store, u64::MAX);
    let configured = world.configure(&mut store, &parts.config);
    let configured = configured.map_err(|error| start("configure", failure(&error, store.data())))?;
    configured.map_err(|problems| SandboxError::Config {
        plugin: name.to_string(),
        problems: problems
            .into_iter()
            .map(|(key, message)| {
                let dot = if key.is_empty() { "" } else { "." };
                format!("`plugins.{name}.config{dot}{key}`: {message}")
            })
            .collect(),
    })?;
    let wit::plugin::exports::fthost::plugin::about::Description { name, version, summary, .. } = described;
    Ok(Description { name, version, summary, config_schema })
}

impl Plugin {
    /// Name, version and digest.
    pub fn identity(&self) -> &PluginIdentity {
        &self.identity
    }

    /// What the plugin says of itself.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The roles it plays in this run.
    pub fn roles(&self) -> &[RoleKind] {
        &self.roles
    }

    /// Interfaces of the host that it imports.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// As configured.
    pub fn config(&self) -> &PluginConfig {
        &self.config
    }

    /// Whether `role` is among [`Plugin::roles`].
    pub fn plays(&self, role: RoleKind) -> bool {
        self.roles.contains(&role)
    }

    fn role<W: World>(&self, role: RoleKind) -> Result<Handle<W>> {
        if self.compiled.roles.contains(&role) {
            return Ok(Handle::new(self.parts.clone()));
        }
        Err(SandboxError::Role {
            plugin: self.identity.name.clone(),
            role: role.to_string(),
            roles: self.compiled.roles.iter().map(ToString::to_string).collect(),
        })
    }

    /// The plugin as data builder.
    ///
    /// # Errors
    /// [`SandboxError::Role`], as for the other roles.
    pub fn data_builder(&self) -> Result<Box<dyn DataBuilder>> {
        let handle = self.role(RoleKind::DataBuilder)?;
        Ok(Box::new(BuilderRole::new(self.identity.clone(), handle)))
    }

    /// The plugin as augmenter.
    ///
    /// # Errors
    /// [`SandboxError::Role`].
    pub fn augmenter(&self) -> Result<Box<dyn Augmenter>> {
        let handle = self.role(RoleKind::Augmenter)?;
        Ok(Box::new(AugmenterRole { identity: self.identity.clone(), handle }))
    }

    /// The plugin as reward.
    ///
    /// # Errors
    /// [`SandboxError::Role`].
    pub fn reward(&self) -> Result<Box<dyn Reward>> {
        let handle = self.role(RoleKind::Reward)?;
        Ok(Box::new(RewardRole { identity: self.identity.clone(), handle }))
    }

    /// The plugin as evaluator.
    ///
    /// # Errors
    /// [`SandboxError::Role`].
    pub fn evaluator(&self) -> Result<Box<dyn Evaluator>> {
        let handle = self.role(RoleKind::Evaluator)?;
        Ok(Box::new(EvaluatorRole { identity: self.identity.clone(), handle }))
    }
}
