//! Whole steps of proximal policy optimisation, with each kind of value model.

use burn::tensor::{Tensor, TensorData};
use fthost_engine::Device;
use fthost_engine::checkpoint::training::{Progress, resume, save};
use fthost_engine::models::ScoreHead;
use fthost_engine::objectives::PpoConfig;
use fthost_engine::objectives::ppo::ValueModel;
use fthost_engine::train::{PpoBatch, StepMetrics, TrainState, attach_value_model, ppo_step, state_values};
use serde_json::Value;

use super::support::{
    assert_figure, assert_weights, batches, config, fresh_lora, full, golden_json, lora, trained,
};

const KINDS: [(&str, ValueModel); 3] = [
    ("shared", ValueModel::Shared),
    ("shared_detached", ValueModel::SharedDetached),
    ("copy", ValueModel::Copy),
];

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|it| it.as_f64().unwrap() as f32).collect()
}

/// The micro-batches of a golden step.
fn rolled(golden: &Value, step: usize) -> Vec<PpoBatch> {
    let found = golden["rollouts"][step].as_array().unwrap();
    let of = |batch, it: &Value| {
        let [old, advantages, values, returns] =
            ["old", "advantages", "values", "returns"].map(|key| numbers(&it[key]));
        PpoBatch { batch, old, advantages, values, returns }
    };
    batches(step).into_iter().zip(found).map(|(batch, it)| of(batch, it)).collect()
}

/// With a head that is not zero.
fn begin(golden: &Value, value_model: ValueModel, mut state: TrainState) -> TrainState {
    attach_value_model(&mut state, value_model);
    let head = match value_model {
        ValueModel::Copy => state.value_model.as_mut().unwrap().score.as_mut(),
        _ => state.model.score.as_mut(),
    };
    let (weight, bias) = (numbers(&golden["head"]["weight"]), numbers(&golden["head"]["bias"]));
    let ScoreHead { weight: w, bias: b, .. } = head.unwrap();
    *w = Tensor::from_data(TensorData::new(weight, [1, 32]), &Device::flex());
    *b = Some(Tensor::from_data(TensorData::new(bias, [1]), &Device::flex()));
    state
}

fn learn(state: &mut TrainState, golden: &Value, value_model: ValueModel, step: usize) -> StepMetrics {
    let mut objective: PpoConfig = serde_json::from_value(golden["objective"].clone()).unwrap();
    objective.value_model = value_model;
    let temperature = golden["temperature"].as_f64().unwrap();
    ppo_step(state, &rolled(golden, step), &objective, temperature, step == 0, &config(1e-2)).unwrap()
}

/// Oracle: torch and PEFT in float64, `tests/golden/generate/ppo_step.py`. As for supervised fine-tuning, a relative 2e-5
/// of losses and norms, and of weights a hundredth of the greatest change at worst.
#[test]
fn steps_match_torch() {
    let golden_file = golden_json("ppo/ppo.json");
    for (name, value_model) in KINDS {
        let mut state = begin(&golden_file, value_model, lora());
        for (step, expected) in golden_file["curves"][name].as_array().unwrap().iter().enumerate() {
            let metrics = learn(&mut state, &golden_file, value_model, step);
            let own = [("loss", metrics.loss), ("grad_norm", metrics.grad_norm)];
            let own = own.map(|(name, value)| (name.to_string(), value));
            for (key, expected) in expected.as_object().unwrap() {
                let got = own.iter().chain(&metrics.figures).find(|it| it.0 == *key).unwrap().1;
                assert_figure(&format!("{name}, step {step}: `{key}`"), got, expected);
            }
        }
        assert_weights(&state, &format!("ppo/{name}.safetensors"), "", 4.0 * 1e-2);
    }
}

/// Nothing is expected of any state before anything was learned, and afterwards something is.
#[test]
fn values_start_at_zero() {
    let golden = golden_json("ppo/ppo.json");
    for (name, value_model) in KINDS {
        for mut state in [fresh_lora(5), full()] {
            attach_value_model(&mut state, value_model);
            let batch = &batches(0)[0];
            let values = state_values(&state, batch);
            assert_eq!(values, vec![0.0; batch.targets().positions.len()], "{name}");
            learn(&mut state, &golden, value_model, 0);
            assert!(state_values(&state, batch).iter().all(|it| *it != 0.0), "{name}");
        }
    }
}

