//! Times attention, ours and the reference, at the heads of SmolLM2-135M; a line of JSON each.
//!
//! `cargo bench -p fthost-kernels --bench attention -- [attention | qkv_attention] [4x256 | 1x4096] [ours | reference]`
//!
//! The least of several rounds; with `ROUNDS=n` in the environment, of `n`. `gflops` counts the products of scores that
//! causality asks for, two in forward and five in backward.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use fthost_kernels::attention::{attention_reference, qkv_attention_reference};
use fthost_kernels::{AttentionConfig, attention, qkv_attention};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD_DIM: usize = 64;
const OPERATIONS: [&str; 2] = ["attention", "qkv_attention"];
const SHAPES: [(&str, usize, usize); 2] = [("4x256", 4, 256), ("1x4096", 1, 4096)];
const VARIANTS: [&str; 2] = ["ours", "reference"];

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex())
}

/// A leaf of a graph where one is wanted.
fn leaf<const D: usize>(tensor: &Tensor<D>, tracked: bool) -> Tensor<D> {
    if tracked { tensor.clone().autodiff().require_grad() } else { tensor.clone() }
}

/// The attention of `operation` over `tokens`, with a graph where it is asked for.
fn prepare(
    operation: &str,
    ours: bool,
    tokens: usize,
    config: AttentionConfig,
) -> Box<dyn Fn(bool) -> Tensor<2>> {
    if operation == "attention" {
        let f = if ours { attention } else { attention_reference };
        let [q, k, v] = [HEADS, KV_HEADS, KV_HEADS].map(|it| random([tokens, it, HEAD_DIM]));
        return Box::new(move |tracked| {
            f(leaf(&q, tracked), leaf(&k, tracked), leaf(&v, tracked), &config).flatten(1, 2)
        });
    }
    let f = if ours { qkv_attention } else { qkv_attention_reference };
    let qkv = random([tokens, (HEADS + 2 * KV_HEADS) * HEAD_DIM]);
    let [cos, sin] = [0, 1].map(|_| random([tokens, HEAD_DIM / 2]));
    Box::new(move |tracked| {
        let table = |it: &Tensor<2>| if tracked { it.clone().autodiff() } else { it.clone() };
        f(leaf(&qkv, tracked), table(&cos), table(&sin), HEADS, KV_HEADS, &config)
    })
}

/// Nanoseconds that the process's threads have computed; 0 where the system does not say. A pool's threads do not end.
fn computed() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let times = threads.filter_map(|it| std::fs::read_to_string(it.path().join("schedstat")).ok());
    times.filter_map(|it| it.split(' ').next()?.parse::<u64>().ok()).sum()
}

/// The least milliseconds of a round, by the clock and of all threads' computing.
fn least(rounds: usize, mut f: impl FnMut()) -> [f64; 2] {
    let round = |_| {
        let (begin, before) = (Instant::now(), computed());
        f();
        [begin.elapsed().as_secs_f64() * 1e3, (computed() - before) as f64 / 1e6]
    };
    (0..rounds).map(round).fold([f64::INFINITY; 2], |a, b| [a[0].min(b[0]), a[1].min(b[1])])
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let asked = |choices: &[&str], it: &str| {
        !words.iter().any(|word| choices.contains(&word.as_str())) || words.iter().any(|word| word == it)
    };
    let rounds = std::env::var("ROUNDS").ok().and_then(|it| it.parse().ok());
    for operation in OPERATIONS.into_iter().filter(|it| asked(&OPERATIONS, it)) {
        for (shape, sequences, length) in SHAPES {
            for variant in VARIANTS.into_iter().filter(|it| asked(&VARIANTS, it)) {
                if !asked(&SHAPES.map(|it| it.0), shape) {
                    continue;
                }
                let tokens = sequences * length;
                let config = AttentionConfig {
                    cu_seqlens: (0..=tokens).step_by(length).collect(),
                    scale: (HEAD_DIM as f64).powf(-0.5),
                    window: None,
                };
                let f = prepare(operation, variant == "ours", tokens, config);
                let rounds = rounds.unwrap_or(if tokens > 2048 { 3 } else { 9 });
                let [forward, forward_cpu] = least(rounds, || drop(std::hint::black_box(f(false))));
                let [both, both_cpu] = least(rounds, || drop(std::hint::black_box(f(true).sum().backward())));
                let flops = (sequences * HEADS * length * (length + 1) * HEAD_DIM) as f64;
                let (gflops, both_gflops) = (2.0 * flops / forward / 1e6, 7.0 * flops / both / 1e6);
                println!(
                    "{{\"bench\": \"attention\", \"operation\": \"{operation}\", \"shape\": \"{shape}\", \
                     \"variant\": \"{variant}\", \"forward_ms\": {forward:.2}, \"forward_backward_ms\": {both:.2}, \
                     \"forward_cpu_ms\": {forward_cpu:.2}, \"forward_backward_cpu_ms\": {both_cpu:.2}, \
                     \"forward_gflops\": {gflops:.1}, \"forward_backward_gflops\": {both_gflops:.1}}}"
                );
            }
        }
    }
}
