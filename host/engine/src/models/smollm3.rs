//! SmolLM 3, as transformers' `modeling_smollm3.py` computes it: Llama whose every fourth layer does not rotate
//! (<https://arxiv.org/abs/2501.18795>).

use super::decoder::{Biases, DecoderConfig, LLAMA_NAMES, Names};
use super::keys::Keys;
use super::llama::{self, Defaults};

pub(super) const NAMES: Names =
    Names { causal_lm: "SmolLM3ForCausalLM", classifier: "SmolLM3ForSequenceClassification", ..LLAMA_NAMES };

/// What `config.json` says.
pub(super) fn decoder(keys: &mut Keys<'_>) -> DecoderConfig {
    let defaults = Defaults {
        rope_theta: 2_000_000.0,
        tied: true,
        max_position_embeddings: 32_768,
        ..Defaults::default()
    };
    let plain = llama::plain(keys, defaults);
    let attention = keys.flag("attention_bias").unwrap_or(false);
    let mlp = keys.flag("mlp_bias").unwrap_or(false);
    let biases = Biases { qkv: attention, output: attention, mlp };
    let mut config = DecoderConfig { biases, names: &NAMES, ..plain };
    let interval = keys.size("no_rope_layer_interval").unwrap_or(4).max(1);
    let rotates = keys.wholes("no_rope_layers");
    for (index, layer) in config.layers.iter_mut().enumerate() {
        // 1 says, in spite of the key's name, that the layer rotates.
        let said = rotates.as_ref().and_then(|it| it.get(index)).map(|it| *it != 0);
        if !said.unwrap_or(!(index + 1).is_multiple_of(interval)) {
            layer.rope = None;
        }
    }
    let window = keys.size("sliding_window").filter(|_| keys.flag("use_sliding_window") == Some(true));
    let still: Vec<bool> = config.layers.iter().map(|it| it.rope.is_none()).collect();
    keys.windows(&mut config, window, |layer| still[layer]);
    config
}
