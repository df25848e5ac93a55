//! Objectives against TRL's own code in float64. Ours is f32 on values of order 1, so 2e-6 of the largest one expected
//! unless a test says otherwise; a golden's configuration is read as a run file's keys are.

mod dpo;
mod grpo;
mod invariants;
mod ppo;
mod preference;

use std::collections::BTreeSet;

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::support::golden;

const TOLERANCE: f32 = 2e-6;

/// One file of goldens and what it says of its cases.
struct Goldens {
    bytes: Vec<u8>,
    cases: Value,
}

impl Goldens {
    fn open(name: &str) -> Self {
        let bytes = std::fs::read(golden("objectives").join(format!("{name}.safetensors"))).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let cases = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["cases"]).unwrap();
        Self { bytes, cases }
    }

    fn values(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        view.data().as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect()
    }

    fn constant(&self, name: &str) -> Tensor<1> {
        tensor(&self.values(name))
    }

    fn leaf(&self, name: &str) -> Tensor<1> {
        self.constant(name).autodiff().require_grad()
    }

    fn numbers(&self, pointer: &str) -> Vec<usize> {
        self.read(pointer)
    }

    fn read<T: DeserializeOwned>(&self, pointer: &str) -> T {
        let value = self.cases.pointer(pointer).unwrap_or_else(|| panic!("the golden has no {pointer}"));
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{pointer}: {error}"))
    }

    /// Names and configurations below `pointer` whose name begins so.
    fn configurations<T: DeserializeOwned>(&self, pointer: &str, prefix: &str) -> Vec<(String, T)> {
        let all = self.cases.pointer(pointer).unwrap().as_object().unwrap();
        let found: Vec<(String, T)> = all
            .iter()
            .filter(|it| it.0.starts_with(prefix))
            .map(|(name, it)| (name.clone(), serde_json::from_value(it.clone()).unwrap()))
            .collect();
        assert!(!found.is_empty(), "no case of {prefix}");
        found
    }

    #[track_caller]
    fn assert_values(&self, name: &str, got: &[f32]) {
        assert_near(name, got, &self.values(name), TOLERANCE);
    }

    #[track_caller]
    fn assert_tensor(&self, name: &str, got: Tensor<1>) {
        self.assert_values(name, &read(got));
    }

    #[track_caller]
    fn assert_gradient(&self, name: &str, leaf: &Tensor<1>, gradients: &Gradients) {
        let gradient = leaf.grad(gradients);
        let zeros = || vec![0.0; leaf.dims()[0]];
        self.assert_values(name, &gradient.map_or_else(zeros, read));
    }
}

/// Differences are taken relative to the largest value expected, or to 1 where all are tiny sums of cancelled terms.
#[track_caller]
fn assert_near(name: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{name}: length");
    let largest = expected.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    for (got, expected) in got.iter().zip(expected) {
        let difference = (got - expected).abs();
        assert!(difference <= tolerance * largest.max(1e-2), "{name}: {got} is not {expected}");
    }
}

fn tensor(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex())
}

fn read(values: Tensor<1>) -> Vec<f32> {
    values.inner().try_into_vec_as::<f32>().unwrap()
}

/// Every case of a golden is looked at by some test: the names that tests look at, by what they begin with.
#[test]
fn no_golden_is_left_unread() {
    let prefixes = ["orpo", "cpo", "simpo", "kto", "reward"];
    let goldens = Goldens::open("preference");
    let names = goldens.cases.pointer("/configurations").unwrap().as_object().unwrap();
    let unread: BTreeSet<&String> =
        names.keys().filter(|name| !prefixes.iter().any(|it| name.starts_with(it))).collect();
    assert!(unread.is_empty(), "{unread:?}");
}
