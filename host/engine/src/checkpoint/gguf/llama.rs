//! The architecture `llama`: metadata to `config.json`, names to Hugging Face's, rows of queries and keys put back.
//!
//! llama.cpp rotates neighbouring pairs, Hugging Face the two halves of a head; llama.cpp's converter therefore
//! reorders the rows of `q_proj` and `k_proj` (`LlamaModel.permute` of `convert_hf_to_gguf.py`). Here that is undone.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::{GgufFile, TensorInfo};
use crate::error::{EngineError, Result};
use crate::nn::{Rope, RopeScaling};

/// What `general.architecture` may name.
const KNOWN: &str = "llama";

/// Keys below `llama.` that are understood, or say nothing about what is computed.
const UNDERSTOOD: [&str; 18] = [
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "vocab_size",
];

/// A model as Hugging Face would have it.
pub(super) struct Plan {
    /// `config.json`, its `dtype` apart.
    pub config: Json,
    /// Every weight, in the order of the model.
    pub weights: Vec<Weight>,
}

/// One weight and what it becomes.
pub(super) struct Weight {
    /// Hugging Face's name.
    pub name: String,
    pub source: TensorInfo,
    /// Heads whose rows are to be put back in order.
    pub heads: Option<usize>,
}

struct Sizes {
    vocab: usize,
    hidden: usize,
    wide: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    context: usize,
}

/// Reads what the file says of its model and finds every weight.
///
/// # Errors
/// Another architecture, metadata that is missing or can't be honoured here (all of it at once), weights that are
/// missing, left over or of another shape.
pub(super) fn plan(file: &GgufFile) -> Result<Plan> {
    let found = file.text("general.architecture").unwrap_or("none");
    if found != KNOWN {
        return Err(EngineError::UnknownArchitecture {
            path: file.path().to_path_buf(),
            found: found.to_string(),
            known: vec![KNOWN],
        });
    }
    let mut problems = unsupported(file);
    let sizes = sizes(file, &mut problems);
    if !problems.is_empty() {
        return Err(EngineError::Invalid { what: format!("`{}`", file.path().display()), problems });
    }
    let mut finder = Finder { file, taken: BTreeSet::new(), weights: Vec::new() };
    let tied = file.tensor("output.weight").is_none();
    let biased = |suffix: &str| file.tensor(&format!("blk.0.{suffix}.bias")).is_some();
    let (attention_bias, mlp_bias) = (biased("attn_output"), biased("ffn_down"));
    finder.model(&sizes, tied, attention_bias, mlp_bias)?;
    let rope = rope(file, &sizes)?;
    finder.taken.insert(ROPE_FREQUENCIES.to_string());
    let names = file.tensors().iter().map(|it| it.name.clone());
    let unknown: Vec<String> = names.filter(|it| !finder.taken.contains(it)).collect();
    if !unknown.is_empty() {
        return Err(EngineError::UnknownTensors { folder: file.path().to_path_buf(), names: unknown });
    }
    let mut config = config(file, &sizes, &rope);
    config["tie_word_embeddings"] = tied.into();
    config["attention_bias"] = attention_bias.into();
    config["mlp_bias"] = mlp_bias.into();
    Ok(Plan { config, weights: finder.weights })
}

/// Metadata that changes what is computed and is not honoured here.
fn unsupported(file: &GgufFile) -> Vec<String> {
    let mut problems = Vec::new();
    for key in file.metadata().keys().filter_map(|it| it.strip_prefix("llama.")) {
        if !UNDERSTOOD.contains(&key) {
            problems.push(format!("`llama.{key}` is not understood here"));
        }
    }
    let experts = file.whole("llama.expert_count").unwrap_or(0);
    if experts > 0 {
        problems.push(format!("`llama.expert_count` = {experts}: mixtures of experts are not known here"));
    }
    problems
}

