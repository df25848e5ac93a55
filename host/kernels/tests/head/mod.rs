//! The head's loss against torch in float64: `tests/golden/generate/linear_cross_entropy.py`.
//!
//! Ours is f32: logits of up to 16 products, sums of up to 333 exponentials, so 1e-5 of the largest value.

use burn::tensor::{Device, Tensor, TensorData};
use fthost_kernels::{Softcap, linear_cross_entropy, token_logps};
use safetensors::SafeTensors;

const TOLERANCE: f32 = 1e-5;
/// The last with logits that are bounded.
const CASES: [&str; 4] = ["even", "odd", "certain", "bounded"];

fn read(bytes: &[u8], name: &str) -> (Vec<f32>, Vec<usize>) {
    let view = SafeTensors::deserialize(bytes).unwrap();
    let view = view.tensor(name).unwrap();
    let values = view.data().as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
    (values, view.shape().to_vec())
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().try_into_vec_as().unwrap()
}

fn assert_close(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= TOLERANCE * largest, "{what}: {got} is not {expected}");
    }
}

#[test]
fn loss_hits_entropy_and_log_probabilities_match_torch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/linear_cross_entropy.safetensors");
    let bytes = std::fs::read(path).unwrap();
    for case in CASES {
        let expected = |name: &str| read(&bytes, &format!("{case}.{name}"));
        let leaf = |name: &str| {
            let (values, shape) = expected(name);
            Tensor::<2>::from_data(TensorData::new(values, shape), &Device::flex()).autodiff().require_grad()
        };
        let targets: Vec<u32> = expected("targets").0.iter().map(|it| it.to_bits()).collect();
        let close = |name: &str, got: &[f32]| assert_close(&format!("{case}.{name}"), got, &expected(name).0);
        let gradients = |of: &str, scalar: Tensor<1>, leaves: [&Tensor<2>; 2]| {
            let graph = scalar.backward();
            for (name, leaf) in ["hidden", "weight"].into_iter().zip(leaves) {
                close(&format!("{of}.grad.{name}"), &floats(leaf.grad(&graph).unwrap()));
            }
        };

        let softcap = (case == "bounded").then_some(Softcap { cap: 3.0, scale: 0.8 });
        let (hidden, weight) = (leaf("hidden"), leaf("weight"));
        let found = linear_cross_entropy(hidden.clone(), weight.clone(), softcap, &targets);
        close("loss", &floats(found.loss_sum.clone()));
        close("correct", &floats(found.correct));
        close("entropy", &floats(found.entropy_sum));
        gradients("loss", found.loss_sum * 0.25, [&hidden, &weight]);

        let (hidden, weight) = (leaf("hidden"), leaf("weight"));
        let logps = token_logps(hidden.clone(), weight.clone(), softcap, &targets).logps;
        close("logps", &floats(logps.clone()));
        let upstream = Tensor::<1>::from_floats(expected("up").0.as_slice(), &Device::flex()).autodiff();
        gradients("logps", (logps * upstream).sum(), [&hidden, &weight]);
    }
}
