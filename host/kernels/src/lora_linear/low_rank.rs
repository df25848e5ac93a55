//! `y += h m` for an `h` of few columns: the way up of an adapter, and its way back down in backward.
//!
//! A general product packs both factors and writes the result in passes over the inner axis; with 8 to 64 terms a
//! value that costs more than the arithmetic. Here a tile of `y` is read once, kept in registers and written once.

use rayon::prelude::*;

use super::columns::Columns;
use crate::simd::vectorized;

/// Rows of a task.
const ROWS: usize = 32;
/// Rows and columns of a tile: eight registers of AVX2, half of what there is.
const TILE: [usize; 2] = [4, 16];

/// Adds the product of `h`'s columns and `m`, `[h columns, y columns]`, to `y`'s columns.
pub(super) fn add_product(y: &mut [f32], into: Columns, h: &[f32], from: Columns, m: &[f32]) {
    assert_eq!(m.len(), from.count * into.count, "shapes of a product");
    let tasks = y.par_chunks_mut(ROWS * into.stride).zip(h.par_chunks(ROWS * from.stride));
    tasks.for_each(|(y, h)| rows(y, into, h, from, m));
}

vectorized! {
fn rows(y: &mut [f32], into: Columns, h: &[f32], from: Columns, m: &[f32]) {
    let [tile_rows, tile_columns] = TILE;
    let whole = into.count - into.count % tile_columns;
    let tiles = y.chunks_mut(tile_rows * into.stride).zip(h.chunks(tile_rows * from.stride));
    for (y, h) in tiles {
        let count = y.len() / into.stride;
        if count == tile_rows {
            for column in (0..whole).step_by(tile_columns) {
                tile(y, into, column, h, from, m);
            }
        }
        let done = if count == tile_rows { whole } else { 0 };
        for row in 0..count {
            let h = &h[row * from.stride + from.first..][..from.count];
            let y = &mut y[row * into.stride + into.first..][done..into.count];
            for (term, h) in h.iter().enumerate() {
                let m = &m[term * into.count + done..][..y.len()];
                for (y, m) in y.iter_mut().zip(m) {
                    *y = h.mul_add(*m, *y);
                }
            }
        }
    }
}
}

#[inline(always)]
fn tile(y: &mut [f32], into: Columns, column: usize, h: &[f32], from: Columns, m: &[f32]) {
    const ROWS: usize = TILE[0];
    const COLUMNS: usize = TILE[1];
    let place = |row: usize| row * into.stride + into.first + column;
    let mut sums = [[0.0f32; COLUMNS]; ROWS];
    for (row, sums) in sums.iter_mut().enumerate() {
        sums.copy_from_slice(&y[place(row)..][..COLUMNS]);
    }
    let factors: [&[f32]; ROWS] =
        std::array::from_fn(|row| &h[row * from.stride + from.first..][..from.count]);
    for term in 0..from.count {
        let m: &[f32; COLUMNS] = m[term * into.count + column..].first_chunk().expect("a whole tile");
        for (sums, factors) in sums.iter_mut().zip(&factors) {
            let factor = factors[term];
            for (sum, m) in sums.iter_mut().zip(m) {
                *sum = factor.mul_add(*m, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        y[place(row)..][..COLUMNS].copy_from_slice(sums);
    }
}
