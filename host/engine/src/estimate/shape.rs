//! Every weight of a model, and of an adapter on it, from what `config.json` says: nothing is loaded. Not what a block
//! computes with them, which is [`super::block`].
//!
//! The order is that of [`CausalLm::visit_base`](crate::models::CausalLm::visit_base), and so are names and shapes.

use crate::adapters::virtual_tokens::prefix_width;
use crate::models::decoder::{Mlp, NormKind, QkNorm};
use crate::models::{DecoderConfig, Trained};

/// What a weight is, as far as it decides how the weight is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Of tokens: a frozen one may be bf16.
    Embedding,
    /// Of learned positions.
    Positions,
    /// Where it is not the embedding: a frozen one may be bf16.
    Head,
    /// A norm's weight, or any bias.
    Vector,
    /// A linear's matrix: a frozen one may be bf16 or packed.
    Linear,
    /// A mixture's router: a frozen one may be bf16.
    Router,
}

/// A weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightShape {
    /// Hugging Face's name.
    pub name: String,
    /// As the model holds it: `[out, in]` of a linear, however a file stores it.
    pub dims: Vec<usize>,
    /// What it is.
    pub role: Role,
}

impl WeightShape {
    /// Values.
    pub fn length(&self) -> usize {
        self.dims.iter().product()
    }
}

/// A linear of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinearShape {
    /// From the model's root, without `.weight`.
    pub path: String,
    /// Outputs.
    pub out: usize,
    /// Inputs.
    pub width: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// Of its adapter; 0 where it has none.
    pub rank: usize,
    /// Of what the adapter began with, where that is a part of the weight and is taken off it again; 0 where nothing is.
    pub origin: usize,
    /// Factors of its output or its input; 0 where it has none.
    pub ia3: usize,
    /// Whether that factor is of what it is given.
    pub is_before: bool,
}

impl LinearShape {
    /// Values of its matrix.
    pub fn length(&self) -> usize {
        self.out * self.width
    }

    /// Columns between both matrices of its adapter, those of what it began with among them.
    pub fn inner(&self) -> usize {
        self.rank + self.origin
    }

    /// Values of both matrices of its adapter, those of what it began with among them.
    pub fn pair(&self) -> usize {
        self.inner() * (self.out + self.width)
    }
}

/// What stands behind the attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedForwardShape {
    /// One layer for all tokens.
    Dense {
        /// To gate and up, or to up alone.
        up: Vec<LinearShape>,
        /// Back to the stream's width.
        down: LinearShape,
    },
    /// A few of many for each token.
    Mixture {
        /// `[E, D]`.
        router: LinearShape,
        /// Gate, up and down of each.
        experts: Vec<[LinearShape; 3]>,
        /// Experts that a token is sent to.
        of_token: usize,
    },
}

/// The weights of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockWeights {
    /// Name of each norm, without `.weight`, and its width: those of the stream, then of queries and keys.
    pub norms: Vec<(String, usize)>,
    /// To queries, keys and values.
    pub qkv: Vec<LinearShape>,
    /// Behind the attention.
    pub output: LinearShape,
    /// Behind that.
    pub feed_forward: FeedForwardShape,
}

/// The weights of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelShape {
    /// What they are of.
    pub config: DecoderConfig,
    /// From input to output.
    pub blocks: Vec<BlockWeights>,
    /// Whether the adapter trains lengths of rows, too.
    pub use_dora: bool,
    /// Which weights are trained.
    pub trained: Trained,
    /// The head is the embedding's memory until one of the two is trained.
    pub is_untied: bool,
    /// Virtual tokens that are embeddings.
    pub prompt: usize,
    /// Virtual tokens that are keys and values of every block.
    pub prefix: usize,
    /// Width of the network that makes them, where one does.
    pub prefix_encoder: Option<usize>,
}

impl ModelShape {
    /// Of `config`, without an adapter.
    pub fn of(config: &DecoderConfig) -> Self {
        let blocks = (0..config.num_hidden_layers()).map(|layer| block(config, layer)).collect();
        let trained = Trained::Base;
        Self {
            config: config.clone(),
            blocks,
            use_dora: false,
            trained,
            is_untied: false,
            prompt: 0,
            prefix: 0,
            prefix_encoder: None,
        }
    }

    /// Whether an adapter is trained, not the base.
    pub fn has_adapter(&self) -> bool {
        matches!(self.trained, Trained::Adapter(_))
    }

