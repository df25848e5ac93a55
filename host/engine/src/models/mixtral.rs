//! Mixtral: <https://arxiv.org/abs/2401.04088>, as transformers' `modeling_mixtral.py` computes it. Mistral with a mixture of
//! experts in every block.

use super::decoder::{DecoderConfig, ExpertNames, LLAMA_NAMES, MixtureConfig, Names};
use super::keys::Keys;
use super::llama::{self, Defaults};

pub(super) const NAMES: Names = Names {
    causal_lm: "MixtralForCausalLM",
    classifier: "MixtralForSequenceClassification",
    experts: Some(ExpertNames {
        router: "block_sparse_moe.gate",
        list: "block_sparse_moe.experts",
        up: ["w1", "w3"],
        down: "w2",
    }),
    ..LLAMA_NAMES
};

/// What `config.json` says.
pub(super) fn decoder(keys: &mut Keys<'_>) -> DecoderConfig {
    let defaults = Defaults {
        norm_eps: 1e-5,
        rope_theta: 1_000_000.0,
        max_position_embeddings: 131_072,
        ..Defaults::default()
    };
    let plain = llama::plain(keys, defaults);
    let mixture = MixtureConfig {
        num_experts: keys.size("num_local_experts").unwrap_or(8),
        num_experts_per_tok: keys.size("num_experts_per_tok").unwrap_or(2),
        intermediate_size: plain.intermediate_size,
        norm_topk_prob: true,
    };
    let mut config = DecoderConfig { mixture: Some(mixture), names: &NAMES, ..plain };
    let window = keys.size("sliding_window");
    config.layers.iter_mut().for_each(|it| (it.window, it.mixes) = (window, true));
    config
}
