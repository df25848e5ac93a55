//! Against torch, transformers and PEFT.

use burn::tensor::{Tensor, TensorData};
use fthost_data::Batch;
use fthost_engine::Device;
use fthost_engine::optim::{AdamW, AdamWConfig, Schedule, ScheduleConfig, clip_scale};
use fthost_engine::train::{TrainState, step};
use serde_json::Value;

use super::support::{assert_figure, assert_weights, config, full, golden_json, lora, steps};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect()
}

/// Oracle: transformers' `get_scheduler`, `tests/golden/generate/optim.py`; f64 on both sides, so 1e-12.
#[test]
fn schedules_match_transformers() {
    for schedule in golden_json("optim/optim.json")["schedules"].as_array().unwrap() {
        let name = schedule["name"].as_str().unwrap();
        let (kind, warmup_steps) = match name {
            "linear" => (Schedule::Linear, schedule["warmup_steps"].as_u64().unwrap()),
            "cosine" => (Schedule::Cosine, schedule["warmup_steps"].as_u64().unwrap()),
            "constant_with_warmup" => (Schedule::Constant, schedule["warmup_steps"].as_u64().unwrap()),
            // transformers' `constant` ignores the warm-up it is given.
            _ => (Schedule::Constant, 0),
        };
        let ours = ScheduleConfig { kind, warmup_steps, ..ScheduleConfig::default() };
        let total = schedule["total_steps"].as_u64().unwrap();
        for (step, expected) in numbers(&schedule["factors"]).into_iter().enumerate() {
            let got = ours.factor(step as u64, total);
            assert!((got - expected).abs() < 1e-12, "{name} at {step} of {total}: {got} is not {expected}");
        }
    }
}

/// Oracle: `torch.optim.AdamW` and `clip_grad_norm_` in float64, `tests/golden/generate/optim.py`.
/// Weights are of order 1 and move by 1e-2 a step in f32, so 2e-6 after ten steps.
#[test]
fn adamw_matches_torch() {
    let golden = &golden_json("optim/optim.json")["adamw"];
    let device = Device::flex();
    let matrix = |it: &Value| {
        let values: Vec<f32> = numbers(it).into_iter().map(|it| it as f32).collect();
        Tensor::<2>::from_data(TensorData::new(values, [3, 4]), &device)
    };
    let vector = |it: &Value| {
        let values: Vec<f32> = numbers(it).into_iter().map(|it| it as f32).collect();
        Tensor::<1>::from_data(TensorData::new(values, [5]), &device)
    };
    let config = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
    let mut optimizer = AdamW::default();
    let (mut first, mut second) = (matrix(&golden["matrix"]), vector(&golden["vector"]));
    for (index, step) in golden["steps"].as_array().unwrap().iter().enumerate() {
        let scale = clip_scale(step["grad_norm"].as_f64().unwrap(), 1.0);
        let rate = step["learning_rate"].as_f64().unwrap();
        let (matrix_grad, vector_grad) = (matrix(&step["matrix_grad"]), vector(&step["vector_grad"]));
        optimizer.begin();
        first = optimizer.update(&config, rate, scale, "matrix", first, matrix_grad);
        second = optimizer.update(&config, rate, scale, "vector", second, vector_grad);
        for (got, expected) in [
            (first.clone().flatten::<1>(0, 1), numbers(&step["matrix"])),
            (second.clone(), numbers(&step["vector"])),
        ] {
            let got = got.try_into_vec_as::<f32>().unwrap();
            for (got, expected) in got.into_iter().zip(expected) {
                assert!((f64::from(got) - expected).abs() < 2e-6, "step {index}: {got} is not {expected}");
            }
        }
    }
}

/// Trains as the golden did and compares loss, gradient norm, entropy and accuracy of every step.
fn follow(mut state: TrainState, curve: &Value) -> TrainState {
    for (index, (rows, expected)) in steps().iter().zip(curve.as_array().unwrap()).enumerate() {
        let batches: Vec<Batch> = rows.iter().map(Batch::new).collect();
        let rate = expected["learning_rate"].as_f64().unwrap();
        let metrics = step(&mut state, &batches, &config(rate)).unwrap();
        for (name, got) in [
            ("loss", metrics.loss),
            ("grad_norm", metrics.grad_norm),
            ("entropy", metrics.figure("entropy").unwrap()),
            ("mean_token_accuracy", metrics.figure("mean_token_accuracy").unwrap()),
            ("tokens", metrics.supervised_tokens as f64),
        ] {
            assert_figure(&format!("step {index}: `{name}`"), got, &expected[name]);
        }
    }
    state
}

/// The largest possible change of a weight: the sum of the learning rates.
fn moved(curve: &Value) -> f64 {
    curve.as_array().unwrap().iter().map(|it| it["learning_rate"].as_f64().unwrap()).sum()
}

/// Oracle: torch float64 with `torch.optim.AdamW`, `tests/golden/generate/train.py`; ours is f32 and the
/// losses are of order 4, so a relative 2e-5 over eight steps.
#[test]
fn full_fine_tuning_matches_torch() {
    let golden = golden_json("train/train.json");
    let state = follow(full(), &golden["full"]);
    assert_weights(&state, "train/full_final.safetensors", "", moved(&golden["full"]));
}

/// Oracle: PEFT on torch float64, `tests/golden/generate/train.py`; tolerance as for full fine-tuning.
#[test]
fn lora_matches_peft() {
    let golden = golden_json("train/train.json");
    let state = follow(lora(), &golden["lora"]);
    assert_weights(&state, "train/adapter_final.safetensors", "base_model.model.", moved(&golden["lora"]));
}
