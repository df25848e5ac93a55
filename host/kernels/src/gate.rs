//! Gated activations `act(gate) * up` on the CPU: what SwiGLU, GEGLU and the linear behind them share, and with them
//! GELU, which has no gate.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::extension::Operation;
use crate::flex::{tensor, unfilled, values};
use crate::simd::{sigmoid, vectorized};

/// Values of a task: a few pages of each tensor.
pub(crate) const VALUES: usize = 16 * 1024;

/// What is applied to the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x sigmoid(x)`.
    Silu,
    /// GELU by tanh, as `gelu_pytorch_tanh`.
    GeluTanh,
}

/// Value and derivative of `x sigmoid(x)`.
#[inline(always)]
fn silu(x: f32) -> [f32; 2] {
    let s = sigmoid(x);
    let value = x * s;
    [value, s + value * (1.0 - s)]
}

/// Value and derivative of GELU by tanh.
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> [f32; 2] {
    /// 2 sqrt(2 / pi): (1 + tanh(u)) / 2 is the sigmoid of 2 u.
    const ROOT: f32 = 1.595_769_2;
    let s = sigmoid(ROOT * (x + 0.044_715 * x * x * x));
    let slope = ROOT * (1.0 + 3.0 * 0.044_715 * x * x);
    [x * s, s + x * s * (1.0 - s) * slope]
}

/// The operation; inputs `gate`, `up`.
#[derive(Debug)]
pub(crate) struct Gate {
    pub activation: Activation,
}

impl Operation for Gate {
    fn forward(&self, inputs: Vec<FlexTensor>, wanted: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [gate, up] = <[_; 2]>::try_from(inputs).expect("gate and up");
        let mut y = unfilled(values(&gate).len());
        let tasks = y.par_chunks_mut(VALUES).zip(values(&gate).par_chunks(VALUES));
        let tasks = tasks.zip(values(&up).par_chunks(VALUES));
        tasks.for_each(|((y, gate), up)| forward(self.activation, gate, up, y));
        let y = tensor(y, gate.layout().shape());
        (y, if wanted.contains(&true) { vec![gate, up] } else { Vec::new() })
    }

    fn backward(
        &self,
        saved: Vec<FlexTensor>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let [gate, up] = <[_; 2]>::try_from(saved).expect("what forward kept");
        let length = values(&gate).len();
        let (mut dgate, mut dup) = (unfilled(length), unfilled(length));
        let inputs = values(&gate).par_chunks(VALUES).zip(values(&up).par_chunks(VALUES));
        let outputs = dgate.par_chunks_mut(VALUES).zip(dup.par_chunks_mut(VALUES));
        let tasks = inputs.zip(values(&gradient).par_chunks(VALUES)).zip(outputs);
        tasks.for_each(|(((gate, up), dy), (dgate, dup))| {
            backward(self.activation, gate, up, dy, dgate, dup);
        });
        let shape = gate.layout().shape();
        vec![wanted[0].then(|| tensor(dgate, shape)), wanted[1].then(|| tensor(dup, shape))]
    }
}

vectorized! {
    /// `y = act(gate) * up`.
    pub(crate) fn forward(activation: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
        // One loop an activation: a choice inside would keep the loop from being vectorised.
        match activation {
            Activation::Silu => forward_loop(|it| silu(it)[0], gate, up, y),
            Activation::GeluTanh => forward_loop(|it| gelu_tanh(it)[0], gate, up, y),
        }
    }

    /// Gradients of `gate` and `up`.
    pub(crate) fn backward(
        activation: Activation,
        gate: &[f32],
        up: &[f32],
        dy: &[f32],
        dgate: &mut [f32],
        dup: &mut [f32],
    ) {
        match activation {
            Activation::Silu => backward_loop(silu, gate, up, dy, dgate, dup),
            Activation::GeluTanh => backward_loop(gelu_tanh, gate, up, dy, dgate, dup),
        }
    }
}

#[inline(always)]
fn forward_loop(value: impl Fn(f32) -> f32, gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
        *y = value(*gate) * up;
    }
}

#[inline(always)]
fn backward_loop(
    activation: impl Fn(f32) -> [f32; 2],
    gate: &[f32],
    up: &[f32],
    dy: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    let length = dy.len();
    let (gate, up) = (&gate[..length], &up[..length]);
    let (dgate, dup) = (&mut dgate[..length], &mut dup[..length]);
    for index in 0..length {
        let [value, slope] = activation(gate[index]);
        dup[index] = dy[index] * value;
        dgate[index] = dy[index] * up[index] * slope;
    }
}
