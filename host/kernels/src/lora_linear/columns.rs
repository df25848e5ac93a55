//! Some columns of a row-major matrix: what one layer has of outputs that lie side by side.

use rayon::prelude::*;

use crate::matrix::{Matrix, MatrixMut};
use crate::rms_norm::add_in_order;

/// Rows of a task.
const ROWS: usize = 32;

/// Columns of a matrix whose rows are `stride` apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    pub first: usize,
    pub count: usize,
    pub stride: usize,
}

/// Those columns of a matrix of `rows` rows.
pub(super) fn columns_of(matrix: &[f32], rows: usize, of: Columns) -> Matrix<'_> {
    Matrix::strided(&matrix[of.first..], rows, of.count, of.stride)
}

/// As [`columns_of`], to be written.
pub(super) fn columns_of_mut(matrix: &mut [f32], rows: usize, of: Columns) -> MatrixMut<'_> {
    MatrixMut::strided(&mut matrix[of.first..], rows, of.count, of.stride)
}

/// Adds `bias` to every row's columns.
pub(super) fn add_bias(y: &mut [f32], columns: Columns, bias: &[f32]) {
    y.par_chunks_mut(ROWS * columns.stride).for_each(|y| {
        for row in y.chunks_exact_mut(columns.stride) {
            let row = &mut row[columns.first..][..columns.count];
            row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
        }
    });
}

/// Sum over rows: partial sums of [`ROWS`] rows, added in order.
pub(super) fn column_sums(matrix: &[f32], columns: Columns) -> Vec<f32> {
    let partial = matrix.par_chunks(ROWS * columns.stride).map(|rows| {
        let mut sums = vec![0.0f32; columns.count];
        for row in rows.chunks_exact(columns.stride) {
            let row = &row[columns.first..][..columns.count];
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        sums
    });
    add_in_order(partial.collect(), columns.count)
}