fn sizes(file: &GgufFile, problems: &mut Vec<String>) -> Sizes {
    let optional = |key: &str| {
        let key = format!("llama.{key}");
        let found = file.metadata().get(&key)?;
        // Some models give a number a layer.
        let each = file.wholes(&key).filter(|all| all.windows(2).all(|it| it[0] == it[1]));
        let each = each.and_then(|all| u64::try_from(*all.first()?).ok());
        Some(found.whole().or(each).and_then(|it| usize::try_from(it).ok()).filter(|it| *it > 0).ok_or(key))
    };
    let mut size = |key: &str, default: Option<usize>| match (optional(key), default) {
        (Some(Ok(value)), _) | (None, Some(value)) => value,
        (Some(Err(key)), _) => {
            problems.push(format!("`{key}` must be one whole number > 0"));
            1
        }
        (None, None) => {
            problems.push(format!("`llama.{key}` is missing"));
            1
        }
    };
    let (hidden, heads) = (size("embedding_length", None), size("attention.head_count", None));
    let head_dim = size("attention.key_length", Some(hidden / heads));
    let sizes = Sizes {
        vocab: file.tensor("token_embd.weight").map_or(0, |it| it.shape[0]),
        hidden,
        wide: size("feed_forward_length", None),
        layers: size("block_count", None),
        heads,
        kv_heads: size("attention.head_count_kv", Some(heads)),
        head_dim,
        context: size("context_length", None),
    };
    let widths =
        ["rope.dimension_count", "attention.value_length"].map(|key| (key, size(key, Some(head_dim))));
    for (key, value) in widths.iter().filter(|it| it.1 != head_dim) {
        problems.push(format!("`llama.{key}` = {value} must be the width of a head, {head_dim}"));
    }
    if file.number("llama.attention.layer_norm_rms_epsilon").is_none() {
        problems.push("`llama.attention.layer_norm_rms_epsilon` is missing".to_string());
    }
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        problems.push(format!("the width of a head must be even and > 0, got {head_dim}"));
    }
    sizes
}

fn config(file: &GgufFile, sizes: &Sizes, rope: &Json) -> Json {
    let id = |key: &str| file.whole(&format!("tokenizer.ggml.{key}_token_id"));
    // f32 in the file; the shortest text of the f32 is what its author wrote.
    let as_written = |value: f64| (value as f32).to_string().parse::<f64>().unwrap_or(value);
    let number = |key: &str, default: f64| as_written(file.number(key).unwrap_or(default));
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": sizes.vocab,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.wide,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": sizes.context,
        "initializer_range": 0.02,
        "rms_norm_eps": number("llama.attention.layer_norm_rms_epsilon", 1e-5),
        "rope_theta": number("llama.rope.freq_base", 10_000.0),
        "rope_scaling": rope,
        "attention_dropout": 0.0,
        "use_cache": true,
        "bos_token_id": id("bos"),
        "eos_token_id": id("eos"),
        "pad_token_id": id("padding"),
    })
}

/// llama.cpp's stored factors of Llama 3's scaling.
const ROPE_FREQUENCIES: &str = "rope_freqs.weight";

/// `rope_scaling` of `config.json`.
fn rope(file: &GgufFile, sizes: &Sizes) -> Result<Json> {
    let refuse = |problem: String| EngineError::Invalid {
        what: format!("`{}`", file.path().display()),
        problems: vec![problem],
    };
    if let Some(tensor) = file.tensor(ROPE_FREQUENCIES) {
        let factors = file.values(tensor)?;
        return llama3(file, sizes, &factors)
            .ok_or_else(|| refuse(format!("`{ROPE_FREQUENCIES}` holds factors of no scaling known here")));
    }
    match file.text("llama.rope.scaling.type") {
        None | Some("none") => Ok(Json::Null),
        Some("linear") => {
            let factor = file.number("llama.rope.scaling.factor").filter(|it| it.is_finite() && *it > 0.0);
            let factor =
                factor.ok_or_else(|| refuse("`llama.rope.scaling.factor` must be > 0".to_string()))?;
            Ok(json!({"rope_type": "linear", "factor": factor}))
        }
        Some(other) => Err(refuse(format!(
            "`llama.rope.scaling.type` = \"{other}\" is not known here (known: \"none\", \"linear\")"
        ))),
    }
}

/// Llama 3's scaling is stored only as its result: the published parameters that give it.
fn llama3(file: &GgufFile, sizes: &Sizes, factors: &[f32]) -> Option<Json> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const ORIGINAL: usize = 8192;
    let theta = file.number("llama.rope.freq_base").unwrap_or(10_000.0);
    let frequencies = |scaling: RopeScaling| {
        let (head_dim, max_position_embeddings) = (sizes.head_dim, sizes.context);
        Rope { theta, head_dim, max_position_embeddings, scaling }.inverse_frequencies(1)
    };
    let plain = frequencies(RopeScaling::Default);
    for factor in [8.0, 32.0] {
        let scaled = json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": LOW,
            "high_freq_factor": HIGH,
            "original_max_position_embeddings": ORIGINAL,
        });
        let expected = frequencies(serde_json::from_value(scaled.clone()).expect("llama3's own keys"));
        let same =
            plain.len() == factors.len()
                && plain.iter().zip(&expected).zip(factors).all(|((plain, scaled), factor)| {
                    (plain / scaled / f64::from(*factor) - 1.0).abs() < 1e-4
                });
        if same {
            return Some(scaled);
        }
    }
    None
}

