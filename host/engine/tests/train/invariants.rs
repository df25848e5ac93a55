//! What must hold whatever the numbers are, beyond what `training` holds. Tolerances are f32 rounding of sums in another order.

use burn::tensor::{DType, Tensor};
use fthost_data::{Batch, Sequence};
use fthost_engine::Device;
use fthost_engine::adapters::dropout::with_dropout;
use fthost_engine::adapters::peft::load_adapter;
use fthost_engine::checkpoint::{LoadConfig, load_model_as};
use fthost_engine::models::Parameter;
use fthost_engine::nn::FloatDtype;
use fthost_engine::parallel::Ranks;
use fthost_engine::train::{ActivationCheckpointing, StepConfig, TrainState, evaluate, step};

use crate::support::golden;

use super::support::{
    batches, config, dropped_lora, fresh_lora, full, gradients, largest_difference, lora, steps, trained,
};

const ROUNDING: f32 = 1e-5;

fn assert_close(a: &(f64, Vec<Vec<f32>>), b: &(f64, Vec<Vec<f32>>)) {
    assert!((a.0 - b.0).abs() < 1e-4 * a.0.abs(), "summed loss {} and {}", a.0, b.0);
    assert_eq!(a.1.len(), b.1.len());
    for (a, b) in a.1.iter().zip(&b.1) {
        let largest = a.iter().fold(0.0_f32, |largest, it| largest.max(it.abs()));
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= ROUNDING * largest.max(1.0), "gradient {a} and {b}");
        }
    }
}

fn rows(step: usize) -> Vec<Sequence> {
    steps()[step].concat()
}

#[test]
fn accumulation_equals_one_large_batch() {
    for state in [full(), lora()] {
        let whole = gradients(&state, &[Batch::new(rows(2))], ActivationCheckpointing::Off);
        assert_close(&whole, &gradients(&state, &batches(2), ActivationCheckpointing::Off));
        let (mut once, mut accumulated) = (state.clone(), state);
        let one = step(&mut once, &[Batch::new(rows(2))], &config(1e-3)).unwrap();
        let two = step(&mut accumulated, &batches(2), &config(1e-3)).unwrap();
        assert!((one.loss - two.loss).abs() < 1e-5 && (one.grad_norm - two.grad_norm).abs() < 1e-5);
        assert_eq!((one.supervised_tokens, one.num_tokens), (two.supervised_tokens, two.num_tokens));
    }
}

#[test]
fn checkpointed_equals_not() {
    use ActivationCheckpointing::{Block, EveryN, FirstN, Off, Offload};
    for state in [full(), lora()] {
        let kept = gradients(&state, &batches(2), Off);
        for checkpointing in [Block, Offload, EveryN(1), EveryN(2), EveryN(100), FirstN(1), FirstN(100)] {
            assert_eq!(kept, gradients(&state, &batches(2), checkpointing), "{checkpointing:?}");
        }
    }
}

/// With dropout too: a block that is computed again meets the mask it had.
#[test]
fn checkpointed_equals_not_with_dropout() {
    let state = dropped_lora(0.3, 11);
    let dropped = TrainState { model: with_dropout(&state.model, 0.3, 11, 0, 0), ..state.clone() };
    let kept = gradients(&dropped, &batches(2), ActivationCheckpointing::Off);
    assert_close(&kept, &gradients(&dropped, &batches(2), ActivationCheckpointing::Block));
    let losses = |activation_checkpointing| {
        let (mut state, config) = (state.clone(), StepConfig { activation_checkpointing, ..config(1e-3) });
        [0, 1, 2].map(|it| step(&mut state, &batches(it), &config).unwrap().loss)
    };
    let (kept, rebuilt) = (losses(ActivationCheckpointing::Off), losses(ActivationCheckpointing::Block));
    assert!(kept.iter().zip(rebuilt).all(|(a, b)| (a - b).abs() < 1e-5), "{kept:?} and {rebuilt:?}");
}

/// Masks come from seed, step and micro-batch, and evaluation has none.
#[test]
fn dropout_is_seeded() {
    let loss = |rate, seed, at| {
        let mut state = dropped_lora(rate, seed);
        state.step = at;
        step(&mut state, &batches(2), &config(1e-3)).unwrap().loss.to_bits()
    };
    assert_eq!(loss(0.3, 1, 0), loss(0.3, 1, 0));
    assert_ne!(loss(0.3, 1, 0), loss(0.3, 2, 0), "another seed");
    assert_ne!(loss(0.3, 1, 0), loss(0.3, 1, 1), "another step");
    assert_ne!(loss(0.3, 1, 0), loss(0.0, 1, 0));
    let eval = |rate| evaluate(&dropped_lora(rate, 1).model, &batches(2), 0, &Ranks::default()).unwrap();
    assert_eq!(eval(0.3), eval(0.0));
}

#[test]
fn partial_last_window_is_normalised_by_its_tokens() {
    let batch = &batches(7)[..1];
    let tokens = batch[0].targets().positions.len();
    let mut state = full();
    let (sum, _) = gradients(&state, batch, ActivationCheckpointing::Off);
    let metrics = step(&mut state, batch, &config(1e-3)).unwrap();
    assert_eq!(metrics.supervised_tokens, tokens);
    assert!((metrics.loss - sum / tokens as f64).abs() < 1e-9);
}

