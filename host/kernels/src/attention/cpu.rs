//! Attention on the CPU: the two operations, which differ in where heads lie and in whether they are rotated.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::AttentionConfig;
use super::backward::{Gradients, backward};
use super::forward::forward;
use super::layout::{Heads, Queries, Sizes, cut};
use crate::extension::Operation;
use crate::flex::{dims2, tensor, unfilled, values};
use crate::rope::rotate_row;
use crate::simd::{tanh, vectorized};

/// Tables of cosines and sines, `[T, pairs]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation<'a> {
    cos: &'a [f32],
    sin: &'a [f32],
    pairs: usize,
}

impl<'a> Rotation<'a> {
    /// Of the inputs `cos` and `sin`; none where they are not given.
    pub fn of(tables: &'a [FlexTensor]) -> Option<Self> {
        let [cos, sin] = tables else { return None };
        Some(Self { cos: values(cos), sin: values(sin), pairs: dims2(cos)[1] })
    }
}

/// The bound of scores, as [`AttentionConfig::softcap`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Softcap {
    cap: f32,
    inverse: f32,
}

impl Softcap {
    pub fn of(softcap: Option<f64>) -> Option<Self> {
        softcap.map(|cap| Self { cap: cap as f32, inverse: cap.recip() as f32 })
    }

    /// `cap * tanh(score / cap)`, and its derivative.
    #[inline(always)]
    pub fn apply(self, score: f32) -> [f32; 2] {
        let share = tanh(score * self.inverse);
        [self.cap * share, 1.0 - share * share]
    }
}

/// What both passes read.
pub(super) struct Inputs<'a> {
    pub tokens: usize,
    /// One head for each head of the keys, `group * head_dim` wide; not rotated yet.
    pub q: Heads<'a>,
    /// Rotated.
    pub k: Heads<'a>,
    pub v: Heads<'a>,
    pub rotation: Option<Rotation<'a>>,
}

impl Inputs<'_> {
    /// The queries of a block, rotated, times `scale`: `[tokens, group, head_dim]`.
    pub fn load_queries(&self, head: usize, block: Queries, scale: f32, to: &mut [f32]) {
        for (token, to) in (block.first..block.last).zip(to.chunks_exact_mut(self.q.width)) {
            load_row(self.q.row(head, token), self.rotation, token, self.k.width, scale, to);
        }
    }
}

vectorized! {
    /// Heads of one token, side by side, rotated where there are tables, times `scale`.
    pub(super) fn load_row(from: &[f32], rotation: Option<Rotation<'_>>, token: usize, width: usize, scale: f32, to: &mut [f32]) {
        match rotation {
            Some(tables) => rotate(from, tables, token, width, 1.0, to),
            None => to.copy_from_slice(from),
        }
        to.iter_mut().for_each(|it| *it *= scale);
    }

    /// Writes a gradient of queries or keys, times `scale`: turned back where they were rotated.
    pub(super) fn store_row(from: &mut [f32], rotation: Option<Rotation<'_>>, token: usize, width: usize, scale: f32, to: &mut [f32]) {
        from.iter_mut().for_each(|it| *it *= scale);
        match rotation {
            Some(tables) => rotate(from, tables, token, width, -1.0, to),
            None => to.copy_from_slice(from),
        }
    }
}

/// Heads of one token, side by side.
#[inline(always)]
fn rotate(from: &[f32], tables: Rotation<'_>, token: usize, width: usize, direction: f32, to: &mut [f32]) {
    let Rotation { cos, sin, pairs } = tables;
    let (cos, sin) = (&cos[token * pairs..][..pairs], &sin[token * pairs..][..pairs]);
    for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(width)) {
        rotate_row(from, cos, sin, direction, to);
    }
}

