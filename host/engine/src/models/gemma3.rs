//! Gemma 3, its language model alone: <https://arxiv.org/abs/2503.19786>, as transformers' `modeling_gemma3.py` computes it.
//! Gemma 2 with norms on the heads of queries and keys in place of bounds on scores, and with a rotary embedding of its own for the
//! layers that have a window, five of six.

use super::decoder::{DecoderConfig, LayerConfig, Names, QkNorm};
use super::keys::Keys;
use super::llama::Defaults;
use super::{gemma, gemma2};

pub(super) const NAMES: Names = Names {
    causal_lm: "Gemma3ForCausalLM",
    classifier: "Gemma3TextForSequenceClassification",
    ..gemma2::NAMES
};

/// What `config.json` says.
pub(super) fn decoder(keys: &mut Keys<'_>) -> DecoderConfig {
    let defaults = Defaults { max_position_embeddings: 131_072, ..gemma::defaults() };
    let mut config = gemma2::plain(keys, defaults, &NAMES);
    config.qk_norm = QkNorm::Heads;
    config.final_logit_softcapping = keys.number("final_logit_softcapping");
    let window = keys.size_or_null("sliding_window", Some(4096));
    let pattern = keys.size("sliding_window_pattern").unwrap_or(6).max(1);
    keys.windows(&mut config, window, |layer| !(layer + 1).is_multiple_of(pattern));
    ropes(keys, &mut config);
    config
}

/// One rotary embedding for layers that see everything, and one for those with a window.
fn ropes(keys: &mut Keys<'_>, config: &mut DecoderConfig) {
    let (head_dim, longest) = (config.head_dim, config.max_position_embeddings);
    let of_layers = |kind: &str| keys.get("rope_parameters").and_then(|it| it.get(kind)).cloned();
    let (global, local) = (of_layers("full_attention"), of_layers("sliding_attention"));
    // transformers 4 keeps the scaling of the one and the base of the other apart.
    let global = global.or_else(|| keys.get("rope_scaling").cloned());
    let base = keys.number("rope_local_base_freq").unwrap_or(10_000.0);
    let local = local.unwrap_or_else(|| serde_json::json!({"rope_type": "default", "rope_theta": base}));
    let global = keys.rope_of(global.as_ref(), 1_000_000.0, head_dim, longest);
    let local = keys.rope_of(Some(&local), base, head_dim, longest);
    config.ropes = vec![global, local];
    for LayerConfig { window, rope, .. } in &mut config.layers {
        *rope = Some(usize::from(window.is_some()));
    }
}
