//! A package's component in a sandbox of its own, for testing, trying and timing it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fthost_data::{Columns, HostModel, ModelName};
use fthost_sandbox::{
    GrantedFile, GrantedModels, Inspection, LogSink, ModelSlot, Plugin, PluginConfig, Sandbox, SandboxConfig,
    SandboxError,
};

use crate::canned::{Answers, Canned};
use crate::error::Result;
use crate::package::Package;

/// A component and what its package grants it.
pub struct Session {
    pub(crate) name: String,
    pub(crate) component: PathBuf,
    pub(crate) inspection: Inspection,
    sandbox: Sandbox,
    models: ModelSlot,
    base: PluginConfig,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Session {
    /// The component of a package, with the limits, grants and resources that its manifest wants.
    ///
    /// # Errors
    /// A package that is not built, a component that is refused, and one that is not what the manifest says.
    pub fn of_package(package: &Package, cache_dir: &Path) -> Result<Self> {
        let component = package.built()?;
        let mut base = PluginConfig { limits: package.manifest.wanted_limits(), ..PluginConfig::default() };
        for (name, file) in &package.manifest.resources {
            let file = package.folder.join(file);
            let digest = fthost_data::digest::of_file(&file)?;
            base.grants.resources.insert(name.clone(), GrantedFile { file, digest });
        }
        let wanted = &package.manifest.grants;
        base.grants.generate = wanted.generate.clone();
        base.grants.logprobs = wanted.logprobs.clone();
        base.grants.embed = wanted.embed.clone();
        let session = Self::open(package.short_name(), component, base, cache_dir)?;
        let (found, place) = (&session.inspection, package.folder.display().to_string());
        let said = &found.description;
        package.manifest.as_described(&place, &said.name, &said.version, &found.roles)?;
        Ok(session)
    }

    /// A component alone: no limits but the default ones, and no grants.
    ///
    /// # Errors
    /// A component that is refused.
    pub fn of_component(component: &Path, cache_dir: &Path) -> Result<Self> {
        let name = component.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::open(&name, component.to_path_buf(), PluginConfig::default(), cache_dir)
    }

    fn open(name: &str, component: PathBuf, base: PluginConfig, cache_dir: &Path) -> Result<Self> {
        let models = ModelSlot::default();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let log: LogSink = Arc::new(move |_, level, line| {
            let line = format!("{}: {line}", format!("{level:?}").to_lowercase());
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        });
        let cache_dir = Some(cache_dir.join("components"));
        let sandbox = Sandbox::new(SandboxConfig { cache_dir, seed: 0, log, model: models.clone() })?;
        let inspection = sandbox.inspect(name, &component)?;
        Ok(Self { name: name.to_string(), component, inspection, sandbox, models, base, lines })
    }

    /// The plugin with this configuration.
    pub(crate) fn load(&self, config: &Columns) -> std::result::Result<Plugin, SandboxError> {
        self.sandbox.load(
            &self.name,
            &self.component,
            &PluginConfig { config: config.clone(), ..self.base.clone() },
        )
    }

    /// The plugin with this configuration and models that answer as the case says; what a case answers is granted.
    pub(crate) fn load_with(
        &self,
        config: &Columns,
        answers: &Answers,
    ) -> std::result::Result<Plugin, SandboxError> {
        let canned = Canned::new(answers.clone());
        let mut base = self.base.clone();
        let mut asked: BTreeSet<ModelName> = base.grants.models().cloned().collect();
        asked.extend([ModelName::Run, ModelName::Reference]);
        asked.extend(judges(config));
        for model in &asked {
            let model_of_case: Box<dyn HostModel> = Box::new(canned.clone());
            self.models.set(model.clone(), Some(model_of_case));
        }
        let all = GrantedModels(asked.into_iter().collect());
        for (granted, given) in [
            (&mut base.grants.generate, !answers.generate.is_empty()),
            (&mut base.grants.logprobs, !answers.logprobs.is_empty()),
            (&mut base.grants.embed, !answers.embed.is_empty()),
        ] {
            if given {
                *granted = all.clone();
            }
        }
        self.sandbox.load(&self.name, &self.component, &PluginConfig { config: config.clone(), ..base })
    }

    /// What was logged since the last call.
    pub fn logged(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// `judges.<name>` anywhere in a configuration.
fn judges(config: &Columns) -> Vec<ModelName> {
    let texts = config.values().filter_map(|it| it.as_str());
    texts.filter_map(|it| it.parse().ok()).collect()
}
