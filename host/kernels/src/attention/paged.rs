//! Attention of new tokens to all of their sequence, whose keys and values lie in pages: decoding, and prompts that are
//! read in chunks. The new tokens' own keys and values are written to their pages first.
//!
//! A task is a block of queries of one key head, as in `forward.rs`; the keys it is set against at a time are those of
//! one page. What is computed for a sequence does not depend on the others. There is no backward.

use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::{Bool, DType, Int, Tensor, TensorData, activation};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::cpu::{Merged, Rotation, Softcap, load_row};
use super::few::{few_mixed, few_scores};
use super::forward::{Running, Visible, absorb, block, finish};
use super::layout::{Heads, Queries, Sizes, cut};
use super::{AttentionConfig, are_ours, capped, rotated_parts};
use crate::extension::{Operation, is_ours};
use crate::flex::{contiguous, owned, primitive, tensor, unfilled, values, values_mut};
use crate::matrix::{Into, Matrix, MatrixMut, Threads, product};
use crate::rope::check_tables;

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
    /// As [`super::AttentionConfig::softcap`].
    pub softcap: Option<f64>,
}

/// Keys and values of many sequences, `[pages, kv_heads, page, head_dim]` each: what a head reads of a page lies together.
#[derive(Debug, Clone)]
pub struct Pages {
    /// Rotated.
    pub keys: Tensor<4>,
    /// As they are.
    pub values: Tensor<4>,
}

impl PagedAttentionConfig {
    /// Panics where a sequence has not the pages it needs, or the queries are not `tokens`: they are the caller's own.
    fn check(&self, tokens: usize, [pages, page]: [usize; 2]) {
        assert_eq!(self.page, page, "tokens of a page");
        assert_eq!(
            self.sequences.iter().map(|it| it.queries).sum::<usize>(),
            tokens,
            "queries of the sequences"
        );
        assert!(self.window != Some(0), "a token sees itself");
        assert!(self.softcap.is_none_or(|it| it > 0.0), "scores are bounded by {:?}", self.softcap);
        for it in self.sequences.iter() {
            assert!(it.queries <= it.length && it.length <= it.pages.len() * self.page, "{it:?}");
            assert!(it.pages.iter().all(|page| (*page as usize) < pages), "{it:?}");
        }
    }

    /// Where the keys and values of the new tokens go, in their order: a page, the first place in it, and how many.
    fn runs(&self) -> impl Iterator<Item = [usize; 3]> {
        self.sequences.iter().flat_map(move |it| {
            let mut token = it.length - it.queries;
            std::iter::from_fn(move || {
                let inside = token % self.page;
                let fits = (self.page - inside).min(it.length - token);
                let run = (fits > 0).then(|| [it.pages[token / self.page] as usize, inside, fits]);
                token += fits;
                run
            })
        })
    }

    /// The attention that it comes to where every sequence's tokens are all new.
    fn of_whole_sequences(&self) -> Option<AttentionConfig> {
        let whole = |it: &PagedSequence| it.queries == it.length || it.queries == 0;
        let mut cu_seqlens = vec![0];
        for it in self.sequences.iter() {
            cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + it.queries);
        }
        let (cu_seqlens, parents) = (cu_seqlens.into(), [].into());
        let &Self { scale, window, softcap, .. } = self;
        let found = AttentionConfig { cu_seqlens, parents, scale, window, softcap };
        self.sequences.iter().all(whole).then_some(found)
    }
}

/// Rotates the new tokens' queries and keys by `tables`, if there are any, writes their keys and values to `pages`, in place where nobody else holds
/// them, and attends, causally, each sequence's new tokens to all of it.
///
/// # Shapes
/// - `qkv`: `[T, (heads + 2 kv_heads) * head_dim]`, the sequences' new tokens end to end, as for
///   [`super::qkv_attention`]
/// - `tables`: cosines and sines, `[T, pairs]` each, as for [`crate::rope()`]
/// - result: `[T, heads * head_dim]`
///
/// # Panics
/// Where a sequence lacks pages, `T` is not the sum of the queries, or the tables are of other shapes.
pub fn paged_qkv_attention(
    qkv: Tensor<2>,
    tables: Option<(Tensor<2>, Tensor<2>)>,
    pages: &mut Pages,
    config: &PagedAttentionConfig,
) -> Tensor<2> {
    let ours = is_ours(&qkv) && are_ours(&tables) && !qkv.is_autodiff();
    if !(ours && is_ours(&pages.keys) && is_ours(&pages.values)) {
        return paged_qkv_attention_reference(qkv, tables, pages, config);
    }
    let ([tokens, width], [all, kv_heads, page, head_dim]) = (qkv.dims(), pages.keys.dims());
    config.check(tokens, [all, page]);
    let sizes = Sizes { heads: width / head_dim - 2 * kv_heads, kv_heads, head_dim };
    let mut inputs = vec![contiguous(primitive(qkv))];
    if let Some((cos, sin)) = tables {
        check_tables(&cos, &sin, tokens, head_dim);
        inputs.extend([cos, sin].map(|it| contiguous(primitive(it))));
    }
    let mut output = None;
    let Pages { keys, values } = pages;
    keys.inplace(|all_keys| {
        let mut all_keys = owned(primitive(all_keys));
        values.inplace(|all_values| {
            let mut all_values = owned(primitive(all_values));
            let pages = [values_mut(&mut all_keys), values_mut(&mut all_values)];
            append(&inputs, sizes, pages, config);
            output = Some(attend(inputs, sizes, [&all_keys, &all_values], config));
            Tensor::from_primitive::<Flex>(all_values)
        });
        Tensor::from_primitive::<Flex>(all_keys)
    });
    Tensor::from_primitive::<Flex>(output.expect("made above"))
}

