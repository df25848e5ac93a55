//! The CPU's update: each value and moment is read once and written once.

use rayon::prelude::*;

use crate::simd::vectorized;

/// Values of a task.
const TASK: usize = 32 * 1024;

/// An update's constants, rounded once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factors {
    /// Of the gradient.
    pub scale: f32,
    /// Decay of each moment, and what is left of 1.
    pub betas: [f32; 2],
    pub rests: [f32; 2],
    /// Root of the second moment's correction.
    pub root: f32,
    pub eps: f32,
    /// Learning rate over the first moment's correction.
    pub rate: f32,
    /// What decay leaves of a value.
    pub kept: f32,
}

/// Updates all in place; all of one length.
pub(super) fn update(
    value: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    factors: Factors,
) {
    assert!([gradient.len(), first.len(), second.len()].iter().all(|it| *it == value.len()), "one length");
    let tasks = value.par_chunks_mut(TASK).zip(gradient.par_chunks(TASK));
    let tasks = tasks.zip(first.par_chunks_mut(TASK)).zip(second.par_chunks_mut(TASK));
    tasks.for_each(|(((value, gradient), first), second)| task(value, gradient, first, second, factors));
}

vectorized! {
    fn task(value: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], factors: Factors) {
        for (((value, gradient), first), second) in value.iter_mut().zip(gradient).zip(first).zip(second) {
            step(value, *gradient, first, second, factors);
        }
    }

    /// In f64, which holds the square of every f32.
    fn squares(values: &[f32]) -> f64 {
        let mut lanes = [0.0f64; 16];
        let (whole, rest) = values.as_chunks::<16>();
        for values in whole {
            for (lane, value) in lanes.iter_mut().zip(values) {
                let value = f64::from(*value);
                *lane = value.mul_add(value, *lane);
            }
        }
        let rest: f64 = rest.iter().map(|it| f64::from(*it) * f64::from(*it)).sum();
        lanes.iter().sum::<f64>() + rest
    }
}

/// One value.
#[inline(always)]
pub(super) fn step(value: &mut f32, gradient: f32, first: &mut f32, second: &mut f32, factors: Factors) {
    let gradient = gradient * factors.scale;
    *first = *first * factors.betas[0] + gradient * factors.rests[0];
    *second = *second * factors.betas[1] + gradient * gradient * factors.rests[1];
    let denominator = second.sqrt() / factors.root + factors.eps;
    *value = *value * factors.kept - factors.rate * (*first / denominator);
}

/// Sum of the squares of all: of each task, and those in order.
pub(super) fn sum_of_squares(slices: &[&[f32]]) -> f64 {
    let tasks: Vec<&[f32]> = slices.iter().flat_map(|it| it.chunks(TASK)).collect();
    let sums: Vec<f64> = tasks.into_par_iter().map(squares).collect();
    sums.iter().sum()
}
