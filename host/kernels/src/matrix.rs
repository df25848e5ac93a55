//! Matrix products on slices, by the `gemm` crate.
//!
//! `unsafe` here: calling `gemm`, which takes pointers and strides, after the bounds have been checked; several threads write
//! to parts of one result.

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

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

/// `out = alpha a b`, or `out += alpha a b`. The bits do not depend on the number of threads.
pub(crate) fn product(
    out: MatrixMut<'_>,
    into: Into,
    alpha: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    threads: Threads,
) {
    assert_eq!((a.rows, a.columns, b.columns), (out.rows, b.rows, out.columns), "shapes of a product");
    let out = Out { first: out.values.as_mut_ptr(), stride: out.stride };
    let one = |rows: Range<usize>, columns: Range<usize>, threads| {
        // SAFETY: strides and extents were checked against the slices when the matrices were made, and the parts of
        // a result have no place in common.
        unsafe { part(out, into, alpha, a, b, rows, columns, threads) }
    };
    let whole = || (0..a.rows, 0..b.columns);
    if threads == Threads::One {
        let (rows, columns) = whole();
        return one(rows, columns, Parallelism::None);
    }
    match Parts::of(a.rows, b.columns, rayon::current_num_threads()) {
        Some(parts) => {
            (0..parts.count()).into_par_iter().with_max_len(1).for_each(|it| {
                let (rows, columns) = parts.get(it);
                one(rows, columns, Parallelism::None);
            });
        }
        None => {
            let (rows, columns) = whole();
            one(rows, columns, Parallelism::Rayon(0));
        }
    }
}

/// Parts of a result, each a product of one thread.
///
/// `gemm`'s own threads share what they pack and wait for each other; where a result has at most a thousand columns only one
/// of them packs. On two cores parts are up to a tenth faster for 1024 rows, a third for 64, and twice for the 16 columns of an
/// adapter; the bits are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parts {
    rows: usize,
    columns: usize,
    rows_each: usize,
    columns_each: usize,
}

impl Parts {
    /// Rows and columns of a part at least: fewer cost as much to pack as to multiply. Few columns are packed soon.
    const LEAST: usize = 256;
    const FEW_COLUMNS: usize = 64;
    const LEAST_OF_FEW: usize = 64;
    /// Multiples of what a product's kernel takes at a time: 6 or 4 rows, 64 columns (of AVX2: 24).
    const ROWS: usize = 12;
    const COLUMNS: usize = 64;

    /// `None` where there are not parts for more than half of the threads.
    fn of(rows: usize, columns: usize, threads: usize) -> Option<Self> {
        let each =
            |length: usize, parts: usize, multiple: usize| length.div_ceil(parts).next_multiple_of(multiple);
        let of = |of_rows: usize, of_columns: usize| Self {
            rows,
            columns,
            rows_each: each(rows, of_rows, Self::ROWS),
            columns_each: each(columns, of_columns, Self::COLUMNS),
        };
        let least = if columns <= Self::FEW_COLUMNS { Self::LEAST_OF_FEW } else { Self::LEAST };
        let by_columns = of(1, threads);
        // Each thread packs its own columns of `b`, where rows would have all of them pack all of it.
        let even = by_columns.columns_each >= Self::LEAST
            && by_columns.columns_each * threads <= columns + columns / 14;
        let of_rows = if even { 1 } else { (rows / least).clamp(1, threads) };
        let of_columns = (columns / Self::LEAST).clamp(1, threads / of_rows);
        (2 * of_rows * of_columns > threads && of_rows * of_columns > 1).then(|| of(of_rows, of_columns))
    }

    fn count(self) -> usize {
        self.rows.div_ceil(self.rows_each) * self.columns.div_ceil(self.columns_each)
    }

