//! Phi 3, 3.5 and 4, and Phi 4 mini: <https://arxiv.org/abs/2404.14219>, as transformers' `modeling_phi3.py` computes it. Llama
//! with one linear for queries, keys and values and one for gate and up; a part of each head may be left unrotated.

use super::decoder::{DecoderConfig, LLAMA_NAMES, Names};
use super::keys::Keys;
use super::llama::{self, Defaults};
use crate::nn::Rope;

const NAMES: Names = Names {
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
    config.ropes = vec![rope(keys, &config)];
    let window = keys.size("sliding_window");
    config.layers.iter_mut().for_each(|it| it.window = window);
    config
}

/// Its scaling is longrope, by whatever name: files of different ages say `su` and `yarn` for it.
fn rope(keys: &mut Keys<'_>, config: &DecoderConfig) -> Rope {
    let mut said = ["rope_scaling", "rope_parameters"].into_iter().find_map(|key| keys.get(key)).cloned();
    if let Some(said) = &mut said {
        for key in ["type", "rope_type"] {
            if said[key].as_str().is_some_and(|it| ["su", "yarn"].contains(&it)) {
                said[key] = "longrope".into();
            }
        }
    }
    keys.rope_of(said.as_ref(), 10_000.0, config.head_dim, config.max_position_embeddings)
}
