//! One transformer block, as [`DecoderConfig`](super::DecoderConfig) describes it: the unit of everything that manages memory.
//!
//! Shapes: `T` = tokens of the micro-batch, sequences end to end; `D` = `hidden_size`.

use std::borrow::Cow;
use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use fthost_kernels::{AttentionConfig, PagedAttentionConfig, Prologue, gelu, qkv_attention};

use super::decoder::{LayerConfig, Mlp, QkNorm};
use super::mixture::Mixture;
use super::norm::Norm;
use super::parameter::Parameter;
use super::prefix::Prefix;
use super::trained::Trained;
use crate::nn::linear::{ForwardAll, Linear, beside, forward_all, forward_for_gradients};
use crate::nn::precision::cast;

/// A linear with the last parts of its Hugging Face name.
pub type Named = (Cow<'static, str>, Linear);

/// What stands behind the attention.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one a block of the model")]
pub enum FeedForward {
    /// One layer for all tokens.
    Dense {
        /// To gate and up, side by side, or to up alone.
        up: Vec<Named>,
        /// `[D, intermediate_size]`.
        down: Named,
    },
    /// A few of many for each.
    Mixture(Box<Mixture>),
}

/// One transformer block.
#[derive(Debug, Clone)]
pub struct Block {
    /// Before the attention.
    pub attention_norm: Option<Norm>,
    /// To queries, keys and values, side by side: `[(heads + 2 kv_heads) * head_dim, D]` in all.
    pub qkv: Vec<Named>,
    /// Of queries and keys.
    pub qk_norms: Option<Box<[Norm; 2]>>,
    /// `[D, heads * head_dim]`.
    pub output: Named,
    /// On what the attention adds to the stream.
    pub post_attention_norm: Option<Box<Norm>>,
    /// Before the feed-forward layer.
    pub mlp_norm: Option<Norm>,
    /// Behind the attention.
    pub feed_forward: FeedForward,
    /// On what the feed-forward layer adds to the stream.
    pub post_mlp_norm: Option<Box<Norm>>,
    /// Keys and values that stand before those of every sequence: prefix tuning.
    pub prefix: Option<Box<Prefix>>,
    /// What is computed with them.
    pub shape: BlockShape,
}

/// What a block computes with its weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockShape {
    /// Query heads, and heads of keys and values.
    pub heads: [usize; 2],
    /// Width of a head.
    pub head_dim: usize,
    /// What the norms of queries and keys run over.
    pub qk_norm: QkNorm,
    /// Factor of the scores.
    pub scale: f64,
    /// Bound of the scores.
    pub softcap: Option<f64>,
    /// Between the linears of the feed-forward layer.
    pub mlp: Mlp,
    /// What differs from block to block.
    pub layer: LayerConfig,
}

/// PEFT's name of DoRA's lengths, behind a linear's path.
pub const MAGNITUDE: &str = "lora_magnitude_vector";
/// PEFT's name of (IA)^3's vector, behind a linear's path.
pub const IA3: &str = "ia3_l";

/// Cosines and sines of the tokens' angles, `[T, pairs]` each.
pub type RopeTables = (Tensor<2>, Tensor<2>);

/// What every block of one forward pass shares.
#[derive(Debug, Clone)]
pub struct BlockContext {
    /// Of each rotary embedding of the model.
    pub ropes: Vec<RopeTables>,
    /// Start of each segment and, last, `T`.
    pub cu_seqlens: Arc<[usize]>,
    /// As [`AttentionConfig::parents`].
    pub parents: Arc<[Option<usize>]>,
    /// What projected prefixes are made of.
    pub encoded: Option<Tensor<2>>,
}

impl Block {
    /// Queries, keys and values side by side, not rotated: `[T, (heads + 2 kv_heads) * head_dim]`.
    pub fn projected(&self, x: Tensor<2>) -> Tensor<2> {
        let qkv = after_norm(self.attention_norm.as_ref(), &self.qkv, x);
        match &self.qk_norms {
            Some(norms) => self.shape.normed(qkv, norms),
            None => qkv,
        }
    }

    /// The prefix, where there is one, as [`Block::projected`] gives rows of a text; they are not to be rotated.
    pub fn prefix_rows(&self, encoded: Option<&Tensor<2>>, dtype: DType) -> Option<Tensor<2>> {
        self.prefix.as_deref().map(|it| self.shape.as_qkv(it.rows(encoded), dtype))
    }

    /// The tables that the block rotates by.
    pub fn tables(&self, context: &BlockContext) -> Option<RopeTables> {
        self.shape.layer.rope.map(|it| context.ropes[it].clone())
    }

