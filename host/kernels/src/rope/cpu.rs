//! The CPU's rotary embedding. A rotation's transpose is the rotation back, so backward is forward with the sine's
//! sign turned.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::extension::Operation;
use crate::flex::{dims2, tensor, unfilled, values};
use crate::simd::vectorized;

/// Tokens of a task.
const TOKENS: usize = 32;

/// The operation; inputs `x`, `cos`, `sin`.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub heads: usize,
    pub head_dim: usize,
}

impl Operation for Rotation {
    fn forward(&self, inputs: Vec<FlexTensor>, wanted: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [x, cos, sin] = <[_; 3]>::try_from(inputs).expect("x, cos and sin");
        let y = self.rotate(&x, &cos, &sin, 1.0);
        (y, if wanted[0] { vec![cos, sin] } else { Vec::new() })
    }

    fn backward(&self, saved: Vec<FlexTensor>, gradient: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let [cos, sin] = <[_; 2]>::try_from(saved).expect("what forward kept");
        vec![Some(self.rotate(&gradient, &cos, &sin, -1.0)), None, None]
    }
}

impl Rotation {
    fn rotate(&self, x: &FlexTensor, cos: &FlexTensor, sin: &FlexTensor, direction: f32) -> FlexTensor {
        let (width, [_, pairs]) = (self.heads * self.head_dim, dims2(cos));
        let mut y = unfilled(values(x).len());
        let tables = values(cos).par_chunks(TOKENS * pairs).zip(values(sin).par_chunks(TOKENS * pairs));
        let tasks = y.par_chunks_mut(TOKENS * width).zip(values(x).par_chunks(TOKENS * width));
        let widths = [width, self.head_dim, pairs];
        tasks.zip(tables).for_each(|((y, x), (cos, sin))| task(x, cos, sin, direction, widths, y));
        tensor(y, x.layout().shape())
    }
}

vectorized! {
    fn task(x: &[f32], cos: &[f32], sin: &[f32], direction: f32, widths: [usize; 3], y: &mut [f32]) {
        let [width, head_dim, pairs] = widths;
        let tables = cos.chunks_exact(pairs).zip(sin.chunks_exact(pairs));
        let tokens = y.chunks_exact_mut(width).zip(x.chunks_exact(width));
        for ((y, x), (cos, sin)) in tokens.zip(tables) {
            for (y, x) in y.chunks_exact_mut(head_dim).zip(x.chunks_exact(head_dim)) {
                rotate_row(x, cos, sin, direction, y);
            }
        }
    }
}

/// One head of one token, `[head_dim]`, by its angles, `[pairs]`; `direction` -1 turns it back.
#[inline(always)]
pub(crate) fn rotate_row(x: &[f32], cos: &[f32], sin: &[f32], direction: f32, y: &mut [f32]) {
    let pairs = cos.len();
    let ((first, second), sin) = (x.split_at(pairs), &sin[..pairs]);
    let (second, behind) = second.split_at(pairs);
    let (y_first, y_second) = y.split_at_mut(pairs);
    let (y_second, y_behind) = y_second.split_at_mut(pairs);
    if !behind.is_empty() {
        y_behind.copy_from_slice(behind);
    }
    for index in 0..pairs {
        let (c, s) = (cos[index], sin[index] * direction);
        y_first[index] = first[index] * c - second[index] * s;
        y_second[index] = second[index] * c + first[index] * s;
    }
}
