//! Causal attention with grouped queries over sequences that lie end to end.
//!
//! Scores exist for one sequence at a time: nothing is computed, or masked out, between two sequences. On the CPU they
//! exist for a block of queries and a block of keys at a time, as in FlashAttention
//! (<https://arxiv.org/abs/2307.08691>): memory grows with `T`, not with its square, and what lies outside a sliding
//! window costs nothing.
//!
//! A sequence may go on from another, its parent: the parent's keys and values are there once, however many go on from
//! it, as in Hydragen (<https://arxiv.org/abs/2402.05099>) and, with a backward, in prefix grouping for GRPO
//! (<https://arxiv.org/abs/2506.05433>). A parent may have one itself: what every prompt of a batch begins with.

mod backward;
mod cpu;
mod few;
mod forward;
mod layout;
mod paged;

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Bool, Tensor, activation};

use crate::extension::{apply, is_ours};
use crate::rope::{check_tables, rope_reference};
use layout::Sizes;
pub use paged::{
    PagedAttentionConfig, PagedSequence, Pages, paged_qkv_attention, paged_qkv_attention_reference,
};

/// Sequences that one may go on from, each from the next: a prompt, and what stands before every prompt.
pub const MAX_ANCESTORS: usize = 2;

/// What every head shares.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionConfig {
    /// Start of each sequence and, last, `T`. A sequence may be empty.
    pub cu_seqlens: Arc<[usize]>,
    /// The sequence whose tokens come before those of each: an earlier one, which may have a parent that has none. A
    /// sequence sees all of its ancestors, in so far as the window lets it. Empty where no sequence has one.
    pub parents: Arc<[Option<usize>]>,
    /// Factor of the scores, usually `head_dim^(-1/2)`.
    pub scale: f64,
    /// A token sees itself and the `window - 1` tokens before it, as with `sliding_window` in transformers; every
    /// token before it where `None`.
    pub window: Option<usize>,
    /// Bound of the scores' size, > 0: a score `s`, factor included, becomes `softcap * tanh(s / softcap)` before what
    /// is not seen is masked out, as with `attn_logit_softcapping` in transformers' Gemma 2.
    pub softcap: Option<f64>,
}

impl AttentionConfig {
    /// The tokens of a sequence that are its own.
    fn tokens(&self, sequence: usize) -> Range<usize> {
        self.cu_seqlens[sequence]..self.cu_seqlens[sequence + 1]
    }

    /// What a sequence goes on from: its parent, then that one's.
    fn ancestors(&self, sequence: usize) -> impl Iterator<Item = usize> {
        let parent = |it: usize| self.parents.get(it).copied().flatten();
        std::iter::successors(parent(sequence), move |it| parent(*it))
    }

    /// Panics where the bounds are not those of `tokens` tokens: they are the caller's own, never a user's.
    fn check(&self, tokens: usize, heads: usize, kv_heads: usize) {
        let bounds = &self.cu_seqlens;
        assert!(
            bounds.first() == Some(&0) && bounds.last() == Some(&tokens),
            "{bounds:?} of {tokens} tokens"
        );
        assert!(bounds.is_sorted(), "{bounds:?} descend");
        let parents = &self.parents;
        assert!(parents.is_empty() || parents.len() + 1 == bounds.len(), "{parents:?} of {bounds:?}");
        let earlier = parents.iter().enumerate().all(|(index, it)| it.is_none_or(|it| it < index));
        let sound = earlier && (0..parents.len()).all(|it| self.ancestors(it).count() <= MAX_ANCESTORS);
        assert!(sound, "{parents:?} are not earlier sequences, at most {MAX_ANCESTORS} deep");
        assert!(self.window != Some(0), "a token sees itself");
        assert!(self.softcap.is_none_or(|it| it > 0.0), "scores are bounded by {:?}", self.softcap);
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "{heads} heads share {kv_heads}");
    }
}

/// Causal attention inside each sequence.
///
/// # Shapes
/// - `q`: `[T, heads, head_dim]`; `k`, `v`: `[T, kv_heads, head_dim]`, `heads` a multiple of `kv_heads`
/// - result: `[T, heads, head_dim]`
///
/// # Panics
/// Where `config.cu_seqlens` does not ascend from 0 to `T`, `config.parents` are not what they must be,
/// `config.window` is 0 or `config.softcap` is not above 0.
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, config: &AttentionConfig) -> Tensor<3> {
    if is_ours(&q) && is_ours(&k) && is_ours(&v) {
        let ([tokens, heads, head_dim], [_, kv_heads, _]) = (q.dims(), k.dims());
        config.check(tokens, heads, kv_heads);
        let sizes = Sizes { heads, kv_heads, head_dim };
        return apply(vec![q.into(), k.into(), v.into()], cpu::Separate { sizes, config: config.clone() });
    }
    attention_reference(q, k, v, config)
}

/// [`attention`] in plain tensor operations.
pub fn attention_reference(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, config: &AttentionConfig) -> Tensor<3> {
    config.check(q.dims()[0], q.dims()[1], k.dims()[1]);
    let part = |it: &Tensor<3>, tokens: &Range<usize>| it.clone().narrow(0, tokens.start, tokens.len());
    let one = |index: usize| {
        let own = config.tokens(index);
        let mut runs: Vec<Range<usize>> = config.ancestors(index).map(|it| config.tokens(it)).collect();
        runs.reverse();
        runs.push(own.clone());
        runs.retain(|it| !it.is_empty());
        let seen = |it: &Tensor<3>| Tensor::cat(runs.iter().map(|tokens| part(it, tokens)).collect(), 0);
        (!own.is_empty()).then(|| one_sequence(part(&q, &own), seen(&k), seen(&v), config))
    };
    Tensor::cat((0..config.cu_seqlens.len() - 1).filter_map(one).collect(), 0)
}

