//! Rotary embeddings: a base, and scalings as keys or as tensors of factors.

use serde_json::{Value as Json, json};

use super::super::keys::Keys;
use super::Out;
use super::common::Sizes;
use crate::nn::{Rope, RopeScaling};

/// llama.cpp's stored factors of Llama 3's scaling.
const FREQUENCIES: &str = "rope_freqs.weight";
/// And of LongRoPE's.
const LONG: &str = "rope_factors_long.weight";
const SHORT: &str = "rope_factors_short.weight";

/// The base where a file does not say, which is llama.cpp's.
const THETA: f64 = 10_000.0;

/// Contexts that models were first trained on, where Llama 3's scaling does not say.
const LLAMA3_ORIGINAL: usize = 8192;

/// `rope_theta` and `rope_scaling` of `config.json`.
pub(super) fn read(keys: &mut Keys<'_>, sizes: &Sizes) -> (f64, Json) {
    let theta = keys.number("rope.freq_base").unwrap_or(THETA);
    let factor = keys.number("rope.scaling.factor");
    let original = keys.size("rope.scaling.original_context_length");
    let attention = keys.number("rope.scaling.attn_factor");
    let kind = keys.text("rope.scaling.type");
    let (long, short) = (keys.factors(LONG), keys.factors(SHORT));
    if let Some(factors) = keys.factors(FREQUENCIES) {
        let found = llama3(theta, sizes, &factors, original);
        if found.is_none() {
            keys.problem(format!("`{FREQUENCIES}` holds factors of no scaling known here"));
        }
        return (theta, found.unwrap_or_default());
    }
    if let (Some(long), Some(short)) = (long, short) {
        return (theta, longrope(keys, sizes, [long, short], original, attention));
    }
    // As llama.cpp has it: a factor without a type is that of linear scaling.
    let stretches = factor.is_some_and(|it| it != 0.0 && it != 1.0);
    let scaling = match kind.unwrap_or(if stretches { "linear" } else { "none" }) {
        "none" => Json::Null,
        "linear" => json!({"rope_type": "linear", "factor": needed_factor(keys, factor)}),
        "yarn" => yarn(keys, factor, original),
        other => {
            let key = keys.full("rope.scaling.type");
            let known = "\"none\", \"linear\", \"yarn\", and \"longrope\" with its tensors of factors";
            keys.problem(format!("`{key}` = \"{other}\" is not known here (known: {known})"));
            Json::Null
        }
    };
    if attention.is_some_and(|it| it != 1.0) {
        let key = keys.full("rope.scaling.attn_factor");
        keys.problem(format!("`{key}` is known here with tensors of factors only"));
    }
    (theta, scaling)
}

/// Keys and tensors of an embedding.
pub(super) fn write(rope: &Rope, out: &mut Out) {
    out.number("rope.freq_base", rope.theta);
    let original = |out: &mut Out, length: usize| out.size("rope.scaling.original_context_length", length);
    match &rope.scaling {
        RopeScaling::Default => {}
        RopeScaling::Linear { factor } => {
            out.text("rope.scaling.type", "linear");
            out.number("rope.scaling.factor", *factor);
        }
        RopeScaling::Dynamic { .. } => {
            out.problems.push("`rope_scaling` of type \"dynamic\" has no form in a GGUF file".to_string());
        }
        RopeScaling::Llama3 { original_max_position_embeddings, .. } => {
            original(out, *original_max_position_embeddings);
            let plain = Rope { scaling: RopeScaling::Default, ..rope.clone() }.inverse_frequencies(1);
            let scaled = rope.inverse_frequencies(1);
            let factors: Vec<f64> = plain.iter().zip(&scaled).map(|(plain, scaled)| plain / scaled).collect();
            out.factors(FREQUENCIES, &factors);
        }
        RopeScaling::Yarn(yarn) => {
            out.text("rope.scaling.type", "yarn");
            let trained = yarn.original_max_position_embeddings;
            let grown = rope.max_position_embeddings as f64 / trained as f64;
            out.number("rope.scaling.factor", yarn.factor.unwrap_or(grown));
            original(out, trained);
            if yarn.attention_factor.or(yarn.mscale).is_some() {
                out.number("rope.scaling.yarn_attn_factor", rope.attention_factor());
            }
            for (key, beta) in [("yarn_beta_fast", yarn.beta_fast), ("yarn_beta_slow", yarn.beta_slow)] {
                if let Some(beta) = beta {
                    out.number(&format!("rope.scaling.{key}"), beta);
                }
            }
        }
        RopeScaling::Longrope { short_factor, long_factor, original_max_position_embeddings, .. } => {
            out.text("rope.scaling.type", "longrope");
            original(out, *original_max_position_embeddings);
            out.number("rope.scaling.attn_factor", rope.attention_factor());
            out.factors(LONG, long_factor);
            out.factors(SHORT, short_factor);
        }
    }
}

