//! What the host keeps for one instance: its limits, its log, its random numbers, and the models it may ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fthost_data::{Candidate, Failure, HostModel, ModelName, Prompt, Sampling, TextLogprob};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use wasmtime::ResourceLimiter;

use crate::contract::Called;
use crate::grants::Grants;
use crate::limits::Limits;
use crate::resources::Resource;
use crate::usage::Meter;
use crate::wasi::Wasi;

/// Most bytes of one `random.bytes` and one `resources.read`.
const BYTES_A_CALL: u32 = 1 << 20;

/// How much a line of a plugin's log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For the plugin's author.
    Debug,
    /// For whoever runs it.
    Info,
    /// Something is odd.
    Warn,
    /// Something failed.
    Error,
}

/// Where plugins' log lines go: plugin, level, line.
pub type LogSink = Arc<dyn Fn(&str, LogLevel, &str) + Send + Sync>;

/// The models that plugins may ask, while there are any.
///
/// The recipe puts them in for as long as an evaluation or a rollout lasts; a plugin that asks at another time is told
/// so. Two plugins that ask the same model wait for each other, two that ask different ones do not.
#[derive(Clone, Default)]
pub struct ModelSlot(Arc<Mutex<BTreeMap<ModelName, SharedModel>>>);

type SharedModel = Arc<Mutex<Box<dyn HostModel>>>;

impl ModelSlot {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ModelName, SharedModel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `model` in under `name`, or takes it out.
    pub fn set(&self, name: ModelName, model: Option<Box<dyn HostModel>>) {
        match model {
            Some(model) => self.lock().insert(name, Arc::new(Mutex::new(model))),
            None => self.lock().remove(&name),
        };
    }

    fn ask<R>(
        &self,
        name: &ModelName,
        ask: impl FnOnce(&mut dyn HostModel) -> Result<R, String>,
    ) -> Result<R, String> {
        let model = self.lock().get(name).cloned();
        let model = model.ok_or_else(|| format!("model `{name}` can't be asked at this time of the run"))?;
        let mut model = model.lock().unwrap_or_else(PoisonError::into_inner);
        ask(model.as_mut())
    }
}

/// A limit or a grant that stopped a call, carried through wasmtime as the trap's cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Stopped(pub(crate) Failure);

/// What the instances of a plugin share.
pub(crate) struct Shared {
    pub(crate) plugin: String,
    pub(crate) limits: Limits,
    pub(crate) grants: Grants,
    pub(crate) models: ModelSlot,
    pub(crate) log: LogSink,
    /// Run seed, plugin and digest.
    pub(crate) seed: [u8; 32],
    pub(crate) resources: Vec<Resource>,
    pub(crate) meter: Meter,
}

/// One instance's side of the host.
pub(crate) struct State {
    shared: Arc<Shared>,
    random: ChaCha8Rng,
    call_seed: [u8; 32],
    memory_bytes: usize,
    table_elements: usize,
    log_bytes: u64,
    host_calls: u64,
    began: Instant,
    host_time: Duration,
    wasi: Option<Box<Wasi>>,
    /// The limit that made an allocation fail; the guest's trap that follows is its consequence.
    pub(crate) exceeded: Option<Failure>,
    /// The last error line of this call: a Rust guest's panic message.
    pub(crate) last_error: Option<String>,
}

