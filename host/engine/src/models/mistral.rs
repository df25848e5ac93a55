//! Mistral 7B and its like: <https://arxiv.org/abs/2310.06825>, as transformers' `modeling_mistral.py` computes it. Llama
//! with a sliding window.

use super::decoder::{DecoderConfig, LLAMA_NAMES, Names};
use super::keys::Keys;
use super::llama::{self, Defaults};

pub(super) const NAMES: Names =
    Names { causal_lm: "MistralForCausalLM", classifier: "MistralForSequenceClassification", ..LLAMA_NAMES };

/// What `config.json` says.
pub(super) fn decoder(keys: &mut Keys<'_>) -> DecoderConfig {
    let defaults = Defaults { max_position_embeddings: 131_072, ..Defaults::default() };
    let mut config = DecoderConfig { names: &NAMES, ..llama::plain(keys, defaults) };
    let window = keys.size_or_null("sliding_window", Some(4096));
    config.layers.iter_mut().for_each(|it| it.window = window);
    config
}
