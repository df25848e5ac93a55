//! Which keys would save the most memory.

use fthost_engine::estimate::blocks_again;
use fthost_engine::nn::FloatDtype;
use fthost_engine::quant::QuantConfig;
use fthost_engine::train::ActivationCheckpointing;
use serde::Serialize;

use super::lengths::Micro;
use super::{Run, largest, shape};
use crate::config::{Adapter, Optimizer, RunConfig};
use crate::error::Result;

/// Hints that are given.
const SHOWN: usize = 4;
/// The least share of the peak that is worth one.
const LEAST: f64 = 0.03;

/// A key that would save memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// As it would stand in a run file, or behind `--set`.
    pub keys: String,
    /// Bytes less at the peak.
    pub saves: u64,
    /// What it costs.
    pub costs: &'static str,
}

impl Run<'_> {
    /// As [`blocks_again`], of the steps of this run.
    pub(super) fn blocks_again(&self, training: &[Vec<Micro>]) -> Option<usize> {
        let accumulates = training.iter().any(|it| it.len() > 1);
        blocks_again(&self.shape, &self.how(accumulates), largest(training))
    }

    /// The keys that would lower a peak of `peak` bytes the most, each by itself.
    ///
    /// # Errors
    /// As [`shape`].
    pub(super) fn hints(&self, peak: u64) -> Result<Vec<Hint>> {
        let mut found = Vec::new();
        let again = self.blocks_again(&self.lengths.training(self.config));
        for (keys, costs, changed) in candidates(self.config, again) {
            let other = Run {
                config: &changed,
                shape: shape(&changed)?,
                held: self.held,
                lengths: self.lengths,
                surroundings: self.surroundings.clone(),
            };
            let (parts, _) = other.memory(&self.lengths.training(&changed));
            let then: u64 = parts.iter().map(|it| it.bytes).sum();
            let saves = peak.saturating_sub(then);
            if saves as f64 > LEAST * peak as f64 {
                found.push(Hint { keys, saves, costs });
            }
        }
        found.sort_by_key(|it| std::cmp::Reverse(it.saves));
        found.truncate(SHOWN);
        Ok(found)
    }
}

/// What computes no more blocks again than lower the peak, as it stands in a run file, and what it costs.
fn checkpointing(again: Option<usize>) -> (ActivationCheckpointing, String, &'static str) {
    match again {
        Some(first_n) => {
            let value = format!("{{ first_n = {first_n} }}");
            (ActivationCheckpointing::FirstN(first_n), value, "these blocks are computed twice")
        }
        None => (ActivationCheckpointing::Block, "\"block\"".into(), "each block is computed twice"),
    }
}

/// Changes that the run file could take, what they cost, and the run with each.
///
/// `again` is what [`Run::blocks_again`] says.
fn candidates(config: &RunConfig, again: Option<usize>) -> Vec<(String, &'static str, RunConfig)> {
    let mut all = Vec::new();
    let mut add = |keys: String, costs: &'static str, change: &dyn Fn(&mut RunConfig)| {
        let mut changed = config.clone();
        change(&mut changed);
        all.push((keys, costs, changed));
    };
    let train = &config.train;
    let (kept, value, costs) = checkpointing(again);
    add(format!("train.activation_checkpointing = {value}"), costs, &|it| {
        it.train.activation_checkpointing = kept;
    });
    if config.data.packing {
        let tokens = (config.micro_batch_tokens() / 2).max(config.data.max_length);
        if tokens < config.micro_batch_tokens() {
            add(format!("train.micro_batch_tokens = {tokens}"), "more micro-batches a step", &|it| {
                it.train.micro_batch_tokens = Some(tokens);
            });
        }
    } else if train.micro_batch_size.is_multiple_of(2) && !train.gradient_release {
        let (rows, steps) = (train.micro_batch_size / 2, 2 * train.gradient_accumulation_steps);
        let keys = format!("train.micro_batch_size = {rows}, train.gradient_accumulation_steps = {steps}");
        add(keys, "more micro-batches a step", &|it| {
            (it.train.micro_batch_size, it.train.gradient_accumulation_steps) = (rows, steps);
        });
    }
    match &config.adapter {
        None => {
            add("adapter.lora.rank = 8".into(), "an adapter is trained, not the weights", &|it| {
                it.adapter = Some(Adapter::Lora(Default::default()));
                it.train.gradient_release = false;
            });
            let fits = !config.data.packing && train.gradient_accumulation_steps == 1;
            if fits && !train.gradient_release && config.objective.name() == "sft" {
                add("train.gradient_release = true, train.max_grad_norm = 0".into(), "no clipping", &|it| {
                    it.train.gradient_release = true;
                });
            }
        }
        Some(_) if config.quant.is_none() => {
            if train.frozen_dtype == FloatDtype::F32 {
                add("train.frozen_dtype = \"bf16\"".into(), "frozen weights are rounded", &|it| {
                    it.train.frozen_dtype = FloatDtype::Bf16;
                });
            }
            add("quant.nf4.block_size = 64".into(), "frozen linears in 4 bits", &|it| {
                it.quant = Some(QuantConfig::Nf4(Default::default()));
            });
        }
        Some(_) => {}
    }
    if let Optimizer::Adamw(adamw) = &config.optimizer {
        add("[optimizer.adamw8bit]".into(), "moments are rounded to 8 bits", &|it| {
            it.optimizer = Optimizer::Adamw8bit(adamw.clone());
        });
    }
    all
}
