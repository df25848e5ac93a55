//! Qwen 3's mixtures of experts: <https://arxiv.org/abs/2505.09388>, as transformers' `modeling_qwen3_moe.py` computes it.

use super::decoder::{Biases, DecoderConfig, ExpertNames, LLAMA_NAMES, MixtureConfig, Names, QkNorm};
use super::keys::Keys;
use super::llama::{self, Defaults};

pub(super) const NAMES: Names = Names {
    causal_lm: "Qwen3MoeForCausalLM",
    classifier: "Qwen3MoeForSequenceClassification",
    experts: Some(ExpertNames {
        router: "mlp.gate",
        list: "mlp.experts",
        up: ["gate_proj", "up_proj"],
        down: "down_proj",
    }),
    ..LLAMA_NAMES
};

/// What `config.json` says.
pub(super) fn decoder(keys: &mut Keys<'_>) -> DecoderConfig {
    let defaults = Defaults { max_position_embeddings: 32_768, ..Defaults::default() };
    let plain = llama::plain(keys, defaults);
    let bias = keys.flag("attention_bias").unwrap_or(false);
    let biases = Biases { qkv: bias, output: bias, mlp: false };
    let mixture = MixtureConfig {
        // transformers 5 writes the second, 4 the first.
        num_experts: keys.size("num_experts").or(keys.size("num_local_experts")).unwrap_or(128),
        num_experts_per_tok: keys.size("num_experts_per_tok").unwrap_or(8),
        intermediate_size: keys.size("moe_intermediate_size").unwrap_or(768),
        norm_topk_prob: keys.flag("norm_topk_prob").unwrap_or(false),
    };
    let mut config =
        DecoderConfig { biases, qk_norm: QkNorm::Heads, mixture: Some(mixture), names: &NAMES, ..plain };
    let window = keys.size_or_null("sliding_window", Some(4096));
    let window = window.filter(|_| keys.flag("use_sliding_window") == Some(true));
    let step = keys.size("decoder_sparse_step").unwrap_or(1).max(1);
    let dense = keys.wholes("mlp_only_layers").unwrap_or_default();
    for (index, layer) in config.layers.iter_mut().enumerate() {
        layer.window = window;
        layer.mixes = !dense.contains(&(index as u64)) && (index + 1).is_multiple_of(step);
    }
    config
}
