//! Keys that all architectures with RMS norms and gated feed-forward layers share.

use serde_json::{Value as Json, json};

use super::super::keys::Keys;
use super::{Out, rope};
use crate::models::DecoderConfig;

/// What a class is called in `config.json`.
pub(super) struct Class {
    /// `architectures`.
    pub class: &'static str,
    /// `model_type`.
    pub model_type: &'static str,
}

/// Sizes that others depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub hidden: usize,
    pub heads: usize,
    pub layers: usize,
    pub head_dim: usize,
    /// Values of a head that are rotated.
    pub rotary: usize,
    pub context: usize,
}

/// `config.json` of Llama's block, without what a family adds.
pub(super) fn read(keys: &mut Keys<'_>, class: &Class) -> (Json, Sizes) {
    let (hidden, heads) = (keys.needed("embedding_length"), keys.needed("attention.head_count"));
    let head_dim = keys.size("attention.key_length").unwrap_or(hidden / heads);
    let sizes = Sizes {
        hidden,
        heads,
        layers: layers(keys),
        head_dim,
        rotary: keys.size("rope.dimension_count").unwrap_or(head_dim),
        context: keys.needed("context_length"),
    };
    let value_length = keys.size("attention.value_length").unwrap_or(head_dim);
    if value_length != head_dim {
        let key = keys.full("attention.value_length");
        keys.problem(format!("`{key}` = {value_length} must be the width of a head, {head_dim}"));
    }
    if keys.is_sound() && (head_dim == 0 || !head_dim.is_multiple_of(2)) {
        keys.problem(format!("the width of a head must be even and > 0, got {head_dim}"));
    }
    let (theta, scaling) = rope::read(keys, &sizes);
    let config = json!({
        "architectures": [class.class],
        "model_type": class.model_type,
        "vocab_size": vocab_size(keys),
        "hidden_size": hidden,
        "intermediate_size": keys.needed("feed_forward_length"),
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys.size("attention.head_count_kv").unwrap_or(heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": sizes.context,
        "initializer_range": 0.02,
        "rms_norm_eps": keys.needed_number("attention.layer_norm_rms_epsilon"),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "attention_dropout": 0.0,
        "use_cache": true,
    });
    (config, sizes)
}

/// The keys of Llama's block, its window among them. `slides` says which layers have it where the file does not.
pub(super) fn write(config: &DecoderConfig, out: &mut Out, slides: impl Fn(usize) -> bool) {
    for (key, size) in [
        ("block_count", config.num_hidden_layers()),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("vocab_size", config.vocab_size),
    ] {
        out.size(key, size);
    }
    out.number("attention.layer_norm_rms_epsilon", config.norm_eps);
    if let Some(rope) = config.ropes.first() {
        out.size("rope.dimension_count", rope.head_dim);
        rope::write(rope, out);
    }
    let windows = || config.layers.iter().map(|it| it.window);
    if let Some(window) = windows().flatten().next() {
        out.size("attention.sliding_window", window);
        if windows().enumerate().any(|(layer, it)| it.is_some() != slides(layer)) {
            out.flags("attention.sliding_window_pattern", windows().map(|it| it.is_some()).collect());
        }
    }
    if let Some(mixture) = config.mixture {
        out.size("expert_count", mixture.num_experts);
        out.size("expert_used_count", mixture.num_experts_per_tok);
    }
}

/// Blocks: not more than the file has tensors, whatever it claims.
pub(super) fn layers(keys: &mut Keys<'_>) -> usize {
    let (layers, tensors) = (keys.needed("block_count"), keys.file().tensors().len());
    if layers > tensors {
        let key = keys.full("block_count");
        keys.problem(format!("`{key}` = {layers}, and the file holds {tensors} tensors"));
        return 1;
    }
    layers
}

/// Rows of the embedding.
pub(super) fn vocab_size(keys: &Keys<'_>) -> usize {
    keys.file().tensor("token_embd.weight").map_or(0, |it| it.shape[0])
}

/// That all of a head is rotated, of families that can't leave a part of it.
pub(super) fn whole_heads(keys: &mut Keys<'_>, sizes: &Sizes) {
    let Sizes { rotary, head_dim, .. } = sizes;
    if rotary != head_dim {
        let key = keys.full("rope.dimension_count");
        keys.problem(format!("`{key}` = {rotary} must be the width of a head, {head_dim}"));
    }
}

/// Whether the attention's linears, and those of the feed-forward layer, have biases.
pub(super) fn biases(keys: &Keys<'_>) -> [bool; 2] {
    ["attn_output", "ffn_down"].map(|it| keys.holds(&format!("blk.0.{it}.bias")))
}

/// A window, and which layers have it. llama.cpp writes the key for few architectures and ignores it for others; it is
/// honoured here wherever it stands. `slides` says which layers have it where the file does not.
pub(super) fn windows(
    keys: &mut Keys<'_>,
    layers: usize,
    slides: impl Fn(usize) -> bool,
) -> Option<(usize, Vec<bool>)> {
    let window = keys.size("attention.sliding_window");
    let said = keys.flags("attention.sliding_window_pattern");
    let period = if said.is_some() { None } else { keys.size("attention.sliding_window_pattern") };
    if let Some(said) = said.as_ref().filter(|it| it.len() != layers) {
        let key = keys.full("attention.sliding_window_pattern");
        keys.problem(format!("`{key}` has {} values for {layers} layers", said.len()));
        return None;
    }
    let of_layer = |layer: usize| match (&said, period) {
        (Some(said), _) => said[layer],
        // Of so many layers the last sees everything.
        (None, Some(period)) => period == 1 || layer % period < period - 1,
        (None, None) => slides(layer),
    };
    Some((window?, (0..layers).map(of_layer).collect()))
}

/// `layer_types`.
pub(super) fn layer_types(slides: &[bool]) -> Json {
    slides.iter().map(|it| if *it { "sliding_attention" } else { "full_attention" }).collect()
}

/// Adds `sliding_window` of a family whose layers all have it.
pub(super) fn one_window(keys: &mut Keys<'_>, layers: usize, config: &mut Json) {
    let found = windows(keys, layers, |_| true);
    if found.as_ref().is_some_and(|it| it.1.contains(&false)) {
        let key = keys.full("attention.sliding_window_pattern");
        keys.problem(format!("`{key}`: all layers of this architecture have the window or none"));
    }
    config["sliding_window"] = found.map(|it| it.0).into();
}

/// Experts at most: more than any model has, so that what a file claims costs no memory.
const MOST_EXPERTS: usize = 1024;

/// Experts of a layer and how many of them a token is sent to; `None` where there are none.
pub(super) fn experts(keys: &mut Keys<'_>) -> Option<[usize; 2]> {
    let (count, used) = (keys.size("expert_count"), keys.size("expert_used_count"));
    // 1 is softmax.
    keys.only("expert_gating_func", 1.0);
    keys.only("expert_shared_count", 0.0);
    keys.only("expert_weights_scale", 1.0);
    keys.only_true("expert_weights_norm");
    let count = count?;
    if count > MOST_EXPERTS {
        let key = keys.full("expert_count");
        keys.problem(format!("`{key}` must be at most {MOST_EXPERTS}, got {count}"));
        return None;
    }
    if used.is_none() {
        let key = keys.full("expert_used_count");
        keys.problem(format!("`{key}` must be one whole number > 0"));
    }
    Some([count, used.unwrap_or(1)])
}
