//! Forward: a task is a block of queries of one key head. It goes over the keys its queries see and keeps, of each
//! query, the largest score so far, the sum of exponentials and the weighted values, which a larger score rescales.

use rayon::prelude::*;

use super::AttentionConfig;
use super::cpu::{Inputs, Softcap};
use super::layout::{Keys, Queries, Sizes, cut, first_seen, sequences};
use crate::flex::unfilled;
use crate::matrix::{Into, Matrix, MatrixMut, Threads, product};
use crate::simd::{LANES, exp, max, vectorized};

/// Keys that a block of queries is set against at a time.
pub(super) const KEYS: usize = 256;

/// Queries of a block, counted in tokens: heads that share keys make one product with them.
pub(super) fn block(group: usize) -> usize {
    if group == 1 { 64 } else { 32 }
}

/// What is kept of each row while its keys come by.
pub(super) struct Running {
    /// `[rows, head_dim]`: values, weighted by `e^(score - largest)`.
    pub mixed: Vec<f32>,
    /// The largest score.
    largest: Vec<f32>,
    /// The sum of the weights.
    sums: Vec<f32>,
}

impl Running {
    pub fn new(rows: usize, width: usize) -> Self {
        Self { mixed: vec![0.0; rows * width], largest: vec![f32::NEG_INFINITY; rows], sums: vec![0.0; rows] }
    }
}

/// The output, `[T, heads * head_dim]`, and the logarithm of the sum of exponentials, `[kv_heads, T, group]`.
pub(super) fn forward(inputs: &Inputs, sizes: Sizes, config: &AttentionConfig) -> (Vec<f32>, Vec<f32>) {
    let (tokens, group) = (inputs.tokens, sizes.group());
    let mut output = unfilled(tokens * sizes.heads * sizes.head_dim);
    let mut log_sums = unfilled(tokens * sizes.heads);
    let blocks: Vec<Queries> = sequences(config).flat_map(|it| it.blocks(block(group))).collect();
    let [mut heads] = cut(&mut output, sizes.heads * sizes.head_dim, [(sizes.kv_heads, sizes.group_width())]);
    let mut tasks = Vec::with_capacity(blocks.len() * sizes.kv_heads);
    let log_sums_of_heads = log_sums.chunks_exact_mut((tokens * group).max(1));
    for (head, (mut rows, mut log_sums)) in
        heads.iter_mut().map(Vec::as_mut_slice).zip(log_sums_of_heads).enumerate()
    {
        for block in &blocks {
            let length = block.last - block.first;
            let (mine, others) = rows.split_at_mut(length);
            let (my_sums, other_sums) = log_sums.split_at_mut(length * group);
            tasks.push((head, *block, mine, my_sums));
            (rows, log_sums) = (others, other_sums);
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each(|(head, block, output, log_sums)| {
        task(inputs, sizes, config, head, block, output, log_sums);
    });
    (output, log_sums)
}

fn task(
    inputs: &Inputs,
    sizes: Sizes,
    config: &AttentionConfig,
    head: usize,
    block: Queries,
    output: &mut [&mut [f32]],
    log_sums: &mut [f32],
) {
    let (width, rows) = (sizes.head_dim, (block.last - block.first) * sizes.group());
    let mut running = Running::new(rows, width);
    let (mut queries, mut scores) = (unfilled(rows * width), unfilled(rows * KEYS));
    inputs.load_queries(head, block, config.scale as f32, &mut queries);
    let queries = Matrix::new(&queries, width);
    let softcap = Softcap::of(config.softcap);
    for seen in block.keys(config.window, KEYS) {
        let Keys { first, last, .. } = seen;
        let columns = last - first;
        let scores = &mut scores[..rows * columns];
        let keys = seen.rows(&inputs.k, head);
        product(MatrixMut::new(scores, columns), Into::Overwrite, 1.0, queries, keys.t(), Threads::One);
        let visible = Visible { block, group: sizes.group(), first, last, window: config.window };
        absorb(scores, visible, softcap, &mut running);
        let (weights, values) = (Matrix::new(scores, columns), seen.rows(&inputs.v, head));
        product(MatrixMut::new(&mut running.mixed, width), Into::Add, 1.0, weights, values, Threads::One);
    }
    finish(&running, output, log_sums);
}

/// Which of the keys `first..last`, as they are counted, each row of a block sees; a row is a head of a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visible {
    pub block: Queries,
    pub group: usize,
    pub first: usize,
    pub last: usize,
    pub window: Option<usize>,
}

impl Visible {
    /// Columns that `row` sees.
    #[inline(always)]
    pub fn columns(&self, row: usize) -> std::ops::Range<usize> {
        let token = self.block.first + row / self.group;
        let begin = first_seen(token, self.block.start, self.window).clamp(self.first, self.last);
        let end = (token + 1).clamp(begin, self.last);
        begin - self.first..end - self.first
    }
}

vectorized! {
    /// Scores, capped first where there is a bound, become weights, and what was kept is brought to the new largest
    /// score.
    pub(super) fn absorb(scores: &mut [f32], visible: Visible, softcap: Option<Softcap>, running: &mut Running) {
        let width = running.mixed.len() / running.sums.len();
        let rows = scores.chunks_exact_mut(visible.last - visible.first);
        for (row, (scores, mixed)) in rows.zip(running.mixed.chunks_exact_mut(width)).enumerate() {
            let seen = visible.columns(row);
            scores[..seen.start].fill(0.0);
            scores[seen.end..].fill(0.0);
            if seen.is_empty() {
                continue;
            }
            let scores = &mut scores[seen];
            if let Some(softcap) = softcap {
                scores.iter_mut().for_each(|it| *it = softcap.apply(*it)[0]);
            }
            let before = running.largest[row];
            let here = max(scores);
            // Written so that NaN stays NaN.
            let largest = if before >= here || before.is_nan() { before } else { here };
            let sum = exponentials(scores, largest);
            if largest == before {
                running.sums[row] += sum;
                continue;
            }
            let factor = exp(before - largest);
            running.largest[row] = largest;
            running.sums[row] = running.sums[row].mul_add(factor, sum);
            mixed.iter_mut().for_each(|it| *it *= factor);
        }
    }

    pub(super) fn finish(running: &Running, output: &mut [&mut [f32]], log_sums: &mut [f32]) {
        let width = running.mixed.len() / running.sums.len();
        let group = running.sums.len() / output.len();
        let rows = running.sums.iter().zip(&running.largest).zip(log_sums);
        for ((sum, largest), log_sum) in rows {
            *log_sum = largest + sum.ln();
        }
        let mixed = running.mixed.chunks_exact(group * width).zip(running.sums.chunks_exact(group));
        for (output, (mixed, sums)) in output.iter_mut().zip(mixed) {
            let heads = output.chunks_exact_mut(width).zip(mixed.chunks_exact(width));
            for ((output, mixed), sum) in heads.zip(sums) {
                let factor = 1.0 / sum;
                output.iter_mut().zip(mixed).for_each(|(output, mixed)| *output = mixed * factor);
            }
        }
    }
}

/// `e^(score - largest)` in place; their sum.
#[inline(always)]
fn exponentials(scores: &mut [f32], largest: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - largest);
            lanes[lane] += chunk[lane];
        }
    }
    let mut sum = lanes.iter().sum::<f32>();
    for it in rest {
        *it = exp(*it - largest);
        sum += *it;
    }
    sum
}
