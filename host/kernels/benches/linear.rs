//! Times `linear` and its reference at the shapes of SmolLM2-135M; a line of JSON a shape and number of rows.
//!
//! `cargo bench -p fthost-kernels --bench linear -- [OUTxIN ...] [ROWS ...] [ours | reference]`
//!
//! Forward only: it is decoding's product. The least of several rounds (`ROUNDS=n` in the environment), each over enough
//! weights that none stays in the cache.

mod support;

use burn::tensor::Tensor;
use fthost_kernels::linear::{linear, linear_reference};
use support::{Line, VARIANTS, Words, least, random, rounds};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Elements of all weights of a round, 128 MiB.
const ELEMENTS: usize = 1 << 25;
const ROWS: [&str; 7] = ["1", "2", "3", "4", "8", "16", "32"];
const SHAPES: [(&str, usize, usize); 5] = [
    ("192x576", 192, 576),
    ("576x576", 576, 576),
    ("1536x576", 1536, 576),
    ("576x1536", 576, 1536),
    ("49152x576", 49_152, 576),
];

fn main() {
    let words = Words::read();
    for (shape, out, width) in SHAPES.into_iter().filter(|it| words.ask(&SHAPES.map(|it| it.0), it.0)) {
        let weights: Vec<Tensor<2>> =
            (0..(ELEMENTS / (out * width)).max(1)).map(|_| random([out, width])).collect();
        for rows in ROWS.into_iter().filter(|it| words.ask(&ROWS, it)) {
            let x = random([rows.parse().expect("a number"), width]);
            for variant in VARIANTS.into_iter().filter(|it| words.ask(&VARIANTS, it)) {
                let product = if variant == "ours" { linear } else { linear_reference };
                let each = || {
                    for weight in &weights {
                        std::hint::black_box(product(x.clone(), weight.clone()));
                    }
                };
                let times = least(rounds(5), each).over(weights.len());
                let name = format!("{shape}, {rows} rows");
                Line::new("linear", "linear", &name, variant).times("forward", times).print();
            }
        }
    }
}
