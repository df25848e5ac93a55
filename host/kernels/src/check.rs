//! For tests: an operation beside its reference, values and gradients.

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A tensor of a rank that operations' inputs have.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
}

impl From<Tensor<1>> for Value {
    fn from(tensor: Tensor<1>) -> Self {
        Self::Vector(tensor)
    }
}

impl From<Tensor<2>> for Value {
    fn from(tensor: Tensor<2>) -> Self {
        Self::Matrix(tensor)
    }
}

impl Value {
    pub(crate) fn vector(&self) -> Tensor<1> {
        let Self::Vector(tensor) = self else { panic!("a vector") };
        tensor.clone()
    }

    pub(crate) fn matrix(&self) -> Tensor<2> {
        let Self::Matrix(tensor) = self else { panic!("a matrix") };
        tensor.clone()
    }

    fn tracked(&self) -> Self {
        match self {
            Self::Vector(it) => Self::Vector(it.clone().autodiff().require_grad()),
            Self::Matrix(it) => Self::Matrix(it.clone().autodiff().require_grad()),
        }
    }
}

/// Values in [-2, 2), the same for the same seed.
pub(crate) fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-2.0..2.0)).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn values(tensor: Tensor<1>) -> Vec<f32> {
    tensor.try_into_vec_as().expect("floats")
}

/// Output of `f` and the gradients of a weighted sum of it, one an input.
pub(crate) fn run(inputs: &[Value], f: &dyn Fn(&[Value]) -> Tensor<2>) -> Vec<Vec<f32>> {
    let inputs: Vec<Value> = inputs.iter().map(Value::tracked).collect();
    let output = f(&inputs);
    let mut found = vec![values(output.clone().inner().flatten(0, 1))];
    let weights = random(output.dims(), 99).autodiff();
    let graph = (output * weights).sum().backward();
    for input in &inputs {
        let gradient = match input {
            Value::Vector(it) => it.grad(&graph).expect("a gradient").inner(),
            Value::Matrix(it) => it.grad(&graph).expect("a gradient").inner().flatten(0, 1),
        };
        found.push(values(gradient));
    }
    found
}

/// Asserts that `ours` and `reference` agree in value and in every gradient, within `tolerance` of the largest.
pub(crate) fn compare(
    inputs: &[Value],
    ours: impl Fn(&[Value]) -> Tensor<2>,
    reference: impl Fn(&[Value]) -> Tensor<2>,
    tolerance: f32,
) {
    let found = run(inputs, &ours);
    assert!(values(ours(inputs).flatten(0, 1)) == found[0], "with and without autodiff");
    for (index, (got, expected)) in found.iter().zip(run(inputs, &reference)).enumerate() {
        let what = if index == 0 { "output".to_string() } else { format!("gradient of input {}", index - 1) };
        assert_eq!(got.len(), expected.len(), "{what}");
        // What is nothing but terms that cancel has no size of its own: inputs are of order 1.
        let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs())).max(0.1);
        for (place, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let difference = (got - expected).abs() / largest;
            assert!(difference <= tolerance, "{what}, {place}: {got} is not {expected} ({difference:e})");
        }
    }
}
