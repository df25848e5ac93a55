//! `gemma`, `gemma2` and `gemma3`, whose text model alone is known.

use serde_json::{Value as Json, json};

use super::super::keys::Keys;
use super::common::{self, Class, Sizes};
use super::{Architecture, Out};
use crate::models::DecoderConfig;

pub(super) const GEMMA: Architecture = Architecture {
    name: "gemma",
    reordered: false,
    classes: &["GemmaForCausalLM"],
    read: gemma,
    write: |config, out| common::write(config, out, |_| true),
};
pub(super) const GEMMA2: Architecture = Architecture {
    name: "gemma2",
    classes: &["Gemma2ForCausalLM"],
    read: gemma2,
    write: write_gemma2,
    ..GEMMA
};
pub(super) const GEMMA3: Architecture = Architecture {
    name: "gemma3",
    classes: &["Gemma3ForCausalLM"],
    read: gemma3,
    write: write_gemma3,
    ..GEMMA
};

fn write_gemma2(config: &DecoderConfig, out: &mut Out) {
    common::write(config, out, every_other);
    caps(config, out);
}

fn write_gemma3(config: &DecoderConfig, out: &mut Out) {
    common::write(config, out, five_of_six);
    caps(config, out);
    if let [_, local] = &config.ropes[..] {
        out.number("rope.freq_base_swa", local.theta);
    }
}

fn caps(config: &DecoderConfig, out: &mut Out) {
    for (key, cap) in [
        ("attn_logit_softcapping", config.attn_logit_softcapping),
        ("final_logit_softcapping", config.final_logit_softcapping),
    ] {
        if let Some(cap) = cap {
            out.number(key, cap);
        }
    }
}

/// Layers of Gemma 2 that have a window.
fn every_other(layer: usize) -> bool {
    layer.is_multiple_of(2)
}

/// And of Gemma 3.
fn five_of_six(layer: usize) -> bool {
    !(layer + 1).is_multiple_of(6)
}

const GELU: &str = "gelu_pytorch_tanh";

fn gemma(keys: &mut Keys<'_>) -> Json {
    let (mut config, _) = read(keys, &Class { class: "GemmaForCausalLM", model_type: "gemma" });
    config["hidden_act"] = GELU.into();
    config
}

fn gemma2(keys: &mut Keys<'_>) -> Json {
    let (mut config, sizes) = read(keys, &Class { class: "Gemma2ForCausalLM", model_type: "gemma2" });
    config["query_pre_attn_scalar"] = scalar(&sizes, GEMMA2_27B);
    config["attn_logit_softcapping"] = keys.number("attn_logit_softcapping").unwrap_or(50.0).into();
    config["final_logit_softcapping"] = keys.number("final_logit_softcapping").unwrap_or(30.0).into();
    // 4096 where the file does not say.
    let found = common::windows(keys, sizes.layers, every_other);
    let (window, slides) = found.unwrap_or_else(|| (4096, (0..sizes.layers).map(every_other).collect()));
    config["sliding_window"] = window.into();
    config["layer_types"] = common::layer_types(&slides);
    config
}

fn gemma3(keys: &mut Keys<'_>) -> Json {
    let (mut config, sizes) = read(keys, &Class { class: "Gemma3ForCausalLM", model_type: "gemma3_text" });
    config["query_pre_attn_scalar"] = scalar(&sizes, GEMMA3_27B);
    config["attn_logit_softcapping"] = Json::Null;
    config["final_logit_softcapping"] = keys.number("final_logit_softcapping").into();
    let found = common::windows(keys, sizes.layers, five_of_six);
    if found.is_none() {
        let key = keys.full("attention.sliding_window");
        keys.problem(format!("`{key}` must be one whole number > 0"));
    }
    let (window, slides) = found.unwrap_or_default();
    config["sliding_window"] = window.into();
    config["layer_types"] = common::layer_types(&slides);
    config["rope_local_base_freq"] = keys.number("rope.freq_base_swa").unwrap_or(10_000.0).into();
    config
}

fn read(keys: &mut Keys<'_>, class: &Class) -> (Json, Sizes) {
    let (mut config, sizes) = common::read(keys, class);
    common::whole_heads(keys, &sizes);
    config["hidden_activation"] = GELU.into();
    config["attention_bias"] = common::biases(keys)[0].into();
    config.as_object_mut().expect("an object").shift_remove("hidden_act");
    (config, sizes)
}

/// Layers of the one model whose scores are scaled otherwise: a file does not say by how much.
const GEMMA2_27B: usize = 46;
const GEMMA3_27B: usize = 62;

/// `query_pre_attn_scalar`, as llama.cpp has it.
fn scalar(sizes: &Sizes, layers_of_27b: usize) -> Json {
    if sizes.layers == layers_of_27b { json!(sizes.hidden / sizes.heads) } else { json!(sizes.head_dim) }
}
