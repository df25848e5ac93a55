//! What a product with a weight in 4 bits allocates, counted by the allocator: a program of its own, because the count is
//! global.

#[path = "../../../tests/support/counting.rs"]
mod counting;

use std::sync::Arc;

use burn::tensor::{Device, Distribution, Tensor};
use fthost_kernels::packed::packed_linear_reference;
use fthost_kernels::{FourBit, FourBitConfig, Packed, packed_linear};

use counting::{Counting, live, restart_peak};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIDE: usize = 2048;
/// Bytes of the weight in f32.
const DENSE: isize = (4 * SIDE * SIDE) as isize;

/// Bytes at the peak of forward and backward of `rows` rows, beside the input and the weight.
fn peak(rows: usize, product: impl Fn(Tensor<2>) -> Tensor<2>) -> isize {
    let x = Tensor::<2>::random([rows, SIDE], Distribution::Uniform(-1.0, 1.0), &Device::flex());
    let x = x.autodiff().require_grad();
    let before = live();
    restart_peak();
    let graph = product(x).sum().backward();
    drop(graph);
    counting::peak() - before
}

/// A tile is 1 MiB, and each of the results of 64 rows half of that; the dense weight would be 16 MiB.
#[test]
fn the_dense_weight_is_never_there() {
    let values: Vec<f32> = (0..SIDE * SIDE).map(|it| (it % 1000) as f32 - 500.0).collect();
    let weight = Arc::new(Packed::from(FourBit::quantize(&values, [SIDE, SIDE], FourBitConfig::default())));
    drop(values);
    for rows in [16, 64] {
        // Thread pool and matrix product keep what they allocate at first.
        peak(rows, |x| packed_linear(x, &weight));
        let ours = peak(rows, |x| packed_linear(x, &weight));
        assert!(ours < DENSE / 2, "{rows} rows: {ours} bytes");
        let reference = peak(rows, |x| packed_linear_reference(x, &weight));
        assert!(reference > DENSE, "the count would see it: {reference} bytes");
    }
}
