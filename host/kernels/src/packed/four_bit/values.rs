//! Values to codes and back, block by block.

use rayon::prelude::*;

use super::FourBit;
use super::code::{CODES, Code};
use crate::adamw::signed_map;
use crate::flex::unfilled;
use crate::simd::vectorized;

/// Values of a task, about.
const TASK: usize = 16 * 1024;

/// What bitsandbytes divides by at least.
const LEAST: f32 = 1e-38;

/// Codes, two a byte, and the factor of each block.
pub(super) fn quantized(values: &[f32], code: &Code, block: usize) -> (Vec<u8>, Vec<f32>) {
    let (mut codes, mut absmax) = (vec![0; values.len().div_ceil(2)], unfilled(values.len().div_ceil(block)));
    let blocks = (TASK / block).max(1);
    let tasks = codes.par_chunks_mut(blocks * block / 2).zip(absmax.par_chunks_mut(blocks));
    tasks.zip(values.par_chunks(blocks * block)).for_each(|((codes, absmax), values)| {
        quantize_blocks(values, code, block, codes, absmax);
    });
    (codes, absmax)
}

vectorized! {
    fn quantize_blocks(values: &[f32], code: &Code, block: usize, codes: &mut [u8], absmax: &mut [f32]) {
        let blocks = values.chunks(block).zip(codes.chunks_mut(block / 2)).zip(absmax);
        for ((values, codes), absmax) in blocks {
            let largest = values.iter().fold(0.0f32, |a, b| if b.abs() > a { b.abs() } else { a });
            // A short block is divided by its factor, which is never 0; a whole one multiplied by the inverse.
            if values.len() < block {
                *absmax = largest.max(LEAST);
                let by = *absmax;
                quantize_block(values, code, codes, |it| it / by);
            } else {
                *absmax = largest;
                let inverse = 1.0 / largest.max(LEAST);
                quantize_block(values, code, codes, |it| it * inverse);
            }
        }
    }
}

#[inline(always)]
fn quantize_block(values: &[f32], code: &Code, codes: &mut [u8], fraction: impl Fn(f32) -> f32) {
    /// Values at a time: their counts stay in registers.
    const LANES: usize = 32;
    for (values, codes) in values.chunks(LANES).zip(codes.chunks_mut(LANES / 2)) {
        let mut fractions = [0.0f32; LANES];
        for (to, from) in fractions.iter_mut().zip(values) {
            *to = fraction(*from).clamp(-1.0, 1.0);
        }
        let mut counts = [0u32; LANES];
        for middle in code.middles {
            for (count, fraction) in counts.iter_mut().zip(&fractions) {
                *count += u32::from(*fraction > middle);
            }
        }
        let found = counts.map(|it| code.order[it as usize % CODES]);
        for (byte, pair) in codes.iter_mut().zip(found.as_chunks::<2>().0) {
            *byte = pair[0] << 4 | pair[1];
        }
    }
}

/// Fills `to` with the values from the one at `first` on, which may stand anywhere.
///
/// To be called where the machine's instructions are chosen.
#[inline(always)]
pub(super) fn widen(weight: &FourBit, first: usize, to: &mut [f32]) {
    let (code, map, block) = (Code::of(weight.config.kind), signed_map().values(), weight.config.block_size);
    let (mut at, mut rest) = (first, to);
    while !rest.is_empty() {
        let count = (block - at % block).min(rest.len());
        let (values, behind) = rest.split_at_mut(count);
        widen_in_block(&weight.codes, weight.absmax.of(at / block, map), code, at, values);
        (at, rest) = (at + count, behind);
    }
}

#[inline(always)]
fn widen_in_block(codes: &[u8], absmax: f32, code: &Code, first: usize, mut to: &mut [f32]) {
    let mut bytes = &codes[first / 2..(first + to.len()).div_ceil(2)];
    if first % 2 == 1 {
        to[0] = code.pairs[usize::from(bytes[0])][1] * absmax;
        (bytes, to) = (&bytes[1..], &mut to[1..]);
    }
    let (pairs, last) = to.as_chunks_mut::<2>();
    for (to, byte) in pairs.iter_mut().zip(bytes) {
        let [high, low] = code.pairs[usize::from(*byte)];
        *to = [high * absmax, low * absmax];
    }
    if let ([last], Some(byte)) = (last, bytes.last()) {
        *last = code.pairs[usize::from(*byte)][0] * absmax;
    }
}
