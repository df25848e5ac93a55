//! PEFT's adapter folders: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use serde_json::{Value, json};

use super::experts;
use super::init::LoraInit;
use super::lora::{LoraConfig, Pair, attach_with};
use super::target::TargetModules;
use crate::checkpoint::safetensors::TensorFiles;
use crate::checkpoint::write::{write_f32, write_whole};
use crate::error::{EngineError, Result};
use crate::models::block::MAGNITUDE;
use crate::models::score::SCORE;
use crate::models::{CausalLm, DecoderConfig, ScoreHead, ScoreRole};

pub(super) const CONFIG: &str = "adapter_config.json";
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
pub(super) const PREFIX: &str = "base_model.model.";
/// PEFT's word for models that classify, reward models among them.
const SEQUENCE_CLASSIFICATION: &str = "SEQ_CLS";

/// The model with adapters that need no origin, and what describes them: of twice the rank, with the same factor.
fn without_origins(model: &CausalLm, config: &LoraConfig) -> (CausalLm, LoraConfig) {
    let (mut model, mut config) = (model.clone(), config.clone());
    if !config.init_lora_weights.is_of_weight() {
        return (model, config);
    }
    for (_, linear) in model.blocks.iter_mut().flat_map(|it| it.linears_mut()) {
        if let Some(lora) = &mut linear.lora {
            [lora.a, lora.b] = lora.pair();
            lora.origin = None;
        }
    }
    // The factor is alpha over the rank, or over its root.
    let of_alpha = if config.use_rslora { std::f64::consts::SQRT_2 } else { 2.0 };
    config.rank *= 2;
    config.alpha *= of_alpha;
    config.rank_pattern.values_mut().for_each(|it| *it *= 2);
    config.alpha_pattern.values_mut().for_each(|it| *it *= of_alpha);
    config.init_lora_weights = LoraInit::Default;
    (model, config)
}

/// Writes the adapter of `model` as a PEFT folder. `base` is what PEFT is told to load the model from. A reward model's
/// head is saved with it, for sequence classification; a value model's is not.
///
/// # Errors
/// Files that can't be written.
pub fn save_adapter(model: &mut CausalLm, config: &LoraConfig, base: &str, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(EngineError::io("write", folder))?;
    let (mut model, config) = without_origins(model, config);
    let (model, config) = (&mut model, &config);
    let mut tensors = Vec::new();
    let (of_mixtures, adapted) = experts::written(model);
    let shape = model.config.clone();
    model.visit_lora(&mut |name, parameter| {
        if experts::Place::of(&shape, path_of(name), 1).is_none() {
            let (shape, values) = parameter.to_f32();
            tensors.push((format!("{PREFIX}{name}"), shape, values));
        }
    });
    for (name, rows) in of_mixtures {
        tensors.push((format!("{PREFIX}{name}"), vec![rows.height(), rows.width], rows.values));
    }
    let is_reward = model.score.as_ref().is_some_and(|it| it.role == ScoreRole::Reward);
    if is_reward {
        model.visit_score(&mut |name, parameter| {
            let (shape, values) = parameter.to_f32();
            tensors.push((format!("{PREFIX}{name}"), shape, values));
        });
    }
    write_f32(&folder.join(WEIGHTS), &tensors)?;
    let mut written = adapter_config(model, config, base);
    if model.config.mixture.is_some() {
        mixture_config(model, config, &adapted, &mut written);
    }
    if is_reward {
        written["task_type"] = json!(SEQUENCE_CLASSIFICATION);
        written["modules_to_save"] = json!(["score"]);
    }
    write_config(folder, &written)
}

/// Writes `adapter_config.json`.
pub(super) fn write_config(folder: &Path, config: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(config).expect("a JSON value serialises");
    write_whole(&folder.join(CONFIG), format!("{text}\n").as_bytes())
}

/// What `adapter_config.json` holds.
pub(super) fn read_config(folder: &Path) -> Result<Value> {
    let path = folder.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(EngineError::io("read", &path))?;
    serde_json::from_str(&text).map_err(|source| EngineError::Json { path, source })
}

