//! Times `linear` and its reference at the shapes of SmolLM2-135M; a line of JSON a shape and number of rows.
//!
//! `cargo bench -p fthost-kernels --bench linear`
//!
//! The least of several rounds, each over enough weights that none stays in the cache.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use fthost_kernels::linear::{linear, linear_reference};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 6;
/// Elements of all weights of a round, 128 MiB.
const ELEMENTS: usize = 1 << 25;

/// Microseconds of one product.
fn time(x: &Tensor<2>, weights: &[Tensor<2>], product: fn(Tensor<2>, Tensor<2>) -> Tensor<2>) -> f64 {
    let round = || {
        let begin = Instant::now();
        for weight in weights {
            std::hint::black_box(product(x.clone(), weight.clone()));
        }
        begin.elapsed().as_secs_f64() * 1e6 / weights.len() as f64
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

fn main() {
    let device = Device::flex();
    let between = Distribution::Uniform(-1.0, 1.0);
    for [out, width] in [[192, 576], [576, 576], [1536, 576], [576, 1536], [49152, 576]] {
        let weights: Vec<Tensor<2>> = (0..(ELEMENTS / (out * width)).max(1))
            .map(|_| Tensor::random([out, width], between, &device))
            .collect();
        for rows in [1, 2, 3, 4, 8, 16, 32] {
            let x = Tensor::<2>::random([rows, width], between, &device);
            let (ours, plain) = (time(&x, &weights, linear), time(&x, &weights, linear_reference));
            println!(
                "{{\"bench\": \"linear\", \"out\": {out}, \"in\": {width}, \"rows\": {rows}, \
                 \"microseconds\": {ours:.1}, \"reference_microseconds\": {plain:.1}}}"
            );
        }
    }
}