    /// Values of those of `weights` that are trained.
    pub fn selected<'a>(&'a self, weights: impl Iterator<Item = WeightShape> + 'a) -> u64 {
        weights.filter(|it| self.trained.selects(&it.name)).map(|it| it.length() as u64).sum()
    }

    /// Whether the embedding is trained as the head that it is, too.
    pub fn trains_tied_head(&self) -> bool {
        self.config.tie_word_embeddings && self.trained.selects(self.config.names.embedding)
    }

    /// Whether anything below the blocks is trained.
    pub fn trains_below_blocks(&self) -> bool {
        self.prompt > 0 || self.embeddings().any(|it| self.trained.selects(&it.name))
    }

    /// Every base weight.
    pub fn weights(&self) -> impl Iterator<Item = WeightShape> + '_ {
        let blocks = self.blocks.iter().flat_map(|it| it.weights(&self.config));
        self.embeddings().chain(blocks).chain(self.heads())
    }

    /// Those of tokens and, where they are learned, of positions.
    pub fn embeddings(&self) -> impl Iterator<Item = WeightShape> + '_ {
        let config = &self.config;
        let matrix = |name: &str, rows: usize, role: Role| WeightShape {
            name: name.to_string(),
            dims: vec![rows, config.hidden_size],
            role,
        };
        let positions = config.names.positions;
        let positions = positions.map(move |it| matrix(it, config.max_position_embeddings, Role::Positions));
        std::iter::once(matrix(config.names.embedding, config.vocab_size, Role::Embedding)).chain(positions)
    }

    /// Final norm and, where it has a weight of its own, the head.
    pub fn heads(&self) -> impl Iterator<Item = WeightShape> + '_ {
        let config = &self.config;
        let head = (!config.tie_word_embeddings).then(|| WeightShape {
            name: config.names.head.to_string(),
            dims: vec![config.vocab_size, config.hidden_size],
            role: Role::Head,
        });
        norm(config.norm, config.names.final_norm, config.hidden_size).chain(head)
    }

    /// Values of all base weights.
    pub fn parameters(&self) -> usize {
        self.weights().map(|it| it.length()).sum()
    }

    /// Values of what adapters began with, where that is kept.
    pub fn origins(&self) -> usize {
        let linears = self.blocks.iter().flat_map(BlockWeights::linears);
        linears.map(|it| it.origin * (it.out + it.width)).sum()
    }

    /// Values of all parameters that are trained.
    pub fn trained_values(&self) -> u64 {
        self.trained().iter().map(|it| *it as u64).sum()
    }

    /// Lengths of the parameters that are trained: the adapter's where there is one and those trained with it, otherwise all.
    pub fn trained(&self) -> Vec<usize> {
        let base = self.weights().filter(|it| self.trained.selects(&it.name)).map(|it| it.length());
        let prompt = (self.prompt > 0).then_some(self.prompt * self.config.hidden_size);
        let adapters = self.blocks.iter().flat_map(|it| it.adapters(self.use_dora).chain(self.prefixed()));
        base.chain(prompt).chain(self.prefix_encoder()).chain(adapters).collect()
    }

    /// Embeddings of projected prefixes, and the first layer of the network that makes them.
    fn prefix_encoder(&self) -> impl Iterator<Item = usize> + use<> {
        let width = prefix_width(&self.config) / 2;
        let (count, hidden) = (self.prefix, self.prefix_encoder);
        hidden.into_iter().flat_map(move |hidden| [count * width, hidden * width, hidden])
    }

    /// Keys and values that stand before those of a block's sequences, or the block's part of what makes them.
    fn prefixed(&self) -> impl Iterator<Item = usize> + use<> {
        let (count, width) = (self.prefix, prefix_width(&self.config));
        let parts = match self.prefix_encoder {
            Some(hidden) => [hidden * width, width],
            None => [count * width, 0],
        };
        parts.into_iter().filter(|it| *it > 0)
    }

    /// Values that are trained of a block.
    pub fn trained_of(&self, block: &BlockWeights) -> usize {
        let base = self.selected(block.weights(&self.config)) as usize;
        base + block.adapters(self.use_dora).chain(self.prefixed()).sum::<usize>()
    }
}

impl BlockWeights {
    /// Every linear, from input to output.
    pub fn linears(&self) -> impl Iterator<Item = &LinearShape> {
        let behind: Vec<&LinearShape> = match &self.feed_forward {
            FeedForwardShape::Dense { up, down } => up.iter().chain([down]).collect(),
            FeedForwardShape::Mixture { router, experts, .. } => {
                std::iter::once(router).chain(experts.iter().flatten()).collect()
            }
        };
        self.qkv.iter().chain([&self.output]).chain(behind)
    }

    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut LinearShape> {
        let behind: Vec<&mut LinearShape> = match &mut self.feed_forward {
            FeedForwardShape::Dense { up, down } => up.iter_mut().chain([down]).collect(),
            FeedForwardShape::Mixture { router, experts, .. } => {
                std::iter::once(router).chain(experts.iter_mut().flatten()).collect()
            }
        };
        self.qkv.iter_mut().chain([&mut self.output]).chain(behind)
    }

