//! PEFT's folders of prompt and prefix tuning: one tensor, with a row a virtual token.
//!
//! A row of prefix tuning holds keys and values of every block, `[layers, 2, kv_heads, head_dim]`; what a projection made of
//! it in training is saved in its place.

use burn::tensor::Tensor;
use serde_json::{Value, json};

use super::files::{AdapterFiles, Tensors};
use super::refuse_options;
use crate::adapters::virtual_tokens::{
    PrefixTuningConfig, PromptTuningConfig, PromptTuningInit, check_place, place_prefixes, place_prompt,
    prefix_width,
};
use crate::error::Result;
use crate::models::virtual_tokens::PROMPT;
use crate::models::{CausalLm, DecoderConfig, Parameter, Prefix};

/// Tensor and configuration of the embeddings before every sequence.
pub(super) fn prompt_written(model: &mut CausalLm, config: &PromptTuningConfig) -> (Tensors, Value) {
    let tensors = model.prompt.as_deref_mut().map(|it| {
        let (shape, values) = Parameter::Matrix(it).to_f32();
        (PROMPT.to_string(), shape, values)
    });
    let tensors = tensors.into_iter().collect();
    let mut written = common(model, "PROMPT_TUNING", config.num_virtual_tokens);
    written["num_attention_heads"] = json!(model.config.num_attention_heads);
    written["token_dim"] = json!(model.config.hidden_size);
    // What it began as says nothing about what it is, and a text would have PEFT look for a tokenizer.
    written["prompt_tuning_init"] = json!("RANDOM");
    written["prompt_tuning_init_text"] = Value::Null;
    written["tokenizer_name_or_path"] = Value::Null;
    (tensors, written)
}

/// Tensor and configuration of the keys and values before those of every sequence.
pub(super) fn prefix_written(model: &mut CausalLm, config: &PrefixTuningConfig) -> (Tensors, Value) {
    let encoded = model.encoded_prefix();
    let prefixes = model.blocks.iter().filter_map(|it| it.prefix.as_deref());
    let prefixes: Vec<Tensor<2>> = prefixes.map(|it| it.rows(encoded.as_ref())).collect();
    let (shape, values) = Parameter::Matrix(&mut Tensor::cat(prefixes, 1)).to_f32();
    let tensors = vec![(PROMPT.to_string(), shape, values)];
    let mut written = common(model, "PREFIX_TUNING", config.num_virtual_tokens);
    written["num_attention_heads"] = json!(model.config.num_key_value_heads);
    written["token_dim"] = json!(prefix_width(&model.config) / 2);
    written["encoder_hidden_size"] = json!(prefix_width(&model.config) / 2);
    written["prefix_projection"] = json!(false);
    (tensors, written)
}

fn common(model: &CausalLm, peft_type: &str, num_virtual_tokens: usize) -> Value {
    json!({
        "peft_type": peft_type,
        "num_virtual_tokens": num_virtual_tokens,
        "num_layers": model.config.num_hidden_layers(),
        "num_transformer_submodules": 1,
    })
}

/// The configuration of an `adapter_config.json`.
///
/// # Errors
/// Numbers that are missing or not the model's, by name.
pub(super) fn prompt_understood(
    value: &Value,
    shape: &DecoderConfig,
) -> std::result::Result<PromptTuningConfig, Vec<String>> {
    let sizes = [("token_dim", shape.hidden_size), ("num_layers", shape.num_hidden_layers())];
    let num_virtual_tokens = number(value, &sizes)?;
    Ok(PromptTuningConfig { num_virtual_tokens, init: PromptTuningInit::Random, text: None })
}

/// As [`prompt_understood`].
pub(super) fn prefix_understood(
    value: &Value,
    shape: &DecoderConfig,
) -> std::result::Result<PrefixTuningConfig, Vec<String>> {
    let sizes = [
        ("token_dim", prefix_width(shape) / 2),
        ("num_attention_heads", shape.num_key_value_heads),
        ("num_layers", shape.num_hidden_layers()),
    ];
    let num_virtual_tokens = number(value, &sizes)?;
    Ok(PrefixTuningConfig { num_virtual_tokens, ..Default::default() })
}

/// `num_virtual_tokens`, where all other numbers are those of the model.
fn number(value: &Value, sizes: &[(&str, usize)]) -> std::result::Result<usize, Vec<String>> {
    let mut problems = Vec::new();
    refuse_options(value, &["modules_to_save"], &mut problems);
    let whole = |key: &str| value[key].as_u64().map(|it| it as usize);
    for (key, expected) in sizes.iter().copied().chain([("num_transformer_submodules", 1)]) {
        if whole(key).is_some_and(|it| it != expected) {
            problems.push(format!("`{key}` = {} is not the model's, {expected}", value[key]));
        }
    }
    let count = whole("num_virtual_tokens").filter(|it| *it > 0);
    if count.is_none() {
        problems.push("`num_virtual_tokens` must be a whole number > 0".to_string());
    }
    count.filter(|_| problems.is_empty()).ok_or(problems)
}

/// Puts the embeddings of `files` before every sequence of `model`.
///
/// # Errors
/// A tensor that is missing or of another shape.
pub(super) fn attach_prompt(
    model: &mut CausalLm,
    config: &PromptTuningConfig,
    files: &mut AdapterFiles,
) -> Result<()> {
    check_place("prompt_tuning", &model.config, config.problems(), config.num_virtual_tokens)?;
    let shape = [config.num_virtual_tokens, model.config.hidden_size];
    place_prompt(model, Tensor::from_data(files.read(PROMPT, shape)?, &model.device()));
    Ok(())
}

/// Puts the keys and values of `files` before those of every sequence of `model`.
///
/// # Errors
/// As [`attach_prompt`].
pub(super) fn attach_prefix(
    model: &mut CausalLm,
    config: &PrefixTuningConfig,
    files: &mut AdapterFiles,
) -> Result<()> {
    check_place("prefix_tuning", &model.config, config.problems(), config.num_virtual_tokens)?;
    let (layers, width) = (model.blocks.len(), prefix_width(&model.config));
    let all = files.read(PROMPT, [config.num_virtual_tokens, layers * width])?;
    let all = Tensor::<2>::from_data(all, &model.device());
    // Copies: each is updated in place.
    let of_layer = |it: usize| Prefix::Plain(all.clone().narrow(1, it * width, width).mul_scalar(1.0));
    place_prefixes(model, (0..layers).map(of_layer).collect(), None);
    Ok(())
}

/// Gives the virtual tokens that `model` has, if any, the values of `files`; what makes them has no place there.
///
/// # Errors
/// As [`attach_prompt`].
pub(super) fn read_into(model: &mut CausalLm, files: &mut AdapterFiles) -> Result<()> {
    let num_virtual_tokens = model.virtual_tokens();
    if num_virtual_tokens == 0 || model.prefix_encoder.is_some() {
        return Ok(());
    }
    if model.prompt.is_some() {
        attach_prompt(model, &PromptTuningConfig { num_virtual_tokens, ..Default::default() }, files)
    } else {
        attach_prefix(model, &PrefixTuningConfig { num_virtual_tokens, ..Default::default() }, files)
    }
}