    /// How the block's heads attend.
    pub fn attention_config(&self, context: &BlockContext) -> AttentionConfig {
        let BlockShape { scale, softcap, layer, .. } = self.shape;
        let (cu_seqlens, parents) = (context.cu_seqlens.clone(), context.parents.clone());
        AttentionConfig { cu_seqlens, parents, scale, window: layer.window, softcap }
    }

    /// The same of sequences in the cache.
    pub fn configure(&self, config: &mut PagedAttentionConfig) {
        let BlockShape { scale, softcap, layer, .. } = self.shape;
        (config.scale, config.softcap, config.window) = (scale, softcap, layer.window);
    }

    /// The block after attention: `x` and what attention mixed, `[T, heads * head_dim]`, to the block's output.
    pub fn finish(&self, x: Tensor<2>, mixed: Tensor<2>) -> Tensor<2> {
        self.finish_with(forward_all, x, mixed)
    }

    /// As [`Block::finish`], the last linear by `last` where its values are the block's output but for a sum.
    fn finish_with(&self, last: ForwardAll, x: Tensor<2>, mixed: Tensor<2>) -> Tensor<2> {
        let norm = self.post_attention_norm.as_deref();
        let x = onto(forward_all, x, mixed, Prologue::None, &self.output, norm);
        match &self.feed_forward {
            FeedForward::Dense { up, down } => {
                let up = after_norm(self.mlp_norm.as_ref(), up, x.clone());
                let (up, prologue) = match self.shape.mlp {
                    Mlp::Gated(activation) => (up, Prologue::Gated(activation)),
                    Mlp::Gelu => (gelu(up), Prologue::None),
                };
                onto(last, x, up, prologue, down, self.post_mlp_norm.as_deref())
            }
            FeedForward::Mixture(mixture) => {
                let normed = self.mlp_norm.iter().fold(x.clone(), |x, norm| norm.forward(x));
                let added = mixture.forward(normed);
                x + self.post_mlp_norm.iter().fold(added, |added, norm| norm.forward(added))
            }
        }
    }

    /// `[T, D]` to `[T, D]`.
    pub fn forward(&self, x: Tensor<2>, context: &BlockContext) -> Tensor<2> {
        self.forward_with(forward_all, x, context)
    }

    /// As [`Block::forward`] where only gradients through the result are asked for: what its values are, nobody knows.
    pub fn forward_for_gradients(&self, x: Tensor<2>, context: &BlockContext) -> Tensor<2> {
        self.forward_with(forward_for_gradients, x, context)
    }

    fn forward_with(&self, last: ForwardAll, x: Tensor<2>, context: &BlockContext) -> Tensor<2> {
        let ([heads, kv_heads], config) = (self.shape.heads, self.attention_config(context));
        let (tokens, qkv) = (x.dims()[0], self.projected(x.clone()));
        let Some(prefix) = self.prefix.as_deref() else {
            let mixed = qkv_attention(qkv, self.tables(context), heads, kv_heads, &config);
            return self.finish_with(last, x, mixed);
        };
        let prefix = prefix.rows(context.encoded.as_ref());
        let before = prefix.dims()[0];
        let rows = self.shape.as_qkv(beside(prefix, &qkv), qkv.dtype());
        let qkv = Tensor::cat(vec![rows, qkv], 0);
        let mixed = qkv_attention(qkv, self.tables(context), heads, kv_heads, &config);
        self.finish_with(last, x, mixed.narrow(0, before, tokens))
    }

    /// Every base weight of the block, whose name begins with `path`.
    pub fn visit_base(&mut self, path: &str, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        let prefix = format!("{path}.");
        let norms = [
            self.attention_norm.as_mut(),
            self.post_attention_norm.as_deref_mut(),
            self.mlp_norm.as_mut(),
            self.post_mlp_norm.as_deref_mut(),
        ];
        let of_heads = self.qk_norms.iter_mut().flat_map(|it| it.iter_mut());
        for norm in norms.into_iter().flatten().chain(of_heads) {
            norm.visit(&prefix, visit);
        }
        for (name, linear) in self.linears_mut() {
            visit(&format!("{prefix}{name}.weight"), Parameter::of(&mut linear.weight));
            if let Some(bias) = &mut linear.bias {
                visit(&format!("{prefix}{name}.bias"), Parameter::Vector(bias));
            }
        }
    }

