//! What a run has in memory: the engine's parts, phase by phase, and what the program has beside them.
//!
//! Numbers that no shape decides were measured, by `host/run/benches/estimate.py`, and stand here as constants.

use std::path::Path;

use fthost_engine::checkpoint::LoadConfig;
use fthost_engine::estimate::{
    GenerationMemory, ModelShape, Sampling, StepMemory, generation, moments, pass, step, tile, weights,
};
use fthost_engine::models::DecoderConfig;
use fthost_engine::nn::FloatDtype;
use fthost_engine::train::ActivationCheckpointing;
use serde::Serialize;

use super::held::{held, stored};
use super::lengths::{Lengths, Micro};
use super::{Run, largest};
use crate::config::{Objective, RunConfig};
use crate::error::Result;
use crate::judges::JudgeConfig;
use crate::plugins::Plugins;

const MIB: u64 = 1 << 20;
/// Pages of the program that a run touches.
pub(super) const PROGRAM: u64 = 20 * MIB;
/// What the program, the thread pool and Burn hold before anything is loaded.
pub(super) const RUNTIME: u64 = 4 * MIB;
/// Bytes of a tokenizer in memory for each byte of `tokenizer.json`: its vocabulary and its merges are tables.
pub(super) const TOKENIZER: u64 = 13;
/// The sandbox with what it compiles and loads components by, where there is a plugin.
const SANDBOX: u64 = 10 * MIB;
/// A component: its code, its instances and what the sandbox holds for it.
const PLUGIN: u64 = 5 * MIB / 2;
/// mimalloc's segments: what is free in one that is not empty serves its own thread alone, and one or the other is there.
const SEGMENT: u64 = 32 * MIB;
/// mimalloc's sizes are an eighth apart, and what was freed in one size is not at once there for another.
const SIZES: u64 = 8;

/// What the allocator holds beside `passing` bytes that are taken and given back again and again.
pub(super) fn slack(passing: u64) -> u64 {
    SEGMENT + passing / SIZES
}

/// Something in memory at the peak of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What.
    pub name: &'static str,
    /// How much.
    pub bytes: u64,
    /// What decides it, for a person.
    pub decided_by: String,
}

/// A phase of a run, and what all is in memory at its peak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// Which.
    pub name: &'static str,
    /// How much.
    pub bytes: u64,
}

/// What is there beside the model.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    tokenizer: u64,
    plugins: usize,
    rows: u64,
    /// Weights of reward models and of judges in folders.
    models: u64,
    /// Whether answers to held-out questions are scored or judged.
    judges: bool,
}

impl Surroundings {
    /// # Errors
    /// A reward model or a judge whose files can't be read.
    pub(super) fn of(config: &RunConfig, plugins: &Plugins, lengths: &Lengths) -> Result<Self> {
        let folder = config.model.folder();
        let tokenizer = std::fs::metadata(folder.join("tokenizer.json")).map_or(0, |it| it.len());
        Ok(Self {
            tokenizer,
            plugins: plugins.loaded.len(),
            rows: lengths.bytes(),
            models: others(config)?,
            judges: !(plugins.rewards.is_empty()
                && plugins.evaluators.is_empty()
                && config.rewards.is_empty()),
        })
    }

    pub(super) fn judges(&self) -> bool {
        self.judges
    }
}

/// Weights of the models that score or are asked beside the run's own.
fn others(config: &RunConfig) -> Result<u64> {
    let own = config.model.folder();
    let of_rewards = config.rewards.values().map(|it| match it.path.join("adapter_config.json").exists() {
        true => it.base.as_deref().unwrap_or(own),
        false => it.path.as_path(),
    });
    let of_judges = config.judges.values().filter_map(|it| match it {
        JudgeConfig::Folder { path } => Some(path.as_path()),
        _ => None,
    });
    let one = |folder: &Path| {
        let shape = ModelShape::of(&DecoderConfig::read(&folder.join("config.json"))?);
        let held = held(folder)?;
        let found = weights(&shape, &LoadConfig::default(), stored(&held));
        Ok(found.total())
    };
    of_rewards.chain(of_judges).map(one).sum()
}