    /// Whether a linear of it has a low-rank pair.
    pub(super) fn has_pairs(&self) -> bool {
        self.linears().any(|it| it.rank > 0)
    }

    /// Every base weight of the block.
    pub fn weights(&self, config: &DecoderConfig) -> impl Iterator<Item = WeightShape> + use<'_> {
        let kind = config.norm;
        let norms = self.norms.iter().flat_map(move |(name, width)| norm(kind, name, *width));
        let is_router = |it: &LinearShape| match &self.feed_forward {
            FeedForwardShape::Mixture { router, .. } => it.path == router.path,
            FeedForwardShape::Dense { .. } => false,
        };
        let of_linear = move |it: &LinearShape| {
            let role = if is_router(it) { Role::Router } else { Role::Linear };
            let dims = vec![it.out, it.width];
            let weight = WeightShape { name: format!("{}.weight", it.path), dims, role };
            std::iter::once(weight).chain(it.bias.then(|| vector(format!("{}.bias", it.path), it.out)))
        };
        norms.chain(self.linears().flat_map(of_linear))
    }

    /// Lengths of the adapters' parameters.
    fn adapters(&self, use_dora: bool) -> impl Iterator<Item = usize> + '_ {
        self.linears().flat_map(move |it| {
            let pair = [it.rank * it.width, it.out * it.rank].into_iter().chain(use_dora.then_some(it.out));
            let pair = (it.rank > 0).then_some(pair).into_iter().flatten();
            pair.chain((it.ia3 > 0).then_some(it.ia3))
        })
    }
}

fn vector(name: String, length: usize) -> WeightShape {
    WeightShape { name, dims: vec![length], role: Role::Vector }
}

fn norm(kind: NormKind, name: &str, width: usize) -> impl Iterator<Item = WeightShape> + use<> {
    let weight = vector(format!("{name}.weight"), width);
    std::iter::once(weight).chain((kind == NormKind::Layer).then(|| vector(format!("{name}.bias"), width)))
}

fn block(config: &DecoderConfig, layer: usize) -> BlockWeights {
    let (names, hidden, biases) = (config.names, config.hidden_size, config.biases);
    let path = |name: &str| format!("{}.{layer}.{name}", names.blocks);
    let linear = |name: &str, out: usize, width: usize, bias: bool| LinearShape {
        path: path(name),
        out,
        width,
        bias,
        ..Default::default()
    };
    // Linears side by side are one of each width, or one of all.
    let beside = |of: &[&str], widths: &[usize], bias: bool| -> Vec<LinearShape> {
        let whole = [widths.iter().sum()];
        let widths = if of.len() == widths.len() { widths } else { &whole };
        of.iter().zip(widths).map(|(name, out)| linear(name, *out, hidden, bias)).collect()
    };
    let widths = config.qkv_widths();
    let of_stream = [names.attention_norm, names.post_attention_norm, names.mlp_norm, names.post_mlp_norm];
    let of_qk = match config.qk_norm {
        QkNorm::Off => None,
        QkNorm::Heads => Some([config.head_dim; 2]),
        QkNorm::Whole => Some([widths[0], widths[1]]),
    };
    let norms = of_stream.into_iter().flatten().map(|it| (path(it), hidden));
    let of_qk = of_qk.into_iter().flat_map(|it| names.qk_norms.iter().copied().zip(it));
    let norms = norms.chain(of_qk.map(|(name, width)| (path(name), width))).collect();
    let wide = config.intermediate_size;
    let mixture = config.mixture.filter(|_| config.layers[layer].mixes).zip(names.experts);
    let feed_forward = match (mixture, config.mlp) {
        (Some((mixture, of)), Mlp::Gated(_)) => {
            let width = mixture.intermediate_size;
            let expert = |index: usize| {
                let part = |last: &str, out: usize, width: usize| {
                    linear(&format!("{}.{index}.{last}", of.list), out, width, false)
                };
                let [gate, up] = of.up;
                [part(gate, width, hidden), part(up, width, hidden), part(of.down, hidden, width)]
            };
            FeedForwardShape::Mixture {
                router: linear(of.router, mixture.num_experts, hidden, false),
                experts: (0..mixture.num_experts).map(expert).collect(),
                of_token: mixture.num_experts_per_tok,
            }
        }
        (_, mlp) => {
            let widths = vec![wide; if matches!(mlp, Mlp::Gated(_)) { 2 } else { 1 }];
            FeedForwardShape::Dense {
                up: beside(names.up, &widths, biases.mlp),
                down: linear(names.down, hidden, wide, biases.mlp),
            }
        }
    };
    BlockWeights {
        norms,
        qkv: beside(names.qkv, &widths, biases.qkv),
        output: linear(names.output, hidden, widths[0], biases.output),
        feed_forward,
    }
}
