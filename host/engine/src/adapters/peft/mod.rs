//! PEFT's adapter folders: `adapter_config.json` and `adapter_model.safetensors`.

mod files;
mod ia3;
mod lora;
mod virtual_tokens;

use std::path::Path;

use serde_json::{Value, json};

use self::files::AdapterFiles;
pub(super) use self::lora::lora_config;
use super::AdapterConfig;
use crate::checkpoint::write::{write_f32, write_whole};
use crate::error::{EngineError, Result};
use crate::models::{CausalLm, DecoderConfig, ScoreRole};

pub(super) const CONFIG: &str = "adapter_config.json";
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
pub(super) const PREFIX: &str = "base_model.model.";
/// PEFT's word for models that classify, reward models among them.
const SEQUENCE_CLASSIFICATION: &str = "SEQ_CLS";

/// Writes the adapter of `model` as a PEFT folder. `base` is what PEFT is told to load the model from. A reward model's
/// head is saved with it, for sequence classification; a value model's is not.
///
/// # Errors
/// Files that can't be written.
pub fn save_adapter(model: &mut CausalLm, config: &AdapterConfig, base: &str, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(EngineError::io("write", folder))?;
    let (mut tensors, mut written) = match config {
        AdapterConfig::Lora(config) => lora::written(model, config),
        AdapterConfig::Ia3(config) => ia3::written(model, config),
        AdapterConfig::PromptTuning(config) => virtual_tokens::prompt_written(model, config),
        AdapterConfig::PrefixTuning(config) => virtual_tokens::prefix_written(model, config),
    };
    let mut modules = match config {
        AdapterConfig::Lora(config) => config.modules_to_save.clone(),
        AdapterConfig::Ia3(config) => config.modules_to_save.clone(),
        AdapterConfig::PromptTuning(_) | AdapterConfig::PrefixTuning(_) => Vec::new(),
    };
    // The head of a reward model is saved whether it is named or not, and that of no other is.
    modules.retain(|it| it != "score");
    files::push_saved(model, &mut tensors);
    written["base_model_name_or_path"] = json!(base);
    written["inference_mode"] = json!(true);
    written["task_type"] = json!("CAUSAL_LM");
    if model.score.as_ref().is_some_and(|it| it.role == ScoreRole::Reward) {
        model.visit_score(&mut files::push(&mut tensors));
        written["task_type"] = json!(SEQUENCE_CLASSIFICATION);
        modules.insert(0, "score".to_string());
    }
    written["modules_to_save"] = if modules.is_empty() { Value::Null } else { json!(modules) };
    write_f32(&folder.join(WEIGHTS), &tensors)?;
    write_config(folder, &written)
}

/// Puts the adapter of a PEFT folder on `model`, a reward model's head with it, and returns its configuration.
///
/// # Errors
/// Options that are not understood here, by name; tensors that are missing or left over.
pub fn load_adapter(model: &mut CausalLm, folder: &Path) -> Result<AdapterConfig> {
    let value = read_config(folder)?;
    let config = adapter_config(folder, &value, &model.config)?;
    let mut files = AdapterFiles::open(folder)?;
    match &config {
        AdapterConfig::Lora(config) => lora::attach(model, config, &mut files)?,
        AdapterConfig::Ia3(config) => ia3::attach(model, config, &mut files)?,
        AdapterConfig::PromptTuning(config) => virtual_tokens::attach_prompt(model, config, &mut files)?,
        AdapterConfig::PrefixTuning(config) => virtual_tokens::attach_prefix(model, config, &mut files)?,
    }
    files.read_saved(model)?;
    if value["task_type"] == SEQUENCE_CLASSIFICATION {
        files.read_score(model)?;
    }
    files.check_whole()?;
    Ok(config)
}

/// Gives the adapter that `model` has, and what is trained with it, the weights of a folder that was saved of it.
///
/// # Errors
/// Tensors that are missing or of another shape.
pub(crate) fn read_into(model: &mut CausalLm, folder: &Path) -> Result<()> {
    let mut files = AdapterFiles::open(folder)?;
    lora::read_into(model, &mut files)?;
    ia3::read_into(model, &mut files)?;
    virtual_tokens::read_into(model, &mut files)?;
    files.read_saved(model)?;
    if model.score.as_ref().is_some_and(|it| it.role == ScoreRole::Reward) {
        files.read_score(model)?;
    }
    Ok(())
}

/// The configuration of the adapter in `folder`, which is for models of `shape`; its weights are not looked at.
///
/// # Errors
/// Options that are not understood here, by name.
pub fn read_adapter_config(folder: &Path, shape: &DecoderConfig) -> Result<AdapterConfig> {
    adapter_config(folder, &read_config(folder)?, shape)
}

fn adapter_config(folder: &Path, value: &Value, shape: &DecoderConfig) -> Result<AdapterConfig> {
    let invalid =
        |problems| EngineError::Invalid { what: format!("`{}`", folder.join(CONFIG).display()), problems };
    match value["peft_type"].as_str() {
        Some("IA3") => ia3::understood(value).map(AdapterConfig::Ia3).map_err(invalid),
        Some("PROMPT_TUNING") => {
            virtual_tokens::prompt_understood(value, shape).map(AdapterConfig::PromptTuning).map_err(invalid)
        }
        Some("PREFIX_TUNING") => {
            virtual_tokens::prefix_understood(value, shape).map(AdapterConfig::PrefixTuning).map_err(invalid)
        }
        Some("LORA") => lora_config(folder, value, Some(shape)).map(AdapterConfig::Lora),
        _ => {
            let found = &value["peft_type"];
            Err(invalid(vec![format!(
                "`peft_type` {found} is not known here (known: LORA, IA3, PROMPT_TUNING, PREFIX_TUNING)"
            )]))
        }
    }
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

/// A number as Python's `json` writes it where it is whole.
pub(super) fn whole(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

/// Notes options of `value` that change what is computed where they are anything but "off", which would be silently wrong.
fn refuse_options(value: &Value, keys: &[&str], problems: &mut Vec<String>) {
    for key in keys {
        let option = &value[*key];
        let off = option.is_null()
            || *option == false
            || option.as_object().is_some_and(|it| it.is_empty())
            || option.as_array().is_some_and(Vec::is_empty);
        if !off {
            problems.push(format!("`{key}` = {option} is not supported here"));
        }
    }
}

/// `modules_to_save`, but for the head of a model that classifies, which is always saved.
fn modules_to_save(value: &Value, problems: &mut Vec<String>) -> Vec<String> {
    let given = &value["modules_to_save"];
    if given.is_null() {
        return Vec::new();
    }
    let mut modules: Vec<String> = serde_json::from_value(given.clone()).unwrap_or_else(|_| {
        problems.push("`modules_to_save` must be a list of names".to_string());
        Vec::new()
    });
    if value["task_type"] == SEQUENCE_CLASSIFICATION {
        modules.retain(|it| it != "score" && it != "classifier");
    }
    modules
}
