//! Moments in 8 bits: <https://arxiv.org/abs/2110.02861>. A block of 256 values shares a factor, its largest absolute
//! value, and each value is a code of the dynamic map.
//!
//! An update takes a block's moments to f32, updates there, and rounds them again, as bitsandbytes' blockwise AdamW does
//! where it is written in plain torch. Codes are the nearest ones; its CPU library looks them up in a coarser way and
//! takes a neighbour for some.

use rayon::prelude::*;

use super::cpu::{Factors, step};
use super::map::{Map, signed_map, unsigned_map};
use crate::simd::vectorized;

/// Values that share a factor.
pub const BLOCK: usize = 256;

/// Blocks of a task.
const TASK: usize = 64;

/// One moment: a code a value, and a factor a block, of which the last may be short.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocks {
    /// Indices into the map.
    pub codes: Vec<u8>,
    /// Largest absolute value of each block.
    pub absmax: Vec<f32>,
}

impl Blocks {
    fn zeros(length: usize, map: &Map) -> Self {
        Self { codes: vec![map.code(0.0); length], absmax: vec![0.0; length.div_ceil(BLOCK)] }
    }

    /// `values` rounded to the codes of `map`.
    pub fn quantize(values: &[f32], map: &Map) -> Self {
        let mut blocks = Self::zeros(values.len(), map);
        let tasks = values.chunks(BLOCK).zip(blocks.codes.chunks_mut(BLOCK)).zip(&mut blocks.absmax);
        tasks.for_each(|((values, codes), absmax)| round(values, map, codes, absmax));
        blocks
    }

    /// The values that are stored.
    pub fn dequantize(&self, map: &Map) -> Vec<f32> {
        let blocks = self.codes.chunks(BLOCK).zip(&self.absmax);
        blocks.flat_map(|(codes, absmax)| codes.iter().map(move |it| map.value(*it) * absmax)).collect()
    }
}

/// Both moments of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockMoments {
    /// Running mean of the gradient, with signs.
    pub first: Blocks,
    /// Running mean of its square.
    pub second: Blocks,
}

impl BlockMoments {
    /// Before the first update of a parameter of `length` values.
    pub fn zeros(length: usize) -> Self {
        Self { first: Blocks::zeros(length, signed_map()), second: Blocks::zeros(length, unsigned_map()) }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        [&self.first, &self.second].iter().map(|it| it.codes.len() + size_of::<f32>() * it.absmax.len()).sum()
    }

    /// Updates `value` and both moments in place; each block by itself.
    pub(super) fn update(&mut self, value: &mut [f32], gradient: &[f32], factors: Factors) {
        let length = value.len();
        assert!([gradient.len(), self.first.codes.len()].iter().all(|it| *it == length), "one length");
        let values = value.par_chunks_mut(TASK * BLOCK).zip(gradient.par_chunks(TASK * BLOCK));
        let halves = [&mut self.first, &mut self.second];
        let [first, second] =
            halves.map(|it| it.codes.par_chunks_mut(TASK * BLOCK).zip(it.absmax.par_chunks_mut(TASK)));
        values.zip(first).zip(second).for_each(|(((value, gradient), first), second)| {
            task(value, gradient, first, second, factors, [signed_map(), unsigned_map()]);
        });
    }
}

type Half<'a> = (&'a mut [u8], &'a mut [f32]);

vectorized! {
    fn task(
        value: &mut [f32],
        gradient: &[f32],
        first: Half<'_>,
        second: Half<'_>,
        factors: Factors,
        maps: [&Map; 2],
    ) {
        let values = value.chunks_mut(BLOCK).zip(gradient.chunks(BLOCK));
        let first = first.0.chunks_mut(BLOCK).zip(first.1);
        let second = second.0.chunks_mut(BLOCK).zip(second.1);
        for (((value, gradient), first), second) in values.zip(first).zip(second) {
            let (mut means, mut squares) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
            let (means, squares) = (&mut means[..value.len()], &mut squares[..value.len()]);
            widen(first.0, *first.1, maps[0], means);
            widen(second.0, *second.1, maps[1], squares);
            let moments = means.iter_mut().zip(squares.iter_mut());
            for ((value, gradient), (mean, square)) in value.iter_mut().zip(gradient).zip(moments) {
                step(value, *gradient, mean, square, factors);
            }
            round(means, maps[0], first.0, first.1);
            round(squares, maps[1], second.0, second.1);
        }
    }
}

#[inline(always)]
fn widen(codes: &[u8], absmax: f32, map: &Map, values: &mut [f32]) {
    for (value, code) in values.iter_mut().zip(codes) {
        *value = map.value(*code) * absmax;
    }
}

/// Codes and factor of a block. Where the factor has no finite inverse, the block is 0.
#[inline(always)]
fn round(values: &[f32], map: &Map, codes: &mut [u8], absmax: &mut f32) {
    let largest = values.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    let largest = if largest < f32::MIN_POSITIVE { 0.0 } else { largest };
    let inverse = if largest == 0.0 { 0.0 } else { 1.0 / largest };
    *absmax = largest;
    for (code, value) in codes.iter_mut().zip(values) {
        *code = map.code((value * inverse).clamp(-1.0, 1.0));
    }
}