/// [`paged_qkv_attention`] in plain tensor operations: each sequence's pages are gathered first.
pub fn paged_qkv_attention_reference(
    qkv: Tensor<2>,
    tables: Option<(Tensor<2>, Tensor<2>)>,
    pages: &mut Pages,
    config: &PagedAttentionConfig,
) -> Tensor<2> {
    let ([tokens, width], [all, kv_heads, page, head_dim]) = (qkv.dims(), pages.keys.dims());
    config.check(tokens, [all, page]);
    let heads = width / head_dim - 2 * kv_heads;
    let [q, k, v] = rotated_parts(qkv, tables, [heads, kv_heads, head_dim]);
    for (pages, new) in [(&mut pages.keys, k), (&mut pages.values, v)] {
        let mut first = 0;
        for [page, inside, count] in config.runs() {
            let new = new.clone().narrow(0, first, count).swap_dims(0, 1).unsqueeze::<4>();
            let place = [page..page + 1, 0..kv_heads, inside..inside + count, 0..head_dim];
            pages.inplace(|it| it.slice_assign(place, new));
            first += count;
        }
    }
    let (device, mut first) = (q.device(), 0);
    let outputs = config.sequences.iter().filter(|it| it.queries > 0).map(|sequence| {
        let ids: Vec<i32> = sequence.pages.iter().map(|it| *it as i32).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [sequence.pages.len()]), &device);
        let q = q.clone().narrow(0, first, sequence.queries);
        first += sequence.queries;
        let [k, v] = [&pages.keys, &pages.values].map(|it| {
            let tokens = it.clone().select(0, ids.clone()).swap_dims(1, 2);
            tokens.reshape([sequence.pages.len() * page, kv_heads, head_dim]).narrow(0, 0, sequence.length)
        });
        one_sequence(q, k, v, config)
    });
    Tensor::cat(outputs.collect(), 0).reshape([tokens, heads * head_dim])
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
    let scores = if dtype == DType::F32 { scores } else { scores.cast(DType::F32) };
    let mut scores = capped(scores, config.softcap);
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

/// Some queries of a sequence.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    sequence: &'a PagedSequence,
    /// Counted from the sequence's first token.
    block: Queries,
    /// Row of `q` where they begin.
    row: usize,
}

/// Writes the new tokens' keys, rotated, and values to their places; `inputs` are those of [`Merged`].
fn append(inputs: &[FlexTensor], sizes: Sizes, pages: [&mut [f32]; 2], config: &PagedAttentionConfig) {
    let Sizes { heads, kv_heads, head_dim } = sizes;
    let (qkv, rotation) = (values(&inputs[0]), Rotation::of(&inputs[1..]));
    let [keys, values] = pages;
    let tokens =
        config.runs().flat_map(|[page, inside, count]| (inside..inside + count).map(move |it| (page, it)));
    for (token, ((page, inside), new)) in
        tokens.zip(qkv.chunks_exact((heads + 2 * kv_heads) * head_dim)).enumerate()
    {
        let (new_keys, new_values) = new[heads * head_dim..].split_at(kv_heads * head_dim);
        let new = new_keys.chunks_exact(head_dim).zip(new_values.chunks_exact(head_dim));
        for (head, (key, value)) in new.enumerate() {
            let place = ((page * kv_heads + head) * config.page + inside) * head_dim;
            load_row(key, rotation, token, head_dim, 1.0, &mut keys[place..][..head_dim]);
            values[place..][..head_dim].copy_from_slice(value);
        }
    }
}

