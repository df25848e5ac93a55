//! PEFT's folders of (IA)^3.

use burn::tensor::Tensor;
use serde_json::{Value, json};

use super::files::{AdapterFiles, Tensors, push};
use super::{PREFIX, modules_to_save, refuse_options};
use crate::adapters::ia3::{Ia3Config, attach_with};
use crate::adapters::target::TargetModules;
use crate::error::Result;
use crate::models::CausalLm;
use crate::models::block::IA3;
use crate::nn::Ia3;

/// Tensors and configuration of the vectors on `model`.
pub(super) fn written(model: &mut CausalLm, config: &Ia3Config) -> (Tensors, Value) {
    let config = config.of_model(&model.config);
    let mut tensors = Vec::new();
    for layer in 0..model.blocks.len() {
        let path = model.block_path(layer);
        model.blocks[layer].visit_adapter(&path, &mut push(&mut tensors));
    }
    let written = json!({
        "peft_type": "IA3",
        "target_modules": config.target_modules,
        "feedforward_modules": config.feedforward_modules,
        "fan_in_fan_out": model.config.names.transposed,
        "init_ia3_weights": true,
    });
    (tensors, written)
}

/// The configuration of an `adapter_config.json`.
///
/// # Errors
/// Options that are not understood here, by name.
pub(super) fn understood(value: &Value) -> std::result::Result<Ia3Config, Vec<String>> {
    let mut problems = Vec::new();
    refuse_options(value, &["exclude_modules"], &mut problems);
    let mut modules = |key: &str| -> TargetModules {
        let given = serde_json::from_value(value[key].clone());
        given.unwrap_or_else(|_| {
            problems.push(format!("`{key}` must be a string or a list of names"));
            TargetModules::Names(Vec::new())
        })
    };
    let target_modules = Some(modules("target_modules"));
    let before = match value["feedforward_modules"].is_null() {
        true => TargetModules::Names(Vec::new()),
        false => modules("feedforward_modules"),
    };
    let modules_to_save = modules_to_save(value, &mut problems);
    let config = Ia3Config { target_modules, feedforward_modules: Some(before), modules_to_save };
    problems.extend(config.problems());
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// Puts the vectors of `files` on `model`.
///
/// # Errors
/// Tensors that are missing or of another shape.
pub(super) fn attach(model: &mut CausalLm, config: &Ia3Config, files: &mut AdapterFiles) -> Result<()> {
    let device = model.device();
    attach_with(model, config, &mut |path, widths, is_feedforward| {
        let shape = Ia3::shape(widths, is_feedforward);
        let scale = Tensor::from_data(files.read(&format!("{PREFIX}{path}.{IA3}"), shape)?, &device);
        Ok(Ia3 { scale, is_feedforward })
    })
}

/// Gives the vectors that `model` has the values of `files`.
///
/// # Errors
/// As [`attach`].
pub(super) fn read_into(model: &mut CausalLm, files: &mut AdapterFiles) -> Result<()> {
    let (blocks, device) = (model.config.names.blocks, model.device());
    for (layer, block) in model.blocks.iter_mut().enumerate() {
        for (name, linear) in block.linears_mut() {
            let Some(ia3) = &mut linear.ia3 else { continue };
            let name = format!("{PREFIX}{blocks}.{layer}.{name}.{IA3}");
            ia3.scale = Tensor::from_data(files.read(&name, ia3.scale.dims())?, &device);
        }
    }
    Ok(())
}
