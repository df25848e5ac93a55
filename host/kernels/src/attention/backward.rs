//! Backward: scores are computed again, block by block, from the logarithm of each row's sum of exponentials.
//!
//! With `P = e^(S - log_sum)`, `D = rowsum(dO * O)` and `S = scale Q K^T`: `dV = P^T dO`, `dS = P * (dO V^T - D)`,
//! `dQ = scale dS K`, `dK = dS^T (scale Q)`. Where scores are capped, `S` is the capped one, and `dS` goes on to what it
//! was made of by the cap's derivative.
//!
//! A task is a segment: a run of query blocks of one key head. It writes the gradient of its queries, and adds those of
//! the keys and values they see in buffers of its own, which are summed in order afterwards. Where segments end does
//! not depend on the number of threads, so neither does a result.

use rayon::prelude::*;

use super::AttentionConfig;
use super::cpu::{Inputs, Softcap, store_row};
use super::forward::{KEYS, Visible, block};
use super::layout::{HeadsMut, Keys, Queries, Sizes, segments, sequences};
use crate::flex::unfilled;
use crate::matrix::{Into, Matrix, MatrixMut, Threads, product};
use crate::simd::{dot, exp, vectorized};

/// Tokens of a task that sums.
const SUMMED: usize = 128;

/// Where the gradients go, one head for each head of the keys.
pub(super) struct Gradients<'a> {
    pub q: HeadsMut<'a>,
    pub k: HeadsMut<'a>,
    pub v: HeadsMut<'a>,
}

/// Gradients of the keys and values that a segment sees, `[tokens, head_dim]`, those of its parent among them.
struct Partial {
    head: usize,
    segment: Queries,
    /// The first of them, as it is counted.
    first: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// What backward is given besides the inputs.
struct Given<'a> {
    inputs: &'a Inputs<'a>,
    sizes: Sizes,
    config: &'a AttentionConfig,
    /// Output and its gradient, `[T, heads * head_dim]`.
    output: &'a [f32],
    gradient: &'a [f32],
    /// `[kv_heads, T, group]`.
    log_sums: &'a [f32],
}

/// Fills `gradients`; `kept` is output, its gradient, and the logarithms of sums.
pub(super) fn backward(
    inputs: &Inputs,
    sizes: Sizes,
    config: &AttentionConfig,
    kept: [&[f32]; 3],
    mut gradients: Gradients<'_>,
) {
    let [output, gradient, log_sums] = kept;
    let given = Given { inputs, sizes, config, output, gradient, log_sums };
    let segments = segments(config, block(sizes.group()), sizes.kv_heads);
    let mut tasks = Vec::with_capacity(segments.len() * sizes.kv_heads);
    for (head, mut rows) in gradients.q.iter_mut().map(Vec::as_mut_slice).enumerate() {
        for segment in &segments {
            let (mine, others) = rows.split_at_mut(segment.last - segment.first);
            tasks.push((head, *segment, mine));
            rows = others;
        }
    }
    let tasks = tasks.into_par_iter().with_max_len(1);
    let partial: Vec<Partial> =
        tasks.map(|(head, segment, rows)| given.segment(head, segment, rows)).collect();
    sum_partials(&given, &partial, gradients.k, gradients.v);
}

/// What a task computes in; rows are those of a block of queries.
struct Scratch {
    /// `[rows, head_dim]`, times the scale.
    queries: Vec<f32>,
    /// The output's gradient, `[rows, head_dim]`.
    upstream: Vec<f32>,
    /// The gradient of the queries, `[rows, head_dim]`.
    pulled: Vec<f32>,
    /// Of each row the logarithm of its sum, and `D`.
    row_terms: Vec<[f32; 2]>,
    /// `[rows, keys]`, two of them.
    weights: Vec<f32>,
    slopes: Vec<f32>,
}