#[test]
fn same_seed_same_bits() {
    let run = |seed| {
        let mut state = fresh_lora(seed);
        let losses: Vec<u64> =
            (0..4).map(|it| step(&mut state, &batches(it), &config(1e-2)).unwrap().loss.to_bits()).collect();
        (losses, trained(&state))
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).1, run(2).1);
}

#[test]
fn evaluation_is_the_mean_over_tokens_however_batched() {
    let state = lora();
    let rows = rows(2);
    let single: Vec<Batch> = rows.iter().map(|it| Batch::new([it])).collect();
    let packed = evaluate(&state.model, &[Batch::new(&rows)], 0, &Ranks::default()).unwrap().unwrap();
    let apart = evaluate(&state.model, &single, 0, &Ranks::default()).unwrap().unwrap();
    assert!((packed.eval_loss - apart.eval_loss).abs() < 1e-5);
    assert_eq!(packed.supervised_tokens, apart.supervised_tokens);
    let metrics = step(&mut state.clone(), &[Batch::new(&rows)], &config(1e-3)).unwrap();
    assert!((packed.eval_loss - metrics.loss).abs() < 1e-6, "the step reports the loss before its update");
    assert_eq!(evaluate(&state.model, &[], 0, &Ranks::default()).unwrap(), None);
}

/// bfloat16 keeps 8 bits: losses agree to about 1 percent, and what is trained stays f32.
#[test]
fn bf16_compute_follows_f32_with_f32_masters() {
    for (mut exact, mut rounded) in [(full(), full()), (lora(), lora())] {
        rounded.model.compute_dtype = FloatDtype::Bf16;
        for activation_checkpointing in [ActivationCheckpointing::Off, ActivationCheckpointing::Block] {
            let config = StepConfig { activation_checkpointing, ..config(1e-3) };
            let expected = step(&mut exact, &batches(2), &config).unwrap();
            let got = step(&mut rounded, &batches(2), &config).unwrap();
            assert!((got.loss / expected.loss - 1.0).abs() < 1e-2, "{} and {}", got.loss, expected.loss);
            assert!((got.grad_norm / expected.grad_norm - 1.0).abs() < 5e-2);
            assert_ne!(got.loss, expected.loss, "something was rounded");
        }
        let difference = largest_difference(&trained(&exact), &trained(&rounded));
        assert!(difference > 0.0 && difference < 5e-3, "{difference}");
        rounded.model.visit_trained(&mut |name, parameter| {
            let dtype = match parameter {
                Parameter::Vector(it) => it.dtype(),
                Parameter::Matrix(it) => it.dtype(),
                Parameter::Packed(_) => panic!("`{name}` is frozen"),
            };
            assert_eq!(dtype, DType::F32, "{name}");
        });
    }
}

/// Weights that bf16 holds exactly give the same bits however they are stored, and take half the memory.
#[test]
fn a_frozen_base_stored_in_bf16_is_that_base() {
    let load = LoadConfig { dtype: FloatDtype::Bf16, ..LoadConfig::default() };
    let mut model = load_model_as(&golden("train/model"), &Device::flex(), &load).unwrap();
    let adapter = load_adapter(&mut model, &golden("train/adapter")).unwrap();
    let stored = TrainState::new(model, Some(adapter));
    let mut widened = stored.clone();
    let mut count = 0;
    let mut widen = |it: &mut Tensor<2>| {
        assert_eq!(it.dtype(), DType::BF16);
        *it = it.clone().cast(DType::F32);
        count += 1;
    };
    let model = &mut widened.model;
    [Some(&mut model.embed_tokens), model.lm_head.as_mut()].into_iter().flatten().for_each(&mut widen);
    let linears = model.blocks.iter_mut().flat_map(|it| it.linears_mut());
    linears.for_each(|it| widen(it.1.weight.dense_mut().unwrap()));
    assert!(count > 7);
    for checkpointing in [ActivationCheckpointing::Off, ActivationCheckpointing::Block] {
        let of = |state: &TrainState| gradients(state, &batches(2), checkpointing);
        assert_eq!(of(&stored), of(&widened));
    }
}

/// One update a block as its gradients come, or all at the end: the same weights, bit for bit, and the same metrics but
/// for the order in which squares are added.
#[test]
fn released_gradients_update_as_kept_ones_do() {
    for state in [full(), lora(), dropped_lora(0.3, 11)] {
        let run = |gradient_release| {
            let mut state = state.clone();
            let config = StepConfig { gradient_release, max_grad_norm: None, ..config(1e-3) };
            let metrics = [0, 1, 2].map(|it| step(&mut state, &batches(it)[..1], &config).unwrap());
            let norms = metrics.map(|it| (it.loss, it.grad_norm));
            (trained(&state), norms)
        };
        let ((kept, kept_norms), (released, norms)) = (run(false), run(true));
        assert_eq!(kept, released);
        for (kept, released) in kept_norms.iter().zip(norms) {
            assert_eq!(kept.0, released.0);
            assert!((kept.1 - released.1).abs() < 1e-9 * kept.1, "{kept:?} and {released:?}");
        }
    }
}

#[test]
fn released_gradients_are_those_of_one_micro_batch() {
    let config = StepConfig { gradient_release: true, max_grad_norm: None, ..config(1e-3) };
    let error = step(&mut full(), &batches(2), &config).unwrap_err().to_string();
    assert!(error.contains("`gradient_release` takes one micro-batch a step, got 2"), "{error}");
}
