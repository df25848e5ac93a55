//! The tiny random Llama of `tests/golden/train` and its batches.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Tensor;
use fthost_data::{Batch, Origin, Sequence};
use fthost_engine::Device;
use fthost_engine::adapters::{AdapterConfig, LoraConfig, attach_lora, peft::load_adapter};
use fthost_engine::checkpoint::load_model;
use fthost_engine::checkpoint::safetensors::TensorFiles;
use fthost_engine::models::{CausalLm, Parameter};
use fthost_engine::optim::{AdamW, AdamWConfig, MomentStorage};
use fthost_engine::train::{ActivationCheckpointing, Gradients, StepConfig, TrainState};
use serde_json::Value;

pub fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path)
}

pub fn golden_json(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden(path)).unwrap()).unwrap()
}

pub fn model() -> CausalLm {
    model_on(&Device::flex())
}

fn model_on(device: &Device) -> CausalLm {
    load_model(&golden("train/model"), device).unwrap()
}

/// Everything trained.
pub fn full() -> TrainState {
    full_on(&Device::flex())
}

/// [`full`] on another device.
pub fn full_on(device: &Device) -> TrainState {
    TrainState::new(model_on(device), None)
}

/// [`full`] with the moments of all but the norms in blocks of 8 bits.
pub fn in_blocks() -> TrainState {
    let mut state = full();
    state.optimizer = AdamW::new(MomentStorage::Blocks { min_8bit_size: 256 });
    state
}

/// [`full`] with the moments in mapped files.
pub fn paged() -> TrainState {
    let mut state = full();
    state.optimizer = AdamW::new(MomentStorage::Paged(std::env::temp_dir()));
    state
}

/// The golden's adapter: neither A nor B is zero.
pub fn lora() -> TrainState {
    lora_on(&Device::flex())
}

/// [`lora`] on another device.
pub fn lora_on(device: &Device) -> TrainState {
    let mut model = model_on(device);
    let config = load_adapter(&mut model, &golden("train/adapter")).unwrap();
    TrainState::new(model, Some(config))
}

/// The golden's adapter with dropout.
pub fn dropped_lora(dropout: f64, seed: u64) -> TrainState {
    let mut state = lora();
    let Some(AdapterConfig::Lora(lora)) = &mut state.adapter else { unreachable!("made as one") };
    lora.dropout = dropout;
    state.seed = seed;
    state
}

/// A fresh adapter.
pub fn fresh_lora(seed: u64) -> TrainState {
    let (mut model, config) = (model(), LoraConfig { rank: 4, ..LoraConfig::default() });
    attach_lora(&mut model, &config, seed).unwrap();
    TrainState::new(model, Some(config.into()))
}

/// `[step][micro-batch]` rows of the golden.
pub fn steps() -> Vec<Vec<Vec<Sequence>>> {
    let golden = golden_json("train/train.json");
    let mut line = 0;
    let mut row = |it: &Value| {
        line += 1;
        let numbers = |key: &str| it[key].as_array().unwrap().iter().map(|it| it.as_i64().unwrap());
        Sequence {
            input_ids: numbers("input_ids").map(|it| it as u32).collect(),
            labels: numbers("labels").collect(),
            cut: 0,
            judgement: 0.0,
            origin: Arc::new(Origin { source: "golden.jsonl".into(), line }),
        }
    };
    let each = |it: &Value| it.as_array().unwrap().clone();
    let golden_steps = each(&golden["steps"]);
    golden_steps
        .iter()
        .map(|step| each(step).iter().map(|micro| each(micro).iter().map(&mut row).collect()).collect())
        .collect()
}

/// Micro-batches of one golden step.
pub fn batches(step: usize) -> Vec<Batch> {
    steps()[step].iter().map(Batch::new).collect()
}

pub fn config(learning_rate: f64) -> StepConfig {
    StepConfig {
        adamw: AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() },
        learning_rate,
        max_grad_norm: Some(0.5),
        activation_checkpointing: ActivationCheckpointing::Off,
        gradient_release: false,
    }
}

/// The summed loss of `batches`, and the gradients of what is trained in the order of its visitor.
pub fn gradients(
    state: &TrainState,
    batches: &[Batch],
    mode: ActivationCheckpointing,
) -> (f64, Vec<Vec<f32>>) {
    let mut gradients = Gradients::default();
    batches.iter().for_each(|it| gradients.add(&state.model, it, mode));
    let values = gradients.sums.values().into_iter().map(|it| it.try_into_vec_as::<f32>().unwrap()).collect();
    (gradients.loss_sum, values)
}

/// Every trained weight with its name.
pub fn trained(state: &TrainState) -> Vec<(String, Vec<f32>)> {
    let (mut state, mut weights) = (state.clone(), Vec::new());
    state.visit_trained(&mut |name, parameter| weights.push((name.to_string(), parameter.to_f32().1)));
    weights
}

/// A figure of a step against torch's, a relative 2e-5.
pub fn assert_figure(name: &str, got: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    let error = (got - expected).abs() / expected.abs().max(1.0);
    assert!(error < 2e-5, "{name} is {got}, torch has {expected}");
}

/// The trained weights against those of a golden's `file`, whose names begin with `prefix`.
///
/// Adam divides by the root of the second moment: where a gradient is near 0 its f32 rounding is magnified, so
/// weights are held to 1 percent of the largest possible change, `moved`, at worst, and to a hundredth of that on average.
pub fn assert_weights(state: &TrainState, file: &str, prefix: &str, moved: f64) {
    let path = golden(file);
    let files = TensorFiles::open(path.parent().unwrap(), vec![path.clone()]).unwrap();
    let (mut worst, mut total, mut count) = (0.0_f64, 0.0, 0);
    state.clone().visit_trained(&mut |name, parameter| {
        let (stored, (shape, values)) = (format!("{prefix}{name}"), parameter.to_f32());
        let expected = match *shape {
            [length] => files.read(&stored, [length]),
            [rows, columns] => files.read(&stored, [rows, columns]),
            _ => unreachable!(),
        };
        let expected = expected.unwrap().try_into_vec::<f32>().unwrap();
        assert_eq!(values.len(), expected.len(), "{name}");
        for (got, expected) in values.iter().zip(expected) {
            let difference = f64::from((got - expected).abs());
            (worst, total, count) = (worst.max(difference), total + difference, count + 1);
        }
    });
    let mean = total / f64::from(count);
    assert!(worst < 1e-2 * moved && mean < 1e-4 * moved, "{file}: worst {worst}, mean {mean}, moved {moved}");
}

/// Overwrites the trained weights whose name ends so.
pub fn poison(state: &mut TrainState, suffix: &str, value: f32) {
    state.model.visit_trained(&mut |name, parameter| match parameter {
        Parameter::Matrix(it) if name.ends_with(suffix) => *it = Tensor::full_like(it, value),
        _ => {}
    });
}

/// Largest absolute difference of all weights.
pub fn largest_difference(a: &[(String, Vec<f32>)], b: &[(String, Vec<f32>)]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).flat_map(|((left, a), (right, b))| {
        assert_eq!((left, a.len()), (right, b.len()));
        a.iter().zip(b)
    });
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
