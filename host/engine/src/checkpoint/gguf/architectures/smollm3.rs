//! `smollm3`: SmolLM 3. That every fourth layer does not rotate is not said in a file.

use serde_json::Value as Json;

use super::super::keys::Keys;
use super::Architecture;
use super::common::{self, Class};

pub(super) const SMOLLM3: Architecture = Architecture {
    name: "smollm3",
    reordered: true,
    classes: &["SmolLM3ForCausalLM"],
    read,
    write: |config, out| common::write(config, out, |_| true),
};

/// Of so many layers the last does not rotate.
const NO_ROPE_INTERVAL: usize = 4;

fn read(keys: &mut Keys<'_>) -> Json {
    let (mut config, sizes) =
        common::read(keys, &Class { class: "SmolLM3ForCausalLM", model_type: "smollm3" });
    common::whole_heads(keys, &sizes);
    let [attention_bias, mlp_bias] = common::biases(keys);
    config["attention_bias"] = attention_bias.into();
    config["mlp_bias"] = mlp_bias.into();
    config["no_rope_layer_interval"] = NO_ROPE_INTERVAL.into();
    let rotates = |layer: usize| u8::from(!(layer + 1).is_multiple_of(NO_ROPE_INTERVAL));
    config["no_rope_layers"] = (0..sizes.layers).map(rotates).collect();
    let found = common::windows(keys, sizes.layers, |_| true);
    config["use_sliding_window"] = found.is_some().into();
    config["sliding_window"] = found.as_ref().map(|it| it.0).into();
    let slides = found.map_or_else(|| vec![false; sizes.layers], |it| it.1);
    config["layer_types"] = common::layer_types(&slides);
    config
}
