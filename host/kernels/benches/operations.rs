//! Times forward and forward with backward of the operations around the matrix products, ours and the reference, at
//! the shapes of SmolLM2-135M; a line of JSON each.
//!
//! `cargo bench -p fthost-kernels --bench operations -- [NAME ...]`: all, or those whose names hold one of the words, of
//! `TOKENS` tokens (1024 unless the environment says otherwise).
//!
//! The least of several rounds. `product` is a plain matrix product: what the machine can do.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use fthost_kernels::geglu::geglu_reference;
use fthost_kernels::layer_norm::layer_norm_reference;
use fthost_kernels::lora_linear::lora_linears_reference;
use fthost_kernels::rms_norm::rms_norm_reference;
use fthost_kernels::rope::rope_reference;
use fthost_kernels::swiglu::swiglu_reference;
use fthost_kernels::{
    Activation, LoraLinear, LowRank, Prologue, geglu, layer_norm, lora_linears, rms_norm, rope, swiglu,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 7;
const HIDDEN: usize = 576;
const WIDE: usize = 1536;
const HEADS: usize = 9;
const KV_WIDTH: usize = 192;
const RANK: usize = 16;

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex())
}

fn least(mut f: impl FnMut()) -> f64 {
    let round = |_| {
        let begin = Instant::now();
        f();
        begin.elapsed().as_secs_f64() * 1e3
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

/// Milliseconds of forward, and of forward with the backward of a sum.
fn time<const D: usize>(f: &dyn Fn(bool) -> Tensor<D>) -> [f64; 2] {
    let forward = least(|| {
        std::hint::black_box(f(false));
    });
    let both = least(|| {
        std::hint::black_box(f(true).sum().backward());
    });
    [forward, both]
}

fn report<const D: usize>(
    words: &[String],
    name: &str,
    flops: f64,
    ours: &dyn Fn(bool) -> Tensor<D>,
    reference: &dyn Fn(bool) -> Tensor<D>,
) {
    if !(words.is_empty() || words.iter().any(|it| name.contains(it))) {
        return;
    }
    let ([forward, both], [plain, plain_both]) = (time(ours), time(reference));
    let gflops = flops / forward / 1e6;
    println!(
        "{{\"bench\": \"operations\", \"operation\": \"{name}\", \"forward_ms\": {forward:.3}, \
         \"forward_backward_ms\": {both:.3}, \"reference_forward_ms\": {plain:.3}, \
         \"reference_forward_backward_ms\": {plain_both:.3}, \"forward_gflops\": {gflops:.1}}}"
    );
}

/// A leaf of a graph where one is wanted.
fn leaf<const D: usize>(tensor: &Tensor<D>, tracked: bool) -> Tensor<D> {
    if tracked { tensor.clone().autodiff().require_grad() } else { tensor.clone() }
}

fn element_wise(words: &[String], tokens: usize) {
    let (x, weight, bias) = (random([tokens, HIDDEN]), random([HIDDEN]), random([HIDDEN]));
    report(words, "rms_norm", 0.0, &|it| rms_norm(leaf(&x, it), weight.clone(), 1e-5), &|it| {
        rms_norm_reference(leaf(&x, it), weight.clone(), 1e-5)
    });
    report(
        words,
        "layer_norm",
        0.0,
        &|it| layer_norm(leaf(&x, it), weight.clone(), bias.clone(), 1e-5),
        &|it| layer_norm_reference(leaf(&x, it), weight.clone(), bias.clone(), 1e-5),
    );
    let (gate, up) = (random([tokens, WIDE]), random([tokens, WIDE]));
    report(words, "swiglu", 0.0, &|it| swiglu(leaf(&gate, it), leaf(&up, it)), &|it| {
        swiglu_reference(leaf(&gate, it), leaf(&up, it))
    });
    report(words, "geglu", 0.0, &|it| geglu(leaf(&gate, it), leaf(&up, it)), &|it| {
        geglu_reference(leaf(&gate, it), leaf(&up, it))
    });
    let q = random([tokens, HEADS, HIDDEN / HEADS]);
    let (cos, sin) = (random([tokens, HIDDEN / HEADS / 2]), random([tokens, HIDDEN / HEADS / 2]));
    report(words, "rope", 0.0, &|it| rope(leaf(&q, it), cos.clone(), sin.clone()), &|it| {
        rope_reference(leaf(&q, it), cos.clone(), sin.clone())
    });
}

/// Layers of one input with adapters, as tracked leaves where a graph is wanted: the bases are frozen.
fn layers(outs: &[usize], width: usize) -> impl Fn(bool) -> Vec<LoraLinear> {
    let weights: Vec<[Tensor<2>; 3]> =
        outs.iter().map(|out| [random([*out, width]), random([RANK, width]), random([*out, RANK])]).collect();
    move |tracked| {
        let layer = |[weight, a, b]: &[Tensor<2>; 3]| {
            let lora = LowRank { a: leaf(a, tracked), b: leaf(b, tracked), scaling: 1.0, dropout: None };
            LoraLinear { weight: weight.clone(), bias: None, lora: Some(lora) }
        };
        weights.iter().map(layer).collect()
    }
}

fn linears(words: &[String], tokens: usize) {
    type Function = fn(Tensor<2>, Prologue, &[LoraLinear], Option<Tensor<2>>) -> Tensor<2>;
    let (ours, reference): (Function, Function) = (lora_linears, lora_linears_reference);
    let norm = || Prologue::RmsNorm { weight: Tensor::ones([HIDDEN], &Device::flex()), eps: 1e-5 };
    let cases: [(&str, &[usize], usize, bool); 4] = [
        ("lora_qkv", &[HIDDEN, KV_WIDTH, KV_WIDTH], HIDDEN, false),
        ("lora_o", &[HIDDEN], HIDDEN, false),
        ("lora_gate_up", &[WIDE, WIDE], HIDDEN, false),
        ("lora_down", &[HIDDEN], WIDE, true),
    ];
    for (name, outs, width, gated) in cases {
        let layers = layers(outs, width);
        let x = random([tokens, if gated { 2 * width } else { width }]);
        let prologue = || match (gated, outs.len()) {
            (true, _) => Prologue::Gated(Activation::Silu),
            (false, 1) => Prologue::None,
            _ => norm(),
        };
        let flops = 2.0 * (tokens * width * outs.iter().sum::<usize>()) as f64;
        report(words, name, flops, &|it| ours(leaf(&x, it), prologue(), &layers(it), None), &|it| {
            reference(leaf(&x, it), prologue(), &layers(it), None)
        });
    }
    let (x, weight) = (random([tokens, HIDDEN]), random([WIDE, HIDDEN]));
    let plain = |it: bool| leaf(&x, it).matmul(weight.clone().transpose());
    report(words, "product", 2.0 * (tokens * HIDDEN * WIDE) as f64, &plain, &plain);
}

fn main() {
    // cargo passes `--bench` to every benchmark.
    let words: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let tokens = std::env::var("TOKENS").ok().and_then(|it| it.parse().ok()).unwrap_or(1024);
    element_wise(&words, tokens);
    linears(&words, tokens);
}