impl Given<'_> {
    fn segment(&self, head: usize, segment: Queries, mut to: &mut [&mut [f32]]) -> Partial {
        let (width, tokens) = (self.sizes.head_dim, block(self.sizes.group()));
        let first = segment.first_key(self.config.window);
        let length = (segment.last - first) * width;
        let mut partial =
            Partial { head, segment, first, keys: vec![0.0; length], values: vec![0.0; length] };
        let rows = tokens.min(segment.last - segment.first) * self.sizes.group();
        let mut scratch = Scratch {
            queries: unfilled(rows * width),
            upstream: unfilled(rows * width),
            pulled: unfilled(rows * width),
            row_terms: vec![[0.0; 2]; rows],
            weights: unfilled(rows * KEYS),
            slopes: unfilled(rows * KEYS),
        };
        for block in segment.blocks(tokens) {
            let (mine, others) = to.split_at_mut(block.last - block.first);
            self.block(head, block, &mut scratch, &mut partial);
            let pulled = scratch.pulled.chunks_exact_mut(self.sizes.group_width());
            for ((token, to), from) in (block.first..).zip(mine).zip(pulled) {
                store_row(from, self.inputs.rotation, token, width, self.config.scale as f32, to);
            }
            to = others;
        }
        partial
    }

    /// One block of queries with all keys they see.
    fn block(&self, head: usize, block: Queries, scratch: &mut Scratch, partial: &mut Partial) {
        let (width, group) = (self.sizes.head_dim, self.sizes.group());
        let rows = (block.last - block.first) * group;
        self.inputs.load_queries(head, block, self.config.scale as f32, &mut scratch.queries[..rows * width]);
        self.load_rows(head, block, scratch);
        scratch.pulled[..rows * width].fill(0.0);
        let softcap = Softcap::of(self.config.softcap);
        for seen in block.keys(self.config.window, KEYS) {
            let Keys { first, last, .. } = seen;
            let columns = last - first;
            let visible = Visible { block, group, first, last, window: self.config.window };
            let weights = &mut scratch.weights[..rows * columns];
            let slopes = &mut scratch.slopes[..rows * columns];
            let queries = Matrix::new(&scratch.queries[..rows * width], width);
            let upstream = Matrix::new(&scratch.upstream[..rows * width], width);
            let keys = seen.rows(&self.inputs.k, head);
            let values = seen.rows(&self.inputs.v, head);
            let one = Threads::One;
            product(MatrixMut::new(weights, columns), Into::Overwrite, 1.0, queries, keys.t(), one);
            product(MatrixMut::new(slopes, columns), Into::Overwrite, 1.0, upstream, values.t(), one);
            differentiate(weights, slopes, visible, softcap, &scratch.row_terms);
            let (weights, slopes) = (Matrix::new(weights, columns), Matrix::new(slopes, columns));
            let seen = (first - partial.first) * width..(last - partial.first) * width;
            let out = MatrixMut::new(&mut partial.values[seen.clone()], width);
            product(out, Into::Add, 1.0, weights.t(), upstream, one);
            product(MatrixMut::new(&mut partial.keys[seen], width), Into::Add, 1.0, slopes.t(), queries, one);
            let out = MatrixMut::new(&mut scratch.pulled[..rows * width], width);
            product(out, Into::Add, 1.0, slopes, keys, one);
        }
    }

    /// The output's gradient of a block's rows, and what backward needs of each row.
    fn load_rows(&self, head: usize, block: Queries, scratch: &mut Scratch) {
        let (width, group) = (self.sizes.head_dim, self.sizes.group());
        let (wide, all) = (self.sizes.group_width(), self.sizes.heads * width);
        let log_sums = &self.log_sums[(head * self.inputs.tokens + block.first) * group..];
        let rows = scratch.upstream.chunks_exact_mut(wide).zip(scratch.row_terms.chunks_exact_mut(group));
        let rows = (block.first..block.last).zip(rows).zip(log_sums.chunks_exact(group));
        for ((token, (upstream, terms)), log_sums) in rows {
            let place = token * all + head * wide..token * all + (head + 1) * wide;
            upstream.copy_from_slice(&self.gradient[place.clone()]);
            row_terms(upstream, &self.output[place], log_sums, terms);
        }
    }
}

