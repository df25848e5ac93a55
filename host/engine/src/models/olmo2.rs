//! OLMo 2: <https://arxiv.org/abs/2501.00656>, as transformers' `modeling_olmo2.py` computes it. Norms stand on what a layer
//! adds to the stream, not before it, and on all queries and all keys of a token together.

use super::decoder::{Biases, DecoderConfig, LLAMA_NAMES, Names, QkNorm};
use super::keys::Keys;
use super::llama::{self, Defaults};

pub(super) const NAMES: Names = Names {
    causal_lm: "Olmo2ForCausalLM",
    classifier: "Olmo2ForSequenceClassification",
    attention_norm: None,
    post_attention_norm: Some("post_attention_layernorm"),
    mlp_norm: None,
    post_mlp_norm: Some("post_feedforward_layernorm"),
    ..LLAMA_NAMES
};

/// What `config.json` says.
pub(super) fn decoder(keys: &mut Keys<'_>) -> DecoderConfig {
    let plain = llama::plain(keys, Defaults { norm_eps: 1e-5, ..Defaults::default() });
    let bias = keys.flag("attention_bias").unwrap_or(false);
    let biases = Biases { qkv: bias, output: bias, mlp: false };
    DecoderConfig { biases, qk_norm: QkNorm::Whole, names: &NAMES, ..plain }
}
