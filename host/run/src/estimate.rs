//! `fthost estimate`: memory and floating point operations of a run before it is started, from its file, the shapes of its model
//! and the lengths of its rows. No weight is loaded.
//!
//! What depends on shapes is the engine's arithmetic ([`fthost_engine::estimate`]); what a program has beside it stands here.

pub(crate) mod held;
mod hints;
mod lengths;
mod memory;
pub mod modes;
mod ranks;

use std::collections::BTreeMap;

use fthost_data::Tokenizer;
use fthost_engine::estimate::{
    BatchTokens, Held, ModelShape, Segment, StepShape, forward_flops, head_flops, step_flops,
};
use fthost_engine::models::DecoderConfig;
use fthost_engine::nn::FloatDtype;
use fthost_engine::objectives::ppo::ValueModel;
use serde::Serialize;

pub use self::hints::Hint;
use self::lengths::{Lengths, Micro};
pub use self::memory::{Part, Phase};
pub use self::ranks::OnRanks;
use crate::config::{Adapter, Objective, RunConfig};
use crate::error::Result;
use crate::models;
use crate::plugins::Plugins;

/// What a run takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// The model, as other programs are told it.
    pub model: String,
    /// Base weights.
    pub parameters: u64,
    /// Of these, or of an adapter on them, those that are trained.
    pub trainable_parameters: u64,
    /// What is minimised.
    pub objective: &'static str,
    /// Optimizer steps; unknown where they depend on rows that were not read.
    pub steps: Option<u64>,
    /// Where the lengths of rows are from.
    pub lengths: String,
    /// Tokens of the largest micro-batch that go through the blocks.
    pub tokens: u64,
    /// Of these, those that carry loss.
    pub supervised_tokens: u64,
    /// What is in memory at the peak.
    pub parts: Vec<Part>,
    /// What each phase of the run has in memory at its own peak.
    pub phases: Vec<Phase>,
    /// All parts.
    pub peak_rss_bytes: u64,
    /// Floating point operations.
    pub flops: Flops,
    /// A step on the ranks of `[launch]`, where they are several.
    pub on_ranks: Option<OnRanks>,
    /// Keys that would save the most.
    pub hints: Vec<Hint>,
    /// What is not counted.
    pub notes: Vec<String>,
}

/// Floating point operations of matrix products.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Flops {
    /// An optimizer step, on average, with what is sampled for it.
    pub step: u64,
    /// All steps, where their number is known.
    pub training: Option<u64>,
    /// One look at the held-out rows, answers as long as they may be.
    pub evaluation: u64,
}

/// A run as it is estimated.
struct Run<'a> {
    config: &'a RunConfig,
    shape: ModelShape,
    held: &'a BTreeMap<String, Held>,
    lengths: &'a Lengths,
    surroundings: memory::Surroundings,
}

/// Estimates the run of `config`.
///
/// # Errors
/// A model that is not found or known; an adapter that names no linear; rows that can't be read.
pub fn estimate(config: &RunConfig, plugins: &mut Plugins) -> Result<Estimate> {
    let config = &models::found(config)?;
    let folder = config.model.folder();
    let held = held::held(folder)?;
    let tokenizer = Tokenizer::load(folder)?;
    let lengths = Lengths::of(config, plugins, &tokenizer)?;
    let surroundings = memory::Surroundings::of(config, plugins, &lengths)?;
    let shape = shape(config)?;
    let run = Run { config, shape, held: &held, lengths: &lengths, surroundings };
    let training = lengths.training(config);
    let (parts, phases) = run.memory(&training);
    let peak: u64 = parts.iter().map(|it| it.bytes).sum();
    let largest = largest(&training);
    let told = match &lengths {
        Lengths::Rows { rows, .. } if config.objective.samples() => {
            format!("prompts of {} rows, completions as long as they may be", rows.train.len())
        }
        Lengths::Rows { rows, .. } => format!("those of {} rows", rows.train.len()),
        Lengths::Most(reason) => format!("`data.max_length` = {}: {reason}", config.data.max_length),
    };
    Ok(Estimate {
        model: config.model.reference(),
        parameters: run.shape.parameters() as u64,
        trainable_parameters: run.trained_values(),
        objective: config.objective.name(),
        steps: lengths.steps(config),
        lengths: told,
        tokens: largest.tokens,
        supervised_tokens: largest.supervised,
        flops: run.flops(&training),
        on_ranks: run.on_ranks(&training)?,
        hints: run.hints(peak)?,
        notes: notes(config),
        parts,
        phases,
        peak_rss_bytes: peak,
    })
}

/// What of `config` is not counted.
fn notes(config: &RunConfig) -> Vec<String> {
    let mut notes = Vec::new();
    if config.train.compute_dtype == FloatDtype::Bf16 {
        notes.push(
            "`train.compute_dtype` = \"bf16\" is computed by plain operations, which keep more than is told"
                .into(),
        );
    }
    if matches!(config.adapter, Some(Adapter::Peft { .. })) && config.objective.samples() {
        notes.push("the reference's own adapter is not counted".into());
    }
    notes
}

/// The model of `config` with what is trained on it.
fn shape(config: &RunConfig) -> Result<ModelShape> {
    let model = DecoderConfig::read(&config.model.folder().join("config.json"))?;
    let shape = ModelShape::of(&model);
    Ok(match &config.adapter {
        Some(adapter) => shape.with_adapter(&adapter.on(&model)?)?,
        None => shape,
    })
}

