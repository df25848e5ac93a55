//! What training a model takes in the ways that people train one, for a stated shape: what `fthost model inspect` tells.

use std::collections::BTreeMap;

use fthost_engine::adapters::LoraConfig;
use fthost_engine::checkpoint::LoadConfig;
use fthost_engine::estimate::{BatchTokens, Held, ModelShape, StepShape, moments, step, tile, weights};
use fthost_engine::models::DecoderConfig;
use fthost_engine::nn::FloatDtype;
use fthost_engine::optim::MomentStorage;
use fthost_engine::quant::QuantConfig;
use fthost_engine::train::ActivationCheckpointing;
use serde::Serialize;

use super::held::stored;
use super::memory::{PROGRAM, RUNTIME, TOKENIZER, slack};
use crate::error::Result;

/// Tokens of the one row of the one micro-batch, unless the model's context is shorter.
const TOKENS: usize = 1024;

/// Memory by way of training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Modes {
    /// Tokens of the one row of a step, all of which carry loss; blocks are computed again in backward.
    pub tokens: u64,
    /// Each way.
    pub modes: Vec<Mode>,
}

/// A way of training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mode {
    /// Which.
    pub name: &'static str,
    /// Memory at the peak, about.
    pub bytes: u64,
}

/// Those of a model of `config`, of whose weights `held` says what the files hold; the others are floats. Where some are
/// packed already, only an adapter on them as they are. `tokenizer` is how long its file is.
///
/// # Errors
/// None of a known family.
pub fn modes(config: &DecoderConfig, held: &BTreeMap<String, Held>, tokenizer: u64) -> Result<Modes> {
    let tokens = TOKENS.min(config.context_length()) as u64;
    let is_packed = held.values().any(|it| matches!(it, Held::Packed(_) | Held::Blocks(_)));
    let narrow = |quant| LoadConfig { to_train: false, dtype: FloatDtype::Bf16, quant };
    let to_train = LoadConfig { to_train: true, ..LoadConfig::default() };
    let nf4 = Some(QuantConfig::Nf4(Default::default()));
    let all = [
        ("every weight, f32", false, to_train),
        ("LoRA r=8, f32", true, LoadConfig::default()),
        ("LoRA r=8, frozen bf16", true, narrow(None)),
        ("QLoRA r=8, nf4 and bf16", true, narrow(nf4)),
    ];
    let as_it_is = [("LoRA r=8, as packed", true, LoadConfig::default())];
    let all = if is_packed { as_it_is.to_vec() } else { all.to_vec() };
    let mut modes = Vec::new();
    for (name, adapts, load) in all {
        let mut shape = ModelShape::of(config);
        if adapts {
            shape = shape.with_lora(&LoraConfig::default())?;
        }
        modes.push(Mode { name, bytes: TOKENIZER * tokenizer + bytes(&shape, &load, held, tokens) });
    }
    Ok(Modes { tokens, modes })
}

fn bytes(shape: &ModelShape, load: &LoadConfig, held: &BTreeMap<String, Held>, tokens: u64) -> u64 {
    let how = StepShape { checkpointing: ActivationCheckpointing::Block, ..StepShape::default() };
    let trained = shape.trained();
    let adapter = if shape.has_adapter() { 4 * shape.trained_values() } else { 0 };
    let in_files = weights(shape, load, stored(held));
    let batch = BatchTokens { tokens, supervised: tokens, sequences: 1 };
    let passing = step(shape, &how, batch).total() + tile(load);
    PROGRAM
        + RUNTIME
        + in_files.total()
        + adapter
        + moments(&trained, &MomentStorage::F32)
        + passing
        + slack(passing)
}
