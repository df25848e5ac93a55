//! The CPU's forward and backward of RMS normalisation.
//!
//! With `n = x r`, `r = (mean(x^2) + eps)^(-1/2)` and `y = n w`, a row's gradients are
//! `dx = r (dy w) - x r^3 mean(dy w x)` and `dw = sum over rows of dy n`.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::extension::Operation;
use crate::flex::{tensor, unfilled, values};
use crate::simd::{sum, vectorized};

/// Rows of a task.
const ROWS: usize = 64;

/// The operation; inputs `x`, `weight`.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    pub eps: f32,
}

impl Operation for RmsNorm {
    fn forward(&self, inputs: Vec<FlexTensor>, wanted: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [x, weight] = <[_; 2]>::try_from(inputs).expect("x and weight");
        let width = values(&weight).len();
        let mut y = unfilled(values(&x).len());
        let mut scales = unfilled(values(&x).len() / width);
        forward_rows(values(&x), values(&weight), self.eps, &mut y, &mut scales);
        let y = tensor(y, x.layout().shape());
        let rows = scales.len();
        (y, if wanted.contains(&true) { vec![x, weight, tensor(scales, &[rows])] } else { Vec::new() })
    }

    fn backward(
        &self,
        saved: Vec<FlexTensor>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let [x, weight, scales] = <[_; 3]>::try_from(saved).expect("what forward kept");
        let (x_values, scales) = (values(&x), values(&scales));
        let dx = wanted[0].then(|| {
            let mut dx = unfilled(x_values.len());
            backward_rows(x_values, values(&weight), scales, values(&gradient), &mut dx);
            tensor(dx, x.layout().shape())
        });
        let dw = wanted[1].then(|| {
            let dw = weight_gradient(x_values, scales, values(&gradient), values(&weight).len());
            tensor(dw, weight.layout().shape())
        });
        vec![dx, dw]
    }
}

/// `y`, and of each row the factor that brings it to unit mean square.
pub(crate) fn forward_rows(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], scales: &mut [f32]) {
    let width = weight.len();
    let tasks = y.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width));
    let tasks = tasks.zip(scales.par_chunks_mut(ROWS));
    tasks.for_each(|((y, x), scales)| forward_task(x, weight, eps, y, scales));
}

vectorized! {
    fn forward_task(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], scales: &mut [f32]) {
        let width = weight.len();
        for ((y, x), scale) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(scales) {
            *scale = forward_row(x, weight, eps, y);
        }
    }

    fn backward_task(x: &[f32], weight: &[f32], scales: &[f32], dy: &[f32], dx: &mut [f32]) {
        let width = weight.len();
        let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width));
        for (((dx, x), dy), scale) in rows.zip(dy.chunks_exact(width)).zip(scales) {
            backward_row(x, weight, *scale, dy, dx);
        }
    }

    fn weight_task(x: &[f32], scales: &[f32], dy: &[f32], sums: &mut [f32]) {
        let width = sums.len();
        for ((x, dy), scale) in x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(scales) {
            for ((sum, x), dy) in sums.iter_mut().zip(x).zip(dy) {
                *sum += dy * x * scale;
            }
        }
    }
}

#[inline(always)]
fn forward_row(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) -> f32 {
    let mean = sum([x], |[x]| x * x) / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
        *y = x * scale * weight;
    }
    scale
}

/// The gradient of `x`.
pub(crate) fn backward_rows(x: &[f32], weight: &[f32], scales: &[f32], dy: &[f32], dx: &mut [f32]) {
    let width = weight.len();
    let tasks = dx.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width));
    let tasks = tasks.zip(dy.par_chunks(ROWS * width)).zip(scales.par_chunks(ROWS));
    tasks.for_each(|(((dx, x), dy), scales)| backward_task(x, weight, scales, dy, dx));
}

#[inline(always)]
fn backward_row(x: &[f32], weight: &[f32], scale: f32, dy: &[f32], dx: &mut [f32]) {
    let (dy, weight) = (&dy[..x.len()], &weight[..x.len()]);
    let along = sum([dy, weight, x], |[dy, weight, x]| dy * weight * x);
    let pull = along * scale * scale * scale / x.len() as f32;
    for (index, dx) in dx.iter_mut().enumerate() {
        *dx = scale * dy[index] * weight[index] - pull * x[index];
    }
}

/// The gradient of `weight`: partial sums of [`ROWS`] rows, added in order.
pub(crate) fn weight_gradient(x: &[f32], scales: &[f32], dy: &[f32], width: usize) -> Vec<f32> {
    let tasks = x.par_chunks(ROWS * width).zip(dy.par_chunks(ROWS * width)).zip(scales.par_chunks(ROWS));
    let partial = tasks.map(|((x, dy), scales)| {
        let mut sums = vec![0.0f32; width];
        weight_task(x, scales, dy, &mut sums);
        sums
    });
    add_in_order(partial.collect(), width)
}

/// Sum of vectors of `width`, one after the other.
pub(crate) fn add_in_order(partial: Vec<Vec<f32>>, width: usize) -> Vec<f32> {
    let mut partial = partial.into_iter();
    let first = partial.next().unwrap_or_else(|| vec![0.0; width]);
    partial.fold(first, |mut total, part| {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        total
    })
}
