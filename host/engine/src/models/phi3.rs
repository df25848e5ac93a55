//! Phi 3, 3.5 and 4, and Phi 4 mini: <https://arxiv.org/abs/2404.14219>, as transformers' `modeling_phi3.py` computes it. Llama
//! with one linear for queries, keys and values and one for gate and up; a part of each head may be left unrotated.

use super::decoder::{DecoderConfig, LLAMA_NAMES, Names};
use super::keys::Keys;
use super::llama::{self, Defaults};

pub(super) const NAMES: Names = Names {
    causal_lm: "Phi3ForCausalLM",
    classifier: "Phi3ForSequenceClassification",
    qkv: &["self_attn.qkv_proj"],
    up: &["mlp.gate_up_proj"],
    ..LLAMA_NAMES
};

/// What `config.json` says.
pub(super) fn decoder(keys: &mut Keys<'_>) -> DecoderConfig {
    let defaults = Defaults { norm_eps: 1e-5, max_position_embeddings: 4096, ..Defaults::default() };
    let mut config = DecoderConfig { names: &NAMES, ..llama::plain(keys, defaults) };
    let window = keys.size("sliding_window");
    config.layers.iter_mut().for_each(|it| it.window = window);
    config
}