fn adapter_config(model: &CausalLm, config: &LoraConfig, base: &str) -> Value {
    // PEFT understands `all-linear` only for model classes it knows; names always work.
    let target_modules = match &config.target_modules {
        TargetModules::Pattern(pattern) if pattern == "all-linear" => {
            let last = |name: &str| name.rsplit_once('.').map_or(name, |it| it.1).to_string();
            let linears = model.blocks.iter().flat_map(|it| it.linears());
            json!(linears.map(|it| last(it.0)).collect::<BTreeSet<_>>())
        }
        TargetModules::Pattern(pattern) => json!(pattern),
        TargetModules::Names(names) => json!(names),
    };
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": whole(config.alpha),
        "lora_dropout": config.dropout,
        "target_modules": target_modules,
        "rank_pattern": config.rank_pattern,
        "alpha_pattern": config.alpha_pattern,
        "use_rslora": config.use_rslora,
        "use_dora": config.use_dora,
        "bias": "none",
        "fan_in_fan_out": model.config.names.transposed,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
    })
}

/// Of a mixture, modules and parameters by name: PEFT knows its experts by their parameters alone.
fn mixture_config(model: &CausalLm, config: &LoraConfig, adapted: &experts::Adapted, written: &mut Value) {
    let mut modules = BTreeSet::new();
    for (layer, block) in model.blocks.iter().enumerate() {
        let path = model.block_path(layer);
        for (name, _) in block.linears().filter(|it| it.1.lora.is_some()) {
            if experts::Place::of(&model.config, &format!("{path}.{name}"), 1).is_none() {
                modules.insert(name.rsplit_once('.').map_or(name, |it| it.1).to_string());
            }
        }
    }
    let (mut parameters, mut ranks, mut alphas) = (BTreeSet::new(), json!({}), json!({}));
    for (name, of) in experts::PARAMETERS.iter().zip(adapted.of) {
        let Some((rank, scaling)) = of else { continue };
        parameters.insert(*name);
        if rank != config.rank {
            let pattern = format!(r".*\.{name}");
            ranks[&pattern] = json!(rank);
            let alpha = scaling * if config.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
            alphas[&pattern] = whole(alpha);
        }
    }
    written["target_modules"] = json!(modules);
    written["target_parameters"] = json!(parameters);
    written["rank_pattern"] = ranks;
    written["alpha_pattern"] = alphas;
}

