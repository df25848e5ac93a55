//! Factors in 8 bits: what is left of each behind their mean, in blocks, as bitsandbytes' library for the CPU rounds them.
//!
//! It looks codes up in a table of 65536 equal steps from -1 to 1, so that a code is not always the nearest: 0 itself has
//! that of 2.1e-5. The mean is torch's, in the order in which it adds in one thread.

use std::sync::LazyLock;

use super::Absmax;
use crate::adamw::signed_map;

/// Factors that share one of their own.
pub(super) const BLOCK: usize = 256;

/// Steps of the table.
const STEPS: usize = 1 << 16;

/// `absmax` rounded.
pub(super) fn nested(absmax: &[f32]) -> Absmax {
    let offset = mean(absmax);
    let mut codes = vec![0; absmax.len()];
    let blocks = codes.chunks_mut(BLOCK).zip(absmax.chunks(BLOCK));
    let largest = blocks.map(|(codes, absmax)| round(absmax, offset, codes)).collect();
    Absmax::Nested { codes, absmax: largest, offset }
}

/// Codes of one block, and its factor.
fn round(values: &[f32], offset: f32, codes: &mut [u8]) -> f32 {
    static TABLE: LazyLock<Box<[u8; STEPS]>> = LazyLock::new(table);
    let largest = values.iter().fold(0.0f32, |a, b| a.max((b - offset).abs()));
    if largest == 0.0 {
        codes.fill(0);
        return 0.0;
    }
    let inverse = 1.0 / largest;
    for (code, value) in codes.iter_mut().zip(values) {
        let fraction = (((value - offset) * inverse).clamp(-1.0, 1.0) + 1.0) * 0.5;
        *code = TABLE[usize::from(fraction.mul_add((STEPS - 1) as f32, 0.5) as u16)];
    }
    largest
}

/// For each step from -1 to 1 how many middles between values of the map lie below it.
fn table() -> Box<[u8; STEPS]> {
    let values = signed_map().values();
    let mut code = 0;
    let mut table = Box::new([0; STEPS]);
    for (step, entry) in table.iter_mut().enumerate() {
        let at = (2 * step) as f32 / (STEPS - 1) as f32 - 1.0;
        while code < values.len() - 1 && 0.5 * (values[code] + values[code + 1]) < at {
            code += 1;
        }
        *entry = code as u8;
    }
    table
}

/// Values of a vector, and vectors of a step, in torch's sum.
const LANES: usize = 8;
const VECTORS: usize = 4;

/// The mean as torch finds it of a contiguous f32 tensor on the CPU; NaN of none.
pub(super) fn mean(values: &[f32]) -> f32 {
    let sum = if values.len() < LANES {
        sum_of_vectors(values.as_chunks::<1>().0)[0]
    } else {
        let (vectors, rest) = values.as_chunks::<LANES>();
        let rest = rest.iter().fold(0.0, |a, b| a + b);
        sum_of_vectors(vectors).iter().fold(rest, |a, b| a + b)
    };
    sum / values.len() as f32
}

/// Four vectors at a time into four sums, then these, the vectors that are left over having gone to the first.
fn sum_of_vectors<const N: usize>(vectors: &[[f32; N]]) -> [f32; N] {
    let (steps, rest) = vectors.as_chunks::<VECTORS>();
    let [mut sum, others @ ..] = sum_of_steps(steps);
    rest.iter().for_each(|it| add(&mut sum, it));
    others.iter().for_each(|it| add(&mut sum, it));
    sum
}

fn add<const N: usize>(sum: &mut [f32; N], value: &[f32; N]) {
    sum.iter_mut().zip(value).for_each(|(sum, value)| *sum += value);
}

/// A cascade of four levels: a level's sums go to the next after `2^power` additions.
fn sum_of_steps<const N: usize>(steps: &[[[f32; N]; VECTORS]]) -> [[f32; N]; VECTORS] {
    const LEVELS: usize = 4;
    let log = steps.len().next_power_of_two().trailing_zeros() as usize;
    let power = (log / LEVELS).max(4);
    let mut sums = [[[0.0f32; N]; VECTORS]; LEVELS];
    let add_all = |to: &mut [[f32; N]; VECTORS], from: &[[f32; N]; VECTORS]| {
        to.iter_mut().zip(from).for_each(|(to, from)| add(to, from));
    };
    for (index, steps) in steps.chunks(1 << power).enumerate() {
        steps.iter().for_each(|it| add_all(&mut sums[0], it));
        if steps.len() < 1 << power {
            break;
        }
        let done = (index + 1) << power;
        for level in 1..LEVELS {
            let below = std::mem::replace(&mut sums[level - 1], [[0.0; N]; VECTORS]);
            add_all(&mut sums[level], &below);
            if done & (((1 << power) - 1) << (level * power)) != 0 {
                break;
            }
        }
    }
    let [mut sum, higher @ ..] = sums;
    higher.iter().for_each(|it| add_all(&mut sum, it));
    sum
}
