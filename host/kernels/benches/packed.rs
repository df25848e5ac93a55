//! Times a linear layer with a frozen weight in f32, bf16 and fewer bits, in turns; a line of JSON a number of rows and
//! variant, with the time as a multiple of f32's.
//!
//! `cargo bench -p fthost-kernels --bench packed -- [ROWS ...] [f32 | bf16 | nf4 | int8 | q4_0 | q4_k | q6_k]`
//!
//! Forward, and forward with the backward of a given gradient, as a block's backward has it. The least of several rounds
//! (`ROUNDS=n` in the environment).

mod support;

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use fthost_kernels::lora_linear::{LoraLinear, Weight, lora_linear};
use fthost_kernels::{FourBit, FourBitConfig, GgmlBlocks, GgmlType, Int8Rows, Packed};
use support::{Line, Times, Words, forward_and_backward, leaf, random, rounds};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: [&str; 2] = ["16", "1024"];
const STORED: [&str; 7] = ["f32", "bf16", "nf4", "int8", "q4_0", "q4_k", "q6_k"];
/// Rows that are whole blocks of every kind.
const SHAPE: [usize; 2] = [1536, 768];

fn layer(weight: &Tensor<2>, stored: &str) -> LoraLinear {
    let values = || weight.clone().try_into_vec_as::<f32>().expect("floats");
    let weight: Weight = match stored {
        "f32" => weight.clone().into(),
        "bf16" => weight.clone().cast(DType::BF16).into(),
        "nf4" => packed(FourBit::quantize(&values(), SHAPE, FourBitConfig::default())),
        "int8" => packed(Int8Rows::quantize(&values(), SHAPE)),
        "q4_0" => packed(blocks(GgmlType::Q4_0)),
        "q4_k" => packed(blocks(GgmlType::Q4K)),
        "q6_k" => packed(blocks(GgmlType::Q6K)),
        other => unreachable!("{other} is not among those stored"),
    };
    LoraLinear { weight, bias: None, lora: None }
}

fn packed(weight: impl Into<Packed>) -> Weight {
    Arc::new(weight.into()).into()
}

/// Blocks of bytes from 0x20 to 0x2f, which are small numbers wherever a block has a float of 16 bits.
fn blocks(kind: GgmlType) -> GgmlBlocks {
    let bytes = kind.bytes(SHAPE).expect("whole blocks");
    let data: Vec<u8> = (0..bytes).map(|it| 0x20 | (it * 7 / 3 % 16) as u8).collect();
    GgmlBlocks::new(kind, data.into(), SHAPE).expect("as many bytes as it takes")
}

fn main() {
    let (words, weight) = (Words::read(), random(SHAPE));
    let layers = STORED.map(|it| layer(&weight, it));
    for rows in ROWS.into_iter().filter(|it| words.ask(&ROWS, it)) {
        let x = random([rows.parse().expect("a number"), SHAPE[1]]);
        let mut found = [[Times { clock: f64::INFINITY, cpu: f64::INFINITY }; 2]; STORED.len()];
        for _ in 0..rounds(5) {
            for (found, layer) in found.iter_mut().zip(&layers) {
                let times = forward_and_backward(1, |tracked| lora_linear(leaf(&x, tracked), layer));
                for (found, times) in found.iter_mut().zip(times) {
                    found.clock = found.clock.min(times.clock);
                    found.cpu = found.cpu.min(times.cpu);
                }
            }
        }
        for (stored, times) in STORED.into_iter().zip(found).filter(|it| words.ask(&STORED, it.0)) {
            let shape = format!("{rows} rows, {}x{}", SHAPE[0], SHAPE[1]);
            let line = Line::new("packed", "linear", &shape, stored);
            let line = line.times("forward", times[0]).times("both", times[1]);
            let ratio = |it: usize| times[it].clock / found[0][it].clock;
            line.number("forward_of_f32", ratio(0)).number("both_of_f32", ratio(1)).print();
        }
    }
}