/// Causal attention of the last tokens of one sequence, `[asking, heads, head_dim]`, to all of it, `[len, ..]`.
fn one_sequence(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, config: &AttentionConfig) -> Tensor<3> {
    let ([asking, heads, head_dim], [length, kv_heads, _]) = (q.dims(), k.dims());
    let before = (length - asking) as i64;
    let group = heads / kv_heads;
    // Query heads of one group share a key head: they stand on an axis of their own, `[kv, group, asking, head_dim]`.
    let q = q.reshape([asking, kv_heads, group, head_dim]).permute([1, 2, 0, 3]);
    let shared = |it: Tensor<3>| {
        it.permute([1, 0, 2]).unsqueeze_dim::<4>(1).expand([kv_heads, group, length, head_dim])
    };
    let scores = q.mul_scalar(config.scale).matmul(shared(k).swap_dims(2, 3));
    let mut scores = capped(scores, config.softcap);
    // `tril_mask` is true where a value would be dropped from the lower triangle: the future.
    let (shape, device) = ([asking, length], scores.device());
    let future = Tensor::<2, Bool>::tril_mask(shape, before, &device);
    scores = scores.mask_fill(future.unsqueeze::<4>(), f32::NEG_INFINITY);
    if let Some(window) = config.window.filter(|it| *it < length) {
        let past = Tensor::<2, Bool>::triu_mask(shape, before + 1 - window as i64, &device);
        scores = scores.mask_fill(past.unsqueeze::<4>(), f32::NEG_INFINITY);
    }
    let mixed = activation::softmax(scores, 3).matmul(shared(v));
    mixed.permute([2, 0, 1, 3]).reshape([asking, heads, head_dim])
}

/// `softcap * tanh(scores / softcap)`, where there is one.
fn capped(scores: Tensor<4>, softcap: Option<f64>) -> Tensor<4> {
    match softcap {
        Some(cap) => scores.div_scalar(cap).tanh().mul_scalar(cap),
        None => scores,
    }
}

/// Rotates queries and keys by `tables`, cosines and sines, then attends; without tables nothing is rotated.
///
/// A gradient reaches `qkv` only.
///
/// # Shapes
/// - `qkv`: `[T, (heads + 2 kv_heads) * head_dim]`: queries, keys, values, as projections side by side leave them
/// - `tables`: `[T, pairs]` each, as for [`crate::rope()`]
/// - result: `[T, heads * head_dim]`
///
/// # Panics
/// As [`attention`] and [`crate::rope()`].
pub fn qkv_attention(
    qkv: Tensor<2>,
    tables: Option<(Tensor<2>, Tensor<2>)>,
    heads: usize,
    kv_heads: usize,
    config: &AttentionConfig,
) -> Tensor<2> {
    if is_ours(&qkv) && are_ours(&tables) {
        let [tokens, width] = qkv.dims();
        config.check(tokens, heads, kv_heads);
        let sizes = Sizes { heads, kv_heads, head_dim: width / (heads + 2 * kv_heads) };
        let mut inputs = vec![qkv.into()];
        if let Some((cos, sin)) = tables {
            check_tables(&cos, &sin, tokens, sizes.head_dim);
            inputs.extend([cos.into(), sin.into()]);
        }
        return apply(inputs, cpu::Merged { sizes, config: config.clone() });
    }
    qkv_attention_reference(qkv, tables, heads, kv_heads, config)
}

/// Whether our own implementation takes the tables, if there are any.
fn are_ours(tables: &Option<(Tensor<2>, Tensor<2>)>) -> bool {
    tables.as_ref().is_none_or(|(cos, sin)| is_ours(cos) && is_ours(sin))
}

/// [`qkv_attention`] in plain tensor operations.
pub fn qkv_attention_reference(
    qkv: Tensor<2>,
    tables: Option<(Tensor<2>, Tensor<2>)>,
    heads: usize,
    kv_heads: usize,
    config: &AttentionConfig,
) -> Tensor<2> {
    let [tokens, width] = qkv.dims();
    let head_dim = width / (heads + 2 * kv_heads);
    let [q, k, v] = rotated_parts(qkv, tables, [heads, kv_heads, head_dim]);
    attention_reference(q, k, v, config).reshape([tokens, heads * head_dim])
}

/// Queries and keys, rotated where there are tables, and values, `[T, heads or kv_heads, head_dim]`.
fn rotated_parts(
    qkv: Tensor<2>,
    tables: Option<(Tensor<2>, Tensor<2>)>,
    [heads, kv_heads, head_dim]: [usize; 3],
) -> [Tensor<3>; 3] {
    let tokens = qkv.dims()[0];
    let part = |first: usize, count: usize| {
        qkv.clone().narrow(1, first * head_dim, count * head_dim).reshape([tokens, count, head_dim])
    };
    let (q, k, v) = (part(0, heads), part(heads, kv_heads), part(heads + kv_heads, kv_heads));
    match tables {
        Some((cos, sin)) => [rope_reference(q, cos.clone(), sin.clone()), rope_reference(k, cos, sin), v],
        None => [q, k, v],
    }
}

#[cfg(test)]
mod tests;
