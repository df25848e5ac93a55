//! The engine on CubeCL's runtimes against `flex`: there every operation is its reference, so these tests hold the
//! path that a device without operations of its own takes.
//!
//! With the feature `cubecl-cpu` on CubeCL's CPU runtime, with `cuda` on the first CUDA device, where there is one.
//! The CPU runtime's threads spin at barriers: minutes where other work shares the cores, so little is asked of it.

use fthost_engine::Device;
use fthost_engine::generate::{GenerateConfig, generate};
use fthost_engine::train::{ActivationCheckpointing, Gradients, TrainState, step};

use crate::generate::{letters, model_on, prompts};
use crate::support::assert_close;
use crate::train::support::{batches, config, full_on, lora_on};

/// f32 on both sides, sums in another order.
const TOLERANCE: f32 = 1e-4;

type StateOn = fn(&Device) -> TrainState;

/// Every weight trained; an adapter on a frozen base, its blocks recomputed, from inputs that are kept on the device and on the host.
const KINDS: [(&str, StateOn, ActivationCheckpointing); 3] = [
    ("full", full_on, ActivationCheckpointing::Off),
    ("lora", lora_on, ActivationCheckpointing::Block),
    ("lora, offloaded", lora_on, ActivationCheckpointing::Offload),
];

#[cfg(feature = "cubecl-cpu")]
fn cubecl_cpu() -> Option<Device> {
    Some(Device::cpu())
}

#[cfg(not(feature = "cubecl-cpu"))]
fn cubecl_cpu() -> Option<Device> {
    None
}

#[cfg(feature = "cuda")]
fn cuda() -> Option<Device> {
    use fthost_engine::device::{DeviceKind, open};
    open(DeviceKind::Cuda(0)).inspect_err(|error| println!("SKIPPED on CUDA: {error}")).ok()
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Option<Device> {
    None
}

/// The devices of this build that are there.
fn devices() -> impl Iterator<Item = Device> {
    [cubecl_cpu(), cuda()].into_iter().flatten()
}

#[track_caller]
fn assert_same(what: &str, got: f64, expected: f64) {
    let error = (got - expected).abs() / expected.abs().max(1.0);
    assert!(error < f64::from(TOLERANCE), "{what}: {got} is not {expected}");
}

/// Of one micro-batch: two packed sequences.
fn gradients(state: &TrainState, checkpointing: ActivationCheckpointing) -> Gradients {
    let mut gradients = Gradients::default();
    gradients.add(&state.model, &batches(0)[0], checkpointing);
    gradients
}

/// Oracle: `flex`, which the goldens hold against torch. Tolerance relative to a gradient's largest value.
#[test]
fn loss_and_gradients_equal_flex() {
    for (device, (kind, state, checkpointing)) in
        devices().flat_map(|it| KINDS.map(|kind| (it.clone(), kind)))
    {
        let what = format!("{device:?}, {kind}");
        let expected = gradients(&state(&Device::flex()), checkpointing);
        let got = gradients(&state(&device), checkpointing);
        assert_same(&format!("{what}: loss"), got.loss_sum, expected.loss_sum);
        assert_same(&format!("{what}: entropy"), got.entropy_sum, expected.entropy_sum);
        assert_eq!(got.correct, expected.correct, "{what}: right predictions");
        assert_eq!(got.sums.values().len(), expected.sums.values().len(), "{what}: gradients");
        for (index, (got, expected)) in got.sums.values().into_iter().zip(&expected.sums.values()).enumerate()
        {
            let expected = expected.clone().try_into_vec_as::<f32>().unwrap();
            let largest = expected.iter().fold(1e-3_f32, |largest, it| largest.max(it.abs()));
            let got = got.try_into_vec_as::<f32>().unwrap();
            assert_close(&format!("{what}: gradient {index}"), &got, &expected, TOLERANCE * largest);
        }
    }
}

/// Oracle: `flex`. Clipping and AdamW included: the second step's loss depends on the update of the first.
#[test]
fn optimizer_steps_equal_flex() {
    for device in devices() {
        let (mut ours, mut flex) = (lora_on(&device), lora_on(&Device::flex()));
        for index in 0..2 {
            let got = step(&mut ours, &batches(0), &config(1e-2)).unwrap();
            let expected = step(&mut flex, &batches(0), &config(1e-2)).unwrap();
            assert_same(&format!("{device:?}, step {index}: loss"), got.loss, expected.loss);
            assert_same(&format!("{device:?}, step {index}: grad_norm"), got.grad_norm, expected.grad_norm);
        }
    }
}

/// Oracle: `flex`, whose greedy ids a golden holds against transformers.
#[test]
fn greedy_ids_equal_flex() {
    let config = GenerateConfig { max_new_tokens: 4, ..GenerateConfig::default() };
    let ids = |device: &Device| -> Vec<Vec<u32>> {
        let model = model_on("gqa_tied", device);
        let completions = generate(&model, &letters(), &prompts(), &config, 3).unwrap();
        completions.into_iter().map(|it| it[0].token_ids.clone()).collect()
    };
    for device in devices() {
        assert_eq!(ids(&device), ids(&Device::flex()), "{device:?}");
    }
}
