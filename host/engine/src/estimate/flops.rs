//! Floating point operations of matrix products, two for each multiplication and addition, exact by shape. Norms, activations and
//! softmaxes, which are a few operations a number, are left out, and so is what masks make the kernels compute in vain.

use super::memory::{BatchTokens, StepShape};
use crate::adapters::virtual_tokens::prefix_width;

use super::shape::{BlockWeights, FeedForwardShape, LinearShape, ModelShape};

/// A sequence, or a part of one that goes on from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Tokens before it that it sees.
    pub before: u64,
    /// Its own.
    pub tokens: u64,
}

impl Segment {
    /// Pairs of a token and one that it sees, itself among them, in a layer that sees `window` tokens back.
    pub fn pairs(self, window: Option<usize>) -> u64 {
        let seen = |at: u64| window.map_or(at, |it| at.min(it as u64));
        match window {
            None => self.tokens * self.before + self.tokens * (self.tokens + 1) / 2,
            Some(_) => (1..=self.tokens).map(|it| seen(self.before + it)).sum(),
        }
    }
}

/// Operations of a forward pass over `tokens` tokens in `segments`, of which `headed` go through the head.
pub fn forward(shape: &ModelShape, tokens: u64, segments: &[Segment], headed: u64) -> u64 {
    let (tokens, segments) = &behind_virtual(shape, tokens, segments);
    let blocks = shape.blocks.iter().enumerate();
    let blocks: u64 = blocks.map(|(layer, it)| block_forward(shape, layer, it, *tokens, segments)).sum();
    blocks + head(shape, headed)
}

/// What the blocks are given: virtual tokens first, which every sequence sees. A prefix goes through no linear.
pub(super) fn behind_virtual(shape: &ModelShape, tokens: u64, segments: &[Segment]) -> (u64, Vec<Segment>) {
    let before = (shape.prompt + shape.prefix) as u64;
    let seen = segments.iter().map(|it| Segment { before: it.before + before, ..*it });
    let own = Segment { before: 0, tokens: before };
    (tokens + shape.prompt as u64, (before > 0).then_some(own).into_iter().chain(seen).collect())
}

/// Operations of the logits of `rows` rows.
pub fn head(shape: &ModelShape, rows: u64) -> u64 {
    2 * rows * (shape.config.vocab_size * shape.config.hidden_size) as u64
}

/// Operations of forward and backward over a micro-batch.
pub fn step(shape: &ModelShape, how: &StepShape, batch: BatchTokens, segments: &[Segment]) -> u64 {
    let (tokens, segments) = &behind_virtual(shape, batch.tokens, segments);
    // Of a prefix's network: what it is given, and the gradients of both.
    let mut all = 3 * prefix_encoder(shape);
    for (layer, block) in shape.blocks.iter().enumerate() {
        let forward = block_forward(shape, layer, block, *tokens, segments) + projection(shape);
        let times = if how.checkpointing.rebuilds(layer) { 2 } else { 1 };
        all +=
            times * forward + block_backward(shape, layer, block, *tokens, segments) + 2 * projection(shape);
    }
    if how.is_scored {
        return all;
    }
    let logits = head(shape, batch.supervised);
    let again = if how.by_logps { logits } else { 0 };
    // Logits, the gradient of the states and, where it is trained, of the weight.
    let names = shape.config.names;
    let head = if shape.config.tie_word_embeddings { names.embedding } else { names.head };
    all + again + logits * if shape.trained.selects(head) { 3 } else { 2 }
}

/// Of the first layer of the network that makes prefixes.
pub(super) fn prefix_encoder(shape: &ModelShape) -> u64 {
    let width = prefix_width(&shape.config) / 2;
    shape.prefix_encoder.map_or(0, |hidden| 2 * (shape.prefix * width * hidden) as u64)
}

/// Of the part of its last layer that makes a block's.
pub(super) fn projection(shape: &ModelShape) -> u64 {
    let width = prefix_width(&shape.config);
    shape.prefix_encoder.map_or(0, |hidden| 2 * (shape.prefix * width * hidden) as u64)
}

/// A block's linears with the tokens that each is given: of a mixture's experts together those that are sent to them.
fn linears(block: &BlockWeights, tokens: u64) -> Vec<(&LinearShape, u64)> {
    let mut all: Vec<(&LinearShape, u64)> =
        block.qkv.iter().chain([&block.output]).map(|it| (it, tokens)).collect();
    match &block.feed_forward {
        FeedForwardShape::Dense { up, down } => all.extend(up.iter().chain([down]).map(|it| (it, tokens))),
        FeedForwardShape::Mixture { router, experts, of_token } => {
            all.push((router, tokens));
            // All experts have one shape.
            all.extend(experts.iter().take(1).flatten().map(|it| (it, tokens * *of_token as u64)));
        }
    }
    all
}

/// Of one product with a linear's matrix.
fn product(linear: &LinearShape, tokens: u64) -> u64 {
    2 * tokens * linear.length() as u64
}

/// Of both products with an adapter's pair.
fn pair(linear: &LinearShape, tokens: u64) -> u64 {
    2 * tokens * linear.pair() as u64
}

pub(super) fn block_forward(
    shape: &ModelShape,
    layer: usize,
    block: &BlockWeights,
    tokens: u64,
    segments: &[Segment],
) -> u64 {
    let of_linear = |(it, tokens): (&LinearShape, u64)| {
        // DoRA's norms: the adapter's rows through the matrix.
        let norms = if shape.use_dora { product(it, it.rank as u64) } else { 0 };
        product(it, tokens) + pair(it, tokens) + norms
    };
    // Scores, and their products with the values.
    linears(block, tokens).into_iter().map(of_linear).sum::<u64>() + 2 * attention(shape, layer, segments)
}

pub(super) fn block_backward(
    shape: &ModelShape,
    layer: usize,
    block: &BlockWeights,
    tokens: u64,
    segments: &[Segment],
) -> u64 {
    let of_linear = |(index, (it, tokens)): (usize, (&LinearShape, u64))| {
        // Below the first block of a frozen embedding nothing is learned.
        let is_first = layer == 0 && index < block.qkv.len() && !shape.trains_below_blocks();
        let of_input = if is_first { 0 } else { product(it, tokens) };
        let is_trained = shape.trained.selects(&format!("{}.weight", it.path));
        let of_weight = if is_trained { product(it, tokens) } else { 0 };
        // Gradients of both matrices, of what is between them, and of what the first is given.
        let of_pair = 2 * pair(it, tokens);
        let below = if is_first { 2 * tokens * (it.inner() * it.width) as u64 } else { 0 };
        of_input + of_weight + of_pair - below.min(of_pair)
    };
    let all = linears(block, tokens).into_iter().enumerate().map(of_linear).sum::<u64>();
    // Scores again, the gradients of weights, values, keys and queries.
    all + 5 * attention(shape, layer, segments)
}

/// Of one product between queries and keys, or weights and values.
fn attention(shape: &ModelShape, layer: usize, segments: &[Segment]) -> u64 {
    let config = &shape.config;
    let pairs: u64 = segments.iter().map(|it| it.pairs(config.layers[layer].window)).sum();
    2 * pairs * (config.num_attention_heads * config.head_dim) as u64
}
