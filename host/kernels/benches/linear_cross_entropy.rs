//! Times the head's loss and its log-probabilities, ours and the reference, at the head of SmolLM2-135M; a line of JSON
//! each.
//!
//! `cargo bench -p fthost-kernels --bench linear_cross_entropy -- [loss | logps] [ours | reference] [frozen | trained]`
//!
//! The least of several rounds, forward and backward. `peak_mib` is what the process held at most, less what it held
//! before the first round: ask for one case at a time to read it.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use fthost_kernels::linear_cross_entropy::{
    linear_cross_entropy, linear_cross_entropy_reference, token_logps, token_logps_reference,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 4;
const ROWS: usize = 1024;
const WIDTH: usize = 576;
const VOCABULARY: usize = 49_152;

/// A line of `/proc/self/status` in MiB; 0 where there is no such file.
fn status(key: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|it| it.strip_prefix(key)).unwrap_or_default();
    let number = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    number.parse::<f64>().unwrap_or_default() / 1024.0
}

type Scalar = fn(Tensor<2>, Tensor<2>, &[u32]) -> Tensor<1>;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let asked = |choices: [&str; 2], it: &str| {
        !words.iter().any(|word| choices.contains(&word.as_str())) || words.iter().any(|word| word == it)
    };
    let operations: [(&str, [Scalar; 2]); 2] = [
        (
            "loss",
            [
                |h, w, t| linear_cross_entropy(h, w, t).loss_sum,
                |h, w, t| linear_cross_entropy_reference(h, w, t).loss_sum,
            ],
        ),
        ("logps", [|h, w, t| token_logps(h, w, t).sum(), |h, w, t| token_logps_reference(h, w, t).sum()]),
    ];
    let random = |shape| Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex());
    let (hidden, weight) = (random([ROWS, WIDTH]), random([VOCABULARY, WIDTH]));
    let targets: Vec<u32> = (0..ROWS).map(|it| (it * 7919 % VOCABULARY) as u32).collect();
    for (operation, variants) in operations {
        for (variant, scalar) in ["ours", "reference"].into_iter().zip(variants) {
            for head in ["frozen", "trained"] {
                let skipped = !asked(["loss", "logps"], operation)
                    || !asked(["ours", "reference"], variant)
                    || !asked(["frozen", "trained"], head);
                if skipped {
                    continue;
                }
                let before = status("VmRSS");
                let round = |_| {
                    let begin = Instant::now();
                    let hidden = hidden.clone().autodiff().require_grad();
                    let weight = match head {
                        "trained" => weight.clone().autodiff().require_grad(),
                        _ => weight.clone(),
                    };
                    std::hint::black_box(scalar(hidden, weight, &targets).backward());
                    begin.elapsed().as_secs_f64() * 1e3
                };
                let least = (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min);
                let products = if operation == "logps" { 3.0 } else { 2.0 } + f64::from(head == "trained");
                let gflops = products * 2.0 * (ROWS * WIDTH * VOCABULARY) as f64 / least / 1e6;
                let peak = status("VmHWM") - before;
                println!(
                    "{{\"bench\": \"linear_cross_entropy\", \"operation\": \"{operation}\", \"variant\": \
                     \"{variant}\", \"head\": \"{head}\", \"forward_backward_ms\": {least:.1}, \"gflops\": \
                     {gflops:.1}, \"peak_mib\": {peak:.0}}}"
                );
            }
        }
    }
}
