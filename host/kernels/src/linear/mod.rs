//! `x weight^T`: the product that every linear layer and the head are made of.
//!
//! Decoding has one row a sequence, so the weight is read once for very little arithmetic. A general matrix product
//! packs the weight first, which for few rows costs more than the product itself; here the weight is taken in blocks
//! of rows instead, as a batch of small products that need no packing and run on all cores.

use burn::tensor::{Device, Tensor};

/// Rows of `x` up to which the weight is taken in blocks.
const FEW_ROWS: usize = 16;

/// Elements of a block's result: as far as the CPU's matrix product works on unpacked operands.
const BLOCK_ELEMENTS: usize = 256;

/// `x weight^T`.
///
/// # Shapes
/// - `x`: `[T, in]`, `weight`: `[out, in]`, result: `[T, out]`
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let [rows, _] = x.dims();
    if rows > FEW_ROWS || x.is_autodiff() || weight.is_autodiff() || x.device() != Device::flex() {
        return linear_reference(x, weight);
    }
    match block_rows(weight.dims()[0], rows) {
        Some(block) => in_blocks(x, weight, block),
        None => linear_reference(x, weight),
    }
}

/// [`linear`] in plain tensor operations.
pub fn linear_reference(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    x.matmul(weight.transpose())
}

/// The largest power of two that divides `out` and keeps a block's result small; `None` where it would be no block.
fn block_rows(out: usize, rows: usize) -> Option<usize> {
    let largest = 1 << (BLOCK_ELEMENTS.checked_div(rows)?).ilog2();
    Some(largest.min(1 << out.trailing_zeros())).filter(|block| *block >= 8)
}

fn in_blocks(x: Tensor<2>, weight: Tensor<2>, block: usize) -> Tensor<2> {
    let ([rows, width], [out, _]) = (x.dims(), weight.dims());
    let blocks = weight.reshape([out / block, block, width]);
    // `[out / block, block, T]`: what lies behind it is the transpose of the result.
    let product = blocks.matmul(x.transpose().unsqueeze::<3>());
    if rows == 1 { product.reshape([1, out]) } else { product.reshape([out, rows]).transpose() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Distribution;

    /// Sums of 96 products of values in `[-1, 1)` in f32, in two orders: 1e-5.
    #[test]
    fn blocks_of_the_weight_equal_the_whole() {
        let device = Device::flex();
        let between = Distribution::Uniform(-1.0, 1.0);
        for out in [8, 24, 40, 64, 513] {
            let weight = Tensor::<2>::random([out, 96], between, &device);
            for rows in [1, 2, 3, 8, 15, 16, 17] {
                let x = Tensor::<2>::random([rows, 96], between, &device);
                let expected = linear_reference(x.clone(), weight.clone());
                let worst = (linear(x, weight.clone()) - expected).abs().max().into_scalar::<f32>();
                assert!(worst < 1e-5, "{rows} rows, {out} wide: differs by {worst:e}");
            }
        }
    }

    #[test]
    fn a_block_divides_the_weight_and_stays_small() {
        assert_eq!(block_rows(576, 8), Some(32));
        assert_eq!(block_rows(576, 1), Some(64));
        assert_eq!(block_rows(49152, 16), Some(16));
        assert_eq!(block_rows(49152, 3), Some(64));
        assert_eq!(block_rows(36, 8), None);
        assert_eq!(block_rows(64, 0), None);
    }
}
