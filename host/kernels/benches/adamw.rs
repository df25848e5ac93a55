//! Times one update of every parameter, clipping included: AdamW with moments in f32 and in 8 bits, and the reference;
//! a line of JSON each.
//!
//! `cargo bench -p fthost-kernels --bench adamw -- [adamw | adamw8bit] [full | lora] [ours | reference]`
//!
//! `full` is every parameter of SmolLM2-135M, `lora` the adapters of rank 16 of its linears. The reference is in f32 for
//! both. The least of several rounds (`ROUNDS=n` in the environment). `peak_mib` is what the process held at most in
//! them, values, gradients and moments included: ask for one case at a time to read it.

mod support;

use burn::tensor::Tensor;
use fthost_kernels::adamw::{adamw_reference, global_norm_reference};
use fthost_kernels::{AdamWStep, BlockMoments, Moments, adamw, adamw8bit, global_norm};
use support::{Line, Memory, Times, VARIANTS, Words, least, random, rounds};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HIDDEN: usize = 576;
const WIDE: usize = 1536;
const KV_WIDTH: usize = 192;
const VOCABULARY: usize = 49_152;
const BLOCKS: usize = 30;
const RANK: usize = 16;
/// Parameters of fewer values keep moments in f32, as in the engine.
const MIN_8BIT_SIZE: usize = 4096;
const MAX_GRAD_NORM: f64 = 1.0;

const OPERATIONS: [&str; 2] = ["adamw", "adamw8bit"];
const SHAPES: [&str; 2] = ["full", "lora"];

/// Output and input of a block's linears: q, k, v, o, gate, up, down.
const LINEARS: [[usize; 2]; 7] = [
    [HIDDEN, HIDDEN],
    [KV_WIDTH, HIDDEN],
    [KV_WIDTH, HIDDEN],
    [HIDDEN, HIDDEN],
    [WIDE, HIDDEN],
    [WIDE, HIDDEN],
    [HIDDEN, WIDE],
];

/// Each parameter's values, and whether it decays: matrices do.
fn parameters(shape: &str) -> Vec<(usize, bool)> {
    let block: Vec<(usize, bool)> = if shape == "lora" {
        LINEARS.iter().flat_map(|[out, width]| [(RANK * width, true), (out * RANK, true)]).collect()
    } else {
        let matrices = LINEARS.iter().map(|[out, width]| (out * width, true));
        matrices.chain([(HIDDEN, false), (HIDDEN, false)]).collect()
    };
    let rest = [(VOCABULARY * HIDDEN, true), (HIDDEN, false)];
    let rest = if shape == "lora" { &[][..] } else { &rest };
    rest.iter().copied().chain((0..BLOCKS).flat_map(|_| block.clone())).collect()
}

/// A parameter, flat, that an update takes and gives back: nobody else holds its value and moments.
struct Parameter {
    value: Tensor<1>,
    gradient: Tensor<1>,
    state: State,
    decays: bool,
}

#[expect(clippy::large_enum_variant, reason = "one a parameter")]
enum State {
    F32(Moments),
    Blocks(BlockMoments),
}

impl Parameter {
    fn new(length: usize, decays: bool, eight_bits: bool) -> Self {
        let value = random([length]);
        let state = if eight_bits && length >= MIN_8BIT_SIZE {
            State::Blocks(BlockMoments::zeros(length))
        } else {
            State::F32(Moments::zeros(&value))
        };
        Self { value, gradient: random([length]), state, decays }
    }

    fn updated(self, ours: bool, step: &AdamWStep) -> Self {
        let Self { value, gradient, state, decays } = self;
        let step = AdamWStep { weight_decay: if decays { step.weight_decay } else { 0.0 }, ..*step };
        let (value, state) = match state {
            State::F32(moments) => {
                let f = if ours { adamw } else { adamw_reference };
                let (value, moments) = f(value, gradient.clone(), moments, &step);
                (value, State::F32(moments))
            }
            State::Blocks(mut moments) => {
                (adamw8bit(value, gradient.clone(), &mut moments, &step), State::Blocks(moments))
            }
        };
        Self { value, gradient, state, decays }
    }
}

/// Milliseconds of an update.
fn time(mut parameters: Vec<Parameter>, ours: bool) -> Times {
    let norm = if ours { global_norm } else { global_norm_reference };
    let mut updates = 0;
    least(rounds(5), || {
        updates += 1;
        let gradients: Vec<Tensor<1>> = parameters.iter().map(|it| it.gradient.clone()).collect();
        let step = AdamWStep {
            learning_rate: 2e-4,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            gradient_scale: (MAX_GRAD_NORM / (norm(&gradients) + 1e-6)).min(1.0),
            updates,
        };
        let all = std::mem::take(&mut parameters).into_iter();
        parameters = all.map(|it| it.updated(ours, &step)).collect();
    })
}

fn main() {
    let words = Words::read();
    let memory = Memory::now();
    for operation in OPERATIONS.into_iter().filter(|it| words.ask(&OPERATIONS, it)) {
        for shape in SHAPES.into_iter().filter(|it| words.ask(&SHAPES, it)) {
            for variant in VARIANTS.into_iter().filter(|it| words.ask(&VARIANTS, it)) {
                let ours = variant == "ours";
                let eight_bits = ours && operation == "adamw8bit";
                let parameters =
                    parameters(shape).into_iter().map(|it| Parameter::new(it.0, it.1, eight_bits));
                let parameters = parameters.collect();
                Memory::forget_peak();
                let times = time(parameters, ours);
                Line::new("adamw", operation, shape, variant)
                    .times("forward", times)
                    .number("peak_mib", memory.peak_mib())
                    .print();
            }
        }
    }
}