/// Rotated keys, `[kv_heads, T, head_dim]`: each is read by many blocks of queries.
fn rotated_keys(keys: Heads<'_>, rotation: Rotation<'_>, tokens: usize, heads: usize) -> Vec<f32> {
    /// Tokens of a task.
    const TOKENS: usize = 128;
    let mut rotated = unfilled(heads * tokens * keys.width);
    let of_heads = rotated.par_chunks_exact_mut((tokens * keys.width).max(1)).enumerate();
    of_heads.for_each(|(head, rotated)| {
        rotated.par_chunks_mut(TOKENS * keys.width).enumerate().for_each(|(task, rotated)| {
            for (token, to) in rotated.chunks_exact_mut(keys.width).enumerate() {
                let token = task * TOKENS + token;
                load_row(keys.row(head, token), Some(rotation), token, keys.width, 1.0, to);
            }
        });
    });
    rotated
}

/// Attention of `q`, `k`, `v`.
#[derive(Debug)]
pub(super) struct Separate {
    pub sizes: Sizes,
    pub config: AttentionConfig,
}

impl Separate {
    fn inputs<'a>(&self, q: &'a FlexTensor, k: &'a FlexTensor, v: &'a FlexTensor) -> Inputs<'a> {
        let Sizes { heads, kv_heads, head_dim } = self.sizes;
        let shared = |it: &'a FlexTensor| Heads::beside(values(it), 0, kv_heads * head_dim, head_dim);
        let q_heads = Heads::beside(values(q), 0, heads * head_dim, self.sizes.group_width());
        let tokens = q.layout().shape()[0];
        Inputs { tokens, q: q_heads, k: shared(k), v: shared(v), rotation: None }
    }
}

impl Operation for Separate {
    fn forward(&self, inputs: Vec<FlexTensor>, wanted: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let [q, k, v] = <[_; 3]>::try_from(inputs).expect("q, k and v");
        let (output, log_sums) = forward(&self.inputs(&q, &k, &v), self.sizes, &self.config);
        let output = tensor(output, q.layout().shape());
        let log_sums = log_sums_tensor(log_sums);
        let saved = || vec![q, k, v, output.clone(), log_sums];
        let saved = if wanted.contains(&true) { saved() } else { Vec::new() };
        (output, saved)
    }

    fn backward(
        &self,
        saved: Vec<FlexTensor>,
        gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let [q, k, v, output, log_sums] = <[_; 5]>::try_from(saved).expect("what forward kept");
        let Sizes { heads, kv_heads, head_dim } = self.sizes;
        let (kv_width, kv_values) = (kv_heads * head_dim, values(&k).len());
        let (mut dq, mut dk, mut dv) = (unfilled(values(&q).len()), unfilled(kv_values), unfilled(kv_values));
        let [q_rows] = cut(&mut dq, heads * head_dim, [(kv_heads, self.sizes.group_width())]);
        let [k_rows] = cut(&mut dk, kv_width, [(kv_heads, head_dim)]);
        let [v_rows] = cut(&mut dv, kv_width, [(kv_heads, head_dim)]);
        backward(
            &self.inputs(&q, &k, &v),
            self.sizes,
            &self.config,
            [values(&output), values(&gradient), values(&log_sums)],
            Gradients { q: q_rows, k: k_rows, v: v_rows },
        );
        let found = [(dq, &q), (dk, &k), (dv, &v)].into_iter().zip(wanted);
        found.map(|((values, of), wanted)| wanted.then(|| tensor(values, of.layout().shape()))).collect()
    }
}

/// Attention of queries, keys and values side by side; inputs `qkv` and, where they are rotated, `cos`, `sin`.
#[derive(Debug)]
pub(super) struct Merged {
    pub sizes: Sizes,
    pub config: AttentionConfig,
}

impl Merged {
    /// Values of a token.
    fn width(&self) -> usize {
        (self.sizes.heads + 2 * self.sizes.kv_heads) * self.sizes.head_dim
    }