/// Attention of the new tokens to what their pages hold, `[T, heads * head_dim]`.
fn attend(
    inputs: Vec<FlexTensor>,
    sizes: Sizes,
    [keys, page_values]: [&FlexTensor; 2],
    config: &PagedAttentionConfig,
) -> FlexTensor {
    if let Some(config) = config.of_whole_sequences() {
        return Merged { sizes, config }.forward(inputs, &[false; 3]).0;
    }
    let paged = Paged {
        sizes,
        config,
        qkv: values(&inputs[0]),
        rotation: Rotation::of(&inputs[1..]),
        keys: values(keys),
        values: values(page_values),
    };
    let (tokens, width) = (inputs[0].layout().shape()[0], sizes.heads * sizes.head_dim);
    tensor(paged.attend(tokens), &[tokens, width])
}

/// What all tasks read.
struct Paged<'a> {
    sizes: Sizes,
    config: &'a PagedAttentionConfig,
    qkv: &'a [f32],
    rotation: Option<Rotation<'a>>,
    keys: &'a [f32],
    values: &'a [f32],
}

impl Paged<'_> {
    fn attend(&self, tokens: usize) -> Vec<f32> {
        let Sizes { heads, kv_heads, head_dim } = self.sizes;
        let mut output = unfilled(tokens * heads * head_dim);
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
        tasks.into_par_iter().for_each(|(head, part, output)| self.task(head, part, output));
        output
    }

    fn parts(&self) -> Vec<Part<'_>> {
        let (mut parts, mut row) = (Vec::new(), 0);
        for sequence in self.config.sequences.iter() {
            let asking = Queries::whole(0, sequence.length - sequence.queries, sequence.length);
            for block in asking.blocks(block(self.sizes.group())) {
                parts.push(Part { sequence, block, row });
                row += block.last - block.first;
            }
        }
        parts
    }

    fn task(&self, head: usize, part: Part<'_>, output: &mut [&mut [f32]]) {
        let Part { sequence, block, row } = part;
        let (Sizes { heads, kv_heads, head_dim }, page) = (self.sizes, self.config.page);
        let (tokens, group) = (block.last - block.first, self.sizes.group());
        let rows = tokens * group;
        let mut running = Running::new(rows, head_dim);
        let mut queries = unfilled(rows * head_dim);
        let width = (heads + 2 * kv_heads) * head_dim;
        let of_head = Heads::beside(self.qkv, 0, width, self.sizes.group_width());
        for (token, to) in queries.chunks_exact_mut(self.sizes.group_width()).enumerate() {
            let (from, scale) = (of_head.row(head, row + token), self.config.scale as f32);
            load_row(from, self.rotation, row + token, head_dim, scale, to);
        }
        let mut scores = unfilled(rows * page);
        let softcap = Softcap::of(self.config.softcap);
        let begin = block.first_key(self.config.window) / page * page;
        for first in (begin..block.last).step_by(page) {
            let last = (first + page).min(block.last);
            let count = last - first;
            let of_page = |it, index: usize| {
                let place = (sequence.pages[index] as usize * kv_heads + head) * page * head_dim;
                Heads::beside(it, place, head_dim, head_dim)
            };
            let (keys, values) = (of_page(self.keys, first / page), of_page(self.values, first / page));
            let next_keys = (last < block.last).then(|| of_page(self.keys, last / page));
            let scores = &mut scores[..rows * count];
            if rows <= FEW {
                few_scores(&queries, keys, values, scores);
            } else {
                let (queries, keys) = (Matrix::new(&queries, head_dim), keys.rows(0, 0, count));
                let to = MatrixMut::new(scores, count);
                product(to, Into::Overwrite, 1.0, queries, keys.t(), Threads::One);
            }
            let visible = Visible { block, group, first, last, window: self.config.window };
            absorb(scores, visible, softcap, &mut running);
            if rows <= FEW {
                few_mixed(scores, values, next_keys, &mut running.mixed);
            } else {
                let (weights, values) = (Matrix::new(scores, count), values.rows(0, 0, count));
                let to = MatrixMut::new(&mut running.mixed, head_dim);
                product(to, Into::Add, 1.0, weights, values, Threads::One);
            }
        }
        finish(&running, output, &mut unfilled(rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::qkv_attention;
    use crate::check::random;

    fn sequence(pages: &[u32], length: usize, queries: usize) -> PagedSequence {
        PagedSequence { pages: pages.into(), length, queries }
    }

    fn config(sequences: &[PagedSequence], head_dim: usize, window: Option<usize>) -> PagedAttentionConfig {
        let scale = (head_dim as f64).powf(-0.5);
        PagedAttentionConfig { sequences: sequences.into(), page: 8, scale, window, softcap: None }
    }

    /// Cosines and sines of anything; none of no pairs.
    fn tables(tokens: usize, pairs: usize) -> Option<(Tensor<2>, Tensor<2>)> {
        (pairs > 0).then(|| (random([tokens, pairs], 4), random([tokens, pairs], 5)))
    }

    fn pages(kv_heads: usize, head_dim: usize) -> Pages {
        let [keys, values] = [2, 3].map(|it| random([10, kv_heads, 8, head_dim], it));
        Pages { keys, values }
    }

    fn assert_close<const D: usize>(got: Tensor<D>, expected: Tensor<D>, what: &str) {
        let worst = (got - expected).abs().max().into_scalar::<f32>();
        assert!(worst < 1e-5, "{what}: differs by {worst:e}");
    }

    /// Sums of at most 40 terms in f32, in two orders, behind an exponential: 1e-5.
    #[test]
    fn values_and_pages_equal_the_reference() {
        let some = [
            sequence(&[3, 0, 5], 19, 1),
            sequence(&[1], 1, 1),
            sequence(&[3, 7, 2], 24, 6),
            sequence(&[9], 5, 0),
            sequence(&[6, 4, 8], 20, 20),
        ];
        let whole = [sequence(&[3, 0, 5], 19, 19), sequence(&[9], 5, 0), sequence(&[6, 4], 9, 9)];
        for (sequences, tokens) in [(&some[..], 28), (&whole[..], 28)] {
            for (heads, kv_heads, head_dim) in [(9, 3, 64), (2, 2, 10), (4, 1, 16)] {
                let windows = [None, Some(1), Some(9), Some(100)];
                let capped =
                    windows.iter().flat_map(|it| [None, Some(0.8), Some(50.0)].map(|cap| (*it, cap)));
                for (window, softcap) in capped {
                    let config = PagedAttentionConfig { softcap, ..config(sequences, head_dim, window) };
                    let qkv: Tensor<2> = random([tokens, (heads + 2 * kv_heads) * head_dim], 1);
                    // All of a head, a part of it, nothing.
                    for pairs in [head_dim / 2, head_dim / 5, 0] {
                        let tables = tables(tokens, pairs);
                        let [mut ours, mut plain] = [(); 2].map(|()| pages(kv_heads, head_dim));
                        let (qkv, copies) = (qkv.clone(), (qkv.clone(), tables.clone()));
                        let expected = paged_qkv_attention_reference(copies.0, copies.1, &mut plain, &config);
                        let got = paged_qkv_attention(qkv, tables, &mut ours, &config);
                        let case =
                            format!("{heads} heads, {pairs} pairs, window {window:?}, cap {softcap:?}");
                        assert_close(got, expected, &case);
                        assert_close(ours.keys, plain.keys, &format!("{case}, keys"));
                        assert_close(ours.values, plain.values, &format!("{case}, values"));
                    }
                }
            }
        }
    }

    /// Read in three parts: what [`qkv_attention`] computes of the whole.
    #[test]
    fn a_sequence_in_parts_attends_as_whole() {
        let qkv: Tensor<2> = random([37, 10 * 64], 1);
        let plain = AttentionConfig {
            cu_seqlens: [0, 37].into(),
            parents: [].into(),
            scale: 0.125,
            window: Some(20),
            softcap: Some(1.5),
        };
        for tables in [tables(37, 32), tables(37, 5), None] {
            let expected = qkv_attention(qkv.clone(), tables.clone(), 6, 2, &plain);
            let mut pages = pages(2, 64);
            let mut read = |first: usize, length: usize| {
                let asking = sequence(&[4, 0, 2, 9, 1], length, length - first);
                let config = PagedAttentionConfig { softcap: Some(1.5), ..config(&[asking], 64, Some(20)) };
                let part = |it: &Tensor<2>| it.clone().narrow(0, first, length - first);
                let tables = tables.as_ref().map(|(cos, sin)| (part(cos), part(sin)));
                paged_qkv_attention(part(&qkv), tables, &mut pages, &config)
            };
            let got = Tensor::cat(vec![read(0, 19), read(19, 36), read(36, 37)], 0);
            assert_close(got, expected, "parts");
        }
    }

    #[test]
    fn pages_are_written_where_they_stand() {
        let mut pages = pages(2, 16);
        let place = |it: &Pages| values(&primitive(it.keys.clone())).as_ptr();
        let before = place(&pages);
        let config = config(&[sequence(&[0], 3, 1)], 16, None);
        paged_qkv_attention(random([1, 8 * 16], 1), tables(1, 8), &mut pages, &config);
        assert_eq!(place(&pages), before);
    }
}