fn needed_factor(keys: &mut Keys<'_>, factor: Option<f64>) -> f64 {
    let found = factor.filter(|it| *it > 0.0);
    if found.is_none() {
        let key = keys.full("rope.scaling.factor");
        keys.problem(format!("`{key}` must be > 0"));
    }
    found.unwrap_or(1.0)
}

fn needed_original(keys: &mut Keys<'_>, original: Option<usize>) -> usize {
    if original.is_none() {
        let key = keys.full("rope.scaling.original_context_length");
        keys.problem(format!("`{key}` must be one whole number > 0"));
    }
    original.unwrap_or(1)
}

fn yarn(keys: &mut Keys<'_>, factor: Option<f64>, original: Option<usize>) -> Json {
    let mut scaling = json!({
        "rope_type": "yarn",
        "factor": needed_factor(keys, factor),
        "original_max_position_embeddings": needed_original(keys, original),
    });
    keys.only("rope.scaling.yarn_ext_factor", 1.0);
    keys.only("rope.scaling.yarn_log_multiplier", 0.0);
    for (key, of_file) in [
        ("attention_factor", "yarn_attn_factor"),
        ("beta_fast", "yarn_beta_fast"),
        ("beta_slow", "yarn_beta_slow"),
    ] {
        if let Some(found) = keys.number(&format!("rope.scaling.{of_file}")) {
            scaling[key] = found.into();
        }
    }
    scaling
}

fn longrope(
    keys: &mut Keys<'_>,
    sizes: &Sizes,
    [long, short]: [Vec<f64>; 2],
    original: Option<usize>,
    attention: Option<f64>,
) -> Json {
    let original = needed_original(keys, original);
    for (name, factors) in [(LONG, &long), (SHORT, &short)] {
        if factors.len() != sizes.rotary / 2 {
            let (found, pairs) = (factors.len(), sizes.rotary / 2);
            keys.problem(format!("`{name}` must have {pairs} factors, got {found}"));
        }
    }
    let mut scaling = json!({
        "type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "original_max_position_embeddings": original,
    });
    // A file says the factor that follows from the lengths, as well as one of its own.
    let grown = sizes.context as f64 / original as f64;
    let follows = if grown <= 1.0 { 1.0 } else { (1.0 + grown.ln() / (original as f64).ln()).sqrt() };
    if let Some(own) = attention.filter(|it| (it / follows - 1.0).abs() > 1e-5) {
        scaling["attention_factor"] = own.into();
    }
    scaling
}

/// Llama 3's scaling is stored only as its result: the parameters that give it, with the two factors of frequencies that
/// all published models have.
fn llama3(theta: f64, sizes: &Sizes, factors: &[f64], original: Option<usize>) -> Option<Json> {
    let frequencies = |scaling: RopeScaling| {
        let (head_dim, max_position_embeddings) = (sizes.rotary, sizes.context);
        Rope { theta, head_dim, max_position_embeddings, scaling }.inverse_frequencies(1)
    };
    if factors.len() != sizes.rotary / 2 {
        return None;
    }
    let plain = frequencies(RopeScaling::Default);
    // The longest wavelengths are divided by the whole factor; where none is so long, it is one of the published.
    let largest = factors.iter().copied().fold(1.0, f64::max);
    for original in original.into_iter().chain([LLAMA3_ORIGINAL]) {
        for factor in [8.0, 32.0, largest] {
            let scaled = json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": original,
            });
            let expected = frequencies(serde_json::from_value(scaled.clone()).expect("llama3's own keys"));
            let mut pairs = plain.iter().zip(&expected).zip(factors);
            if pairs.all(|((plain, scaled), factor)| (plain / scaled / factor - 1.0).abs() < 1e-4) {
                return Some(scaled);
            }
        }
    }
    None
}
