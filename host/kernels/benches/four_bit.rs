//! Times a linear layer with a frozen weight in f32, bf16 and NF4, in turns; a line of JSON a number of rows and variant,
//! with the time as a multiple of f32's.
//!
//! `cargo bench -p fthost-kernels --bench four_bit -- [ROWS ...] [f32 | bf16 | nf4]`
//!
//! Forward, and forward with the backward of a given gradient, as a block's backward has it. The least of several rounds
//! (`ROUNDS=n` in the environment).

mod support;

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use fthost_kernels::lora_linear::{LoraLinear, Weight, lora_linear};
use fthost_kernels::{FourBit, FourBitConfig, Packed};
use support::{Line, Times, Words, forward_and_backward, leaf, random, rounds};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: [&str; 2] = ["16", "1024"];
const STORED: [&str; 3] = ["f32", "bf16", "nf4"];
const SHAPE: [usize; 2] = [1536, 576];

fn layer(weight: &Tensor<2>, stored: &str) -> LoraLinear {
    let weight: Weight = match stored {
        "f32" => weight.clone().into(),
        "bf16" => weight.clone().cast(DType::BF16).into(),
        _ => {
            let values = weight.clone().try_into_vec_as::<f32>().expect("floats");
            Arc::new(Packed::from(FourBit::quantize(&values, SHAPE, FourBitConfig::default()))).into()
        }
    };
    LoraLinear { weight, bias: None, lora: None }
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
            let line = Line::new("four_bit", "linear", &shape, stored);
            let line = line.times("forward", times[0]).times("both", times[1]);
            let ratio = |it: usize| times[it].clock / found[0][it].clock;
            line.number("forward_of_f32", ratio(0)).number("both_of_f32", ratio(1)).print();
        }
    }
}
