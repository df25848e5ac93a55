//! Operations against torch's autograd in float64: `tests/golden/generate/operations.py`.
//!
//! Ours is f32: sums of at most 40 products of values of order 1, so 2e-5 of the largest value.

mod attention;
mod head;

use burn::tensor::{Device, Tensor, TensorData};
use fthost_kernels::{
    Activation, LoraLinear, LowRank, Prologue, geglu, gelu, layer_norm, lora_linears, rms_norm, rope, swiglu,
};
use safetensors::SafeTensors;

const TOLERANCE: f32 = 2e-5;
const EPS: f64 = 1e-5;

/// The cases of the golden file, and the leaves of the one that is computed.
struct Golden {
    bytes: Vec<u8>,
    case: &'static str,
}

/// Reads a leaf's gradient from a graph.
type Gradient = Box<dyn Fn(&burn::tensor::Gradients) -> Vec<f32>>;

impl Golden {
    fn open(case: &'static str) -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/operations.safetensors");
        Self { bytes: std::fs::read(path).unwrap(), case }
    }

    fn read(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(&format!("{}.{name}", self.case)).unwrap();
        let values = view.data().as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
        (values, view.shape().to_vec())
    }

    fn constant<const D: usize>(&self, name: &str) -> Tensor<D> {
        let (values, shape) = self.read(name);
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    /// The input `name` as a leaf; its gradient is to be compared.
    fn leaf<const D: usize>(&self, name: &str, leaves: &mut Vec<(String, Gradient)>) -> Tensor<D> {
        let leaf = self.constant::<D>(&format!("in.{name}")).autodiff().require_grad();
        let kept = leaf.clone();
        let gradient: Gradient = Box::new(move |graph| {
            let gradient = kept.grad(graph).expect("every input has a gradient");
            gradient.try_into_vec_as::<f32>().unwrap()
        });
        leaves.push((name.to_string(), gradient));
        leaf
    }

    fn compare<const D: usize>(&self, output: Tensor<D>, leaves: &[(String, Gradient)]) {
        let values = output.clone().inner().try_into_vec_as::<f32>().unwrap();
        self.assert_close("out", &values);
        let graph = (output * self.constant::<D>("up").autodiff()).sum().backward();
        for (name, gradient) in leaves {
            self.assert_close(&format!("grad.{name}"), &gradient(&graph));
        }
    }

    fn assert_close(&self, name: &str, got: &[f32]) {
        let (expected, _) = self.read(name);
        assert_eq!(got.len(), expected.len(), "{}.{name}", self.case);
        let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for (got, expected) in got.iter().zip(&expected) {
            let difference = (got - expected).abs() / largest;
            assert!(difference < TOLERANCE, "{}.{name}: {got} is not {expected}", self.case);
        }
    }
}

#[test]
fn rms_norm_matches_torch() {
    let (golden, mut leaves) = (Golden::open("rms_norm"), Vec::new());
    let y = rms_norm(golden.leaf("x", &mut leaves), golden.leaf("weight", &mut leaves), EPS);
    golden.compare(y, &leaves);
}

#[test]
fn layer_norm_matches_torch() {
    let (golden, mut leaves) = (Golden::open("layer_norm"), Vec::new());
    let leaf = &mut leaves;
    let y = layer_norm(golden.leaf("x", leaf), golden.leaf("weight", leaf), golden.leaf("bias", leaf), EPS);
    golden.compare(y, &leaves);
}

#[test]
fn swiglu_and_geglu_match_torch() {
    type Gate = fn(Tensor<2>, Tensor<2>) -> Tensor<2>;
    for (case, operation) in [("swiglu", swiglu as Gate), ("geglu", geglu as Gate)] {
        let (golden, mut leaves) = (Golden::open(case), Vec::new());
        let y = operation(golden.leaf("gate", &mut leaves), golden.leaf("up", &mut leaves));
        golden.compare(y, &leaves);
    }
}

#[test]
fn gelu_matches_torch() {
    let (golden, mut leaves) = (Golden::open("gelu"), Vec::new());
    let y = gelu(golden.leaf("x", &mut leaves));
    golden.compare(y, &leaves);
}

#[test]
fn rope_matches_transformers() {
    let (golden, mut leaves) = (Golden::open("rope"), Vec::new());
    let (cos, sin) = (golden.constant("in.cos"), golden.constant("in.sin"));
    let y = rope(golden.leaf("x", &mut leaves), cos, sin);
    golden.compare(y, &leaves);
}

fn layer(golden: &Golden, index: usize, scaling: f64, leaves: &mut Vec<(String, Gradient)>) -> LoraLinear {
    let named = |it: &str| format!("{it}{index}");
    let (weight, bias) = (golden.leaf(&named("w"), leaves), golden.leaf(&named("bias"), leaves));
    let (a, b) = (golden.leaf(&named("a"), leaves), golden.leaf(&named("b"), leaves));
    LoraLinear {
        weight: weight.into(),
        bias: Some(bias),
        lora: Some(LowRank { a, b, scaling, dropout: None }),
    }
}

#[test]
fn normed_lora_linears_side_by_side_match_torch() {
    let (golden, mut leaves) = (Golden::open("lora_norm"), Vec::new());
    let x = golden.leaf("x", &mut leaves);
    let prologue = Prologue::RmsNorm { weight: golden.leaf("norm", &mut leaves), eps: EPS };
    let layers = [0, 1, 2].map(|it| layer(&golden, it, 0.5, &mut leaves));
    golden.compare(lora_linears(x, prologue, &layers, None), &leaves);
}

#[test]
fn a_gated_lora_linear_with_residual_matches_torch() {
    let (golden, mut leaves) = (Golden::open("lora_gated"), Vec::new());
    let (x, residual) = (golden.leaf("x", &mut leaves), golden.leaf("residual", &mut leaves));
    let layer = layer(&golden, 0, 2.0, &mut leaves);
    let y = lora_linears(x, Prologue::Gated(Activation::Silu), &[layer], Some(residual));
    golden.compare(y, &leaves);
}
