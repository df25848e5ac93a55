//! Matrix products on slices, by the `gemm` crate.
//!
//! `unsafe` here: calling `gemm`, which takes pointers and strides, after the bounds have been checked.

use gemm::Parallelism;

/// A matrix in row-major storage whose rows may stand apart, or the transpose of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` rows of `columns` values, `stride` values from one row to the next, the first at `values[0]`.
    pub(crate) fn strided(values: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert_inside(values.len(), rows, columns, stride);
        Self { values, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// Rows without gaps.
    pub(crate) fn new(values: &'a [f32], columns: usize) -> Self {
        Self::strided(values, values.len() / columns.max(1), columns, columns)
    }

    /// The storage.
    pub(crate) fn values(&self) -> &'a [f32] {
        self.values
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The transpose, without a copy.
    pub(crate) fn t(self) -> Self {
        Self {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// Where a product is written: row-major, rows may stand apart.
#[derive(Debug)]
pub(crate) struct MatrixMut<'a> {
    values: &'a mut [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// As [`Matrix::strided`].
    pub(crate) fn strided(values: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert_inside(values.len(), rows, columns, stride);
        Self { values, rows, columns, stride }
    }

    /// As [`Matrix::new`].
    pub(crate) fn new(values: &'a mut [f32], columns: usize) -> Self {
        let rows = values.len() / columns.max(1);
        Self::strided(values, rows, columns, columns)
    }
}

fn assert_inside(length: usize, rows: usize, columns: usize, stride: usize) {
    assert!(columns <= stride, "rows of {columns} values stand {stride} apart");
    let needed = if rows == 0 { 0 } else { (rows - 1) * stride + columns };
    assert!(needed <= length, "{rows} rows of {columns} values need {needed}, there are {length}");
}

/// Whether a product is spread over the threads of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// For a product inside a task that already is one of many.
    One,
    /// All.
    All,
}

/// What becomes of the values that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Into {
    /// They are overwritten, and never read.
    Overwrite,
    /// The product is added to them.
    Add,
}

/// `out = alpha a b`, or `out += alpha a b`.
pub(crate) fn product(
    out: MatrixMut<'_>,
    into: Into,
    alpha: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    threads: Threads,
) {
    assert_eq!((a.rows, a.columns, b.columns), (out.rows, b.rows, out.columns), "shapes of a product");
    let (add, keep) = match into {
        Into::Overwrite => (false, 0.0),
        Into::Add => (true, 1.0),
    };
    let parallelism = match threads {
        Threads::One => Parallelism::None,
        Threads::All => Parallelism::Rayon(0),
    };
    // SAFETY: strides and extents were checked against the slices when the matrices were made.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            a.columns,
            out.values.as_mut_ptr(),
            1,
            out.stride as isize,
            add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            keep,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}
