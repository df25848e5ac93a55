//! Attention of new tokens to all of their sequence, whose keys and values lie in pages: decoding, and prompts that are
//! read in chunks.
//!
//! A task is a block of queries of one key head, as in `forward.rs`; the keys it is set against at a time are those of
//! one page. What is computed for a sequence does not depend on the others. There is no backward.

use std::sync::Arc;

use burn::tensor::{Bool, DType, Int, Tensor, TensorData, activation};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::forward::{Running, Visible, absorb, block, finish};
use super::layout::{Heads, Queries, Sizes, cut};
use crate::extension::{Operation, apply, is_ours};
use crate::flex::{tensor, unfilled, values};
use crate::matrix::{Into, Matrix, MatrixMut, Threads, product};
use crate::simd::{dot, vectorized};

/// Rows of a block up to which they meet a page without a general product, which packs what it multiplies.
const FEW: usize = 16;

/// Where a sequence lies, and how many of its tokens ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PagedSequence {
    /// Its pages, by number, in the order of its tokens; as many as `length` needs at least.
    pub pages: Vec<u32>,
    /// Its tokens, those that ask included.
    pub length: usize,
    /// Its last tokens: those that ask.
    pub queries: usize,
}

/// What every head shares.
#[derive(Debug, Clone, PartialEq)]
pub struct PagedAttentionConfig {
    /// The sequences, in the order of their queries.
    pub sequences: Arc<[PagedSequence]>,
    /// Tokens of a page.
    pub page: usize,
    /// Factor of the scores, usually `head_dim^(-1/2)`.
    pub scale: f64,
    /// As [`super::AttentionConfig::window`].
    pub window: Option<usize>,
}

impl PagedAttentionConfig {
    /// Panics where a sequence has not the pages it needs, or the queries are not `tokens`: they are the caller's own.
    fn check(&self, tokens: usize, slots: usize) {
        assert_eq!(
            self.sequences.iter().map(|it| it.queries).sum::<usize>(),
            tokens,
            "queries of the sequences"
        );
        assert!(self.window != Some(0), "a token sees itself");
        for it in self.sequences.iter() {
            assert!(it.queries <= it.length && it.length <= it.pages.len() * self.page, "{it:?}");
            assert!(it.pages.iter().all(|page| (*page as usize + 1) * self.page <= slots), "{it:?}");
        }
    }
}

/// Causal attention of each sequence's last tokens to all of it.
///
/// # Shapes
/// - `q`: `[T, heads, head_dim]`, the sequences' queries end to end
/// - `keys`, `values`: `[pages * page, kv_heads, head_dim]`
/// - result: `[T, heads, head_dim]`
///
/// # Panics
/// Where a sequence lacks pages, or `T` is not the sum of the queries.
pub fn paged_attention(
    q: Tensor<3>,
    keys: Tensor<3>,
    values: Tensor<3>,
    config: &PagedAttentionConfig,
) -> Tensor<3> {
    let ([tokens, heads, head_dim], [slots, kv_heads, _]) = (q.dims(), keys.dims());
    config.check(tokens, slots);
    if is_ours(&q) && is_ours(&keys) && is_ours(&values) && !q.is_autodiff() {
        let sizes = Sizes { heads, kv_heads, head_dim };
        return apply(vec![q.into(), keys.into(), values.into()], Paged { sizes, config: config.clone() });
    }
    paged_attention_reference(q, keys, values, config)
}

/// [`paged_attention`] in plain tensor operations: each sequence's pages are gathered first.
pub fn paged_attention_reference(
    q: Tensor<3>,
    keys: Tensor<3>,
    values: Tensor<3>,
    config: &PagedAttentionConfig,
) -> Tensor<3> {
    let (device, mut first) = (q.device(), 0);
    let outputs = config.sequences.iter().filter(|it| it.queries > 0).map(|sequence| {
        let slots: Vec<i32> = (0..sequence.length)
            .map(|it| (sequence.pages[it / config.page] as usize * config.page + it % config.page) as i32)
            .collect();
        let slots = Tensor::<1, Int>::from_data(TensorData::new(slots, [sequence.length]), &device);
        let q = q.clone().narrow(0, first, sequence.queries);
        first += sequence.queries;
        one_sequence(q, keys.clone().select(0, slots.clone()), values.clone().select(0, slots), config)
    });
    Tensor::cat(outputs.collect(), 0)
}