impl State {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            random: ChaCha8Rng::from_seed(shared.seed),
            call_seed: shared.seed,
            shared,
            memory_bytes: 0,
            table_elements: 0,
            log_bytes: 0,
            host_calls: 0,
            began: Instant::now(),
            host_time: Duration::ZERO,
            wasi: None,
            exceeded: None,
            last_error: None,
        }
    }

    /// Budgets begin anew; the numbers drawn depend on `call` alone, so a replaced instance draws the same.
    pub(crate) fn begin_call(&mut self, call: u64) {
        let seed = Sha256::new().chain_update(self.shared.seed).chain_update(call.to_le_bytes()).finalize();
        self.call_seed = seed.into();
        self.random = ChaCha8Rng::from_seed(self.call_seed);
        if let Some(wasi) = &mut self.wasi {
            wasi.begin_call(self.call_seed);
        }
        self.log_bytes = 0;
        self.host_calls = 0;
        self.host_time = Duration::ZERO;
        self.exceeded = None;
        self.last_error = None;
        self.began = Instant::now();
    }

    /// The call has ended: counts it. `fuel` is what it used.
    pub(crate) fn end_call(&self, items: u64, fuel: u64) {
        let guest = self.began.elapsed().saturating_sub(self.host_time);
        self.shared.meter.call(items, guest, self.host_time, fuel, self.memory_bytes as u64);
    }

    /// Time left to the guest in this call; `None` once the deadline has passed.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        (self.shared.limits.deadline() + self.host_time).checked_sub(self.began.elapsed())
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// WASI, made when a guest first asks for it.
    pub(crate) fn wasi(&mut self) -> &mut Wasi {
        let seed = self.call_seed;
        self.wasi.get_or_insert_with(|| Box::new(Wasi::new(seed)))
    }

    /// Counts a call of the host.
    fn counted(&mut self) -> wasmtime::Result<()> {
        self.host_calls += 1;
        let limit = self.shared.limits.host_calls;
        if self.host_calls > limit {
            return Err(Stopped(Failure::HostCalls { limit }).into());
        }
        Ok(())
    }

    /// Asks a model on the host's time.
    fn ask<R>(
        &mut self,
        import: &str,
        model: &ModelName,
        ask: impl FnOnce(&mut dyn HostModel) -> Result<R, String>,
    ) -> Called<R> {
        self.counted()?;
        let shared = Arc::clone(&self.shared);
        if !shared.grants.has(import, model) {
            let grant = shared.grants.line(&shared.plugin, import, model);
            return Err(Stopped(Failure::Denied { import: import.into(), grant }).into());
        }
        *shared.meter.lock().asked.entry(format!("{import}({model})")).or_default() += 1;
        let began = Instant::now();
        let answer = shared.models.ask(model, ask);
        self.host_time += began.elapsed();
        Ok(answer)
    }

    pub(crate) fn generate(
        &mut self,
        model: &ModelName,
        prompts: Vec<Prompt>,
        sampling: Sampling,
    ) -> Called<Vec<Vec<Candidate>>> {
        self.ask("generate", model, |it| it.generate(&prompts, &sampling))
    }

    pub(crate) fn logprobs(
        &mut self,
        model: &ModelName,
        pairs: Vec<(Prompt, String)>,
    ) -> Called<Vec<TextLogprob>> {
        self.ask("logprobs", model, |it| it.logprobs(&pairs))
    }

    pub(crate) fn embed(&mut self, model: &ModelName, texts: Vec<String>) -> Called<Vec<Vec<f32>>> {
        self.ask("embed", model, |it| it.embed(&texts))
    }

    pub(crate) fn log_line(&mut self, level: LogLevel, message: &str) -> wasmtime::Result<()> {
        self.counted()?;
        self.log_bytes += message.len() as u64;
        let limit = self.shared.limits.log_bytes;
        if self.log_bytes > limit {
            return Err(Stopped(Failure::LogTooLarge { limit }).into());
        }
        // Control characters would let a plugin write over the terminal's lines.
        let line: String = message.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
        (self.shared.log)(&self.shared.plugin, level, &line);
        if level == LogLevel::Error {
            self.last_error = Some(line);
        }
        Ok(())
    }

    pub(crate) fn draw(&mut self) -> wasmtime::Result<u64> {
        self.counted()?;
        Ok(self.random.next_u64())
    }

    pub(crate) fn draw_bytes(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        self.counted()?;
        if length > BYTES_A_CALL {
            wasmtime::bail!(
                "`random.bytes` gives at most {BYTES_A_CALL} bytes a call, {length} were asked for"
            );
        }
        let mut bytes = vec![0; length as usize];
        self.random.fill_bytes(&mut bytes);
        Ok(bytes)
    }

    pub(crate) fn resources(&mut self) -> wasmtime::Result<&[Resource]> {
        self.counted()?;
        Ok(&self.shared.resources)
    }

    pub(crate) fn read_resource(&mut self, name: &str, offset: u64, length: u32) -> Called<Vec<u8>> {
        self.counted()?;
        let shared = &self.shared;
        let Some(resource) = shared.resources.iter().find(|it| it.name == name) else {
            let all: Vec<String> = shared.resources.iter().map(|it| format!("`{}`", it.name)).collect();
            let all = if all.is_empty() { "none".to_string() } else { all.join(", ") };
            return Ok(Err(format!(
                "no resource `{name}` (there is: {all}); `plugins.{}.grants.resources.\"{name}\" = {{ file = \
                 \"...\", digest = \"sha256:...\" }}` would grant a file",
                shared.plugin
            )));
        };
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(resource.bytes.len());
        let end = resource.bytes.len().min(begin + length.min(BYTES_A_CALL) as usize);
        Ok(Ok(resource.bytes[begin..end].to_vec()))
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes + (desired - current);
        let limit = self.shared.limits.memory_bytes;
        if total as u64 > limit {
            self.exceeded = Some(Failure::Memory { limit });
            return Ok(false);
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table_elements + (desired - current);
        let limit = self.shared.limits.table_elements;
        if total as u64 > limit {
            self.exceeded = Some(Failure::Tables { limit });
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.shared.limits.instances as usize
    }

    fn tables(&self) -> usize {
        self.shared.limits.instances as usize
    }

    fn memories(&self) -> usize {
        self.shared.limits.instances as usize
    }
}
