//! A plugin, loaded and configured, and the roles it plays.

use std::path::Path;
use std::sync::Arc;

use fthost_data::{Augmenter, DataBuilder, Evaluator, Failure, PluginIdentity, Reward};
use sha2::{Digest, Sha256};

use crate::component::{Compiled, RoleKind, Sandbox};
use crate::contract::{Bind, Contract, Described, Guest};
use crate::error::{Result, SandboxError};
use crate::handle::{Handle, Parts, bare, configure, failure};
use crate::roles::{AugmenterRole, BuilderRole, EvaluatorRole};
use crate::scoring::RewardRole;
use crate::set::PluginConfig;
use crate::state::Shared;
use crate::usage::{Meter, Usage};
use crate::{resources, schema};

/// What a plugin says of itself.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
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
    config: PluginConfig,
    compiled: Compiled,
    parts: Parts,
}

impl Sandbox {
    /// Loads `path` as `name` and lets it check its configuration, after the host has checked it against the plugin's
    /// schema. Files in [`crate::resource_folder`] are the plugin's to read.
    ///
    /// # Errors
    /// Everything [`SandboxError`] knows but `NotFound` and `Set`.
    pub fn load(&self, name: &str, path: &Path, config: &PluginConfig) -> Result<Plugin> {
        let problems: Vec<String> =
            config.problems().iter().map(|it| it.replacen('`', &format!("`plugins.{name}."), 1)).collect();
        if !problems.is_empty() {
            return Err(SandboxError::Config { plugin: name.to_string(), problems });
        }
        let compiled = self.compile(name, path, config.digest.as_deref(), &config.limits)?;
        let roles = played(name, config, &compiled)?;
        let parts = self.parts(name, path, config, &compiled)?;
        let description = self.describe(name, &compiled.digest, &parts)?;
        check(name, &description, config)?;
        let (mut store, guest) = bare::<Box<dyn Guest>>(&parts).map_err(start(name, "configure"))?;
        let configured = configure(&parts, &mut store, &guest).map_err(start(name, "configure"))?;
        configured.map_err(|problems| refused(name, problems))?;
        let identity = PluginIdentity {
            name: name.to_string(),
            version: description.version.clone(),
            digest: compiled.digest.clone(),
        };
        Ok(Plugin { identity, description, roles, config: config.clone(), compiled, parts })
    }

    /// Takes a plugin's compiled component from the cache once more and starts a configured instance of it: what a run pays
    /// for a plugin that was there before, apart from reading and hashing its component.
    ///
    /// # Errors
    /// A plugin that is not in the cache any more, or fails to start.
    pub fn revive(&self, plugin: &Plugin) -> Result<()> {
        let (name, compiled) = (&plugin.identity.name, &plugin.compiled);
        let component = self.cache().and_then(|it| it.load(&compiled.engine, &compiled.digest));
        let component = component.ok_or_else(|| SandboxError::NotFound {
            kind: "compiled plugin",
            name: name.clone(),
            looked: vec!["the cache".into()],
        })?;
        let pre = compiled.linker.instantiate_pre(&component);
        let pre = pre.map_err(|error| SandboxError::Engine(format!("{error:#}")))?;
        let parts = Parts { pre, ..plugin.parts.clone() };
        let (mut store, guest) = bare::<Box<dyn Guest>>(&parts).map_err(start(name, "configure"))?;
        let configured = configure(&parts, &mut store, &guest).map_err(start(name, "configure"))?;
        configured.map_err(|problems| refused(name, problems))
    }

    /// What the component at `path` says of itself, without a configuration.
    ///
    /// # Errors
    /// As [`Sandbox::load`].
    pub fn inspect(&self, name: &str, path: &Path) -> Result<Inspection> {
        let compiled = self.compile(name, path, None, &PluginConfig::default().limits)?;
        self.inspected(name, path, compiled)
    }

    /// As [`Sandbox::inspect`], of a component in memory.
    ///
    /// # Errors
    /// As [`Sandbox::load`].
    pub fn inspect_bytes(&self, name: &str, bytes: &[u8]) -> Result<Inspection> {
        let path = Path::new("memory");
        let compiled = self.compile_bytes(name, path, bytes, None, &PluginConfig::default().limits)?;
        self.inspected(name, path, compiled)
    }

    fn inspected(&self, name: &str, path: &Path, compiled: Compiled) -> Result<Inspection> {
        let config = PluginConfig::default();
        let parts = self.parts(name, path, &config, &compiled)?;
        let description = self.describe(name, &compiled.digest, &parts)?;
        let Compiled { digest, contract, roles, imports, .. } = compiled;
        Ok(Inspection { description, digest, contract, roles, imports })
    }

    fn parts(&self, name: &str, path: &Path, config: &PluginConfig, compiled: &Compiled) -> Result<Parts> {
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
        let shared = Arc::new(Shared {
            plugin: name.to_string(),
            limits: config.limits.clone(),
            resources: resources::load(name, path, &config.grants)?,
            grants: config.grants.clone(),
            models: self.config.model.clone(),
            log: Arc::clone(&self.config.log),
            seed: seed.into(),
            meter: Meter::default(),
        });
        let config = serde_json::to_string(&config.config).expect("JSON values serialise");
        Ok(Parts { engine: compiled.engine.clone(), pre, contract: compiled.contract, shared, config })
    }

