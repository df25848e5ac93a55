//! Whether two configurations compute the same.

use std::fmt::Debug;

use crate::models::DecoderConfig;
use crate::nn::{Rope, RopeScaling};

/// What is not the same, with both values. How weights are drawn, and what a class is called, compute nothing.
pub(super) fn differences(a: &DecoderConfig, b: &DecoderConfig) -> Vec<String> {
    let mut found = Vec::new();
    macro_rules! compare {
        ($($field:ident),*) => {
            $(if a.$field != b.$field {
                found.push(told(stringify!($field), &a.$field, &b.$field));
            })*
        };
    }
    compare!(
        vocab_size,
        hidden_size,
        intermediate_size,
        num_attention_heads,
        num_key_value_heads,
        head_dim,
        max_position_embeddings,
        tie_word_embeddings,
        norm,
        norm_eps,
        qk_norm,
        biases,
        mlp,
        mixture,
        attention_scale,
        attn_logit_softcapping,
        final_logit_softcapping,
        embedding_scale
    );
    for (layer, (a, b)) in a.layers.iter().zip(&b.layers).enumerate() {
        let of = |key: &str| format!("layers[{layer}].{key}");
        if a.window != b.window {
            found.push(told(&of("window"), &a.window, &b.window));
        }
        if a.rope != b.rope {
            found.push(told(&of("rope"), &a.rope, &b.rope));
        }
        if a.mixes != b.mixes {
            found.push(told(&of("mixes"), &a.mixes, &b.mixes));
        }
        // One layer says it.
        if a != b {
            break;
        }
    }
    if a.layers.len() != b.layers.len() || a.ropes.len() != b.ropes.len() {
        found.push(told("layers", &a.layers.len(), &b.layers.len()));
    }
    for (a, b) in a.ropes.iter().zip(&b.ropes).filter(|(a, b)| !same_rope(a, b)) {
        found.push(told("rope", a, b));
    }
    found
}

fn told(key: &str, a: &dyn Debug, b: &dyn Debug) -> String {
    format!("`{key}` = {a:?} would be read as {b:?}")
}

/// Parameters may differ that lead to one embedding.
fn same_rope(a: &Rope, b: &Rope) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * a.abs();
    let original = match &a.scaling {
        RopeScaling::Longrope { original_max_position_embeddings: original, .. } => *original,
        _ => a.max_position_embeddings,
    };
    // Some scalings are others for long sequences.
    let same = |length: usize| {
        let (a, b) = (a.inverse_frequencies(length), b.inverse_frequencies(length));
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| close(*a, *b))
    };
    let lengths = [1, original, original + 1, 4 * original];
    a == b || close(a.attention_factor(), b.attention_factor()) && lengths.into_iter().all(same)
}
