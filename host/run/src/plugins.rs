//! Who plays the roles of a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fthost_data::{
    Augmenter, DataBuilder, Evaluator, HostModel, ModelName, PluginIdentity, Reward, RewardTerm, Tokenizer,
};
use fthost_engine::device::DeviceKind;
use fthost_engine::models::CausalLm;
use fthost_sandbox::{
    Contract, Inspection, LogSink, ModelSlot, Plugin, PluginTable, RoleKind, Sandbox, SandboxConfig,
    SearchPath, Usage,
};
use serde::{Deserialize, Serialize};

use crate::asked::{AskedLog, Recording};
use crate::error::{Result, RunError};
use crate::host_model::EngineModel;
use crate::judges::{Judges, OpenJudges};
use crate::kept::Kept;
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
    /// The models that plugins may ask.
    pub models: ModelSlot,
    /// What they asked.
    pub asked: AskedLog,
    /// Models beside the run's own that they asked.
    pub judges: OpenJudges,
    /// The components behind the roles, in the run file's order.
    pub loaded: Vec<Plugin>,
    /// What rewards count that are no plugins, by name.
    pub terms: BTreeMap<String, RewardTerm>,
    /// Keys that signed their packages, by plugin.
    pub signers: BTreeMap<String, String>,
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
        let model = plugins.models.clone();
        let cache_dir = Some(cache_dir().join("components"));
        let sandbox = Sandbox::new(SandboxConfig { cache_dir, seed, log, model })?;
        for (name, config) in &table.0 {
            let component = search.component(name, config)?;
            let plugin = sandbox.load(name, &component, config)?;
            Kept::keep(&plugin, &component);
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

    /// Puts the models that plugins were granted where they can be asked, for as long as what is given lives. `run` is the
    /// model as it stands, `reference` the same before training; what plugins ask is written down.
    ///
    /// # Errors
    /// A judge that the run file does not have, or that can't be opened.
    pub fn lend(&self, lent: &Lent<'_>) -> Result<Lease> {
        let mut names: Vec<(&str, &ModelName)> = Vec::new();
        for plugin in &self.loaded {
            for name in plugin.config().grants.models() {
                if !names.iter().any(|it| it.1 == name) {
                    names.push((&plugin.identity().name, name));
                }
            }
        }
        let mut lease = Lease { slot: self.models.clone(), names: Vec::new() };
        for (plugin, name) in names {
            if let Some(model) = lent.model(plugin, name, &self.judges)? {
                let model = Recording::new(model, name, self.asked.clone());
                self.models.set(name.clone(), Some(Box::new(model)));
                lease.names.push(name.clone());
            }
        }
        Ok(lease)
    }

    /// Whether anybody may ask the model as it was before training.
    pub fn ask_the_reference(&self) -> bool {
        self.loaded.iter().any(|it| it.config().grants.models().any(|it| *it == ModelName::Reference))
    }

    /// Whether builder or augmenters may ask a model: they do it before the first step.
    pub fn ask_while_data_is_made(&self) -> bool {
        let makes = |it: &&Plugin| it.plays(RoleKind::DataBuilder) || it.plays(RoleKind::Augmenter);
        self.loaded.iter().filter(makes).any(|it| it.config().grants.asks_models())
    }

    /// What each plugin used up, in the run file's order.
    pub fn usage(&self) -> Vec<PluginUsage> {
        let usage = |it: &Plugin| PluginUsage { plugin: it.identity().clone(), usage: it.usage() };
        self.loaded.iter().map(usage).collect()
    }

    /// A reward's part in the sum of all.
    pub fn term(&self, reward: &str) -> RewardTerm {
        if let Some(term) = self.terms.get(reward) {
            return *term;
        }
        let plugin = self.loaded.iter().find(|it| it.identity().name == reward);
        plugin.map_or_else(RewardTerm::default, |it| it.config().reward)
    }

    /// [`Plugins::term`] of every reward, by its name.
    pub fn reward_terms(&self) -> BTreeMap<String, RewardTerm> {
        let name = |it: &dyn Reward| it.identity().name.clone();
        self.rewards.iter().map(|it| (name(it.as_ref()), self.term(&it.identity().name))).collect()
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

/// What a plugin used up in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PluginUsage {
    /// Who.
    #[serde(flatten)]
    pub plugin: PluginIdentity,
    /// How much.
    #[serde(flatten)]
    pub usage: Usage,
}

/// The models that a recipe has.
pub struct Lent<'a> {
    /// The model as it stands.
    pub run: &'a CausalLm,
    /// The same before training, where there is one beside it.
    pub reference: Option<CausalLm>,
    /// Of both.
    pub tokenizer: &'a Tokenizer,
    /// Sequences that grow at one time.
    pub batch_size: usize,
    /// `[judges]`.
    pub judges: &'a Judges,
    /// Where judges in a folder are computed.
    pub device: DeviceKind,
}

impl Lent<'_> {
    fn model(
        &self,
        plugin: &str,
        name: &ModelName,
        judges: &OpenJudges,
    ) -> Result<Option<Box<dyn HostModel>>> {
        let engine = |model: &CausalLm| -> Box<dyn HostModel> {
            Box::new(EngineModel::new(model.clone(), self.tokenizer.clone(), self.batch_size))
        };
        Ok(match name {
            ModelName::Run => Some(engine(self.run)),
            ModelName::Reference => self.reference.as_ref().map(engine),
            ModelName::Judge(judge) => {
                let (plugin, judge) = (plugin.to_string(), judge.clone());
                let config = self.judges.get(&judge);
                let config = config.ok_or(RunError::NoJudge { plugin, judge: judge.clone() })?;
                Some(judges.open(&judge, config, self.device, self.batch_size)?)
            }
        })
    }
}

/// Models that can be asked until this is dropped.
pub struct Lease {
    slot: ModelSlot,
    names: Vec<ModelName>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.names.drain(..).for_each(|name| self.slot.set(name, None));
    }
}

/// What a component says of itself, for people who choose one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PluginReport {
    /// Its own name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// `sha256:<hex>`.
    pub digest: String,
    /// The version of the contract it was built for.
    pub contract: Contract,
    /// The roles it exports.
    pub roles: Vec<RoleKind>,
    /// Interfaces of the host that it imports.
    pub imports: Vec<String>,
    /// JSON Schema of its configuration.
    pub config_schema: serde_json::Value,
}

impl PluginReport {
    /// Loads the component at `path` as `name` and asks it.
    ///
    /// # Errors
    /// A component that is refused.
    pub fn of(name: &str, path: &Path) -> Result<Self> {
        Ok(Self::told(sandbox()?.inspect(name, path)?))
    }

    /// As [`PluginReport::of`], of a component in memory.
    ///
    /// # Errors
    /// As there.
    pub fn of_bytes(name: &str, component: &[u8]) -> Result<Self> {
        Ok(Self::told(sandbox()?.inspect_bytes(name, component)?))
    }

    /// The roles it exports, for a person.
    pub fn roles_told(&self) -> String {
        self.roles.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn told(found: Inspection) -> Self {
        let Inspection { description, digest, contract, roles, imports } = found;
        Self {
            name: description.name,
            version: description.version,
            summary: description.summary,
            digest,
            contract,
            roles,
            imports,
            config_schema: description.config_schema,
        }
    }
}

/// One that is asked what components say of themselves.
fn sandbox() -> Result<Sandbox> {
    let cache_dir = Some(cache_dir().join("components"));
    let (log, model) = (Arc::new(|_: &str, _, _: &str| {}), ModelSlot::default());
    Ok(Sandbox::new(SandboxConfig { cache_dir, seed: 0, log, model })?)
}
