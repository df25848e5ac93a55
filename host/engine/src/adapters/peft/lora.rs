//! PEFT's folders of LoRA: pairs by the path of their linear.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use serde_json::{Value, json};

use super::files::{AdapterFiles, Tensors};
use super::{CONFIG, PREFIX, modules_to_save, refuse_options, whole};
use crate::adapters::experts::{self, Place};
use crate::adapters::init::LoraInit;
use crate::adapters::lora::{LoraConfig, Pair, attach_with};
use crate::adapters::target::TargetModules;
use crate::error::{EngineError, Result};
use crate::models::block::MAGNITUDE;
use crate::models::{CausalLm, DecoderConfig};

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

/// Tensors and configuration of the pairs on `model`.
pub(super) fn written(model: &CausalLm, config: &LoraConfig) -> (Tensors, Value) {
    let (mut model, config) = without_origins(model, config);
    let (of_mixtures, adapted) = experts::written(&model);
    let shape = model.config.clone();
    let mut tensors = Vec::new();
    for layer in 0..model.blocks.len() {
        let path = model.block_path(layer);
        model.blocks[layer].visit_adapter(&path, &mut |name, parameter| {
            if Place::of(&shape, path_of(name), 1).is_none() {
                let (shape, values) = parameter.to_f32();
                tensors.push((format!("{PREFIX}{name}"), shape, values));
            }
        });
    }
    for (name, rows) in of_mixtures {
        tensors.push((format!("{PREFIX}{name}"), vec![rows.height(), rows.width], rows.values));
    }
    let mut written = adapter_config(&model, &config);
    if model.config.mixture.is_some() {
        mixture_config(&model, &config, &adapted, &mut written);
    }
    (tensors, written)
}

fn adapter_config(model: &CausalLm, config: &LoraConfig) -> Value {
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
        "init_lora_weights": true,
        "ensure_weight_tying": config.ensure_weight_tying,
    })
}

