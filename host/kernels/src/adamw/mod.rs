//! AdamW, one pass over a parameter: <https://arxiv.org/abs/1711.05101>, as `torch.optim.AdamW` computes it. Clipping is
//! a factor of the gradient; [`global_norm`] finds what it is made of.
//!
//! On Burn's CPU backend value and moments are written where they stand, if nobody else holds them.

mod blocks;
mod cpu;
mod map;

use burn::backend::Flex;
use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::FlexTensor;

use crate::extension::is_ours;
use crate::flex::{contiguous, owned, primitive, values, values_mut};
pub use blocks::{BLOCK, BlockMoments, Blocks};
pub use map::{Map, signed_map, unsigned_map};

/// What one update of one parameter computes with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate of this step and parameter.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay of the value; 0 for what does not decay.
    pub weight_decay: f64,
    /// The gradient is multiplied by it: clipping, and the mean over what was summed.
    pub gradient_scale: f64,
    /// Updates with this one.
    pub updates: u64,
}

/// First and second moment of one parameter, flat, f32.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Running mean of the gradient, `[len]`.
    pub first: Tensor<1>,
    /// Running mean of its square, `[len]`.
    pub second: Tensor<1>,
}

impl Moments {
    /// Before the first update of `value`.
    pub fn zeros<const D: usize>(value: &Tensor<D>) -> Self {
        let zeros = || Tensor::zeros([value.shape().num_elements()], (&value.device(), DType::F32));
        Self { first: zeros(), second: zeros() }
    }
}

/// The new value and moments of a parameter.
///
/// # Shapes
/// - `value`, `gradient`: the same of any rank; moments: `[len]`
pub fn adamw<const D: usize>(
    value: Tensor<D>,
    gradient: Tensor<D>,
    moments: Moments,
    step: &AdamWStep,
) -> (Tensor<D>, Moments) {
    let ours = is_ours(&value) && is_ours(&gradient) && is_ours(&moments.first) && is_ours(&moments.second);
    if !ours {
        return adamw_reference(value, gradient, moments, step);
    }
    let (mut value, gradient) = (owned(primitive(value)), contiguous(primitive(gradient)));
    let (mut first, mut second) = (owned(primitive(moments.first)), owned(primitive(moments.second)));
    let (first_values, second_values) = (values_mut(&mut first), values_mut(&mut second));
    cpu::update(values_mut(&mut value), values(&gradient), first_values, second_values, step.into());
    (tensor(value), Moments { first: tensor(first), second: tensor(second) })
}

/// [`adamw`] in plain tensor operations.
pub fn adamw_reference<const D: usize>(
    value: Tensor<D>,
    gradient: Tensor<D>,
    moments: Moments,
    step: &AdamWStep,
) -> (Tensor<D>, Moments) {
    let shape = value.dims();
    let gradient = gradient.reshape([shape.iter().product::<usize>()]);
    let gradient = gradient.cast(moments.first.dtype()).mul_scalar(step.gradient_scale);
    let Moments { first, second } = moments;
    let first = first.mul_scalar(step.beta1) + gradient.clone().mul_scalar(1.0 - step.beta1);
    let second = second.mul_scalar(step.beta2) + gradient.square().mul_scalar(1.0 - step.beta2);
    let [correction1, correction2] = step.corrections();
    let denominator = second.clone().sqrt().div_scalar(correction2.sqrt()).add_scalar(step.eps);
    let change = (first.clone() / denominator).mul_scalar(step.learning_rate / correction1).reshape(shape);
    let kept = value.clone().mul_scalar(1.0 - step.learning_rate * step.weight_decay);
    (kept - change.cast(value.dtype()), Moments { first, second })
}

/// As [`adamw`] with moments in blocks of 8 bits, of which an update is made in f32.
///
/// The moments are on the host: on a backend other than Burn's CPU one, value and gradient are copied there and back.
pub fn adamw8bit<const D: usize>(
    value: Tensor<D>,
    gradient: Tensor<D>,
    moments: &mut BlockMoments,
    step: &AdamWStep,
) -> Tensor<D> {
    on_host(value, gradient, |value, gradient| moments.update(value, gradient, step.into()))
}

/// As [`adamw`] with both moments in memory of the host that is no tensor's, such as a mapped file; of the value's length.
///
/// On a backend other than Burn's CPU one, value and gradient are copied there and back.
pub fn adamw_on_host<const D: usize>(
    value: Tensor<D>,
    gradient: Tensor<D>,
    moments: [&mut [f32]; 2],
    step: &AdamWStep,
) -> Tensor<D> {
    let [first, second] = moments;
    on_host(value, gradient, |value, gradient| cpu::update(value, gradient, first, second, step.into()))
}

/// The value after `update` of its and the gradient's values.
fn on_host<const D: usize>(
    value: Tensor<D>,
    gradient: Tensor<D>,
    update: impl FnOnce(&mut [f32], &[f32]),
) -> Tensor<D> {
    if is_ours(&value) && is_ours(&gradient) {
        let (mut value, gradient) = (owned(primitive(value)), contiguous(primitive(gradient)));
        update(values_mut(&mut value), values(&gradient));
        return tensor(value);
    }
    let (device, dtype, shape) = (value.device(), value.dtype(), value.dims());
    let floats = |it: Tensor<D>| it.try_into_vec_as::<f32>().expect("a float tensor is read as f32");
    let (mut values, gradient) = (floats(value), floats(gradient));
    update(&mut values, &gradient);
    Tensor::from_data(TensorData::new(values, shape), (&device, dtype))
}

/// Euclidean norm over every value of `tensors`, summed in f64 in a fixed order.
pub fn global_norm(tensors: &[Tensor<1>]) -> f64 {
    if tensors.iter().all(is_ours) {
        let tensors: Vec<FlexTensor> = tensors.iter().map(|it| contiguous(primitive(it.clone()))).collect();
        let slices: Vec<&[f32]> = tensors.iter().map(values).collect();
        return cpu::sum_of_squares(&slices).sqrt();
    }
    global_norm_reference(tensors)
}

/// [`global_norm`] in plain tensor operations.
pub fn global_norm_reference(tensors: &[Tensor<1>]) -> f64 {
    let squares = tensors.iter().map(|it| it.clone().square().sum().into_scalar::<f64>());
    squares.sum::<f64>().sqrt()
}

impl AdamWStep {
    /// What both moments are divided by, because they began at 0.
    fn corrections(&self) -> [f64; 2] {
        let updates = i32::try_from(self.updates).unwrap_or(i32::MAX);
        [self.beta1, self.beta2].map(|beta| 1.0 - beta.powi(updates))
    }
}

impl From<&AdamWStep> for cpu::Factors {
    fn from(step: &AdamWStep) -> Self {
        let [correction1, correction2] = step.corrections();
        Self {
            scale: step.gradient_scale as f32,
            betas: [step.beta1 as f32, step.beta2 as f32],
            rests: [(1.0 - step.beta1) as f32, (1.0 - step.beta2) as f32],
            root: correction2.sqrt() as f32,
            eps: step.eps as f32,
            rate: (step.learning_rate / correction1) as f32,
            kept: (1.0 - step.learning_rate * step.weight_decay) as f32,
        }
    }
}

fn tensor<const D: usize>(primitive: FlexTensor) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(primitive)
}

#[cfg(test)]
mod tests;
