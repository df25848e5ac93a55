//! What a model's files say of it, without loading it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fthost_data::{DataError, Tokenizer};
use fthost_engine::checkpoint::gguf::{self, GgufFile};
use fthost_engine::checkpoint::safetensors::TensorFiles;
use fthost_engine::models::DecoderConfig;
use fthost_engine::quant::bitsandbytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::convert::vocabulary;
use crate::error::{Result, RunError};
use crate::estimate::held::held;
use crate::estimate::modes::{Modes, modes};

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// A model's folder, a GGUF file, or an adapter's folder.
    pub kind: &'static str,
    /// As given.
    pub path: PathBuf,
    /// Name and value, in the order they are told.
    pub facts: Vec<(&'static str, String)>,
    /// Parameters in all.
    pub parameters: usize,
    /// Parameters of each part, in the order of the model.
    pub parts: Vec<(&'static str, usize)>,
    /// What training takes, of a model whose family is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Modes>,
}

/// Looks at a folder or a GGUF file.
///
/// # Errors
/// Nothing there that is known; files that are damaged.
pub fn inspect(path: &Path) -> Result<Inspection> {
    if path.join("adapter_config.json").is_file() {
        return adapter(path);
    }
    if path.join("config.json").is_file() {
        return folder(path);
    }
    if path.is_file() {
        return gguf_file(path);
    }
    Err(RunError::NoModel { path: path.to_path_buf() })
}

fn folder(path: &Path) -> Result<Inspection> {
    let config = json(&path.join("config.json"))?;
    let tensors = if path.join(gguf::WEIGHTS).is_file() {
        let file = GgufFile::open(&path.join(gguf::WEIGHTS))?;
        let told = file.tensors().iter().map(|it| (it.name.clone(), it.shape.clone(), it.stored.name()));
        told.collect()
    } else {
        bitsandbytes::list(&TensorFiles::open_model(path)?)?
    };
    let mut facts = vec![("architecture", text(&config["architectures"][0]))];
    for key in SHAPE_KEYS {
        if let Some(value) = config.get(key).filter(|it| !it.is_null()) {
            facts.push((key, text(value)));
        }
    }
    facts.push(("stored as", stored_as(tensors.iter().map(|it| it.2.clone()))));
    let shapes = tensors.iter().map(|(name, shape, _)| (name.as_str(), shape.iter().product()));
    let parts = parts(shapes);
    facts.push(("head", head(&parts)));
    if path.join("tokenizer.json").is_file() {
        facts.extend(tokenizer_facts(path)?);
    } else {
        facts.push(("tokenizer", "none".to_string()));
    }
    // A folder may hold the trunk of another class, or an unknown family: then nothing is told of memory.
    let memory = match DecoderConfig::read(&path.join("config.json")) {
        Ok(shape) => {
            let tokenizer = std::fs::metadata(path.join("tokenizer.json")).map_or(0, |it| it.len());
            Some(modes(&shape, &held(path)?, tokenizer)?)
        }
        Err(_) => None,
    };
    Ok(Inspection { kind: "model", path: path.to_path_buf(), facts, parameters: sum(&parts), parts, memory })
}

/// What of `config.json` a person asks for first.
const SHAPE_KEYS: [&str; 14] = [
    "num_hidden_layers",
    "n_layer",
    "hidden_size",
    "n_embd",
    "intermediate_size",
    "num_attention_heads",
    "n_head",
    "num_key_value_heads",
    "sliding_window",
    "num_experts_per_tok",
    "vocab_size",
    "max_position_embeddings",
    "n_positions",
    "dtype",
];

fn tokenizer_facts(path: &Path) -> Result<Vec<(&'static str, String)>> {
    let tokenizer = Tokenizer::load(path)?;
    let raw = json(&path.join("tokenizer.json"))?;
    let model = &raw["model"];
    let vocab = model["vocab"].as_object().map_or(0, Map::len);
    let added = raw["added_tokens"].as_array().map_or(0, Vec::len);
    let named = |token: &Option<String>| token.clone().unwrap_or_else(|| "none".to_string());
    Ok(vec![
        ("tokenizer", format!("{} of {vocab} tokens, {added} added", text(&model["type"]))),
        ("bos, eos", format!("{}, {}", named(&tokenizer.bos_token), named(&tokenizer.eos_token))),
        ("chat template", yes_or_no(tokenizer.chat_template.is_some())),
    ])
}

fn gguf_file(path: &Path) -> Result<Inspection> {
    let file = GgufFile::open(path)?;
    let architecture = file.text("general.architecture").unwrap_or("none").to_string();
    let mut facts = vec![("architecture", architecture.clone())];
    let texts = [("name", "general.name"), ("licence", "general.license")];
    facts.extend(texts.iter().filter_map(|(name, key)| Some((*name, file.text(key)?.to_string()))));
    for (name, key) in [
        ("block_count", "block_count"),
        ("embedding_length", "embedding_length"),
        ("feed_forward_length", "feed_forward_length"),
        ("head_count", "attention.head_count"),
        ("head_count_kv", "attention.head_count_kv"),
        ("context_length", "context_length"),
    ] {
        facts.extend(file.whole(&format!("{architecture}.{key}")).map(|it| (name, it.to_string())));
    }
    facts.push(("GGUF version", file.version().to_string()));
    facts.push(("stored as", stored_as(file.tensors().iter().map(|it| it.stored.name()))));
    let parts = parts(file.tensors().iter().map(|it| (it.name.as_str(), it.elements())));
    facts.push(("head", head(&parts)));
    let vocabulary = vocabulary(&file);
    let (kind, cut) = (vocabulary.model.unwrap_or("none"), vocabulary.pre.unwrap_or("none"));
    facts.push(("tokenizer", format!("{kind} of {} tokens, cut like {cut}", vocabulary.tokens.len())));
    facts.push(("chat template", yes_or_no(vocabulary.chat_template.is_some())));
    let checked = gguf::check(&file);
    // Of what an import makes, its tokenizer aside: floats.
    let memory = match &checked {
        Ok(()) => Some(modes(&gguf::decoder_config(&file)?, &BTreeMap::new(), 0)?),
        Err(_) => None,
    };
    let importable = match (checked, vocabulary.to_files()) {
        (Ok(()), Ok(_)) => "yes".to_string(),
        (Err(error), _) => format!("no: {error}"),
        (_, Err(reason)) => format!("no: {reason}"),
    };
    facts.push(("importable", importable));
    let (path, parameters) = (path.to_path_buf(), sum(&parts));
    Ok(Inspection { kind: "GGUF file", path, facts, parameters, parts, memory })
}

fn adapter(path: &Path) -> Result<Inspection> {
    let config = json(&path.join("adapter_config.json"))?;
    let tensors = TensorFiles::open(path, vec![path.join("adapter_model.safetensors")])?.list();
    let mut facts = Vec::new();
    for (name, key) in [
        ("kind", "peft_type"),
        ("base model", "base_model_name_or_path"),
        ("rank", "r"),
        ("ranks by pattern", "rank_pattern"),
        ("alpha", "lora_alpha"),
        ("dropout", "lora_dropout"),
        ("rsLoRA", "use_rslora"),
        ("targets", "target_modules"),
        ("on inputs", "feedforward_modules"),
        ("virtual tokens", "num_virtual_tokens"),
        ("saved whole", "modules_to_save"),
    ] {
        match config.get(key) {
            None | Some(Value::Null) => {}
            // By the linear, there may be hundreds.
            Some(Value::Object(patterns)) => {
                let values: BTreeSet<u64> = patterns.values().filter_map(Value::as_u64).collect();
                let told: Vec<String> = values.iter().map(u64::to_string).collect();
                facts.extend((!told.is_empty()).then(|| (name, told.join(", "))));
            }
            Some(value) => facts.push((name, text(value))),
        }
    }
    let layers: BTreeSet<&str> = tensors.iter().filter_map(|it| layer(&it.0)).collect();
    facts.extend((!layers.is_empty()).then(|| ("layers", layers.len().to_string())));
    facts.push(("stored as", stored_as(tensors.iter().map(|it| it.2.clone()))));
    let parts = parts(tensors.iter().map(|(name, shape, _)| (name.as_str(), shape.iter().product())));
    let (path, parameters) = (path.to_path_buf(), sum(&parts));
    Ok(Inspection { kind: "adapter", path, facts, parameters, parts, memory: None })
}

fn layer(name: &str) -> Option<&str> {
    name.split_once(".layers.")?.1.split('.').next()
}

/// Part of a model by what its names hold, Hugging Face's and llama.cpp's, in the order of the model.
const PARTS: [(&str, &[&str]); 6] = [
    ("virtual tokens", &["prompt_embeddings"]),
    ("embedding", &["embed_tokens", "token_embd", "position_embd", "wte.", "wpe."]),
    ("attention", &["self_attn.", "attn.c_", "attn_q.", "attn_k.", "attn_v.", "attn_qkv.", "attn_output."]),
    ("feed-forward", &["mlp.", "block_sparse_moe.", "ffn_gate", "ffn_up", "ffn_down"]),
    ("norms", &["norm", "ln_"]),
    ("head", &["lm_head", "output."]),
];

fn parts<'a>(tensors: impl Iterator<Item = (&'a str, usize)>) -> Vec<(&'static str, usize)> {
    let mut counts = [0; PARTS.len() + 1];
    for (name, parameters) in tensors {
        let found = PARTS.iter().position(|(_, marks)| marks.iter().any(|it| name.contains(it)));
        counts[found.unwrap_or(PARTS.len())] += parameters;
    }
    let names = PARTS.iter().map(|it| it.0).chain(["other"]);
    names.zip(counts).filter(|it| it.1 > 0).collect()
}

fn sum(parts: &[(&str, usize)]) -> usize {
    parts.iter().map(|it| it.1).sum()
}

fn head(parts: &[(&str, usize)]) -> String {
    let own = parts.iter().any(|it| it.0 == "head");
    if own { "its own weights" } else { "tied to the embedding" }.to_string()
}

/// `F32 61, Q4_1 210`.
fn stored_as(types: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    types.for_each(|it| *counts.entry(it).or_default() += 1);
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn yes_or_no(answer: bool) -> String {
    if answer { "yes" } else { "no" }.to_string()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| DataError::Damaged { path: path.to_path_buf(), reason: error.to_string() }.into())
}