    /// Calls `work` with the inputs, keys rotated where there are tables.
    fn with_inputs<R>(
        &self,
        qkv: &FlexTensor,
        rotation: Option<Rotation<'_>>,
        work: impl FnOnce(&Inputs<'_>) -> R,
    ) -> R {
        let Sizes { heads, kv_heads, head_dim } = self.sizes;
        let (width, qkv) = (self.width(), values(qkv));
        let tokens = qkv.len() / width.max(1);
        let part = |head: usize, wide: usize| Heads::beside(qkv, head * head_dim, width, wide);
        let keys = part(heads, head_dim);
        let rotated = rotation.map(|it| rotated_keys(keys, it, tokens, kv_heads));
        let k = rotated.as_ref().map_or(keys, |values| Heads {
            values,
            token_stride: head_dim,
            head_stride: tokens * head_dim,
            width: head_dim,
        });
        let (q, v) = (part(0, self.sizes.group_width()), part(heads + kv_heads, head_dim));
        work(&Inputs { tokens, q, k, v, rotation })
    }
}

impl Operation for Merged {
    fn forward(&self, inputs: Vec<FlexTensor>, wanted: &[bool]) -> (FlexTensor, Vec<FlexTensor>) {
        let (qkv, rotation) = (&inputs[0], Rotation::of(&inputs[1..]));
        let (output, log_sums) = self.with_inputs(qkv, rotation, |it| forward(it, self.sizes, &self.config));
        let width = self.sizes.heads * self.sizes.head_dim;
        let tokens = output.len() / width.max(1);
        let output = tensor(output, &[tokens, width]);
        if !wanted[0] {
            return (output, Vec::new());
        }
        let saved = [output.clone(), log_sums_tensor(log_sums)].into_iter().chain(inputs).collect();
        (output, saved)
    }

    fn backward(&self, saved: Vec<FlexTensor>, gradient: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let [output, log_sums, qkv, tables @ ..] = &saved[..] else { unreachable!("what forward kept") };
        let Sizes { kv_heads, head_dim, .. } = self.sizes;
        let mut dqkv = unfilled(values(qkv).len());
        let parts = [(kv_heads, self.sizes.group_width()), (kv_heads, head_dim), (kv_heads, head_dim)];
        let [q, k, v] = cut(&mut dqkv, self.width(), parts);
        let kept = [values(output), values(&gradient), values(log_sums)];
        self.with_inputs(qkv, Rotation::of(tables), |it| {
            backward(it, self.sizes, &self.config, kept, Gradients { q, k, v });
        });
        vec![Some(tensor(dqkv, qkv.layout().shape())), None, None]
    }
}

fn log_sums_tensor(log_sums: Vec<f32>) -> FlexTensor {
    let length = log_sums.len();
    tensor(log_sums, &[length])
}

#[cfg(test)]
mod tests {
    use super::*;

    vectorized! {
        fn wide_apply(softcap: Softcap, score: f32) -> [f32; 2] {
            softcap.apply(score)
        }
    }

    /// Absolute errors against f64: of a capped score 2.5e-7 of the cap, 1.25e-5 with Gemma 2's 50, and no more than 4
    /// roundings of the score itself where it is below half the cap; of the derivative, at most 1, 5e-7.
    #[test]
    fn a_capped_score_is_near_that_of_f64() {
        for cap in [1.0, 30.0, 50.0, 64.3] {
            let softcap = Softcap::of(Some(cap)).unwrap();
            for step in -100_000i32..=100_000 {
                let score = (f64::from(step) * 8e-5 * cap) as f32;
                let [capped, slope] = wide_apply(softcap, score).map(f64::from);
                let share = (f64::from(score) / cap).tanh();
                let error = (capped - cap * share).abs();
                assert!(error < 2.5e-7 * cap, "{score} capped by {cap}: {error:e}");
                if f64::from(score.abs()) < cap / 2.0 {
                    let unit = f64::from(f32::EPSILON) * f64::from(score.abs());
                    assert!(error <= 4.0 * unit, "{score} capped by {cap}: {error:e}");
                }
                let error = (slope - (1.0 - share * share)).abs();
                assert!(error < 5e-7, "{score} capped by {cap}: {error:e} of the slope");
            }
        }
    }
}