/// Where its gradient does not reach, values learn nothing; and a detached head leaves the policy as it would be without.
#[test]
fn a_detached_head_changes_nothing_in_the_trunk() {
    let golden = golden_json("ppo/ppo.json");
    let objective = PpoConfig { value_model: ValueModel::SharedDetached, ..PpoConfig::default() };
    let after = |vf_coef| {
        let mut state = begin(&golden, ValueModel::SharedDetached, lora());
        let objective = PpoConfig { vf_coef, ..objective.clone() };
        let unclipped = fthost_engine::train::StepConfig { max_grad_norm: None, ..config(1e-2) };
        ppo_step(&mut state, &rolled(&golden, 0), &objective, 1.0, false, &unclipped).unwrap();
        trained(&state)
    };
    for ((name, with), (_, without)) in after(1.0).into_iter().zip(after(0.0)) {
        let is_head = name.starts_with("score.");
        assert_eq!(with == without, !is_head, "{name}");
    }
}

/// An update is a multiple of the learning rate: with five times the rate values move five times as far, and nothing else does.
#[test]
fn values_learn_at_a_rate_of_their_own() {
    let golden = golden_json("ppo/ppo.json");
    for (name, value_model) in KINDS {
        let begun = trained(&begin(&golden, value_model, lora()));
        let moved = |ratio| {
            let mut state = begin(&golden, value_model, lora());
            state.value_lr_ratio = ratio;
            learn(&mut state, &golden, value_model, 0);
            let change = |((name, after), (_, before)): ((String, Vec<f32>), &(_, Vec<f32>))| {
                (name, after.iter().zip(before).map(|it| it.0 - it.1).collect::<Vec<f32>>())
            };
            trained(&state).into_iter().zip(&begun).map(change).collect::<Vec<_>>()
        };
        let (mut of_values, plain, faster) = (0, moved(1.0), moved(5.0));
        for ((weight, by), (_, further)) in plain.iter().zip(&faster) {
            let is_of_values = weight.starts_with("value_model.") || weight.starts_with("score.");
            of_values += usize::from(is_of_values);
            let factor = if is_of_values { 5.0 } else { 1.0 };
            let worst = by.iter().zip(further).map(|(by, further)| (factor * by - further).abs());
            assert!(worst.fold(0.0, f32::max) < 1e-6, "{name}: {weight}");
        }
        assert!(of_values >= 2 && of_values < plain.len(), "{name}");
    }
}

/// Bit for bit, adapter and whole model, with the values' weights and moments.
#[test]
fn resume_equals_uninterrupted_with_values() {
    let golden = golden_json("ppo/ppo.json");
    let progress: Progress = serde_json::from_value(serde_json::json!({
        "seed": 1, "data": {"epoch": 0, "rows": 0}, "num_tokens": 0, "best": null, "evaluations_without_improvement": 0,
        "evaluated": null, "penalty": {"coef": "0.1"}, "base_digest": "base", "config_digest": "config",
    }))
    .unwrap();
    for (name, value_model) in KINDS {
        for make in [lora as fn() -> TrainState, full] {
            let mut whole = begin(&golden, value_model, make());
            let mut first = whole.clone();
            (0..4).for_each(|step| drop(learn(&mut whole, &golden, value_model, step)));
            (0..2).for_each(|step| drop(learn(&mut first, &golden, value_model, step)));
            let folder = tempfile::tempdir().unwrap();
            let path = save(folder.path(), &mut first, &progress, "base").unwrap();
            let mut second = make();
            attach_value_model(&mut second, value_model);
            assert_eq!(resume(&path, &mut second, &progress).unwrap(), progress);
            (2..4).for_each(|step| drop(learn(&mut second, &golden, value_model, step)));
            assert_eq!(trained(&second), trained(&whole), "{name}");
        }
    }
}
