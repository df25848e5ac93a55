//! Engines, and components that have been compiled for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fthost_data::digest::sha256;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, Engine, PoolingAllocationConfig};

use crate::cache::Cache;
use crate::contract::{self, Contract};
use crate::error::{Result, SandboxError, io};
use crate::limits::Limits;
use crate::state::{LogSink, ModelSlot, State};
use crate::wasi;

/// How often deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Components that may be instantiated at one time.
const POOLED: u32 = 128;

/// Greatest memory that the pool of instances has room for; a plugin with a higher limit gets memory of its own.
const POOLED_MEMORY: u64 = 4 << 30;

/// Elements of a table that the pool has room for.
const POOLED_TABLE: u64 = 100_000;

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

    pub(crate) fn interface(self) -> &'static str {
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
    engines: Mutex<BTreeMap<EngineKey, Engine>>,
}

/// Fuel, stack, pool.
type EngineKey = (bool, u64, bool);

/// A component, compiled, with what it says of itself.
#[derive(Clone)]
pub(crate) struct Compiled {
    pub(crate) engine: Engine,
    pub(crate) component: Component,
    pub(crate) linker: Arc<Linker<State>>,
    pub(crate) digest: String,
    pub(crate) contract: Contract,
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

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }

    /// The engine for these limits, made at its first use.
    fn engine(&self, limits: &Limits) -> Result<Engine> {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        let pooled = limits.memory_bytes <= POOLED_MEMORY && limits.table_elements <= POOLED_TABLE;
        let key = (limits.fuel.is_some(), limits.stack_bytes, pooled);
        if let Some(engine) = engines.get(&key) {
            return Ok(engine.clone());
        }
        let engine = match pooled {
            // Where address space is short the pool can't be set up; instances then take memory one by one.
            true => Engine::new(settings(limits).allocation_strategy(pool()))
                .or_else(|_| Engine::new(&settings(limits))),
            false => Engine::new(&settings(limits)),
        };
        let engine = engine.map_err(|error| SandboxError::Engine(error.to_string()))?;
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
        self.compile_bytes(plugin, path, &std::fs::read(path).map_err(io("read", path))?, pinned, limits)
    }

    /// As [`Sandbox::compile`], of bytes that were read before from `path`.
    pub(crate) fn compile_bytes(
        &self,
        plugin: &str,
        path: &Path,
        bytes: &[u8],
        pinned: Option<&str>,
        limits: &Limits,
    ) -> Result<Compiled> {
        let digest = sha256(bytes);
        if let Some(pinned) = pinned.filter(|it| *it != digest) {
            let (plugin, pinned) = (plugin.to_string(), pinned.to_string());
            return Err(SandboxError::Digest { plugin, pinned, found: digest });
        }
        let engine = self.engine(limits)?;
        let component = match self.cache.as_ref().and_then(|it| it.load(&engine, &digest)) {
            Some(component) => component,
            None => {
                let component =
                    Component::new(&engine, bytes).map_err(|error| SandboxError::NotAComponent {
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
        let (contract, roles) = contract(plugin, &engine, &component)?;
        let imports = imports(plugin, contract, &engine, &component)?;
        let linker =
            Arc::new(contract::linker(&engine).map_err(|error| SandboxError::Engine(error.to_string()))?);
        Ok(Compiled { engine, component, linker, digest, contract, roles, imports })
    }
}

/// Settings of the compiler and of the runtime.
fn settings(limits: &Limits) -> Config {
    let mut config = Config::new();
    config
        .max_wasm_stack(limits.stack_bytes as usize)
        .consume_fuel(limits.fuel.is_some())
        .epoch_interruption(true)
        // One result on every machine: no relaxed operations, one bit pattern for NaN.
        .wasm_relaxed_simd(false)
        .cranelift_nan_canonicalization(true)
        .concurrency_support(false);
    config
}

/// Room for instances, set up once: starting one takes a slot, dropping one clears it. A component of Python code takes more
/// than a hundred core instances.
fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(POOLED)
        .total_core_instances(POOLED * 64)
        .total_memories(POOLED)
        .total_tables(POOLED * 32)
        .max_core_instances_per_component(1024)
        .max_memories_per_component(8)
        .max_tables_per_component(1024)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(POOLED_MEMORY as usize)
        .table_elements(POOLED_TABLE as usize)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(64 << 10)
        // Where the kernel tells which pages were written to (Linux 6.7), only those are cleared: an instance from the cache
        // takes a third less time.
        .pagemap_scan(Enabled::Auto);
    pool
}

fn imports(plugin: &str, contract: Contract, engine: &Engine, component: &Component) -> Result<Vec<String>> {
    let mut imports = Vec::new();
    for (name, _) in component.component_type().imports(engine) {
        match Contract::interface(name) {
            Some((found, "types")) if found == contract => {}
            Some((found, interface)) if found == contract && contract.offered().contains(&interface) => {
                imports.push(interface.to_string());
            }
            None if wasi::offers(name) => imports.push(name.to_string()),
            _ => {
                let name_of = |it: &&str| format!("fthost:plugin/{it}@{contract}");
                let offered: Vec<String> = contract.offered().iter().map(name_of).collect();
                return Err(SandboxError::ForbiddenImport {
                    plugin: plugin.to_string(),
                    import: name.to_string(),
                    offered: offered.join(", "),
                });
            }
        }
    }
    Ok(imports)
}

fn contract(plugin: &str, engine: &Engine, component: &Component) -> Result<(Contract, Vec<RoleKind>)> {
    let exports: Vec<String> =
        component.component_type().exports(engine).map(|(name, _)| name.to_string()).collect();
    Contract::of(&exports).ok_or_else(|| SandboxError::WrongWorld {
        plugin: plugin.to_string(),
        contracts: Contract::ALL.map(Contract::as_str).join(", "),
        exports: if exports.is_empty() { vec!["nothing".to_string()] } else { exports },
    })
}
