//! `qwen2`, `qwen3` and `qwen3moe`: Qwen 2, 2.5 and 3, and the mixtures of Qwen 3.

use serde_json::Value as Json;

use super::super::keys::Keys;
use super::common::{self, Class, Sizes};
use super::{Architecture, Out};
use crate::models::DecoderConfig;

pub(super) const QWEN2: Architecture =
    Architecture { name: "qwen2", reordered: false, classes: &["Qwen2ForCausalLM"], read: qwen2, write };
pub(super) const QWEN3: Architecture =
    Architecture { name: "qwen3", classes: &["Qwen3ForCausalLM"], read: qwen3, ..QWEN2 };
pub(super) const QWEN3_MOE: Architecture =
    Architecture { name: "qwen3moe", classes: &["Qwen3MoeForCausalLM"], read: qwen3_moe, ..QWEN2 };

fn write(config: &DecoderConfig, out: &mut Out) {
    common::write(config, out, |_| true);
    if let Some(mixture) = config.mixture {
        out.size("expert_feed_forward_length", mixture.intermediate_size);
    }
}

fn qwen2(keys: &mut Keys<'_>) -> Json {
    let (mut config, sizes) = read(keys, &Class { class: "Qwen2ForCausalLM", model_type: "qwen2" });
    windows(keys, &sizes, &mut config);
    config
}

fn qwen3(keys: &mut Keys<'_>) -> Json {
    let (mut config, sizes) = read(keys, &Class { class: "Qwen3ForCausalLM", model_type: "qwen3" });
    config["attention_bias"] = common::biases(keys)[0].into();
    windows(keys, &sizes, &mut config);
    config
}

fn qwen3_moe(keys: &mut Keys<'_>) -> Json {
    let experts = common::experts(keys);
    let (mut config, sizes) = read(keys, &Class { class: "Qwen3MoeForCausalLM", model_type: "qwen3_moe" });
    config["attention_bias"] = common::biases(keys)[0].into();
    common::one_window(keys, sizes.layers, &mut config);
    config["use_sliding_window"] = (!config["sliding_window"].is_null()).into();
    if experts.is_none() {
        let key = keys.full("expert_count");
        keys.problem(format!("`{key}` must be one whole number > 0"));
    }
    let [count, used] = experts.unwrap_or([1, 1]);
    config["num_experts"] = count.into();
    config["num_experts_per_tok"] = used.into();
    config["moe_intermediate_size"] = keys.needed("expert_feed_forward_length").into();
    // What llama.cpp computes, whatever the source said: all published models say so, too.
    config["norm_topk_prob"] = true.into();
    config["decoder_sparse_step"] = 1.into();
    config["mlp_only_layers"] = Json::Array(Vec::new());
    config
}

fn read(keys: &mut Keys<'_>, class: &Class) -> (Json, Sizes) {
    let (config, sizes) = common::read(keys, class);
    common::whole_heads(keys, &sizes);
    (config, sizes)
}

/// A window in some layers, or in none.
fn windows(keys: &mut Keys<'_>, sizes: &Sizes, config: &mut Json) {
    let found = common::windows(keys, sizes.layers, |_| true);
    config["use_sliding_window"] = found.is_some().into();
    config["sliding_window"] = found.as_ref().map(|it| it.0).into();
    config["max_window_layers"] = sizes.layers.into();
    let slides = found.map_or_else(|| vec![false; sizes.layers], |it| it.1);
    config["layer_types"] = common::layer_types(&slides);
}