    /// Every adapter weight of the block, whose name begins with `path`.
    pub fn visit_adapter(&mut self, path: &str, visit: &mut dyn FnMut(&str, Parameter<'_>)) {
        for (name, linear) in self.linears_mut() {
            if let Some(lora) = &mut linear.lora {
                visit(&format!("{path}.{name}.lora_A.weight"), Parameter::Matrix(&mut lora.a));
                visit(&format!("{path}.{name}.lora_B.weight"), Parameter::Matrix(&mut lora.b));
                if let Some(magnitude) = &mut lora.magnitude {
                    let name = format!("{path}.{name}.{MAGNITUDE}");
                    visit(&name, Parameter::Vector(&mut magnitude.length));
                }
            }
            if let Some(ia3) = &mut linear.ia3 {
                visit(&format!("{path}.{name}.{IA3}"), Parameter::Matrix(&mut ia3.scale));
            }
        }
        if let Some(prefix) = self.prefix.as_deref_mut() {
            prefix.visit(path, visit);
        }
    }

    /// What is trained of the block at `path`: the whole base, or the adapters and what is trained with them.
    pub fn visit_trained(
        &mut self,
        trained: &Trained,
        path: &str,
        visit: &mut dyn FnMut(&str, Parameter<'_>),
    ) {
        if let Trained::Adapter(_) = trained {
            self.visit_adapter(path, visit);
        }
        self.visit_base(path, &mut trained.only(visit));
    }

    /// Every linear, from input to output.
    pub fn linears(&self) -> impl Iterator<Item = (&str, &Linear)> {
        let behind: Vec<&Named> = match &self.feed_forward {
            FeedForward::Dense { up, down } => up.iter().chain([down]).collect(),
            FeedForward::Mixture(mixture) => mixture.linears().collect(),
        };
        let all = self.qkv.iter().chain([&self.output]).chain(behind);
        all.map(|(name, linear)| (name.as_ref(), linear))
    }

    /// As [`Block::linears`].
    pub fn linears_mut(&mut self) -> impl Iterator<Item = (&str, &mut Linear)> {
        let behind: Vec<&mut Named> = match &mut self.feed_forward {
            FeedForward::Dense { up, down } => up.iter_mut().chain([down]).collect(),
            FeedForward::Mixture(mixture) => mixture.linears_mut().collect(),
        };
        let all = self.qkv.iter_mut().chain([&mut self.output]).chain(behind);
        all.map(|it| (&*it.0, &mut it.1))
    }
}

impl BlockShape {
    /// A prefix as rows of queries, keys and values: nobody asks what its queries, which are zeros, find.
    fn as_qkv(&self, prefix: Tensor<2>, dtype: DType) -> Tensor<2> {
        let queries = Tensor::zeros([prefix.dims()[0], self.heads[0] * self.head_dim], &prefix.device());
        Tensor::cat(vec![cast(queries, dtype), cast(prefix, dtype)], 1)
    }

    /// `qkv` with its queries and keys normalised.
    fn normed(&self, qkv: Tensor<2>, norms: &[Norm; 2]) -> Tensor<2> {
        let ([heads, kv_heads], head_dim) = (self.heads, self.head_dim);
        let tokens = qkv.dims()[0];
        let part = |first: usize, count: usize| qkv.clone().narrow(1, first * head_dim, count * head_dim);
        let normed = |first: usize, count: usize, norm: &Norm| {
            let part = part(first, count);
            match self.qk_norm {
                QkNorm::Whole => norm.forward(part),
                QkNorm::Heads | QkNorm::Off => {
                    let by_head = norm.forward(part.reshape([tokens * count, head_dim]));
                    by_head.reshape([tokens, count * head_dim])
                }
            }
        };
        let (q, k) = (normed(0, heads, &norms[0]), normed(heads, kv_heads, &norms[1]));
        Tensor::cat(vec![q, k, part(heads + kv_heads, kv_heads)], 1)
    }
}

/// The outputs of `linears` side by side, of `x` behind `norm`.
fn after_norm(norm: Option<&Norm>, linears: &[Named], x: Tensor<2>) -> Tensor<2> {
    let (x, prologue) = match norm {
        Some(norm) => norm.before(x),
        None => (x, Prologue::None),
    };
    let linears: Vec<&Linear> = linears.iter().map(|it| &it.1).collect();
    forward_all(&linears, x, prologue, None)
}

/// The stream `x` plus what `linear` makes of `from`, by `forward` or, where there is a norm for it, normalised.
fn onto(
    forward: ForwardAll,
    x: Tensor<2>,
    from: Tensor<2>,
    prologue: Prologue,
    linear: &Named,
    norm: Option<&Norm>,
) -> Tensor<2> {
    match norm {
        None => forward(&[&linear.1], from, prologue, Some(x)),
        Some(norm) => x + norm.forward(forward_all(&[&linear.1], from, prologue, None)),
    }
}