struct Finder<'a> {
    file: &'a GgufFile,
    taken: BTreeSet<String>,
    weights: Vec<Weight>,
}

impl Finder<'_> {
    fn find(&mut self, source: &str, name: String, shape: &[usize], heads: Option<usize>) -> Result<()> {
        let path = self.file.path();
        let tensor = self.file.tensor(source).cloned().ok_or_else(|| EngineError::MissingTensor {
            folder: path.to_path_buf(),
            name: source.to_string(),
        })?;
        if tensor.shape != shape {
            return Err(EngineError::ShapeMismatch {
                name: source.to_string(),
                found: tensor.shape,
                expected: shape.to_vec(),
            });
        }
        self.taken.insert(source.to_string());
        self.weights.push(Weight { name, source: tensor, heads });
        Ok(())
    }

    fn model(&mut self, sizes: &Sizes, tied: bool, attention_bias: bool, mlp_bias: bool) -> Result<()> {
        let (hidden, wide) = (sizes.hidden, sizes.wide);
        let too_large = || self.file.damaged("its heads are larger than any machine's memory");
        let queries = sizes.heads.checked_mul(sizes.head_dim).ok_or_else(too_large)?;
        let keys = sizes.kv_heads.checked_mul(sizes.head_dim).ok_or_else(too_large)?;
        let table = [sizes.vocab, hidden];
        self.find("token_embd.weight", "model.embed_tokens.weight".into(), &table, None)?;
        for layer in 0..sizes.layers {
            let (from, to) = (format!("blk.{layer}"), format!("model.layers.{layer}"));
            for (source, name) in [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")]
            {
                self.find(
                    &format!("{from}.{source}.weight"),
                    format!("{to}.{name}.weight"),
                    &[hidden],
                    None,
                )?;
            }
            for (source, name, shape, heads, bias) in [
                ("attn_q", "self_attn.q_proj", [queries, hidden], Some(sizes.heads), attention_bias),
                ("attn_k", "self_attn.k_proj", [keys, hidden], Some(sizes.kv_heads), attention_bias),
                ("attn_v", "self_attn.v_proj", [keys, hidden], None, attention_bias),
                ("attn_output", "self_attn.o_proj", [hidden, queries], None, attention_bias),
                ("ffn_gate", "mlp.gate_proj", [wide, hidden], None, mlp_bias),
                ("ffn_up", "mlp.up_proj", [wide, hidden], None, mlp_bias),
                ("ffn_down", "mlp.down_proj", [hidden, wide], None, mlp_bias),
            ] {
                let (source, name) = (format!("{from}.{source}"), format!("{to}.{name}"));
                self.find(&format!("{source}.weight"), format!("{name}.weight"), &shape, heads)?;
                if bias {
                    self.find(&format!("{source}.bias"), format!("{name}.bias"), &shape[..1], heads)?;
                }
            }
        }
        self.find("output_norm.weight", "model.norm.weight".into(), &[hidden], None)?;
        if !tied {
            self.find("output.weight", "lm_head.weight".into(), &table, None)?;
        }
        Ok(())
    }
}

/// Where each row stands in the file: neighbouring pairs of a head become its two halves.
pub(super) fn row_order(rows: usize, heads: usize) -> Vec<usize> {
    let head_dim = rows / heads;
    let of_head = |row: usize| 2 * (row % (head_dim / 2)) + row / (head_dim / 2);
    (0..rows).map(|row| row / head_dim * head_dim + of_head(row % head_dim)).collect()
}

/// The values of those rows.
pub(super) fn in_order(values: &[f32], order: &[usize]) -> Vec<f32> {
    let width = values.len() / order.len().max(1);
    order.iter().flat_map(|row| &values[row * width..(row + 1) * width]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// llama.cpp's permutation of `[0, 1, 2, 3]`, two heads of four rows each, undone.
    #[test]
    fn rows_of_a_head_return_to_their_halves() {
        let permuted = [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        assert_eq!(in_order(&permuted, &row_order(8, 2)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }
}
