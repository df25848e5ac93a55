//! Times the head's loss and its log-probabilities, ours and the reference, at the head of SmolLM2-135M; a line of JSON
//! each.
//!
//! `cargo bench -p fthost-kernels --bench linear_cross_entropy -- [loss | logps] [ours | reference] [frozen | trained]`
//!
//! The least of several rounds (`ROUNDS=n` in the environment), of `ROWS` rows. `peak_mib` is what the process held at
//! most in them, hidden states and head included: ask for one case at a time to read it.

mod support;

use burn::tensor::Tensor;
use fthost_kernels::linear_cross_entropy::{
    linear_cross_entropy, linear_cross_entropy_reference, token_logps, token_logps_reference,
};
use support::{Line, Memory, VARIANTS, Words, forward_and_backward_of_sum, leaf, random, rounds};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: usize = 1024;
const WIDTH: usize = 576;
const VOCABULARY: usize = 49_152;
const OPERATIONS: [&str; 2] = ["loss", "logps"];
const HEADS: [&str; 2] = ["frozen", "trained"];

/// The loss, `[1]`, or the log-probabilities, `[S]`.
fn head(operation: &str, ours: bool) -> fn(Tensor<2>, Tensor<2>, &[u32]) -> Tensor<1> {
    match (operation, ours) {
        ("loss", true) => |h, w, t| linear_cross_entropy(h, w, None, t).loss_sum,
        ("loss", false) => |h, w, t| linear_cross_entropy_reference(h, w, None, t).loss_sum,
        (_, true) => |h, w, t| token_logps(h, w, None, t).logps,
        (_, false) => |h, w, t| token_logps_reference(h, w, None, t).logps,
    }
}

fn main() {
    let words = Words::read();
    let memory = Memory::now();
    let (hidden, weight) = (random([ROWS, WIDTH]), random([VOCABULARY, WIDTH]));
    let targets: Vec<u32> = (0..ROWS).map(|it| (it * 7919 % VOCABULARY) as u32).collect();
    for operation in OPERATIONS.into_iter().filter(|it| words.ask(&OPERATIONS, it)) {
        for variant in VARIANTS.into_iter().filter(|it| words.ask(&VARIANTS, it)) {
            for kind in HEADS.into_iter().filter(|it| words.ask(&HEADS, it)) {
                let f = head(operation, variant == "ours");
                Memory::forget_peak();
                let [forward, both] = forward_and_backward_of_sum(rounds(4), |tracked| {
                    f(leaf(&hidden, tracked), leaf(&weight, tracked && kind == "trained"), &targets)
                });
                let products =
                    if operation == "logps" { 3.0 } else { 2.0 } + f64::from(u8::from(kind == "trained"));
                let flops = products * 2.0 * (ROWS * WIDTH * VOCABULARY) as f64;
                Line::new("linear_cross_entropy", operation, kind, variant)
                    .times("forward", forward)
                    .times("forward_backward", both)
                    .number("forward_backward_gflops", flops / both.clock / 1e6)
                    .number("peak_mib", memory.peak_mib())
                    .print();
            }
        }
    }
}
