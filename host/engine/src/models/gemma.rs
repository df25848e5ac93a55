//! Gemma: <https://arxiv.org/abs/2403.08295>, as transformers' `modeling_gemma.py` computes it. Norms whose weight is what they
//! add to 1, a gate by GELU, and an embedding times the square root of its width.

use fthost_kernels::Activation;

use super::decoder::{Biases, DecoderConfig, LLAMA_NAMES, Mlp, Names, NormKind};
use super::keys::Keys;
use super::llama::{self, Defaults};

pub(super) const NAMES: Names =
    Names { causal_lm: "GemmaForCausalLM", classifier: "GemmaForSequenceClassification", ..LLAMA_NAMES };

/// What `config.json` says.
pub(super) fn decoder(keys: &mut Keys<'_>) -> DecoderConfig {
    // Published files say `gelu` and mean its approximation, as transformers reads them.
    keys.only(&["hidden_act", "hidden_activation"], &["gelu_pytorch_tanh", "gelu"]);
    DecoderConfig { names: &NAMES, ..plain(keys, Defaults { max_position_embeddings: 8192, ..defaults() }) }
}

/// What all of them take where `config.json` is silent.
pub(super) fn defaults() -> Defaults {
    Defaults { head_dim: Some(256), tied: true, ..Defaults::default() }
}

/// What all of them have in common.
pub(super) fn plain(keys: &mut Keys<'_>, defaults: Defaults) -> DecoderConfig {
    if keys.flag("use_bidirectional_attention") == Some(true) {
        keys.problem("`use_bidirectional_attention` = true is not known here (known: false)".to_string());
    }
    let bias = keys.flag("attention_bias").unwrap_or(false);
    let plain = llama::decoder_of(keys, defaults, Mlp::Gated(Activation::GeluTanh));
    DecoderConfig {
        norm: NormKind::RmsPlusOne,
        biases: Biases { qkv: bias, output: bias, mlp: false },
        embedding_scale: Some((plain.hidden_size as f64).sqrt()),
        ..plain
    }
}
