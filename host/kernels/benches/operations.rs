//! Times forward and forward with backward of the operations around the matrix products, ours and the reference, at
//! the shapes of SmolLM2-135M; a line of JSON each.
//!
//! `cargo bench -p fthost-kernels --bench operations -- [OPERATION ...] [ours | reference]`, of `TOKENS` tokens (1024
//! unless the environment says otherwise).
//!
//! The least of several rounds (`ROUNDS=n` in the environment). Norms and bases are frozen, adapters are trained.
//! `product` is a plain matrix product: what the machine can do.

mod support;

use burn::tensor::{Device, Tensor};
use fthost_kernels::geglu::geglu_reference;
use fthost_kernels::gelu::gelu_reference;
use fthost_kernels::layer_norm::layer_norm_reference;
use fthost_kernels::lora_linear::lora_linears_reference;
use fthost_kernels::rms_norm::rms_norm_reference;
use fthost_kernels::rope::rope_reference;
use fthost_kernels::swiglu::swiglu_reference;
use fthost_kernels::{
    Activation, LoraLinear, LowRank, Prologue, geglu, gelu, layer_norm, lora_linears, rms_norm, rope, swiglu,
};
use support::{Line, VARIANTS, Words, forward_and_backward, leaf, random, rounds};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HIDDEN: usize = 576;
const WIDE: usize = 1536;
const HEADS: usize = 9;
const KV_WIDTH: usize = 192;
const RANK: usize = 16;
const EPS: f64 = 1e-5;

const OPERATIONS: [&str; 11] = [
    "rms_norm",
    "layer_norm",
    "rope",
    "swiglu",
    "geglu",
    "gelu",
    "lora_qkv",
    "lora_o",
    "lora_gate_up",
    "lora_down",
    "product",
];

/// What is timed: it makes a graph where it is asked for one.
type Call = Box<dyn Fn(bool) -> Tensor<2>>;

fn prepare(operation: &str, ours: bool, tokens: usize) -> Call {
    match operation {
        "rms_norm" => {
            let f = if ours { rms_norm } else { rms_norm_reference };
            let (x, weight) = (random([tokens, HIDDEN]), random([HIDDEN]));
            Box::new(move |it| f(leaf(&x, it), weight.clone(), EPS))
        }
        "layer_norm" => {
            let f = if ours { layer_norm } else { layer_norm_reference };
            let (x, weight, bias) = (random([tokens, HIDDEN]), random([HIDDEN]), random([HIDDEN]));
            Box::new(move |it| f(leaf(&x, it), weight.clone(), bias.clone(), EPS))
        }
        "rope" => {
            let f = if ours { rope } else { rope_reference };
            let x = random([tokens, HEADS, HIDDEN / HEADS]);
            let [cos, sin] = [0, 1].map(|_| random([tokens, HIDDEN / HEADS / 2]));
            Box::new(move |it| f(leaf(&x, it), cos.clone(), sin.clone()).flatten(1, 2))
        }
        "swiglu" => gated(if ours { swiglu } else { swiglu_reference }, tokens),
        "geglu" => gated(if ours { geglu } else { geglu_reference }, tokens),
        "gelu" => {
            let f = if ours { gelu } else { gelu_reference };
            let x = random([tokens, WIDE]);
            Box::new(move |it| f(leaf(&x, it)))
        }
        "product" => {
            let (x, weight) = (random([tokens, HIDDEN]), random([WIDE, HIDDEN]));
            Box::new(move |it| leaf(&x, it).matmul(weight.clone().transpose()))
        }
        adapted => {
            let (outs, width, prologue) = linears(adapted);
            let f = if ours { lora_linears } else { lora_linears_reference };
            let layers = layers(outs, width);
            let x_width = if matches!(prologue, Prologue::Gated(_)) { 2 * width } else { width };
            let x = random([tokens, x_width]);
            Box::new(move |it| f(leaf(&x, it), prologue.clone(), &layers(it), None))
        }
    }
}

fn gated(f: fn(Tensor<2>, Tensor<2>) -> Tensor<2>, tokens: usize) -> Call {
    let (gate, up) = (random([tokens, WIDE]), random([tokens, WIDE]));
    Box::new(move |it| f(leaf(&gate, it), leaf(&up, it)))
}

/// How wide the layers' outputs and their input are, and what the input goes through.
fn linears(operation: &str) -> (&'static [usize], usize, Prologue) {
    let norm = || Prologue::RmsNorm { weight: Tensor::ones([HIDDEN], &Device::flex()), eps: EPS };
    match operation {
        "lora_qkv" => (&[HIDDEN, KV_WIDTH, KV_WIDTH], HIDDEN, norm()),
        "lora_o" => (&[HIDDEN], HIDDEN, Prologue::None),
        "lora_gate_up" => (&[WIDE, WIDE], HIDDEN, norm()),
        "lora_down" => (&[HIDDEN], WIDE, Prologue::Gated(Activation::Silu)),
        other => unreachable!("`{other}` is none of {OPERATIONS:?}"),
    }
}

/// Layers of one input with adapters, as tracked leaves where a graph is wanted: the bases are frozen.
fn layers(outs: &[usize], width: usize) -> impl Fn(bool) -> Vec<LoraLinear> + use<> {
    let weights: Vec<[Tensor<2>; 3]> =
        outs.iter().map(|out| [random([*out, width]), random([RANK, width]), random([*out, RANK])]).collect();
    move |tracked| {
        let layer = |[weight, a, b]: &[Tensor<2>; 3]| {
            let lora = LowRank { a: leaf(a, tracked), b: leaf(b, tracked), scaling: 2.0, dropout: None };
            LoraLinear { weight: weight.clone().into(), bias: None, lora: Some(lora) }
        };
        weights.iter().map(layer).collect()
    }
}

/// Of the layers' own products in forward; 0 where there are none.
fn flops(operation: &str, tokens: usize) -> f64 {
    let weights = match operation {
        "product" => HIDDEN * WIDE,
        adapted if adapted.starts_with("lora_") => {
            let (outs, width, _) = linears(adapted);
            width * outs.iter().sum::<usize>()
        }
        _ => 0,
    };
    2.0 * (tokens * weights) as f64
}

fn main() {
    let words = Words::read();
    let tokens = std::env::var("TOKENS").ok().and_then(|it| it.parse().ok()).unwrap_or(1024);
    for operation in OPERATIONS.into_iter().filter(|it| words.ask(&OPERATIONS, it)) {
        for variant in VARIANTS.into_iter().filter(|it| words.ask(&VARIANTS, it)) {
            let [forward, both] =
                forward_and_backward(rounds(5), prepare(operation, variant == "ours", tokens));
            Line::new("operations", operation, &format!("{tokens} tokens"), variant)
                .times("forward", forward)
                .times("forward_backward", both)
                .number("forward_gflops", flops(operation, tokens) / forward.clock / 1e6)
                .print();
        }
    }
}