vectorized! {
    fn row_terms(upstream: &[f32], output: &[f32], log_sums: &[f32], terms: &mut [[f32; 2]]) {
        let width = upstream.len() / terms.len();
        let heads = upstream.chunks_exact(width).zip(output.chunks_exact(width));
        for ((terms, log_sum), (upstream, output)) in terms.iter_mut().zip(log_sums).zip(heads) {
            *terms = [*log_sum, dot(upstream, output)];
        }
    }

    /// Scores become weights, and the weights' gradients those of the scores.
    fn differentiate(
        weights: &mut [f32],
        slopes: &mut [f32],
        visible: Visible,
        softcap: Option<Softcap>,
        terms: &[[f32; 2]],
    ) {
        let columns = visible.last - visible.first;
        let rows = weights.chunks_exact_mut(columns).zip(slopes.chunks_exact_mut(columns));
        for ((row, (weights, slopes)), [log_sum, offset]) in rows.enumerate().zip(terms) {
            let seen = visible.columns(row);
            for it in [&mut *weights, &mut *slopes] {
                it[..seen.start].fill(0.0);
                it[seen.end..].fill(0.0);
            }
            let pairs = weights[seen.clone()].iter_mut().zip(&mut slopes[seen]);
            // Two loops: a choice inside would be one an element.
            let Some(softcap) = softcap else {
                for (weight, slope) in pairs {
                    *weight = exp(*weight - log_sum);
                    *slope = *weight * (*slope - offset);
                }
                continue;
            };
            for (weight, slope) in pairs {
                let [score, by_score] = softcap.apply(*weight);
                *weight = exp(score - log_sum);
                *slope = *weight * (*slope - offset) * by_score;
            }
        }
    }

    fn add(sum: &mut [f32], part: &[f32]) {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
}

/// Adds the segments' gradients of keys and values, in order, and writes them where they belong.
fn sum_partials(given: &Given, partial: &[Partial], mut keys: HeadsMut<'_>, mut values: HeadsMut<'_>) {
    let mut tasks = Vec::new();
    for (head, (mut keys, mut values)) in
        keys.iter_mut().map(Vec::as_mut_slice).zip(values.iter_mut().map(Vec::as_mut_slice)).enumerate()
    {
        for run in sequences(given.config).flat_map(|it| it.blocks(SUMMED)) {
            let (my_keys, other_keys) = keys.split_at_mut(run.last - run.first);
            let (my_values, other_values) = values.split_at_mut(run.last - run.first);
            tasks.push((head, run, my_keys, my_values));
            (keys, values) = (other_keys, other_values);
        }
    }
    let width = given.sizes.head_dim;
    tasks.into_par_iter().for_each(|(head, run, keys, values)| {
        let mut sums = vec![0.0f32; 2 * width];
        let (key_sum, value_sum) = sums.split_at_mut(width);
        for ((token, keys), values) in (run.first..).zip(keys).zip(values) {
            sum_row(partial, head, token, [&mut *key_sum, &mut *value_sum]);
            store_row(key_sum, given.inputs.rotation, token, width, 1.0, keys);
            values.copy_from_slice(value_sum);
        }
    });
}

/// The gradients of one key and its value.
fn sum_row(partial: &[Partial], head: usize, token: usize, [keys, values]: [&mut [f32]; 2]) {
    let width = keys.len();
    keys.fill(0.0);
    values.fill(0.0);
    for part in partial.iter().filter(|it| it.head == head) {
        let count = part.segment.count_of(token).and_then(|it| it.checked_sub(part.first));
        if let Some(place) = count.map(|it| it * width) {
            add(keys, &part.keys[place..place + width]);
            add(values, &part.values[place..place + width]);
        }
    }
}
