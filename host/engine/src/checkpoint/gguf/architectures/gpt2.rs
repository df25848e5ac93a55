//! `gpt2`.

use serde_json::{Value as Json, json};

use super::super::keys::Keys;
use super::{Architecture, Out, common};
use crate::models::DecoderConfig;

pub(super) const GPT2: Architecture =
    Architecture { name: "gpt2", reordered: false, classes: &["GPT2LMHeadModel"], read, write };

fn write(config: &DecoderConfig, out: &mut Out) {
    for (key, size) in [
        ("block_count", config.num_hidden_layers()),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
    ] {
        out.size(key, size);
    }
    out.number("attention.layer_norm_epsilon", config.norm_eps);
}

fn read(keys: &mut Keys<'_>) -> Json {
    let (context, heads) = (keys.needed("context_length"), keys.needed("attention.head_count"));
    let kv_heads = keys.size("attention.head_count_kv").unwrap_or(heads);
    if kv_heads != heads {
        let key = keys.full("attention.head_count_kv");
        keys.problem(format!("`{key}` must be as many as queries have, {heads}, got {kv_heads}"));
    }
    json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": common::vocab_size(keys),
        "n_embd": keys.needed("embedding_length"),
        "n_inner": keys.needed("feed_forward_length"),
        "n_layer": common::layers(keys),
        "n_head": heads,
        "n_positions": context,
        "n_ctx": context,
        "activation_function": "gelu_new",
        "initializer_range": 0.02,
        "layer_norm_epsilon": keys.needed_number("attention.layer_norm_epsilon"),
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "use_cache": true,
    })
}
