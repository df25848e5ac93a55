//! Times attention, ours and the reference, at the heads of SmolLM2-135M; a line of JSON each.
//!
//! `cargo bench -p fthost-kernels --bench attention -- [attention | qkv_attention] [4x256 | 1x4096 | 8x96 | 64+8x32]
//! [ours | reference]`
//!
//! The last two are eight sequences of 96 tokens whose first 64 are the same, apart and with those there once.
//! The least of several rounds; with `ROUNDS=n` in the environment, of `n`. `gflops` counts the products of scores that
//! causality asks for, two in forward and five in backward.

mod support;

use burn::tensor::Tensor;
use fthost_kernels::attention::{attention_reference, qkv_attention_reference};
use fthost_kernels::{AttentionConfig, attention, qkv_attention};
use support::{Line, VARIANTS, Words, forward_and_backward, leaf, random, rounds};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD_DIM: usize = 64;
const OPERATIONS: [&str; 2] = ["attention", "qkv_attention"];
/// Name, sequences, tokens of each and what they share before.
const SHAPES: [(&str, usize, usize, usize); 4] =
    [("4x256", 4, 256, 0), ("1x4096", 1, 4096, 0), ("8x96", 8, 96, 0), ("64+8x32", 8, 32, 64)];

/// What comes before all sequences, if anything, and they.
fn config(sequences: usize, length: usize, shared: usize) -> AttentionConfig {
    let ends = (shared..=shared + sequences * length).step_by(length);
    let (cu_seqlens, parents): (Vec<usize>, Vec<Option<usize>>) = match shared {
        0 => (ends.collect(), Vec::new()),
        _ => (
            std::iter::once(0).chain(ends).collect(),
            std::iter::once(None).chain(vec![Some(0); sequences]).collect(),
        ),
    };
    AttentionConfig {
        cu_seqlens: cu_seqlens.into(),
        parents: parents.into(),
        scale: (HEAD_DIM as f64).powf(-0.5),
        window: None,
        softcap: None,
    }
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
        f(leaf(&qkv, tracked), Some((table(&cos), table(&sin))), HEADS, KV_HEADS, &config)
    })
}

fn main() {
    let words = Words::read();
    for operation in OPERATIONS.into_iter().filter(|it| words.ask(&OPERATIONS, it)) {
        for (shape, sequences, length, shared) in SHAPES {
            for variant in VARIANTS.into_iter().filter(|it| words.ask(&VARIANTS, it)) {
                if !words.ask(&SHAPES.map(|it| it.0), shape) {
                    continue;
                }
                let tokens = shared + sequences * length;
                let f = prepare(operation, variant == "ours", tokens, config(sequences, length, shared));
                let [forward, both] = forward_and_backward(rounds(if tokens > 2048 { 3 } else { 5 }), f);
                let pairs = sequences * length * (2 * shared + length + 1) + shared * (shared + 1);
                let flops = (pairs * HEADS * HEAD_DIM) as f64;
                Line::new("attention", operation, shape, variant)
                    .times("forward", forward)
                    .times("forward_backward", both)
                    .number("forward_gflops", 2.0 * flops / forward.clock / 1e6)
                    .number("forward_backward_gflops", 7.0 * flops / both.clock / 1e6)
                    .print();
            }
        }
    }
}