    /// Asked of an instance once; then the cache knows.
    fn describe(&self, name: &str, digest: &str, parts: &Parts) -> Result<Description> {
        if let Some(known) = self.cache().and_then(|it| it.description(digest)) {
            return Ok(known);
        }
        let (mut store, guest) = bare::<Box<dyn Guest>>(parts).map_err(start(name, "describe"))?;
        let described = guest.describe(&mut store);
        let described = described.map_err(|error| start(name, "describe")(failure(&error, store.data())))?;
        let config_schema = serde_json::from_str(&described.config_schema).map_err(|error| {
            let message = format!("`config-schema` is no JSON: {error}");
            start(name, "describe")(Failure::Contract { message })
        })?;
        let Described { name, version, summary, .. } = described;
        let description = Description { name, version, summary, config_schema };
        if let Some(cache) = self.cache() {
            cache.store_description(digest, &description)?;
        }
        Ok(description)
    }
}

/// What a component is, before anybody has configured it.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// In its own words.
    pub description: Description,
    /// `sha256:<hex>`.
    pub digest: String,
    /// The version of the contract it was built for.
    pub contract: Contract,
    /// The roles it exports.
    pub roles: Vec<RoleKind>,
    /// Interfaces of the host that it imports.
    pub imports: Vec<String>,
}

fn start(plugin: &str, call: &'static str) -> impl FnOnce(Failure) -> SandboxError {
    let plugin = plugin.to_string();
    move |failure| SandboxError::Start { plugin, call, failure }
}

/// The roles of this run.
fn played(name: &str, config: &PluginConfig, compiled: &Compiled) -> Result<Vec<RoleKind>> {
    let Some(asked) = &config.roles else { return Ok(compiled.roles.clone()) };
    match asked.iter().find(|it| !compiled.roles.contains(it)) {
        None => Ok(asked.clone()),
        Some(role) => Err(SandboxError::Role {
            plugin: name.to_string(),
            role: role.to_string(),
            roles: compiled.roles.iter().map(ToString::to_string).collect(),
        }),
    }
}

/// The configuration against the plugin's schema.
fn check(name: &str, description: &Description, config: &PluginConfig) -> Result<()> {
    let problems = schema::problems(&description.config_schema, &config.config).map_err(|error| {
        let message = format!("`config-schema` is no JSON Schema: {error}");
        start(name, "describe")(Failure::Contract { message })
    })?;
    if problems.is_empty() { Ok(()) } else { Err(refused(name, problems)) }
}

fn refused(name: &str, problems: Vec<(String, String)>) -> SandboxError {
    let problem = |(key, message): (String, String)| {
        let dot = if key.is_empty() { "" } else { "." };
        format!("`plugins.{name}.config{dot}{key}`: {message}")
    };
    SandboxError::Config { plugin: name.to_string(), problems: problems.into_iter().map(problem).collect() }
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
        &self.compiled.imports
    }

    /// As configured.
    pub fn config(&self) -> &PluginConfig {
        &self.config
    }

    /// Whether `role` is among [`Plugin::roles`].
    pub fn plays(&self, role: RoleKind) -> bool {
        self.roles.contains(&role)
    }

    /// The version of the contract it was built for.
    pub fn contract(&self) -> Contract {
        self.compiled.contract
    }

    /// What it has used up since it was loaded.
    pub fn usage(&self) -> Usage {
        self.parts.shared.meter.lock().clone()
    }

    /// The files it may read, each with its digest.
    pub fn resources(&self) -> Vec<(String, String)> {
        self.parts.shared.resources.iter().map(|it| (it.name.clone(), it.digest.clone())).collect()
    }

    /// The bytes of these files, by their digests.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.parts.shared.resources.iter().map(|it| (it.digest.as_str(), it.bytes.as_ref()))
    }

    fn role<G: Bind>(&self, role: RoleKind) -> Result<Handle<G>> {
        self.has(role).map(|()| Handle::new(self.parts.clone()))
    }

    fn has(&self, role: RoleKind) -> Result<()> {
        if self.compiled.roles.contains(&role) {
            return Ok(());
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
        self.has(RoleKind::Reward)?;
        let PluginConfig { workers, batch, on_failure, .. } = self.config;
        Ok(Box::new(RewardRole::new(self.identity.clone(), &self.parts, workers, batch, on_failure)))
    }

    /// The plugin as evaluator.
    ///
    /// # Errors
    /// [`SandboxError::Role`].
    pub fn evaluator(&self) -> Result<Box<dyn Evaluator>> {
        let handle = self.role(RoleKind::Evaluator)?;
        Ok(Box::new(EvaluatorRole {
            identity: self.identity.clone(),
            handle,
            on_failure: self.config.on_failure,
        }))
    }
}
