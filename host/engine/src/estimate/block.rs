//! What of a block is alive when, in numbers a token: the fused operations of `fthost-kernels` in the order in which
//! [`Block::forward`](crate::models::Block::forward) calls them. Plain tensor operations, which other devices and bf16
//! compute with, keep more.
//!
//! A stage is an operation: it keeps its input and a little beside it, and its output is the next one's input. What it needs
//! for as long as it runs is counted apart, for forward and for backward.

use super::shape::{BlockWeights, FeedForwardShape, LinearShape, ModelShape};
use crate::models::DecoderConfig;
use crate::models::decoder::{Mlp, NormKind, QkNorm};

/// Parts that backward cuts the queries of a batch into, over the heads of keys, and those of one sequence at most: each has
/// gradients of all keys that it sees until they are summed (`kernels/src/attention/layout.rs`).
const PARTS: [usize; 2] = [24, 8];

/// An operation between an input and an output, in numbers a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Stage {
    /// Kept for backward.
    input: u64,
    /// Kept beside the input: a norm's factors, what adapters have in the middle.
    saved: u64,
    /// The next stage's input.
    output: u64,
    /// For as long as forward runs, beside input and output.
    forward: u64,
    /// For as long as backward runs, beside what is kept and the gradients of output and input.
    backward: u64,
    /// Values of the gradients of its own weights, whatever the tokens.
    weights: u64,
    /// The output is added to the stream.
    joins: bool,
    /// The input is the stream, which goes on beside what is computed.
    leaves: bool,
}

/// What of a block is alive, in numbers a token, and values of its weights' gradients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockNumbers {
    /// Between forward and backward, its input among them.
    pub kept: u64,
    /// At most while it is computed without a graph, its input and output among them.
    pub forward: u64,
    /// At most while it is computed with one, beyond what is kept: output and scratch of its last stages.
    pub graph: u64,
    /// At most in backward, what is kept and the gradient of the output among them.
    pub backward: u64,
    /// Values of weights' gradients that are there at that moment.
    pub backward_weights: u64,
    /// Values that are trained.
    pub trained: u64,
}

/// The numbers of `block` in a model of `shape`, over a batch of so many `sequences`.
pub fn numbers(shape: &ModelShape, block: &BlockWeights, sequences: u64) -> BlockNumbers {
    let (config, use_dora) = (&shape.config, shape.use_dora);
    let mut stages = Stages { shape, config, use_dora, sequences, all: Vec::new() };
    stages.attention(block);
    stages.feed_forward(block);
    let mut found = walk(&stages.all, config.hidden_size as u64);
    found.trained = shape.trained_of(block) as u64;
    found
}

/// Goes through the stages forward and back.
fn walk(stages: &[Stage], stream: u64) -> BlockNumbers {
    let kept: u64 = stages.iter().map(|it| it.input + it.saved).sum();
    let mut found = BlockNumbers { kept, ..BlockNumbers::default() };
    let mut so_far = 0;
    for stage in stages {
        let passing = stage.output + stage.forward;
        // The stream stays beside what leaves it; what is added to it is added in its place.
        let beside = if stage.leaves || stage.joins { 0 } else { stream };
        let (output, stream) = if stage.joins { (0, stream) } else { (stage.output, 0) };
        let alone = beside + stage.input + stream + output + stage.forward;
        found.forward = found.forward.max(alone);
        so_far += stage.input + stage.saved;
        found.graph = found.graph.max((so_far + passing).saturating_sub(kept));
    }
    // What downstream gives lives on as the stream's own gradient.
    let (mut live, mut weights) = (kept, 0);
    let input = stages.first().map_or(0, |it| it.input);
    for (index, stage) in stages.iter().enumerate().rev() {
        weights += stage.weights;
        let of_output = if stage.joins { 0 } else { stage.output };
        let of_input = stage.input;
        let peak = live + stream + of_output + stage.backward + of_input;
        if peak > found.backward {
            (found.backward, found.backward_weights) = (peak, weights);
        }
        // The leaf is let go of with the graph.
        live -= stage.saved + if index == 0 { 0 } else { stage.input };
    }
    found.backward = found.backward.max(input + 2 * stream);
    found
}