/// The last tokens of one sequence, `[queries, heads, head_dim]`, to all of it; scores in f32.
fn one_sequence(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, config: &PagedAttentionConfig) -> Tensor<3> {
    let ([queries, heads, head_dim], [length, kv_heads, _]) = (q.dims(), k.dims());
    let (group, dtype) = (heads / kv_heads, q.dtype());
    let q = q.reshape([queries, kv_heads, group, head_dim]).permute([1, 2, 0, 3]);
    let shared = |it: Tensor<3>| {
        it.permute([1, 0, 2]).unsqueeze_dim::<4>(1).expand([kv_heads, group, length, head_dim])
    };
    let scores = q.mul_scalar(config.scale).matmul(shared(k).swap_dims(2, 3));
    let mut scores = if dtype == DType::F32 { scores } else { scores.cast(DType::F32) };
    let (shape, earlier, device) = ([queries, length], (length - queries) as i64, scores.device());
    if queries > 1 {
        let future = Tensor::<2, Bool>::tril_mask(shape, earlier, &device);
        scores = scores.mask_fill(future.unsqueeze::<4>(), f32::NEG_INFINITY);
    }
    if let Some(window) = config.window.filter(|it| *it < length) {
        let past = Tensor::<2, Bool>::triu_mask(shape, earlier + 1 - window as i64, &device);
        scores = scores.mask_fill(past.unsqueeze::<4>(), f32::NEG_INFINITY);
    }
    let weights = activation::softmax(scores, 3);
    let weights = if dtype == DType::F32 { weights } else { weights.cast(dtype) };
    weights.matmul(shared(v)).permute([2, 0, 1, 3]).reshape([queries, heads, head_dim])
}

/// The operation; inputs `q`, `keys`, `values`.
#[derive(Debug)]
struct Paged {
    sizes: Sizes,
    config: PagedAttentionConfig,
}

/// Some queries of a sequence.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    sequence: &'a PagedSequence,
    /// Counted from the sequence's first token.
    block: Queries,
    /// Row of `q` where they begin.
    row: usize,
}

impl Operation for Paged {
    fn forward(&self, inputs: Vec<FlexTensor>, _: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [q, keys, values_] = <[_; 3]>::try_from(inputs).expect("q, keys and values");
        let slices = [values(&q), values(&keys), values(&values_)];
        let Sizes { heads, kv_heads, head_dim } = self.sizes;
        let mut output = unfilled(slices[0].len());
        let parts = self.parts();
        let [mut rows] = cut(&mut output, heads * head_dim, [(kv_heads, self.sizes.group_width())]);
        let mut tasks = Vec::with_capacity(parts.len() * kv_heads);
        for (head, mut rows) in rows.iter_mut().map(Vec::as_mut_slice).enumerate() {
            for part in &parts {
                let (mine, others) = rows.split_at_mut(part.block.last - part.block.first);
                tasks.push((head, *part, mine));
                rows = others;
            }
        }
        tasks.into_par_iter().with_max_len(1).for_each(|(head, part, output)| {
            self.task(slices, head, part, output);
        });
        (tensor(output, q.layout().shape()), Vec::new())
    }

    fn backward(&self, _: Vec<FlexTensor>, _: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        unreachable!("never called under autodiff")
    }
}

impl Paged {
    fn parts(&self) -> Vec<Part<'_>> {
        let (mut parts, mut row) = (Vec::new(), 0);
        for sequence in self.config.sequences.iter() {
            let asking =
                Queries { start: 0, first: sequence.length - sequence.queries, last: sequence.length };
            for block in asking.blocks(block(self.sizes.group())) {
                parts.push(Part { sequence, block, row });
                row += block.last - block.first;
            }
        }
        parts
    }

    fn task(&self, slices: [&[f32]; 3], head: usize, part: Part<'_>, output: &mut [&mut [f32]]) {
        let ([q, keys, values], Part { sequence, block, row }) = (slices, part);
        let (Sizes { heads, kv_heads, head_dim }, page) = (self.sizes, self.config.page);
        let (tokens, group, stride) = (block.last - block.first, self.sizes.group(), kv_heads * head_dim);
        let rows = tokens * group;
        let mut running = Running::new(rows, head_dim);
        let mut queries = unfilled(rows * head_dim);
        let of_head = Heads::beside(q, 0, heads * head_dim, self.sizes.group_width());
        for (token, to) in queries.chunks_exact_mut(self.sizes.group_width()).enumerate() {
            let scale = self.config.scale as f32;
            to.iter_mut().zip(of_head.row(head, row + token)).for_each(|(to, from)| *to = from * scale);
        }
        let mut scores = unfilled(rows * page);
        let begin = block.first_key(self.config.window) / page * page;
        for first in (begin..block.last).step_by(page) {
            let last = (first + page).min(block.last);
            let (count, slot) = (last - first, sequence.pages[first / page] as usize * page);
            let in_page = |it| Heads::beside(it, slot * stride + head * head_dim, stride, head_dim);
            let (keys, values) = (in_page(keys), in_page(values));
            let scores = &mut scores[..rows * count];
            if rows <= FEW {
                few_scores(&queries, keys, scores);
            } else {
                let (queries, keys) = (Matrix::new(&queries, head_dim), keys.rows(0, 0, count));
                let to = MatrixMut::new(scores, count);
                product(to, Into::Overwrite, 1.0, queries, keys.t(), Threads::One);
            }
            absorb(scores, Visible { block, group, first, last, window: self.config.window }, &mut running);
            if rows <= FEW {
                few_mixed(scores, values, &mut running.mixed);
            } else {
                let (weights, values) = (Matrix::new(scores, count), values.rows(0, 0, count));
                let to = MatrixMut::new(&mut running.mixed, head_dim);
                product(to, Into::Add, 1.0, weights, values, Threads::One);
            }
        }
        finish(&running, output, &mut unfilled(rows));
    }
}

