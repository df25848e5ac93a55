//! GPT-2: <https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf>, as
//! transformers' `modeling_gpt2.py` computes it. Layer norms with biases, learned positions, a feed-forward layer without a
//! gate, and weights stored the other way round.

use super::decoder::{Biases, DecoderConfig, LayerConfig, Mlp, Names, NormKind, QkNorm};
use super::keys::Keys;

pub(super) const NAMES: Names = Names {
    causal_lm: "GPT2LMHeadModel",
    classifier: "GPT2ForSequenceClassification",
    embedding: "transformer.wte.weight",
    positions: Some("transformer.wpe.weight"),
    blocks: "transformer.h",
    final_norm: "transformer.ln_f",
    head: "lm_head.weight",
    attention_norm: Some("ln_1"),
    qkv: &["attn.c_attn"],
    qk_norms: ["", ""],
    output: "attn.c_proj",
    post_attention_norm: None,
    mlp_norm: Some("ln_2"),
    up: &["mlp.c_fc"],
    down: "mlp.c_proj",
    experts: None,
    post_mlp_norm: None,
    transposed: true,
};

/// What `config.json` says.
pub(super) fn decoder(keys: &mut Keys<'_>) -> DecoderConfig {
    keys.only(&["activation_function"], &["gelu_new", "gelu_pytorch_tanh"]);
    for (key, known) in [
        ("scale_attn_by_inverse_layer_idx", false),
        ("add_cross_attention", false),
        ("scale_attn_weights", true),
    ] {
        if keys.flag(key).is_some_and(|it| it != known) {
            keys.problem(format!("`{key}` = {} is not known here (known: {known})", !known));
        }
    }
    let (hidden_size, heads) = (keys.needed("n_embd"), keys.needed("n_head"));
    let head_dim = hidden_size / heads.max(1);
    DecoderConfig {
        vocab_size: keys.needed("vocab_size"),
        hidden_size,
        intermediate_size: keys.size("n_inner").unwrap_or(4 * hidden_size),
        num_attention_heads: heads,
        num_key_value_heads: heads,
        head_dim,
        max_position_embeddings: keys.size("n_positions").unwrap_or(1024),
        tie_word_embeddings: keys.flag("tie_word_embeddings").unwrap_or(true),
        initializer_range: keys.number("initializer_range").unwrap_or(0.02),
        norm: NormKind::Layer,
        norm_eps: keys.number("layer_norm_epsilon").unwrap_or(1e-5),
        qk_norm: QkNorm::Off,
        biases: Biases { qkv: true, output: true, mlp: true },
        mlp: Mlp::Gelu,
        mixture: None,
        attention_scale: (head_dim as f64).powf(-0.5),
        attn_logit_softcapping: None,
        final_logit_softcapping: None,
        embedding_scale: None,
        ropes: Vec::new(),
        layers: vec![LayerConfig::default(); keys.needed("n_layer")],
        names: &NAMES,
    }
}
