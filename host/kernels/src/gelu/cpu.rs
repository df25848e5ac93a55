//! The CPU's forward and backward of GELU. What is kept is the input: its value and derivative cost one exponential.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::extension::Operation;
use crate::flex::{tensor, unfilled, values};
use crate::gate::{VALUES, gelu_tanh};
use crate::simd::vectorized;

/// The operation; input `x`.
#[derive(Debug)]
pub(super) struct Gelu;

impl Operation for Gelu {
    fn forward(&self, inputs: Vec<FlexTensor>, wanted: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [x] = <[_; 1]>::try_from(inputs).expect("x");
        let mut y = unfilled(values(&x).len());
        y.par_chunks_mut(VALUES).zip(values(&x).par_chunks(VALUES)).for_each(|(y, x)| forward_task(x, y));
        let y = tensor(y, x.layout().shape());
        (y, if wanted[0] { vec![x] } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<FlexTensor>, gradient: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let [x] = <[_; 1]>::try_from(saved).expect("what forward kept");
        let mut dx = unfilled(values(&x).len());
        let tasks = dx.par_chunks_mut(VALUES).zip(values(&x).par_chunks(VALUES));
        tasks.zip(values(&gradient).par_chunks(VALUES)).for_each(|((dx, x), dy)| backward_task(x, dy, dx));
        vec![Some(tensor(dx, x.layout().shape()))]
    }
}

vectorized! {
    fn forward_task(x: &[f32], y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = gelu_tanh(*x)[0]);
    }

    fn backward_task(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        dx.iter_mut().zip(x).zip(dy).for_each(|((dx, x), dy)| *dx = dy * gelu_tanh(*x)[1]);
    }
}
