//! `x weight^T`: the product that every linear layer and the head are made of.

pub(crate) mod few_rows;
pub(crate) mod stored;
pub(crate) mod weight;

use burn::backend::Flex;
use burn::tensor::{DType, Tensor};

use crate::extension::is_ours;
use crate::flex::{contiguous, dims2, primitive, tensor, unfilled, values};
use few_rows::{FEW_ROWS, few_rows};
pub use weight::int8;
pub(crate) use weight::is_our_weight;
use weight::{Given, dequantized};

/// `x weight^T`.
///
/// A frozen weight may be bf16 or [`int8`] beside an `x` in f32.
///
/// # Shapes
/// - `x`: `[T, in]`, `weight`: `[out, in]`, result: `[T, out]`
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let few = (1..=FEW_ROWS).contains(&x.dims()[0]);
    if !few || x.is_autodiff() || !is_ours(&x) || !is_our_weight(&weight) || weight.is_autodiff() {
        return linear_reference(x, weight);
    }
    let out = weight.dims()[0];
    let (x, weight) = (contiguous(primitive(x)), Given::new(weight));
    let [rows, width] = dims2(&x);
    let mut y = unfilled(rows * out);
    few_rows(values(&x), width, &[weight.stored()], &mut y, false);
    Tensor::from_primitive::<Flex>(tensor(y, &[rows, out]))
}

/// [`linear`] in plain tensor operations.
pub fn linear_reference(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let (weight, dtype) = (dequantized(weight), x.dtype());
    let narrow = weight.dtype() == DType::BF16 && dtype == DType::F32;
    let weight = if narrow { weight.cast(dtype) } else { weight };
    x.matmul(weight.transpose())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    /// Sums of 100 products of values in `[-1, 1)` in f32, in two orders: 1e-5.
    #[test]
    fn few_rows_are_multiplied_as_many_are() {
        let device = Device::flex();
        let between = Distribution::Uniform(-1.0, 1.0);
        for (out, width) in [(3, 7), (8, 96), (24, 100), (513, 96)] {
            let weight = Tensor::<2>::random([out, width], between, &device);
            for weight in [weight.clone(), weight.clone().cast(DType::BF16), int8(weight)] {
                for rows in [1, 2, 3, 8, 9, 16, 17, 24, 33, FEW_ROWS, FEW_ROWS + 1] {
                    let x = Tensor::<2>::random([rows, width], between, &device);
                    let expected = linear_reference(x.clone(), weight.clone());
                    let got = linear(x, weight.clone());
                    assert_eq!(got.dims(), [rows, out]);
                    let worst = (got - expected).abs().max().into_scalar::<f32>();
                    assert!(worst < 1e-5, "{rows} rows, {out} wide: differs by {worst:e}");
                }
            }
        }
    }

    /// Which sums are taken depends on how many rows there are, not on what stands in them.
    #[test]
    fn a_row_does_not_depend_on_the_others() {
        let (device, between) = (Device::flex(), Distribution::Uniform(-1.0, 1.0));
        let weight = Tensor::<2>::random([50, 70], between, &device);
        let bits = |it: Tensor<2>| -> Vec<u32> {
            it.try_into_vec_as::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        for rows in [2, 3, 9, 20, FEW_ROWS] {
            let x = Tensor::<2>::random([rows, 70], between, &device);
            let all = linear(x.clone(), weight.clone());
            for row in 0..rows {
                let others = Tensor::<2>::random([rows, 70], between, &device);
                let x = others.slice_assign([row..row + 1, 0..70], x.clone().narrow(0, row, 1));
                let got = linear(x, weight.clone()).narrow(0, row, 1);
                assert_eq!(bits(got), bits(all.clone().narrow(0, row, 1)), "row {row} of {rows}");
            }
        }
    }
}
