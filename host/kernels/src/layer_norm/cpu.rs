//! The CPU's forward and backward of layer normalisation.
//!
//! With `n = (x - mean) r`, `r = (var + eps)^(-1/2)` and `y = n w + b`, a row's gradients are
//! `dx = r (g - mean(g) - n mean(g n))` for `g = dy w`, `dw = sum of dy n` and `db = sum of dy` over rows.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::extension::Operation;
use crate::flex::{tensor, unfilled, values};
use crate::rms_norm::add_in_order;
use crate::simd::{sum, vectorized};

/// Rows of a task.
const ROWS: usize = 64;

/// The operation; inputs `x`, `weight`, `bias`.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    pub eps: f32,
}

impl Operation for LayerNorm {
    fn forward(&self, inputs: Vec<FlexTensor>, wanted: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [x, weight, bias] = <[_; 3]>::try_from(inputs).expect("x, weight and bias");
        let width = values(&weight).len();
        let (weights, biases) = (values(&weight), values(&bias));
        let rows = values(&x).len() / width;
        let mut y = unfilled(rows * width);
        let mut moments = unfilled(rows * 2);
        let tasks = y.par_chunks_mut(ROWS * width).zip(values(&x).par_chunks(ROWS * width));
        let tasks = tasks.zip(moments.par_chunks_mut(ROWS * 2));
        tasks.for_each(|((y, x), moments)| forward_task(x, weights, biases, self.eps, y, moments));
        let y = tensor(y, x.layout().shape());
        (y, if wanted.contains(&true) { vec![x, weight, tensor(moments, &[rows, 2])] } else { Vec::new() })
    }

    fn backward(
        &self,
        saved: Vec<FlexTensor>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let [x, weight, moments] = <[_; 3]>::try_from(saved).expect("what forward kept");
        let (weights, width) = (values(&weight), values(&weight).len());
        let mut dx = unfilled(values(&x).len());
        let tasks = dx.par_chunks_mut(ROWS * width).zip(values(&x).par_chunks(ROWS * width));
        let tasks = tasks.zip(values(&gradient).par_chunks(ROWS * width));
        let sums = tasks.zip(values(&moments).par_chunks(ROWS * 2)).map(|(((dx, x), dy), moments)| {
            let mut sums = vec![0.0f32; 2 * width];
            backward_task(x, weights, moments, dy, dx, &mut sums);
            sums
        });
        let sums = add_in_order(sums.collect(), 2 * width);
        let shape = weight.layout().shape();
        vec![
            wanted[0].then(|| tensor(dx, x.layout().shape())),
            wanted[1].then(|| tensor(sums[..width].to_vec(), shape)),
            wanted[2].then(|| tensor(sums[width..].to_vec(), shape)),
        ]
    }
}

vectorized! {
    fn forward_task(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, y: &mut [f32], moments: &mut [f32]) {
        let width = weight.len();
        let rows = y.chunks_exact_mut(width).zip(x.chunks_exact(width));
        for ((y, x), moments) in rows.zip(moments.chunks_exact_mut(2)) {
            let [mean, scale] = moments_of(x, eps);
            moments.copy_from_slice(&[mean, scale]);
            // Zipped, not indexed: a bounds check in the loop would keep it from vector instructions.
            for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                *y = (x - mean) * scale * weight + bias;
            }
        }
    }

    fn backward_task(
        x: &[f32],
        weight: &[f32],
        moments: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        sums: &mut [f32],
    ) {
        let width = weight.len();
        let (dw, db) = sums.split_at_mut(width);
        let rows = dx.chunks_exact_mut(width).zip(x.chunks_exact(width));
        for (((dx, x), dy), moments) in rows.zip(dy.chunks_exact(width)).zip(moments.chunks_exact(2)) {
            backward_row(x, weight, [moments[0], moments[1]], dy, dx, dw, db);
        }
    }
}

/// Mean of a row, and the factor that brings it to unit variance.
#[inline(always)]
fn moments_of(x: &[f32], eps: f32) -> [f32; 2] {
    let width = x.len() as f32;
    let mean = sum([x], |[x]| x) / width;
    let variance = sum([x], |[x]| (x - mean) * (x - mean)) / width;
    [mean, 1.0 / (variance + eps).sqrt()]
}

#[inline(always)]
fn backward_row(
    x: &[f32],
    weight: &[f32],
    [mean, scale]: [f32; 2],
    dy: &[f32],
    dx: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
) {
    let width = x.len();
    let (dy, weight) = (&dy[..width], &weight[..width]);
    let (dx, dw, db) = (&mut dx[..width], &mut dw[..width], &mut db[..width]);
    let mean_g = sum([dy, weight], |[dy, weight]| dy * weight) / width as f32;
    let along = sum([dy, weight, x], |[dy, weight, x]| dy * weight * (x - mean) * scale) / width as f32;
    for index in 0..width {
        let normed = (x[index] - mean) * scale;
        dx[index] = scale * (dy[index] * weight[index] - mean_g - normed * along);
        dw[index] += dy[index] * normed;
        db[index] += dy[index];
    }
}
