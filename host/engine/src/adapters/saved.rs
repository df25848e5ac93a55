//! Modules of the base that are trained whole beside an adapter and saved with it: PEFT's `modules_to_save`.

use burn::tensor::{Tensor, TensorData};

use super::config::check;
use super::experts::Place;
use crate::error::Result;
use crate::models::decoder::Names;
use crate::models::trained::is_of;
use crate::models::{CausalLm, Parameter, Trained};

/// Has `model`, whose adapter of kind `kind` is attached, train it and the modules of the base whose paths end so; each gets
/// weights of its own, in f32.
///
/// Of an embedding that serves as the head, and of such a head, one alone is trained, or each by itself, unless
/// `ensure_weight_tying`: as in PEFT the two are then told apart.
///
/// # Errors
/// Names that no module has, packed weights, and linears that have an adapter.
pub(super) fn train_beside(
    model: &mut CausalLm,
    kind: &str,
    modules: &[String],
    ensure_weight_tying: bool,
) -> Result<()> {
    let names = model.config.names;
    let modules = tied_or_not(model, modules.to_vec(), ensure_weight_tying);
    let (mut problems, shape) = (Vec::new(), model.config.clone());
    let mut unmatched: Vec<&String> = modules.iter().collect();
    let device = model.device();
    let mut own = |name: &str, parameter: Parameter<'_>| {
        unmatched.retain(|it| !is_of(name, it));
        if !selects(&modules, name) {
            return;
        }
        if Place::of(&shape, name.trim_end_matches(".weight"), 1).is_some() {
            problems
                .push(format!("`modules_to_save`: `{name}` is of a mixture of experts, which is not known"));
            return;
        }
        match parameter {
            Parameter::Packed(_) => {
                problems.push(format!("`modules_to_save`: `{name}` is packed, and what is packed is frozen"));
            }
            Parameter::Vector(tensor) => *tensor = Tensor::from_data(data(tensor), &device),
            Parameter::Matrix(tensor) => *tensor = Tensor::from_data(data(tensor), &device),
        }
    };
    let is_tied = model.config.tie_word_embeddings && ensure_weight_tying;
    model.visit_base(&mut own);
    // The head of a reward model is trained whether it is named or not; of a tied pair one name is none of a weight.
    let known = |it: &str| it == "score" || is_tied && is_of(names.head, it);
    problems.extend(
        unmatched
            .iter()
            .filter(|it| !known(it))
            .map(|it| format!("`modules_to_save`: no module's path ends in `{it}`")),
    );
    let blocks = names.blocks;
    for (layer, block) in model.blocks.iter().enumerate() {
        let adapted = block.linears().filter(|it| it.1.lora.is_some() || it.1.ia3.is_some());
        let paths = adapted.map(|it| format!("{blocks}.{layer}.{}", it.0));
        let both = paths.filter(|it| selects(&modules, &format!("{it}.weight")));
        problems.extend(both.map(|it| format!("`modules_to_save` and `target_modules` both name `{it}`")));
    }
    check(kind, problems)?;
    model.trained = Trained::Adapter(modules.into());
    Ok(())
}

fn selects(modules: &[String], name: &str) -> bool {
    modules.iter().any(|it| is_of(name, it))
}

/// Tells head and embedding apart where one is named and they are not to stay one; where they are, the embedding is named.
fn tied_or_not(model: &mut CausalLm, modules: Vec<String>, ensure_weight_tying: bool) -> Vec<String> {
    if model.lm_head.is_some() {
        return modules;
    }
    let (modules, is_told_apart) = of_tied(model.config.names, modules, ensure_weight_tying);
    if is_told_apart {
        model.lm_head = Some(model.embed_tokens.clone());
        model.config.tie_word_embeddings = false;
    }
    modules
}

/// What `modules` come to where head and embedding are one, and whether the two are told apart for them.
pub(crate) fn of_tied(
    names: &Names,
    mut modules: Vec<String>,
    ensure_weight_tying: bool,
) -> (Vec<String>, bool) {
    let is_named = [names.embedding, names.head].iter().any(|it| selects(&modules, it));
    if is_named && ensure_weight_tying {
        // The head's name may be all that was given.
        modules.push(names.embedding.trim_end_matches(".weight").to_string());
    }
    (modules, is_named && !ensure_weight_tying)
}

/// The values of a tensor, nobody else's.
fn data<const D: usize>(tensor: &Tensor<D>) -> TensorData {
    let values = tensor.clone().try_into_vec_as::<f32>().expect("a float tensor is read as f32");
    TensorData::new(values, tensor.dims())
}