    /// Rows and columns of a part.
    fn get(self, index: usize) -> (Range<usize>, Range<usize>) {
        let across = self.columns.div_ceil(self.columns_each);
        let range = |at: usize, each: usize, length: usize| at * each..((at + 1) * each).min(length);
        (
            range(index / across, self.rows_each, self.rows),
            range(index % across, self.columns_each, self.columns),
        )
    }
}

/// Where a result is written.
#[derive(Debug, Clone, Copy)]
struct Out {
    first: *mut f32,
    stride: usize,
}

// SAFETY: every thread writes a part of its own.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

/// Some rows and columns of a result.
///
/// # Safety
///
/// `rows` and `columns` are those of `a`, `b` and of the memory that `out` points to, and nobody else reads or writes that part.
#[expect(clippy::too_many_arguments, reason = "a product and its part")]
unsafe fn part(
    out: Out,
    into: Into,
    alpha: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    rows: Range<usize>,
    columns: Range<usize>,
    parallelism: Parallelism,
) {
    let (add, keep) = match into {
        Into::Overwrite => (false, 0.0),
        Into::Add => (true, 1.0),
    };
    // SAFETY: the caller's.
    unsafe {
        gemm::gemm(
            rows.len(),
            columns.len(),
            a.columns,
            out.first.add(rows.start * out.stride + columns.start),
            1,
            out.stride as isize,
            add,
            a.values.as_ptr().add(rows.start * a.row_stride),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr().add(columns.start * b.column_stride),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_result_once() {
        for (rows, columns) in
            [(1024, 576), (1000, 3072), (64, 960), (64, 49_152), (1024, 16), (300, 300), (5, 7)]
        {
            for threads in [1, 2, 3, 8, 64] {
                let Some(parts) = Parts::of(rows, columns, threads) else { continue };
                assert!((2..=threads).contains(&parts.count()), "{parts:?} for {threads} threads");
                let mut seen = vec![0; rows * columns];
                for (rows, of_part) in (0..parts.count()).map(|it| parts.get(it)) {
                    assert!(!rows.is_empty() && !of_part.is_empty(), "{parts:?}");
                    for row in rows {
                        of_part.clone().for_each(|column| seen[row * columns + column] += 1);
                    }
                }
                assert!(seen.iter().all(|it| *it == 1), "{parts:?}");
            }
        }
        assert_eq!(Parts::of(1024, 576, 1), None, "one thread has no need of parts");
        assert_eq!(Parts::of(64, 576, 16), None, "too few parts for the threads");
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let random = |count: usize, seed: u32| -> Vec<f32> {
            let next = |state: &mut u32| {
                *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                Some((*state >> 8) as f32 / (1 << 23) as f32 - 1.0)
            };
            std::iter::successors(Some(seed), |it| Some(*it))
                .scan(seed, |state, _| next(state))
                .take(count)
                .collect()
        };
        for (rows, inner, columns) in [(600, 70, 576), (64, 600, 1100), (513, 300, 16)] {
            let (a, b) = (random(rows * inner, 1), random(columns * inner, 2));
            let of = |threads: usize, into: Into| {
                let mut out = vec![0.5; rows * columns];
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| {
                    let (a, b) = (Matrix::new(&a, inner), Matrix::new(&b, inner));
                    product(MatrixMut::new(&mut out, columns), into, 0.5, a, b.t(), Threads::All);
                });
                out
            };
            let one = of(1, Into::Add);
            let wanted = |row: usize, column: usize| {
                let terms = a[row * inner..][..inner].iter().zip(&b[column * inner..][..inner]);
                0.5 + 0.5 * terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
            };
            for (at, value) in one.iter().enumerate() {
                assert!((f64::from(*value) - wanted(at / columns, at % columns)).abs() < 1e-3, "{at}");
            }
            assert!(one == of(2, Into::Add) && one == of(5, Into::Add), "{rows} x {inner} x {columns}");
            assert!(of(1, Into::Overwrite) == of(3, Into::Overwrite), "{rows} x {inner} x {columns}");
        }
    }
}
