//! Which adapter is trained, whatever its kind.

use fthost_data::Tokenizer;

use super::ia3::{self, Ia3Config};
use super::lora::{LoraConfig, attach_lora};
use super::virtual_tokens::{self, PrefixTuningConfig, PromptTuningConfig};
use crate::error::{EngineError, Result};
use crate::models::{CausalLm, DecoderConfig};

/// An adapter of any kind: what `[adapter.<kind>]` of a run file begins, or what a PEFT folder says.
#[derive(Debug, Clone, PartialEq)]
pub enum AdapterConfig {
    /// Low-rank pairs beside linears.
    Lora(LoraConfig),
    /// Factors of what linears put out or are given.
    Ia3(Ia3Config),
    /// Embeddings before every sequence.
    PromptTuning(PromptTuningConfig),
    /// Keys and values before every sequence.
    PrefixTuning(PrefixTuningConfig),
}

impl AdapterConfig {
    /// Its key in a run file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lora(_) => "lora",
            Self::Ia3(_) => "ia3",
            Self::PromptTuning(_) => "prompt_tuning",
            Self::PrefixTuning(_) => "prefix_tuning",
        }
    }

    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Lora(config) => config.problems(),
            Self::Ia3(config) => config.problems(),
            Self::PromptTuning(config) => config.problems(),
            Self::PrefixTuning(config) => config.problems(),
        }
    }

    /// Puts a fresh one on `model`, drawn from `seed`; texts in it are encoded by `tokenizer`.
    ///
    /// # Errors
    /// Impossible values, and what matches nothing of the model.
    pub fn attach(&self, model: &mut CausalLm, seed: u64, tokenizer: &Tokenizer) -> Result<()> {
        match self {
            Self::Lora(config) => attach_lora(model, config, seed),
            Self::Ia3(config) => ia3::attach_ia3(model, config),
            Self::PromptTuning(config) => {
                let text = config.text.as_ref().map(|it| tokenizer.encode(it)).transpose();
                let text = text.map_err(EngineError::Data)?;
                virtual_tokens::attach_prompt(model, config, seed, text.map(|it| it.ids))
            }
            Self::PrefixTuning(config) => virtual_tokens::attach_prefix(model, config, seed),
        }
    }

    /// Whether a fresh one is made of the model's weights, or changes what is trained of them: it is put on a model that is there.
    pub fn begins_from_weights(&self) -> bool {
        match self {
            Self::Lora(config) => {
                let of_weight = config.use_dora || config.init_lora_weights.is_of_weight();
                of_weight || !config.modules_to_save.is_empty()
            }
            Self::Ia3(config) => !config.modules_to_save.is_empty(),
            // It may begin with the embeddings of words.
            Self::PromptTuning(_) => true,
            Self::PrefixTuning(_) => false,
        }
    }

    /// Share of a pair's input that is dropped in training.
    pub(crate) fn dropout(&self) -> f64 {
        if let Self::Lora(config) = self { config.dropout } else { 0.0 }
    }

    /// Learning rate of B over that of everything else.
    pub(crate) fn loraplus_lr_ratio(&self) -> f64 {
        if let Self::Lora(config) = self { config.loraplus_lr_ratio } else { 1.0 }
    }

    /// Whether a model of `config` has a place for its virtual tokens, where it has any.
    ///
    /// # Errors
    /// Its own impossible values; a context that they fill; embeddings where long texts are rotated otherwise.
    pub fn check_place(&self, config: &DecoderConfig) -> Result<()> {
        match self.virtual_tokens() {
            0 => Ok(()),
            count => virtual_tokens::check_place(self.name(), config, self.problems(), count),
        }
    }

    /// Tokens that stand before every text.
    pub fn virtual_tokens(&self) -> usize {
        match self {
            Self::Lora(_) | Self::Ia3(_) => 0,
            Self::PromptTuning(config) => config.num_virtual_tokens,
            Self::PrefixTuning(config) => config.num_virtual_tokens,
        }
    }
}

impl From<LoraConfig> for AdapterConfig {
    fn from(config: LoraConfig) -> Self {
        Self::Lora(config)
    }
}

/// The error of impossible values of `[adapter.<kind>]`; none where there are none.
pub(super) fn check(kind: &str, problems: Vec<String>) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(EngineError::Invalid { what: format!("adapter.{kind}"), problems })
}