struct Stages<'a> {
    shape: &'a ModelShape,
    config: &'a DecoderConfig,
    use_dora: bool,
    sequences: u64,
    all: Vec<Stage>,
}

impl Stages<'_> {
    fn width(&self) -> u64 {
        self.config.hidden_size as u64
    }

    /// Values of the gradients of `linears`.
    fn gradients<'b>(&self, linears: impl Iterator<Item = &'b LinearShape>) -> u64 {
        let selected = |it: &LinearShape, last: &str, length: usize| {
            if self.shape.trained.selects(&format!("{}.{last}", it.path)) { length } else { 0 }
        };
        let of = |it: &LinearShape| {
            let bias = if it.bias { selected(it, "bias", it.out) } else { 0 };
            selected(it, "weight", it.length()) + bias + it.pair() + it.ia3
        };
        linears.map(|it| of(it) as u64).sum()
    }

    /// A norm by itself, over rows of a token that are `width` wide together and have `factors` factors.
    fn norm(&mut self, width: u64, factors: u64, leaves: bool) {
        let per_row = if self.config.norm == NormKind::Layer { 2 } else { 1 };
        self.all.push(Stage {
            input: width,
            saved: factors * per_row,
            output: width,
            leaves,
            ..Stage::default()
        });
    }

    /// Linears side by side behind a norm that leaves the stream, where there is one.
    fn off_stream(&mut self, has_norm: bool, linears: &[LinearShape]) {
        let width = self.width();
        let fused = has_norm && self.config.norm != NormKind::Layer;
        if has_norm && !fused {
            // Not fused: its output is kept.
            self.norm(width, 1, true);
        }
        let output = linears.iter().map(|it| it.out as u64).sum();
        self.all.push(Stage {
            input: width,
            saved: u64::from(fused) + ranks(linears),
            output,
            // What is behind the norm, computed anew in backward, and its gradient.
            forward: if fused { width } else { 0 },
            backward: if fused { 2 * width } else { 0 },
            weights: self.gradients(linears.iter()),
            leaves: fused || !has_norm,
            ..Stage::default()
        });
        self.scaled(linears, output, false);
    }

    /// Whether outputs of `linears` are multiplied, by DoRA's factors or (IA)^3's.
    fn are_scaled(&self, linears: &[LinearShape]) -> bool {
        self.use_dora && ranks(linears) > 0 || linears.iter().any(|it| it.ia3 > 0 && !it.is_before)
    }

    /// Factors of outputs, which are kept for them.
    fn scaled(&mut self, linears: &[LinearShape], output: u64, joins: bool) {
        if self.are_scaled(linears) {
            self.all.push(Stage { input: output, output, joins, ..Stage::default() });
        }
    }

    /// A linear back onto the stream, behind a gate where its input is twice as wide as its weight.
    fn onto_stream(&mut self, linear: &LinearShape, gated: bool, has_norm: bool) {
        let (inner, width) = (linear.width as u64, self.width());
        let linears = std::slice::from_ref(linear);
        let is_scaled = self.are_scaled(linears);
        let given = if gated { 2 * inner } else { inner };
        if linear.ia3 > 0 && linear.is_before {
            // (IA)^3 multiplies what stands before the gate: the value, and the gate by ones.
            self.all.push(Stage { input: given, output: given, ..Stage::default() });
        }
        self.all.push(Stage {
            input: given,
            saved: ranks(linears),
            output: width,
            forward: if gated { inner } else { 0 },
            backward: if gated { 2 * inner } else { 0 },
            weights: self.gradients(linears.iter()),
            joins: !has_norm && !is_scaled,
            ..Stage::default()
        });
        self.scaled(linears, width, !has_norm);
        if has_norm {
            self.norm(width, 1, false);
            self.all.last_mut().expect("pushed").joins = true;
        }
    }

    /// How often a key's gradient is there at a time. Parts of equal cost end at the roots of their share of the sequence.
    fn partial(&self) -> u64 {
        let [of_batch, of_sequence] = PARTS;
        let share = of_batch.div_ceil(self.config.num_key_value_heads) / self.sequences.max(1) as usize;
        let parts = share.clamp(1, of_sequence);
        (1..=parts).map(|it| (it as f64 / parts as f64).sqrt()).sum::<f64>().ceil() as u64
    }

    fn attention(&mut self, block: &BlockWeights) {
        let (config, names) = (self.config, self.config.names);
        let [q, k, v] = config.qkv_widths().map(|it| it as u64);
        self.off_stream(names.attention_norm.is_some(), &block.qkv);
        let rows = match config.qk_norm {
            QkNorm::Off => 0,
            QkNorm::Whole => 2,
            QkNorm::Heads => (config.num_attention_heads + config.num_key_value_heads) as u64,
        };
        if rows > 0 {
            // Queries and keys are cut out and normalised, then all stand beside each other again.
            let merged = q + k + v;
            self.all.push(Stage {
                input: q + k,
                saved: rows,
                output: merged,
                forward: merged,
                backward: 2 * merged,
                ..Stage::default()
            });
        }
        self.all.push(Stage {
            input: q + k + v,
            saved: config.num_attention_heads as u64,
            output: q,
            // Rotated keys; in backward what each part of the queries sends to the keys and values before it, too.
            forward: k,
            backward: k + self.partial() * (k + v),
            ..Stage::default()
        });
        self.onto_stream(&block.output, false, names.post_attention_norm.is_some());
    }

    fn feed_forward(&mut self, block: &BlockWeights) {
        let names = self.config.names;
        match &block.feed_forward {
            FeedForwardShape::Dense { up, down } => {
                self.off_stream(names.mlp_norm.is_some(), up);
                let gated = matches!(self.config.mlp, Mlp::Gated(_));
                if !gated {
                    let inner = down.width as u64;
                    self.all.push(Stage { input: inner, output: inner, ..Stage::default() });
                }
                self.onto_stream(down, gated, names.post_mlp_norm.is_some());
            }
            FeedForwardShape::Mixture { router, experts, of_token } => {
                self.mixture(router, experts, *of_token as u64);
            }
        }
    }

    /// A token's experts, one after the other: what they are given, what they compute and what is weighted is kept of each.
    fn mixture(&mut self, router: &LinearShape, experts: &[[LinearShape; 3]], of_token: u64) {
        let (width, all, names) = (self.width(), router.out as u64, self.config.names);
        if names.mlp_norm.is_some() {
            self.norm(width, 1, true);
        }
        let inner = experts.first().map_or(0, |it| it[2].width as u64);
        let of_first = experts.first().map_or(&[][..], |it| &it[..]);
        let weights = self.gradients(experts.iter().flatten().chain([router]));
        // Logits, probabilities, shares before and after they are divided.
        let routing = 4 * all + ranks(std::slice::from_ref(router));
        self.all.push(Stage {
            input: width,
            saved: routing + of_token * (2 * width + 2 * inner + ranks(of_first) + 1),
            output: width,
            forward: width,
            // One expert after the other.
            backward: 2 * width + (4 * inner * of_token).div_ceil(all),
            weights,
            joins: names.post_mlp_norm.is_none(),
            ..Stage::default()
        });
        if names.post_mlp_norm.is_some() {
            self.norm(width, 1, false);
            self.all.last_mut().expect("pushed").joins = true;
        }
    }
}

fn ranks(linears: &[LinearShape]) -> u64 {
    linears.iter().map(|it| it.inner() as u64).sum()
}