/// What a phase needs for as long as it lasts.
enum Passing {
    Step(StepMemory),
    Pass(u64),
    Generation(GenerationMemory),
}

impl Passing {
    fn bytes(&self) -> u64 {
        match self {
            Self::Step(it) => it.total(),
            Self::Pass(it) => *it,
            Self::Generation(it) => it.total(),
        }
    }
}

impl Run<'_> {
    /// What is in memory at the peak, and how much in each phase.
    pub(super) fn memory(&self, training: &[Vec<Micro>]) -> (Vec<Part>, Vec<Phase>) {
        let mut parts = self.staying();
        let staying: u64 = parts.iter().map(|it| it.bytes).sum();
        let phases = self.phases(training);
        let all = |it: &Passing| staying + it.bytes() + slack(it.bytes());
        let told = phases.iter().map(|(name, it)| Phase { name, bytes: all(it) }).collect();
        if let Some((_, most)) = phases.into_iter().max_by_key(|it| it.1.bytes()) {
            let held = slack(most.bytes());
            parts.extend(self.passing(most, training));
            let decided_by = "free, and not where it is needed".to_string();
            parts.push(Part { name: "allocator", bytes: held, decided_by });
        }
        parts.retain(|it| it.bytes > 0);
        (parts, told)
    }

    /// What stays from the first step to the last.
    fn staying(&self) -> Vec<Part> {
        let (config, around) = (self.config, &self.surroundings);
        let part = |name, bytes, decided_by: &str| Part { name, bytes, decided_by: decided_by.to_string() };
        let load = config.load_config();
        let bytes = weights(&self.shape, &load, stored(self.held));
        let stored = match (&config.adapter, &config.quant, load.dtype) {
            (None, ..) => "trained, f32".to_string(),
            (_, Some(quant), dtype) => format!("`quant.{}`, the rest {}", quant.name(), named(dtype)),
            (_, None, dtype) => format!("`train.frozen_dtype` = {}", named(dtype)),
        };
        let trained = 4 * self.trained_values();
        let moments =
            moments(&self.trained(), &config.optimizer.storage(&config.output.dir, config.parallel.offload));
        let mut parts = vec![
            part("program", PROGRAM + RUNTIME, "the same for every run"),
            part(
                "plugins",
                if around.plugins > 0 { SANDBOX } else { 0 } + PLUGIN * around.plugins as u64,
                "`plugins`",
            ),
            part("tokenizer", TOKENIZER * around.tokenizer, "the model's `tokenizer.json`"),
            part("rows", around.rows, "`data`"),
            part("weights in the file", bytes.mapped, &format!("{stored}: the file's own pages")),
            part("weights in memory", bytes.owned, &stored),
        ];
        match config.adapter {
            Some(_) => {
                // What it began with, and both beside each other in the graphs of a step.
                let origins = 3 * 4 * self.shape.origins() as u64;
                parts.push(part("adapter", trained + origins, "its rank and targets"));
            }
            // The base is among the weights; a value model is a second one.
            None => parts.push(part(
                "value model",
                trained - 4 * self.shape.parameters() as u64,
                "`objective.ppo.value_model`",
            )),
        }
        parts.push(part("reference", self.reference(), "trained weights as they were"));
        parts.push(part("other models", around.models, "`rewards`, `judges`"));
        parts.push(part("moments", moments, &format!("`optimizer.{}`", config.optimizer.name())));
        parts
    }

    /// A second copy of what training changes, where somebody asks the model as it was.
    fn reference(&self) -> u64 {
        let is_kept = self.asks_reference() || self.config.objective.samples();
        if self.shape.has_adapter() || !is_kept { 0 } else { 4 * self.shape.parameters() as u64 }
    }

    fn phases(&self, training: &[Vec<Micro>]) -> Vec<(&'static str, Passing)> {
        let (config, load) = (self.config, self.config.load_config());
        let mut phases = Vec::new();
        let accumulates = training.iter().any(|it| it.len() > 1);
        let mut found = step(&self.shape, &self.how(accumulates), largest(training));
        found.working += tile(&load);
        if self.has_value_model() {
            // Those of the one are there while the other's are found.
            found.gradients += 4 * self.shape.trained_values();
        }
        phases.push(("training", Passing::Step(found)));
        let widest =
            |all: &[Micro]| all.iter().map(|it| pass(&self.shape, it.batch)).max().unwrap_or(0) + tile(&load);
        if self.asks_reference() || matches!(config.objective, Objective::Ppo(_)) {
            let all: Vec<Micro> = training.iter().flatten().cloned().collect();
            phases.push(("reference and values", Passing::Pass(widest(&all))));
        }
        let held_out = self.lengths.held_out(config);
        if !held_out.is_empty() && !config.objective.samples() {
            phases.push(("held-out rows", Passing::Pass(widest(&held_out))));
        }
        let is_packed = load.quant.is_some();
        if config.objective.samples() {
            let rollout = &config.rollout;
            let completions = rollout.prompts(&config.train) * rollout.num_generations;
            let sampling = Sampling {
                rows: rollout.batch_size.min(completions) as u64,
                of_prompt: rollout.num_generations as u64,
                prompt: longest(&self.lengths.prompts(config)),
                completion: rollout.max_completion_length as u64,
            };
            let found = generation(&self.shape, &sampling, Default::default(), is_packed);
            phases.push(("rollouts", Passing::Generation(found)));
        }
        let questions = self.lengths.questions(config);
        if self.surroundings.judges && !questions.is_empty() {
            let of = &config.eval.generation;
            let sampling = Sampling {
                rows: config.eval.batch_size.min(questions.len() * of.completions_per_prompt) as u64,
                of_prompt: of.completions_per_prompt as u64,
                prompt: longest(&questions),
                completion: of.max_new_tokens as u64,
            };
            let found = generation(&self.shape, &sampling, config.eval.weights, is_packed);
            phases.push(("answers", Passing::Generation(found)));
        }
        phases
    }

    /// The parts of the phase with the most.
    fn passing(&self, most: Passing, training: &[Vec<Micro>]) -> Vec<Part> {
        let part = |name, bytes, decided_by: String| Part { name, bytes, decided_by };
        match most {
            Passing::Step(StepMemory { activations, working, gradients }) => {
                let config = self.config;
                let kept = match config.train.activation_checkpointing {
                    ActivationCheckpointing::Off => "\"off\"".to_string(),
                    ActivationCheckpointing::Block => match self.blocks_again(training) {
                        Some(first_n) => format!("\"block\"; `{{ first_n = {first_n} }}` takes no more"),
                        None => "\"block\"".to_string(),
                    },
                    ActivationCheckpointing::Offload => "\"offload\"".to_string(),
                    ActivationCheckpointing::EveryN(n) => format!("every {n}"),
                    ActivationCheckpointing::FirstN(n) => format!("the first {n}"),
                };
                let batch = if config.data.packing {
                    "`train.micro_batch_tokens`"
                } else {
                    "`train.micro_batch_size`"
                };
                let released = if config.train.gradient_release {
                    "`train.gradient_release`"
                } else {
                    "what is trained"
                };
                vec![
                    part("gradients", gradients, released.to_string()),
                    part(
                        "activations",
                        activations,
                        format!("{batch}, `train.activation_checkpointing` = {kept}"),
                    ),
                    part("working memory", working, "a block's backward, or the head's logits".to_string()),
                ]
            }
            Passing::Pass(bytes) => vec![part("working memory", bytes, "a pass without a graph".to_string())],
            Passing::Generation(GenerationMemory { cache, working, copies }) => vec![
                part("keys and values", cache, "sequences that grow at one time".to_string()),
                part("logits", working, "sequences that grow at one time".to_string()),
                part("decoding weights", copies, "`eval.weights`".to_string()),
            ],
        }
    }
}

fn longest(all: &[u64]) -> u64 {
    all.iter().copied().max().unwrap_or(0)
}

fn named(dtype: FloatDtype) -> &'static str {
    match dtype {
        FloatDtype::F32 => "f32",
        FloatDtype::Bf16 => "bf16",
    }
}
