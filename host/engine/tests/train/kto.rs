//! Whole steps of Kahneman-Tversky optimisation.

use fthost_data::{BAD, Batch, GOOD, Layout, Sequence, mismatched};
use fthost_engine::objectives::{KtoConfig, KtoLossType};
use fthost_engine::parallel::Ranks;
use fthost_engine::train::{
    KtoReference, StepMetrics, TrainState, evaluate_kto, kto_divergence, kto_step, reference_logps,
};
use serde_json::Value;

use super::support::{
    assert_figure, assert_weights, config, fresh_lora, full, golden_json, largest_difference, lora, model,
    steps, trained,
};

/// The judged rows of a golden step.
fn rows(golden: &Value, step: usize) -> Vec<Sequence> {
    let labels = golden["labels"][step].as_array().unwrap();
    let judged = |(row, label): (Sequence, &Value)| {
        let judgement = if label.as_bool().unwrap() { GOOD } else { BAD };
        Sequence { judgement, ..row }
    };
    steps()[step].concat().into_iter().zip(labels).map(judged).collect()
}

/// The `rows`, so many a micro-batch, held against the golden's model without an adapter.
fn learn(
    state: &mut TrainState,
    rows: &[Sequence],
    layout: Layout,
    max_length: usize,
    objective: &KtoConfig,
) -> StepMetrics {
    let reference = model();
    let logps = |batches: &[Batch]| -> Vec<Vec<f32>> {
        batches.iter().map(|it| reference_logps(&reference, it)).collect()
    };
    let of_policy =
        |batches: &[Batch]| batches.iter().map(|it| reference_logps(&state.model, it)).collect::<Vec<_>>();
    let (batches, others) = (layout.micro_batches(rows), layout.micro_batches(&mismatched(rows, max_length)));
    let kl =
        objective.needs_divergence().then(|| kto_divergence(&others, &of_policy(&others), &logps(&others)));
    let held = KtoReference { logps: &logps(&batches), kl };
    kto_step(state, &batches, held, objective, &config(1e-2)).unwrap()
}

fn objective(golden: &Value, loss_type: KtoLossType) -> KtoConfig {
    KtoConfig { loss_type, ..serde_json::from_value(golden["objective"].clone()).unwrap() }
}

/// Oracle: torch and PEFT in float64, `tests/golden/generate/kto_step.py`. As for supervised fine-tuning, a relative 2e-5
/// of losses and norms, and of weights a hundredth of the greatest change at worst; `logps` are sums of up to 40 nats.
#[test]
fn steps_match_torch() {
    let golden_file = golden_json("kto/kto.json");
    let max_length = golden_file["max_length"].as_u64().unwrap() as usize;
    for (name, loss_type) in [("kto", KtoLossType::Kto), ("apo_zero_unpaired", KtoLossType::ApoZeroUnpaired)]
    {
        let (mut state, objective) = (lora(), objective(&golden_file, loss_type));
        for (step, expected) in golden_file["curves"][name].as_array().unwrap().iter().enumerate() {
            let rows = rows(&golden_file, step);
            let metrics = learn(&mut state, &rows, Layout::Rows(2), max_length, &objective);
            let own = [("loss", metrics.loss), ("grad_norm", metrics.grad_norm)];
            let own = own.map(|(name, value)| (name.to_string(), value));
            let expected = expected.as_object().unwrap();
            assert_eq!(metrics.figures.len() + own.len(), expected.len() + 1, "entropy is ours besides");
            for (key, expected) in expected {
                let got = own.iter().chain(&metrics.figures).find(|it| it.0 == *key).unwrap().1;
                assert_figure(&format!("{name}, step {step}: `{key}`"), got, expected);
            }
        }
        assert_weights(&state, &format!("kto/{name}.safetensors"), "base_model.model.", 4.0 * 1e-2);
    }
}

/// The divergence is that of the whole step, whose order of rows no layout changes.
#[test]
fn accumulation_equals_one_large_batch_of_judged_completions() {
    let golden = golden_json("kto/kto.json");
    let objective = objective(&golden, KtoLossType::Kto);
    let learned = |layout: Layout| {
        let mut state = lora();
        let kls: Vec<f64> = (0..4)
            .map(|step| learn(&mut state, &rows(&golden, step), layout, 12, &objective))
            .map(|it| it.figure("kl").unwrap())
            .collect();
        (kls, trained(&state))
    };
    let (kls, whole) = learned(Layout::Rows(4));
    assert!(kls[1..].iter().all(|it| *it > 0.0), "{kls:?}");
    for layout in [Layout::Rows(1), Layout::Rows(3), Layout::Packed(14), Layout::Packed(40)] {
        let (others, apart) = learned(layout);
        assert!(kls.iter().zip(&others).all(|it| (it.0 - it.1).abs() < 1e-5), "{kls:?} and {others:?}");
        // As for supervised fine-tuning: Adam magnifies the rounding of gradients near 0.
        assert!(largest_difference(&whole, &apart) < 4e-4, "{layout:?}");
    }
}

/// Policy and reference are one: a completion's loss is half its weight, and nothing is diverged.
#[test]
fn the_first_loss_is_half_the_mean_weight() {
    let golden = golden_json("kto/kto.json");
    let objective = objective(&golden, KtoLossType::Kto);
    for mut state in [fresh_lora(3), full()] {
        let rows = rows(&golden, 0);
        let metrics = learn(&mut state, &rows, Layout::Rows(2), 12, &objective);
        assert_eq!(metrics.figure("kl"), Some(0.0));
        assert!((metrics.loss - 0.5 * (2.0 * 1.0 + 2.0 * 1.3) / 4.0).abs() < 1e-6, "{}", metrics.loss);
        for _ in 0..12 {
            learn(&mut state, &rows, Layout::Rows(2), 12, &objective);
        }
        let (batches, reference) = (Layout::Rows(4).micro_batches(&rows), model());
        let logps = [reference_logps(&reference, &batches[0])];
        let held = KtoReference { logps: &logps, kl: Some(0.0) };
        let found =
            evaluate_kto(&state.model, &batches, held, &objective, &Ranks::default()).unwrap().unwrap();
        let figure = |name: &str| found.iter().find(|it| it.0 == name).unwrap().1;
        assert!(figure("loss") < metrics.loss - 0.1, "{found:?}");
        assert!(figure("rewards/chosen") > 0.0 && figure("rewards/rejected") < 0.0, "{found:?}");
        assert_eq!(evaluate_kto(&state.model, &[], held, &objective, &Ranks::default()).unwrap(), None);
    }
}
