//! `x weight^T`: the product that every linear layer and the head are made of.
//!
//! Decoding has one row a sequence, so the weight is read once for very little arithmetic. On the CPU a general matrix
//! product packs the weight first, which for few rows costs more than the product itself. Two ways around it, each in
//! plain tensor operations: row by row, where a product of a matrix and a vector packs nothing, and the weight in blocks
//! of rows, a batch of small products that need no packing and run on all cores. `benches/linear.rs` compares them.

use burn::tensor::{Device, Tensor};

/// Rows of `x` up to which each is taken alone.
const ALONE: usize = 3;

/// Rows of `x` up to which the weight is taken in blocks.
const FEW_ROWS: usize = 32;

/// Rows of a block: the first that divides the weight's. Multiples of 6, as wide as the product's inner kernel, come
/// first; smaller blocks would pack `x` too often.
const BLOCKS: [usize; 5] = [48, 24, 64, 32, 16];

/// `x weight^T`.
///
/// # Shapes
/// - `x`: `[T, in]`, `weight`: `[out, in]`, result: `[T, out]`
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let [rows, _] = x.dims();
    let few = (2..=FEW_ROWS).contains(&rows);
    if !few || x.is_autodiff() || weight.is_autodiff() || x.device() != Device::flex() {
        return linear_reference(x, weight);
    }
    if rows <= ALONE {
        let alone = (0..rows).map(|row| linear_reference(x.clone().narrow(0, row, 1), weight.clone()));
        return Tensor::cat(alone.collect(), 0);
    }
    match BLOCKS.iter().find(|block| weight.dims()[0].is_multiple_of(**block)) {
        Some(block) => in_blocks(x, weight, *block),
        None => linear_reference(x, weight),
    }
}

/// [`linear`] in plain tensor operations.
pub fn linear_reference(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    x.matmul(weight.transpose())
}

fn in_blocks(x: Tensor<2>, weight: Tensor<2>, block: usize) -> Tensor<2> {
    let ([rows, width], [out, _]) = (x.dims(), weight.dims());
    let blocks = weight.reshape([out / block, block, width]);
    // `[out / block, block, T]`, which in storage is the result's transpose.
    let product = blocks.matmul(x.transpose().unsqueeze::<3>());
    product.reshape([out, rows]).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Distribution;

    /// Sums of 96 products of values in `[-1, 1)` in f32, in two orders: 1e-5.
    #[test]
    fn few_rows_are_multiplied_as_many_are() {
        let device = Device::flex();
        let between = Distribution::Uniform(-1.0, 1.0);
        for out in [8, 24, 40, 64, 96, 513] {
            let weight = Tensor::<2>::random([out, 96], between, &device);
            for rows in [1, 2, 3, 4, 8, 31, 32, 33] {
                let x = Tensor::<2>::random([rows, 96], between, &device);
                let expected = linear_reference(x.clone(), weight.clone());
                let got = linear(x, weight.clone());
                assert_eq!(got.dims(), [rows, out]);
                let worst = (got - expected).abs().max().into_scalar::<f32>();
                assert!(worst < 1e-5, "{rows} rows, {out} wide: differs by {worst:e}");
            }
        }
    }
}
