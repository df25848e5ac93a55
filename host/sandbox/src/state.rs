//! What the host keeps for one instance: its limits, its log, its random numbers, and the model it may ask.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fthost_data::{Failure, HostModel};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use wasmtime::ResourceLimiter;

use crate::convert;
use crate::grants::Grants;
use crate::limits::Limits;
use crate::wit::imports::fthost::plugin as host;

/// Most bytes of one `random.bytes`.
const RANDOM_BYTES: u32 = 1 << 20;

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

/// The model that plugins may ask, while there is one.
///
/// The recipe puts it in for as long as an evaluation or a rollout lasts; a plugin that asks at another time is told so.
#[derive(Clone, Default)]
pub struct ModelSlot(Arc<Mutex<Option<Box<dyn HostModel>>>>);

impl ModelSlot {
    /// Puts `model` in, or takes it out.
    pub fn set(&self, model: Option<Box<dyn HostModel>>) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = model;
    }

    fn ask<R>(&self, ask: impl FnOnce(&mut dyn HostModel) -> Result<R, String>) -> Result<R, String> {
        let mut slot = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match slot.as_deref_mut() {
            Some(model) => ask(model),
            None => Err("no model can be asked at this time of the run".into()),
        }
    }
}

/// A limit or a grant that stopped a call, carried through wasmtime as the trap's cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Stopped(pub(crate) Failure);

/// One instance's side of the host.
pub(crate) struct State {
    plugin: String,
    limits: Limits,
    grants: Grants,
    model: ModelSlot,
    log: LogSink,
    seed: [u8; 32],
    random: ChaCha8Rng,
    memory_bytes: usize,
    table_elements: usize,
    log_bytes: u64,
    began: Instant,
    host_time: Duration,
    /// The limit that made an allocation fail; the guest's trap that follows is its consequence.
    pub(crate) exceeded: Option<Failure>,
    /// The last error line of this call: a Rust guest's panic message.
    pub(crate) last_error: Option<String>,
}

/// What a state is made of.
pub(crate) struct StateParts {
    pub(crate) plugin: String,
    pub(crate) limits: Limits,
    pub(crate) grants: Grants,
    pub(crate) model: ModelSlot,
    pub(crate) log: LogSink,
    /// Run seed, plugin and role.
    pub(crate) seed: [u8; 32],
}

impl State {
    pub(crate) fn new(parts: StateParts) -> Self {
        let StateParts { plugin, limits, grants, model, log, seed } = parts;
        Self {
            plugin,
            limits,
            grants,
            model,
            log,
            seed,
            random: ChaCha8Rng::from_seed(seed),
            memory_bytes: 0,
            table_elements: 0,
            log_bytes: 0,
            began: Instant::now(),
            host_time: Duration::ZERO,
            exceeded: None,
            last_error: None,
        }
    }

    /// Budgets begin anew; the numbers drawn depend on `call` alone, so a replaced instance draws the same.
    pub(crate) fn begin_call(&mut self, call: u64) {
        let seed = Sha256::new().chain_update(self.seed).chain_update(call.to_le_bytes()).finalize();
        self.random = ChaCha8Rng::from_seed(seed.into());
        self.log_bytes = 0;
        self.host_time = Duration::ZERO;
        self.exceeded = None;
        self.last_error = None;
        self.began = Instant::now();
    }

    /// Time left to the guest in this call; `None` once the deadline has passed.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        (self.limits.deadline() + self.host_time).checked_sub(self.began.elapsed())
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn granted(&self, granted: bool, import: &str) -> wasmtime::Result<()> {
        if granted {
            return Ok(());
        }
        let grant = Grants::line(&self.plugin, import);
        Err(Stopped(Failure::Denied { import: import.into(), grant }).into())
    }

    /// Asks the model on the host's time.
    fn ask<R>(
        &mut self,
        ask: impl FnOnce(&mut dyn HostModel) -> Result<R, String>,
    ) -> wasmtime::Result<Result<R, String>> {
        let began = Instant::now();
        let answer = self.model.ask(ask);
        self.host_time += began.elapsed();
        Ok(answer)
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes + (desired - current);
        if total as u64 > self.limits.memory_bytes {
            self.exceeded = Some(Failure::Memory { limit: self.limits.memory_bytes });
            return Ok(false);
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table_elements + (desired - current);
        if total as u64 > self.limits.table_elements {
            self.exceeded = Some(Failure::Tables { limit: self.limits.table_elements });
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.instances as usize
    }

    fn tables(&self) -> usize {
        self.limits.instances as usize
    }

    fn memories(&self) -> usize {
        self.limits.instances as usize
    }
}

impl host::types::Host for State {}

impl host::log::Host for State {
    fn log(&mut self, level: host::log::Level, message: String) -> wasmtime::Result<()> {
        self.log_bytes += message.len() as u64;
        if self.log_bytes > self.limits.log_bytes {
            return Err(Stopped(Failure::LogTooLarge { limit: self.limits.log_bytes }).into());
        }
        let level = match level {
            host::log::Level::Debug => LogLevel::Debug,
            host::log::Level::Info => LogLevel::Info,
            host::log::Level::Warn => LogLevel::Warn,
            host::log::Level::Error => LogLevel::Error,
        };
        // Control characters would let a plugin write over the terminal's lines.
        let line: String = message.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
        (self.log)(&self.plugin, level, &line);
        if level == LogLevel::Error {
            self.last_error = Some(line);
        }
        Ok(())
    }
}

impl host::random::Host for State {
    fn next_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random.next_u64())
    }

    fn bytes(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        if length > RANDOM_BYTES {
            wasmtime::bail!(
                "`random.bytes` gives at most {RANDOM_BYTES} bytes a call, {length} were asked for"
            );
        }
        let mut bytes = vec![0; length as usize];
        self.random.fill_bytes(&mut bytes);
        Ok(bytes)
    }
}

impl host::generate::Host for State {
    fn generate(
        &mut self,
        prompts: Vec<host::types::Prompt>,
        sampling: host::generate::Sampling,
    ) -> wasmtime::Result<Result<Vec<Vec<host::types::Candidate>>, String>> {
        self.granted(self.grants.generate, "generate")?;
        let prompts: Vec<_> = prompts.into_iter().map(convert::prompt_from).collect();
        let sampling = convert::sampling_from(sampling);
        let answers = self.ask(|model| model.generate(&prompts, &sampling))?;
        Ok(answers.map(|all| {
            let group = |it: Vec<fthost_data::Candidate>| it.iter().map(convert::candidate_to).collect();
            all.into_iter().map(group).collect()
        }))
    }
}

impl host::logprobs::Host for State {
    fn logprobs(
        &mut self,
        pairs: Vec<(host::types::Prompt, String)>,
    ) -> wasmtime::Result<Result<Vec<host::logprobs::TextLogprob>, String>> {
        self.granted(self.grants.logprobs, "logprobs")?;
        let pairs: Vec<_> = pairs.into_iter().map(|(it, text)| (convert::prompt_from(it), text)).collect();
        let answers = self.ask(|model| model.logprobs(&pairs))?;
        let to = |it: fthost_data::TextLogprob| host::logprobs::TextLogprob {
            sum: it.sum,
            token_count: it.token_count,
        };
        Ok(answers.map(|all| all.into_iter().map(to).collect()))
    }
}
