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
        qk_norm,
        biases,
        mlp,
        mixture
    );
    found.extend(numbers(a, b));
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

/// Numbers that are not the same as f32, which is what a file holds.
fn numbers(a: &DecoderConfig, b: &DecoderConfig) -> Vec<String> {
    let mut found = Vec::new();
    for (key, a, b) in
        [("norm_eps", a.norm_eps, b.norm_eps), ("attention_scale", a.attention_scale, b.attention_scale)]
    {
        if a as f32 != b as f32 {
            found.push(told(key, &a, &b));
        }
    }
    let stored = |it: Option<f64>| it.map(|it| it as f32);
    for (key, a, b) in [
        ("attn_logit_softcapping", a.attn_logit_softcapping, b.attn_logit_softcapping),
        ("final_logit_softcapping", a.final_logit_softcapping, b.final_logit_softcapping),
        ("embedding_scale", a.embedding_scale, b.embedding_scale),
    ] {
        if stored(a) != stored(b) {
            found.push(told(key, &a, &b));
        }
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