impl Run<'_> {
    /// Values that are trained, those of a value model among them.
    fn trained_values(&self) -> u64 {
        self.trained().iter().map(|it| *it as u64).sum()
    }

    /// Lengths of the parameters that are trained.
    fn trained(&self) -> Vec<usize> {
        let (mut all, width) = (self.shape.trained(), self.shape.config.hidden_size);
        match &self.config.objective {
            Objective::Ppo(it) if it.value_model == ValueModel::Copy => {
                all.extend(self.shape.trained());
                all.extend([width, 1]);
            }
            Objective::Ppo(_) => all.extend([width, 1]),
            Objective::Reward(_) => all.push(width),
            _ => {}
        }
        all
    }

    /// Whether a second trunk is trained.
    fn has_value_model(&self) -> bool {
        matches!(&self.config.objective, Objective::Ppo(it) if it.value_model == ValueModel::Copy)
    }

    /// Whether log-probabilities of the model before training are asked for.
    fn asks_reference(&self) -> bool {
        match &self.config.objective {
            Objective::Dpo(it) => !it.precompute_ref_log_probs,
            Objective::Kto(it) => !it.precompute_ref_log_probs || it.needs_divergence(),
            Objective::Grpo(it) => it.needs_reference(),
            Objective::Ppo(it) => it.needs_reference(),
            _ => false,
        }
    }

    /// How its steps are taken.
    fn how(&self, accumulates: bool) -> StepShape {
        let train = &self.config.train;
        StepShape {
            checkpointing: train.activation_checkpointing,
            gradient_release: train.gradient_release,
            accumulates,
            by_logps: !matches!(self.config.objective, Objective::Sft {}),
            is_scored: self.config.objective.has_margins(),
        }
    }

    fn flops(&self, training: &[Vec<Micro>]) -> Flops {
        let how = self.how(false);
        let of_batch = |it: &Micro| {
            let mut all = step_flops(&self.shape, &how, it.batch, &it.segments);
            if self.has_value_model() {
                let without_head = StepShape { is_scored: true, ..how };
                all += step_flops(&self.shape, &without_head, it.batch, &it.segments) + self.forward(it, 0);
            }
            if self.asks_reference() {
                all += self.forward(it, it.batch.supervised);
            }
            all
        };
        let of_steps: u128 = training.iter().flatten().map(|it| u128::from(of_batch(it))).sum();
        let rollout = u128::from(self.rollout_flops());
        let step = of_steps / training.len().max(1) as u128 + rollout;
        let told = |it: u128| u64::try_from(it).unwrap_or(u64::MAX);
        let training = self.lengths.steps(self.config).map(|it| told(step * u128::from(it)));
        Flops { step: told(step), training, evaluation: self.evaluation_flops() }
    }

    fn forward(&self, micro: &Micro, headed: u64) -> u64 {
        forward_flops(&self.shape, micro.batch.tokens, &micro.segments, headed)
    }

    /// Of the completions of one optimizer step.
    fn rollout_flops(&self) -> u64 {
        let (rollout, train) = (&self.config.rollout, &self.config.train);
        if !self.config.objective.samples() {
            return 0;
        }
        let prompts = self.lengths.prompts(self.config);
        let mean = prompts.iter().sum::<u64>() / prompts.len().max(1) as u64;
        let of_prompt =
            self.sampled(mean, rollout.max_completion_length as u64, rollout.num_generations as u64);
        let steps = (rollout.steps_per_generation * rollout.num_iterations).max(1) as u64;
        of_prompt * rollout.prompts(train) as u64 / steps
    }

    fn evaluation_flops(&self) -> u64 {
        let held_out: u64 = match self.config.objective.samples() {
            true => 0,
            false => self
                .lengths
                .held_out(self.config)
                .iter()
                .map(|it| self.forward(it, it.batch.supervised))
                .sum(),
        };
        let config = &self.config.eval.generation;
        let sampled =
            |it: u64| self.sampled(it, config.max_new_tokens as u64, config.completions_per_prompt as u64);
        let answers: u64 = match self.surroundings.judges() {
            true => self.lengths.questions(self.config).into_iter().map(sampled).sum(),
            false => 0,
        };
        held_out + answers
    }

    /// Of `count` completions of a prompt, which is read once; each new token sees all before it.
    fn sampled(&self, prompt: u64, completion: u64, count: u64) -> u64 {
        let reading = forward_flops(&self.shape, prompt, &[Segment { before: 0, tokens: prompt }], 1);
        let segment = Segment { before: prompt, tokens: completion };
        let growing =
            forward_flops(&self.shape, completion, &[segment], 0) + head_flops(&self.shape, completion);
        reading + count * growing
    }
}

/// The micro-batch with the most tokens, and the most supervised ones.
fn largest(training: &[Vec<Micro>]) -> BatchTokens {
    let all = || training.iter().flatten().map(|it| it.batch);
    BatchTokens {
        tokens: all().map(|it| it.tokens).max().unwrap_or(0),
        supervised: all().map(|it| it.supervised).max().unwrap_or(0),
        sequences: all().map(|it| it.sequences).min().unwrap_or(0),
    }
}
