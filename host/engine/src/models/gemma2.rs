//! Gemma 2: <https://arxiv.org/abs/2408.00118>, as transformers' `modeling_gemma2.py` computes it. Gemma with norms on both sides
//! of each layer, bounded scores and logits, and a window in every other layer.

use super::decoder::{DecoderConfig, LLAMA_NAMES, Names};
use super::gemma;
use super::keys::Keys;
use super::llama::Defaults;

/// Norms on both sides of each layer.
pub(super) const NAMES: Names = Names {
    causal_lm: "Gemma2ForCausalLM",
    classifier: "Gemma2ForSequenceClassification",
    post_attention_norm: Some("post_attention_layernorm"),
    mlp_norm: Some("pre_feedforward_layernorm"),
    post_mlp_norm: Some("post_feedforward_layernorm"),
    ..LLAMA_NAMES
};

/// What `config.json` says.
pub(super) fn decoder(keys: &mut Keys<'_>) -> DecoderConfig {
    let defaults = Defaults { max_position_embeddings: 8192, ..gemma::defaults() };
    let mut config = plain(keys, defaults, &NAMES);
    config.attn_logit_softcapping = keys.number_or_null("attn_logit_softcapping", Some(50.0));
    config.final_logit_softcapping = keys.number_or_null("final_logit_softcapping", Some(30.0));
    let window = keys.size_or_null("sliding_window", Some(4096));
    keys.windows(&mut config, window, |layer| layer.is_multiple_of(2));
    config
}

/// What Gemma 3 has in common with it.
pub(super) fn plain(keys: &mut Keys<'_>, defaults: Defaults, names: &'static Names) -> DecoderConfig {
    keys.only(&["hidden_activation"], &["gelu_pytorch_tanh"]);
    let scale = keys.number("query_pre_attn_scalar").unwrap_or(256.0).powf(-0.5);
    DecoderConfig { attention_scale: scale, names, ..gemma::plain(keys, defaults) }
}
