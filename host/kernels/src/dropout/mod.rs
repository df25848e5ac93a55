//! Dropout from a seed instead of a running generator: a mask is a function of seed, row and column alone, so whoever
//! computes it again, or on another number of threads, meets the same one.

use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::extension::{Operation, apply, is_ours};
use crate::flex::{dims2, tensor, unfilled, values};

/// Rows of a task.
const ROWS: usize = 32;

/// Which values become 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Dropout {
    /// Share of values that become 0, in `[0, 1)`; used in steps of 1/65536.
    pub rate: f64,
    /// Seed of the mask.
    pub seed: [u8; 32],
}

/// `x` with some values 0 and the others scaled so that the mean is kept.
///
/// # Shapes
/// - `x` and result: `[T, D]`
pub fn dropout(x: Tensor<2>, mask: &Dropout) -> Tensor<2> {
    if is_ours(&x) {
        return apply(vec![x.into()], Dropped(mask.clone()));
    }
    dropout_reference(x, mask)
}

/// [`dropout`] in plain tensor operations.
pub fn dropout_reference(x: Tensor<2>, mask: &Dropout) -> Tensor<2> {
    let [rows, width] = x.dims();
    let mut factors = vec![0.0; rows * width];
    factors.chunks_exact_mut(width).enumerate().for_each(|(row, factors)| mask.row(row, factors));
    let (device, dtype) = (x.device().inner(), x.dtype());
    let factors = Tensor::<2>::from_data(TensorData::new(factors, [rows, width]), &device).cast(dtype);
    x * factors
}

impl Dropout {
    /// Of 65536 values, how many become 0.
    fn dropped(&self) -> u16 {
        (self.rate * 65536.0).round().min(65535.0) as u16
    }

    /// What the values of `row` are multiplied by: 0, or what keeps the mean.
    fn row(&self, row: usize, factors: &mut [f32]) {
        let dropped = self.dropped();
        let kept = 1.0 / (1.0 - f32::from(dropped) / 65536.0);
        let mut rng = ChaCha8Rng::from_seed(self.seed);
        rng.set_stream(row as u64);
        let mut draws = [0u8; 512];
        for factors in factors.chunks_mut(draws.len() / 2) {
            let draws = &mut draws[..2 * factors.len()];
            rng.fill_bytes(draws);
            for (factor, draw) in factors.iter_mut().zip(draws.as_chunks::<2>().0) {
                *factor = if u16::from_le_bytes(*draw) < dropped { 0.0 } else { kept };
            }
        }
    }

    /// The masked rows of `x`, `[T, width]`.
    pub(crate) fn masked(&self, x: &[f32], width: usize) -> Vec<f32> {
        let mut y = unfilled(x.len());
        self.each_row(&mut y, x, width, |y, x, factor| *y = x * factor);
        y
    }

    /// Adds the masked rows of `x` to `y`.
    pub(crate) fn add_masked(&self, y: &mut [f32], x: &[f32], width: usize) {
        self.each_row(y, x, width, |y, x, factor| *y += x * factor);
    }

    fn each_row(&self, y: &mut [f32], x: &[f32], width: usize, f: impl Fn(&mut f32, f32, f32) + Sync) {
        let tasks = y.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width)).enumerate();
        tasks.for_each(|(task, (y, x))| {
            let mut factors = vec![0.0; width];
            for (row, (y, x)) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate() {
                self.row(task * ROWS + row, &mut factors);
                for ((y, x), factor) in y.iter_mut().zip(x).zip(&factors) {
                    f(y, *x, *factor);
                }
            }
        });
    }
}

#[derive(Debug)]
struct Dropped(Dropout);

impl Operation for Dropped {
    fn forward(&self, inputs: Vec<FlexTensor>, _: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [rows, width] = dims2(&inputs[0]);
        (tensor(self.0.masked(values(&inputs[0]), width), &[rows, width]), Vec::new())
    }

    fn backward(&self, _: Vec<FlexTensor>, gradient: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let [rows, width] = dims2(&gradient);
        vec![Some(tensor(self.0.masked(values(&gradient), width), &[rows, width]))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{compare, random};
    use burn::tensor::Device;

    #[test]
    fn values_and_gradients_equal_the_reference() {
        let mask = Dropout { rate: 0.3, seed: [7; 32] };
        for shape in [[1, 3], [70, 300]] {
            compare(
                &[random(shape, 1).into()],
                |it| dropout(it[0].matrix(), &mask),
                |it| dropout_reference(it[0].matrix(), &mask),
                0.0,
            );
        }
    }

    #[test]
    fn a_mask_keeps_the_mean_and_depends_on_its_seed_alone() {
        let x = Tensor::<2>::ones([200, 100], &Device::flex());
        let values = |seed: u8, rows: usize| {
            let mask = Dropout { rate: 0.25, seed: [seed; 32] };
            dropout(x.clone().narrow(0, 0, rows), &mask).try_into_vec_as::<f32>().unwrap()
        };
        let mask = values(1, 200);
        let zeros = mask.iter().filter(|it| **it == 0.0).count();
        // 20000 draws: the standard deviation of the share is 0.003.
        assert!((zeros as f64 / 20_000.0 - 0.25).abs() < 0.015, "{zeros}");
        assert!(mask.iter().all(|it| *it == 0.0 || (it - 4.0 / 3.0).abs() < 1e-6));
        assert_eq!(mask[..5000], values(1, 50));
        assert_ne!(mask, values(2, 200));
    }
}
