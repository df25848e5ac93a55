//! Engines, and components that have been compiled for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Engine};

use crate::cache::Cache;
use crate::error::{Result, SandboxError, io};
use crate::limits::Limits;
use crate::state::{LogSink, ModelSlot, State};
use crate::wit;

/// The contract's version that this host speaks.
pub const CONTRACT_VERSION: &str = "0.1.0";

/// How often deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// The imports of `wit/host.wit`; `types` holds records only.
const OFFERED: [&str; 5] = ["types", "log", "random", "generate", "logprobs"];

/// A role that a component can play.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleKind {
    /// Makes examples of rows.
    DataBuilder,
    /// Derives examples from examples.
    Augmenter,
    /// Scores completions.
    Reward,
    /// Judges answers.
    Evaluator,
}

impl RoleKind {
    /// Every role, in the order in which a run meets them.
    pub const ALL: [Self; 4] = [Self::DataBuilder, Self::Augmenter, Self::Reward, Self::Evaluator];

    /// The world's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DataBuilder => "data-builder",
            Self::Augmenter => "augmenter",
            Self::Reward => "reward",
            Self::Evaluator => "evaluator",
        }
    }

    fn interface(self) -> &'static str {
        match self {
            Self::DataBuilder => "build",
            Self::Augmenter => "augment",
            Self::Reward => "score",
            Self::Evaluator => "evaluate",
        }
    }
}

impl std::fmt::Display for RoleKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a sandbox is set up.
#[derive(Clone)]
pub struct SandboxConfig {
    /// Where compiled components are kept; `None` compiles anew each time.
    pub cache_dir: Option<PathBuf>,
    /// The run's seed.
    pub seed: u64,
    /// Where plugins' log lines go.
    pub log: LogSink,
    /// The model that plugins may ask.
    pub model: ModelSlot,
}

/// Compiles and loads components.
pub struct Sandbox {
    cache: Option<Cache>,
    pub(crate) config: SandboxConfig,
    /// Fuel and stack are settings of the compiler, so each pair has an engine of its own.
    engines: Mutex<BTreeMap<(bool, u64), Engine>>,
}

/// A component, compiled, with what it says of itself.
#[derive(Clone)]
pub(crate) struct Compiled {
    pub(crate) engine: Engine,
    pub(crate) component: Component,
    pub(crate) linker: Arc<Linker<State>>,
    pub(crate) digest: String,
    pub(crate) roles: Vec<RoleKind>,
    pub(crate) imports: Vec<String>,
}

impl Sandbox {
    /// A sandbox without plugins.
    ///
    /// # Errors
    /// A cache folder that can't be written.
    pub fn new(config: SandboxConfig) -> Result<Self> {
        let cache = config.cache_dir.as_deref().map(Cache::open).transpose()?;
        Ok(Self { cache, config, engines: Mutex::default() })
    }

    /// The engine for these limits, made at its first use.
    fn engine(&self, limits: &Limits) -> Result<Engine> {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (limits.fuel.is_some(), limits.stack_bytes);
        if let Some(engine) = engines.get(&key) {
            return Ok(engine.clone());
        }
        let mut config = Config::new();
        config
            .max_wasm_stack(limits.stack_bytes as usize)
            .consume_fuel(limits.fuel.is_some())
            .epoch_interruption(true)
            // One result on every machine: no relaxed operations, one bit pattern for NaN.
            .wasm_relaxed_simd(false)
            .cranelift_nan_canonicalization(true)
            .concurrency_support(false);
        let engine = Engine::new(&config).map_err(|error| SandboxError::Engine(error.to_string()))?;
        let weak = engine.weak();
        std::thread::Builder::new()
            .name("fthost-epoch".into())
            .spawn(move || {
                while let Some(engine) = weak.upgrade() {
                    engine.increment_epoch();
                    drop(engine);
                    std::thread::sleep(TICK);
                }
            })
            .map_err(|error| SandboxError::Engine(error.to_string()))?;
        engines.insert(key, engine.clone());
        Ok(engine)
    }

    /// Reads, checks and compiles the component at `path`.
    pub(crate) fn compile(
        &self,
        plugin: &str,
        path: &Path,
        pinned: Option<&str>,
        limits: &Limits,
    ) -> Result<Compiled> {
        let bytes = std::fs::read(path).map_err(io("read", path))?;
        let digest = digest(&bytes);
        if let Some(pinned) = pinned.filter(|it| *it != digest) {
            let (plugin, pinned) = (plugin.to_string(), pinned.to_string());
            return Err(SandboxError::Digest { plugin, pinned, found: digest });
        }
        let engine = self.engine(limits)?;
        let component = match self.cache.as_ref().and_then(|it| it.load(&engine, &digest)) {
            Some(component) => component,
            None => {
                let component =
                    Component::new(&engine, &bytes).map_err(|error| SandboxError::NotAComponent {
                        plugin: plugin.to_string(),
                        path: path.to_path_buf(),
                        reason: format!("{error:#}").replace('\n', " "),
                    })?;
                if let Some(cache) = &self.cache {
                    cache.store(&engine, &digest, &component)?;
                }
                component
            }
        };
        let imports = imports(plugin, &engine, &component)?;
        let roles = roles(plugin, &engine, &component)?;
        let linker = Arc::new(linker(&engine).map_err(|error| SandboxError::Engine(error.to_string()))?);
        Ok(Compiled { engine, component, linker, digest, roles, imports })
    }
}

/// `sha256:<hex>` of a component.
fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Every import the host offers; what needs a grant is refused when it is called.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wit::imports::Imports::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// Names within the contract's package and version, as in `score`; `None` for anything else.
fn within_contract(name: &str) -> Option<&str> {
    let (interface, version) = name.strip_prefix("fthost:plugin/")?.split_once('@')?;
    let minor = |version: &str| version.rsplit_once('.').map(|it| it.0.to_string());
    (minor(version) == minor(CONTRACT_VERSION)).then_some(interface)
}

fn imports(plugin: &str, engine: &Engine, component: &Component) -> Result<Vec<String>> {
    let mut imports = Vec::new();
    for (name, _) in component.component_type().imports(engine) {
        match within_contract(name).filter(|it| OFFERED.contains(it)) {
            Some("types") => {}
            Some(interface) => imports.push(interface.to_string()),
            None => {
                return Err(SandboxError::ForbiddenImport {
                    plugin: plugin.to_string(),
                    import: name.to_string(),
                    offered: OFFERED[1..]
                        .iter()
                        .map(|it| format!("fthost:plugin/{it}@{CONTRACT_VERSION}"))
                        .collect::<Vec<_>>()
                        .join(", "),
                });
            }
        }
    }
    Ok(imports)
}

fn roles(plugin: &str, engine: &Engine, component: &Component) -> Result<Vec<RoleKind>> {
    let exports: Vec<String> =
        component.component_type().exports(engine).map(|(name, _)| name.to_string()).collect();
    let has = |interface: &str| exports.iter().any(|it| within_contract(it) == Some(interface));
    let roles: Vec<RoleKind> = RoleKind::ALL.into_iter().filter(|it| has(it.interface())).collect();
    if roles.is_empty() || !has("about") {
        let exports = if exports.is_empty() { vec!["nothing".to_string()] } else { exports };
        return Err(SandboxError::WrongWorld {
            plugin: plugin.to_string(),
            contract: CONTRACT_VERSION,
            exports,
        });
    }
    Ok(roles)
}
