//! `llama`: Llama 1 to 3.3, SmolLM 1 and 2, Mistral and Mixtral.

use serde_json::Value as Json;

use super::super::keys::Keys;
use super::common::{self, Class};
use super::{Architecture, Out};
use crate::models::DecoderConfig;

pub(super) const LLAMA: Architecture = Architecture {
    name: "llama",
    reordered: true,
    classes: &["LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"],
    read,
    write,
};

fn write(config: &DecoderConfig, out: &mut Out) {
    common::write(config, out, |_| true);
}

fn read(keys: &mut Keys<'_>) -> Json {
    let experts = common::experts(keys);
    let (mut config, sizes) = common::read(keys, &Class { class: "LlamaForCausalLM", model_type: "llama" });
    common::whole_heads(keys, &sizes);
    let [attention_bias, mlp_bias] = common::biases(keys);
    let mut window = Json::Null;
    common::one_window(keys, sizes.layers, &mut window);
    let window = window["sliding_window"].take();
    // A Mistral without a window is a Llama.
    let of = match experts {
        Some(_) => Class { class: "MixtralForCausalLM", model_type: "mixtral" },
        None if !window.is_null() => Class { class: "MistralForCausalLM", model_type: "mistral" },
        None => {
            config["attention_bias"] = attention_bias.into();
            config["mlp_bias"] = mlp_bias.into();
            return config;
        }
    };
    config["architectures"] = [of.class].as_slice().into();
    config["model_type"] = of.model_type.into();
    config["sliding_window"] = window;
    if let Some([count, used]) = experts {
        config["num_local_experts"] = count.into();
        config["num_experts_per_tok"] = used.into();
    }
    config
}