/// A number as Python's `json` writes it where it is whole.
pub(super) fn whole(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

/// The path of a linear from the name of a weight of its adapter.
fn path_of(name: &str) -> &str {
    name.strip_suffix(".lora_A.weight").or_else(|| name.strip_suffix(".lora_B.weight")).unwrap_or(name)
}

/// Puts the adapter of a PEFT folder on `model`, a reward model's head with it, and returns its configuration.
///
/// # Errors
/// Options that are not understood here, by name; tensors that are missing or left over.
pub fn load_adapter(model: &mut CausalLm, folder: &Path) -> Result<LoraConfig> {
    let value = read_config(folder)?;
    let config = lora_config(folder, &value, Some(&model.config))?;
    let files = TensorFiles::open(folder, vec![folder.join(WEIGHTS)])?;
    let device = model.device();
    let mut read = Vec::new();
    let shape = model.config.clone();
    attach_with(model, &config, &mut |of, _| {
        let (path, [out, width], rank) = (of.path.as_str(), of.widths, of.rank);
        let names_in = |path: &str| ["lora_A", "lora_B"].map(|side| format!("{PREFIX}{path}.{side}.weight"));
        let (names, [a, b]) = match experts::Place::of(&shape, path, out) {
            None => {
                let names = names_in(path);
                let pair = [files.read(&names[0], [rank, width])?, files.read(&names[1], [out, rank])?];
                (names, pair)
            }
            Some(place) => {
                let found = place.paths.iter().map(|it| names_in(it)).find(|it| files.contains(&it[0]));
                let names = found.unwrap_or_else(|| names_in(&place.paths[0]));
                let a = files.read(&names[0], [place.experts * rank, width])?;
                let b = files.read(&names[1], [place.outputs.0, rank * place.experts])?;
                let [a, b] = [a, b].map(|it| it.try_into_vec::<f32>().expect("read as f32"));
                let [a, b] = place.cut(rank, out, &a, &b);
                (names, [TensorData::new(a, [rank, width]), TensorData::new(b, [out, rank])])
            }
        };
        read.extend(names);
        let mut length = None;
        if config.use_dora {
            let name = format!("{PREFIX}{path}.{MAGNITUDE}");
            length = Some(Tensor::from_data(files.read(&name, [out])?, &device));
            read.push(name);
        }
        Ok(Pair { a: Tensor::from_data(a, &device), b: Tensor::from_data(b, &device), length })
    })?;
    if value["task_type"] == SEQUENCE_CLASSIFICATION {
        let name = format!("{PREFIX}{SCORE}");
        let weight = Tensor::from_data(files.read(&name, [1, model.config.hidden_size])?, &device);
        model.score = Some(ScoreHead { weight, bias: None, role: ScoreRole::Reward });
        read.push(name);
    }
    let unknown = files.unknown(&read);
    if !unknown.is_empty() {
        return Err(EngineError::UnknownTensors { folder: folder.to_path_buf(), names: unknown });
    }
    Ok(config)
}

/// The configuration of the adapter in `folder` from its `adapter_config.json`; `model` is what its `target_parameters`
/// are of.
///
/// # Errors
/// Options that are not understood here, by name.
pub(super) fn lora_config(folder: &Path, value: &Value, model: Option<&DecoderConfig>) -> Result<LoraConfig> {
    let what = || format!("`{}`", folder.join(CONFIG).display());
    understood(value, model).map_err(|problems| EngineError::Invalid { what: what(), problems })
}

fn understood(value: &Value, model: Option<&DecoderConfig>) -> std::result::Result<LoraConfig, Vec<String>> {
    let mut problems = Vec::new();
    if value["peft_type"] != "LORA" {
        problems.push(format!("`peft_type` {} is not known here (known: LORA)", value["peft_type"]));
    }
    refuse_options(value, &mut problems);
    if !(value["bias"].is_null() || value["bias"] == "none") {
        problems.push(format!("`bias` = {} is not supported here", value["bias"]));
    }
    let init_lora_weights = init(&value["init_lora_weights"], &mut problems);
    let target_modules = serde_json::from_value(value["target_modules"].clone())
        .map_err(|_| problems.push("`target_modules` must be a string or a list of names".to_string()));
    let alphas = pattern(value, "alpha_pattern", &mut problems);
    let ranks = pattern(value, "rank_pattern", &mut problems).into_iter();
    let ranks: BTreeMap<String, usize> = ranks.map(|(key, rank)| (key, rank as usize)).collect();
    let rank = value["r"].as_u64().unwrap_or(0) as usize;
    let mut config = LoraConfig {
        rank,
        alpha: value["lora_alpha"].as_f64().unwrap_or(0.0),
        target_modules: target_modules.unwrap_or_default(),
        dropout: value["lora_dropout"].as_f64().unwrap_or(0.0),
        use_rslora: value["use_rslora"] == true,
        use_dora: value["use_dora"] == true,
        init_lora_weights,
        rank_pattern: ranks,
        alpha_pattern: alphas,
        ..LoraConfig::default()
    };
    let parameters = value["target_parameters"].as_array().filter(|it| !it.is_empty());
    if let (Some(parameters), Some(model)) = (parameters, model) {
        config = experts::on_linears(config, parameters, model).map_err(|problem| vec![problem])?;
    }
    problems.extend(config.problems());
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// Notes options that change what is computed: anything but "off" would be silently wrong.
fn refuse_options(value: &Value, problems: &mut Vec<String>) {
    for key in [
        "modules_to_save",
        "layers_to_transform",
        "layer_replication",
        "lora_bias",
        "trainable_token_indices",
        "use_qalora",
    ] {
        let option = &value[key];
        // The head of a model that classifies is saved whole.
        if key == "modules_to_save" && value["task_type"] == SEQUENCE_CLASSIFICATION {
            if *option != json!(["score"]) {
                problems
                    .push(format!("`{key}` = {option}: known for {SEQUENCE_CLASSIFICATION} is [\"score\"]"));
            }
            continue;
        }
        let off = option.is_null()
            || *option == false
            || option.as_object().is_some_and(|it| it.is_empty())
            || option.as_array().is_some_and(Vec::is_empty);
        if !off {
            problems.push(format!("`{key}` = {option} is not supported here"));
        }
    }
}

/// What a pair began with, where that was taken off the weight: it has to be again.
fn init(value: &Value, problems: &mut Vec<String>) -> LoraInit {
    match value.as_str() {
        Some("pissa") => LoraInit::Pissa,
        Some("olora") => LoraInit::Olora,
        None | Some("gaussian" | "eva" | "orthogonal") => LoraInit::Default,
        Some(_) => {
            problems.push(format!(
                "`init_lora_weights` = {value} changed the weights in a way that is not known here: save the adapter with \
                 PEFT's `path_initial_model_for_weight_conversion`"
            ));
            LoraInit::Default
        }
    }
}

/// Numbers by pattern, none where the key is absent.
fn pattern(value: &Value, key: &str, problems: &mut Vec<String>) -> BTreeMap<String, f64> {
    if value[key].is_null() {
        return BTreeMap::new();
    }
    let read = serde_json::from_value(value[key].clone());
    read.unwrap_or_else(|_| {
        problems.push(format!("`{key}` must map patterns to numbers"));
        BTreeMap::new()
    })
}
