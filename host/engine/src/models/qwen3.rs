//! Qwen 3: <https://arxiv.org/abs/2505.09388>, as transformers' `modeling_qwen3.py` computes it. Qwen 2 with norms on the
//! heads of queries and keys, and without biases unless asked for.

use super::decoder::{Biases, DecoderConfig, LLAMA_NAMES, Names, QkNorm};
use super::keys::Keys;
use super::llama::{self, Defaults};
use super::qwen2;

pub(super) const NAMES: Names =
    Names { causal_lm: "Qwen3ForCausalLM", classifier: "Qwen3ForSequenceClassification", ..LLAMA_NAMES };

/// What `config.json` says.
pub(super) fn decoder(keys: &mut Keys<'_>) -> DecoderConfig {
    let defaults = Defaults { head_dim: Some(128), max_position_embeddings: 32_768, ..Defaults::default() };
    let plain = llama::plain(keys, defaults);
    let bias = keys.flag("attention_bias").unwrap_or(false);
    let biases = Biases { qkv: bias, output: bias, mlp: false };
    let mut config = DecoderConfig { biases, qk_norm: QkNorm::Heads, names: &NAMES, ..plain };
    qwen2::windows(keys, &mut config);
    config
}