vectorized! {
    /// Each key is read once for all rows.
    fn few_scores(queries: &[f32], keys: Heads<'_>, scores: &mut [f32]) {
        let count = scores.len() / (queries.len() / keys.width);
        for column in 0..count {
            let key = keys.row(0, column);
            for (row, query) in queries.chunks_exact(keys.width).enumerate() {
                scores[row * count + column] = dot(query, key);
            }
        }
    }

    fn few_mixed(weights: &[f32], values: Heads<'_>, mixed: &mut [f32]) {
        let count = weights.len() / (mixed.len() / values.width);
        for column in 0..count {
            let value = values.row(0, column);
            for (row, mixed) in mixed.chunks_exact_mut(values.width).enumerate() {
                let weight = weights[row * count + column];
                mixed.iter_mut().zip(value).for_each(|(mixed, value)| *mixed = weight.mul_add(*value, *mixed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::random;

    fn sequence(pages: &[u32], length: usize, queries: usize) -> PagedSequence {
        PagedSequence { pages: pages.into(), length, queries }
    }

    /// Sums of at most 40 terms in f32, in two orders, behind an exponential: 1e-5.
    #[test]
    fn values_equal_the_reference() {
        let sequences: Arc<[PagedSequence]> = [
            sequence(&[3, 0, 5], 19, 1),
            sequence(&[1], 1, 1),
            sequence(&[3, 0, 2], 24, 6),
            sequence(&[9], 5, 0),
            sequence(&[6, 4, 8, 7, 9], 40, 40),
        ]
        .into();
        for (heads, kv_heads, head_dim) in [(9, 3, 64), (2, 2, 10), (4, 1, 16)] {
            for window in [None, Some(1), Some(9), Some(100)] {
                let config = PagedAttentionConfig {
                    sequences: sequences.clone(),
                    page: 8,
                    scale: (head_dim as f64).powf(-0.5),
                    window,
                };
                let q = random([48, heads, head_dim], 1);
                let [k, v] = [2, 3].map(|it| random([80, kv_heads, head_dim], it));
                let expected = paged_attention_reference(q.clone(), k.clone(), v.clone(), &config);
                let got = paged_attention(q, k, v, &config);
                let worst = (got - expected).abs().max().into_scalar::<f32>();
                assert!(worst < 1e-5, "{heads} heads, window {window:?}: differs by {worst:e}");
            }
        }
    }

    /// Pages in order, all tokens asking: what [`super::super::attention`] computes.
    #[test]
    fn a_whole_sequence_attends_as_without_pages() {
        let sequences = [sequence(&[0, 1, 2, 3, 4], 37, 37)].into();
        let config = PagedAttentionConfig { sequences, page: 8, scale: 0.125, window: Some(20) };
        let plain =
            super::super::AttentionConfig { cu_seqlens: [0, 37].into(), scale: 0.125, window: Some(20) };
        let q = random([37, 6, 64], 1);
        let [k, v] = [2, 3].map(|it| random([40, 2, 64], it));
        let part = |it: &Tensor<3>| it.clone().narrow(0, 0, 37);
        let expected = super::super::attention(q.clone(), part(&k), part(&v), &plain);
        let worst = (paged_attention(q, k, v, &config) - expected).abs().max().into_scalar::<f32>();
        assert!(worst < 1e-5, "differs by {worst:e}");
    }
}