/// Of a mixture, modules and parameters by name: PEFT knows its experts by their parameters alone.
fn mixture_config(model: &CausalLm, config: &LoraConfig, adapted: &experts::Adapted, written: &mut Value) {
    let mut modules = BTreeSet::new();
    for (layer, block) in model.blocks.iter().enumerate() {
        let path = model.block_path(layer);
        for (name, _) in block.linears().filter(|it| it.1.lora.is_some()) {
            if Place::of(&model.config, &format!("{path}.{name}"), 1).is_none() {
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

/// The path of a linear from the name of a weight of its adapter.
fn path_of(name: &str) -> &str {
    name.strip_suffix(".lora_A.weight").or_else(|| name.strip_suffix(".lora_B.weight")).unwrap_or(name)
}

/// Puts the pairs of `files` on `model`.
///
/// # Errors
/// Tensors that are missing or of another shape.
pub(super) fn attach(model: &mut CausalLm, config: &LoraConfig, files: &mut AdapterFiles) -> Result<()> {
    let (shape, device) = (model.config.clone(), model.device());
    attach_with(model, config, &mut |of, _| {
        let [a, b] = pair(files, &shape, &of.path, of.widths, of.rank)?;
        let length = match config.use_dora {
            true => Some(files.read(&format!("{PREFIX}{}.{MAGNITUDE}", of.path), [of.widths[0]])?),
            false => None,
        };
        let length = length.map(|it| Tensor::from_data(it, &device));
        Ok(Pair { a: Tensor::from_data(a, &device), b: Tensor::from_data(b, &device), length })
    })
}

/// The pair of the linear at `path`, which may be one of a mixture.
fn pair(
    files: &mut AdapterFiles,
    shape: &DecoderConfig,
    path: &str,
    [out, width]: [usize; 2],
    rank: usize,
) -> Result<[TensorData; 2]> {
    let Some(place) = Place::of(shape, path, out) else {
        let [a, b] = names_of(path);
        return Ok([files.read(&a, [rank, width])?, files.read(&b, [out, rank])?]);
    };
    let names = names_in(&place, files);
    let a = files.read(&names[0], [place.experts * rank, width])?;
    let b = files.read(&names[1], [place.outputs.0, rank * place.experts])?;
    let [a, b] = [a, b].map(|it| it.try_into_vec::<f32>().expect("read as f32"));
    let [a, b] = place.cut(rank, out, &a, &b);
    Ok([TensorData::new(a, [rank, width]), TensorData::new(b, [out, rank])])
}

fn names_of(path: &str) -> [String; 2] {
    ["lora_A", "lora_B"].map(|side| format!("{PREFIX}{path}.{side}.weight"))
}

/// Where the file has the pairs of a parameter of a mixture.
fn names_in(place: &Place, files: &AdapterFiles) -> [String; 2] {
    let found = place.paths.iter().map(|it| names_of(it)).find(|it| files.contains(&it[0]));
    found.unwrap_or_else(|| names_of(&place.paths[0]))
}

/// Gives the pairs that `model` has the values of `files`, which were saved of it.
///
/// What is saved may have twice the rank: beside a pair stands what it began with, or the pair of an expert's other linear.
///
/// # Errors
/// As [`attach`].
pub(super) fn read_into(model: &mut CausalLm, files: &mut AdapterFiles) -> Result<()> {
    let (shape, device) = (model.config.clone(), model.device());
    for (layer, block) in model.blocks.iter_mut().enumerate() {
        for (name, linear) in block.linears_mut() {
            let (widths, Some(lora)) = (linear.weight.dims(), &mut linear.lora) else { continue };
            let path = format!("{}.{layer}.{name}", shape.names.blocks);
            let place = Place::of(&shape, &path, widths[0]);
            let (names, experts) = match &place {
                Some(place) => (names_in(place, files), place.experts),
                None => (names_of(&path), 1),
            };
            let (rank, stored) = (lora.a.dims()[0], files.shape(&names[0])?[0] / experts);
            let [a, b] = pair(files, &shape, &path, widths, stored)?;
            // Of gate and up the second's ranks are the last.
            let is_second = place.is_some_and(|it| it.outputs.1 > 0);
            let first = if is_second { stored.saturating_sub(rank) } else { 0 };
            let rows = Tensor::<2>::from_data(a, &device).narrow(0, first, rank);
            let columns = Tensor::<2>::from_data(b, &device).narrow(1, first, rank);
            // Copies: a view would keep what lies beside it.
            (lora.a, lora.b) = (rows.mul_scalar(1.0), columns.mul_scalar(1.0));
            if let Some(magnitude) = &mut lora.magnitude {
                let length = files.read(&format!("{PREFIX}{path}.{MAGNITUDE}"), [widths[0]])?;
                magnitude.length = Tensor::from_data(length, &device);
            }
        }
    }
    Ok(())
}

/// The configuration of the adapter in `folder` from its `adapter_config.json`; `model` is what its `target_parameters`
/// are of.
///
/// # Errors
/// Options that are not understood here, by name.
pub(in crate::adapters) fn lora_config(
    folder: &Path,
    value: &Value,
    model: Option<&DecoderConfig>,
) -> Result<LoraConfig> {
    let what = || format!("`{}`", folder.join(CONFIG).display());
    understood(value, model).map_err(|problems| EngineError::Invalid { what: what(), problems })
}

/// Options that are known here where they are off.
const OPTIONS: [&str; 6] = [
    "layers_to_transform",
    "layer_replication",
    "lora_bias",
    "trainable_token_indices",
    "use_qalora",
    "exclude_modules",
];

fn understood(value: &Value, model: Option<&DecoderConfig>) -> std::result::Result<LoraConfig, Vec<String>> {
    let mut problems = Vec::new();
    if value["peft_type"] != "LORA" {
        problems.push(format!("`peft_type` {} is not known here (known: LORA)", value["peft_type"]));
    }
    refuse_options(value, &OPTIONS, &mut problems);
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
    let saved = modules_to_save(value, &mut problems);
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
        ensure_weight_tying: value["ensure_weight_tying"] == true && !saved.is_empty(),
        modules_to_save: saved,
        ..LoraConfig::default()
    };
    let parameters = value["target_parameters"].as_array().filter(|it| !it.is_empty());
    if let (Some(parameters), Some(model)) = (parameters, model) {
        config = experts::on_linears(config, parameters, model).map_err(|problem| vec![problem])?;
    }
    problems.extend(config.problems());
    if problems.is_empty() { Ok(config) } else { Err(problems) }
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
