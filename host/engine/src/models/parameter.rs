//! A weight as those meet it who visit a model: it is trained, counted, saved and loaded by name.

use std::sync::Arc;

use burn::tensor::{Device, Gradients, Tensor};
use fthost_kernels::{Packed, Weight};

/// A parameter as a visitor meets it.
pub enum Parameter<'a> {
    /// Norms and biases.
    Vector(&'a mut Tensor<1>),
    /// Weights, embeddings and adapters.
    Matrix(&'a mut Tensor<2>),
    /// The weight of a linear that is stored in fewer bits and is frozen: it is counted and saved, never trained.
    Packed(&'a mut Arc<Packed>),
}

impl<'a> Parameter<'a> {
    /// The weight of a linear.
    pub fn of(weight: &'a mut Weight) -> Self {
        match weight {
            Weight::Dense(it) => Self::Matrix(it),
            Weight::Packed(it) => Self::Packed(it),
        }
    }
}

/// Why a match has no value for [`Parameter::Packed`].
pub(crate) const FROZEN: &str = "what is packed is frozen: whoever trains the base is refused such a model";

impl Parameter<'_> {
    /// Shape.
    pub fn dims(&self) -> Vec<usize> {
        match self {
            Parameter::Vector(tensor) => tensor.dims().to_vec(),
            Parameter::Matrix(tensor) => tensor.dims().to_vec(),
            Parameter::Packed(weight) => weight.shape().to_vec(),
        }
    }

    /// The device it is on; that of what is packed is the host.
    pub fn device(&self) -> Device {
        match self {
            Parameter::Vector(tensor) => tensor.device(),
            Parameter::Matrix(tensor) => tensor.device(),
            Parameter::Packed(_) => Device::flex(),
        }
    }

    /// Number of values.
    pub fn length(&self) -> usize {
        self.dims().iter().product()
    }

    /// Makes the parameter a leaf of a new graph.
    pub fn track(self) {
        match self {
            Parameter::Vector(tensor) => *tensor = tensor.clone().autodiff().require_grad(),
            Parameter::Matrix(tensor) => *tensor = tensor.clone().autodiff().require_grad(),
            Parameter::Packed(_) => unreachable!("{FROZEN}"),
        }
    }

    /// The gradient of a leaf, flat, `[length]`; zeros where the graph does not reach it.
    pub fn gradient(&self, graph: &Gradients) -> Tensor<1> {
        let (found, device) = match self {
            Parameter::Vector(tensor) => (tensor.grad(graph).map(Tensor::inner), tensor.device()),
            Parameter::Matrix(tensor) => {
                (tensor.grad(graph).map(|it| it.inner().flatten(0, 1)), tensor.device())
            }
            Parameter::Packed(_) => unreachable!("{FROZEN}"),
        };
        found.unwrap_or_else(|| Tensor::zeros([self.length()], &device.inner()))
    }

    /// Its values as they are, flat, without autodiff: memory is shared until one of the two changes.
    pub(crate) fn flat(&self) -> Tensor<1> {
        match self {
            Parameter::Vector(tensor) => (**tensor).clone().inner(),
            Parameter::Matrix(tensor) => (**tensor).clone().inner().flatten(0, 1),
            Parameter::Packed(_) => unreachable!("{FROZEN}"),
        }
    }

    /// Shape and values.
    pub fn to_f32(&self) -> (Vec<usize>, Vec<f32>) {
        fn values<const D: usize>(tensor: &Tensor<D>) -> (Vec<usize>, Vec<f32>) {
            let values = tensor.clone().inner().try_into_vec_as::<f32>();
            (tensor.dims().to_vec(), values.expect("a float tensor is read as f32"))
        }
        match self {
            Parameter::Vector(tensor) => values(tensor),
            Parameter::Matrix(tensor) => values(tensor),
            Parameter::Packed(weight) => (weight.shape().to_vec(), weight.dequantize()),
        }
    }
}
