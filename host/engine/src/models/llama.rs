//! Llama 1 to 3.3, and SmolLM 1 and 2: <https://arxiv.org/abs/2302.13971>, as transformers' `modeling_llama.py` computes it.

use fthost_kernels::Activation;

use super::decoder::{Biases, DecoderConfig, LLAMA_NAMES, LayerConfig, Mlp, NormKind, QkNorm};
use super::keys::Keys;

/// What `config.json` says.
pub(super) fn decoder(keys: &mut Keys<'_>) -> DecoderConfig {
    let attention = keys.flag("attention_bias").unwrap_or(false);
    let mlp = keys.flag("mlp_bias").unwrap_or(false);
    let biases = Biases { qkv: attention, output: attention, mlp };
    DecoderConfig { biases, ..plain(keys, Defaults::default()) }
}

/// What a family takes where `config.json` is silent.
pub(super) struct Defaults {
    /// `head_dim`; `hidden_size / num_attention_heads` where `None`.
    pub head_dim: Option<usize>,
    /// `rms_norm_eps`.
    pub norm_eps: f64,
    /// `rope_theta`.
    pub rope_theta: f64,
    /// `tie_word_embeddings`.
    pub tied: bool,
    /// `max_position_embeddings`.
    pub max_position_embeddings: usize,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            head_dim: None,
            norm_eps: 1e-6,
            rope_theta: 10_000.0,
            tied: false,
            max_position_embeddings: 2048,
        }
    }
}

/// Llama's block without biases: what its descendants begin with.
pub(super) fn plain(keys: &mut Keys<'_>, defaults: Defaults) -> DecoderConfig {
    keys.only(&["hidden_act"], &["silu"]);
    decoder_of(keys, defaults, Mlp::Gated(Activation::Silu))
}

/// The keys that families with RMS norms and gated feed-forward layers share.
pub(super) fn decoder_of(keys: &mut Keys<'_>, defaults: Defaults, mlp: Mlp) -> DecoderConfig {
    let (hidden_size, num_attention_heads) = (keys.needed("hidden_size"), keys.needed("num_attention_heads"));
    let head_dim = keys.size("head_dim").or(defaults.head_dim);
    let head_dim = head_dim.unwrap_or(hidden_size / num_attention_heads.max(1));
    let max_position_embeddings =
        keys.size("max_position_embeddings").unwrap_or(defaults.max_position_embeddings);
    let rope = keys.rope(defaults.rope_theta, head_dim, max_position_embeddings);
    let layer = LayerConfig { rope: Some(0), ..LayerConfig::default() };
    DecoderConfig {
        vocab_size: keys.needed("vocab_size"),
        hidden_size,
        intermediate_size: keys.needed("intermediate_size"),
        num_attention_heads,
        num_key_value_heads: keys.size("num_key_value_heads").unwrap_or(num_attention_heads),
        head_dim,
        max_position_embeddings,
        tie_word_embeddings: keys.flag("tie_word_embeddings").unwrap_or(defaults.tied),
        initializer_range: keys.number("initializer_range").unwrap_or(0.02),
        norm: NormKind::Rms,
        norm_eps: keys.number("rms_norm_eps").unwrap_or(defaults.norm_eps),
        qk_norm: QkNorm::Off,
        biases: Biases::default(),
        mlp,
        mixture: None,
        attention_scale: (head_dim as f64).powf(-0.5),
        attn_logit_softcapping: None,
        final_logit_softcapping: None,
        embedding_scale: None,
        ropes: vec![rope],
        layers: vec![layer; keys.needed("num_hidden_layers")],
        names: &LLAMA_NAMES,
    }
}
