//! Qwen 2 and 2.5: <https://arxiv.org/abs/2407.10671>, as transformers' `modeling_qwen2.py` computes it. Llama with biases on
//! queries, keys and values, and a window in some layers.

use super::decoder::{Biases, DecoderConfig, LLAMA_NAMES, Names};
use super::keys::Keys;
use super::llama::{self, Defaults};

pub(super) const NAMES: Names =
    Names { causal_lm: "Qwen2ForCausalLM", classifier: "Qwen2ForSequenceClassification", ..LLAMA_NAMES };

/// What `config.json` says.
pub(super) fn decoder(keys: &mut Keys<'_>) -> DecoderConfig {
    let defaults = Defaults { max_position_embeddings: 32_768, ..Defaults::default() };
    let plain = llama::plain(keys, defaults);
    let biases = Biases { qkv: true, ..Biases::default() };
    let mut config = DecoderConfig { biases, names: &NAMES, ..plain };
    windows(keys, &mut config);
    config
}

/// A window in the layers that `layer_types` names, or in those from `max_window_layers` on.
pub(super) fn windows(keys: &mut Keys<'_>, config: &mut DecoderConfig) {
    let window = keys.size_or_null("sliding_window", Some(4096));
    let window = window.filter(|_| keys.flag("use_sliding_window") == Some(true));
    let first = keys.size("max_window_layers").unwrap_or(28);
    keys.windows(config, window, |layer| layer >= first);
}
