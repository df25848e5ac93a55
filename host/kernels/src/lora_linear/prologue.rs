//! What stands before the layers of an input: a norm or a gated activation, forward and back.

use std::borrow::Cow;

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::flex::{dims2, unfilled, values};
use crate::gate::{self, Activation};
use crate::linear::few_rows::Packing;
use crate::rms_norm::{backward_rows, forward_rows};

/// Rows of a task where rows are taken one by one.
const ROWS: usize = 32;

/// What the input goes through first.
#[derive(Debug, Clone, Copy)]
pub(super) enum Prologue {
    None,
    RmsNorm { eps: f32 },
    Gated(Activation),
}

impl Prologue {
    /// The input behind the prologue, `[T, in]`, and the norm's factors, `[T]`.
    pub(super) fn input<'a>(
        self,
        x: &'a FlexTensor,
        norm: Option<&FlexTensor>,
    ) -> (Cow<'a, [f32]>, Vec<f32>) {
        let (x_values, [rows, x_width], norm) = (values(x), dims2(x), norm.map(values));
        let Some(width) = self.width_behind(x_width) else { return (Cow::Borrowed(x_values), Vec::new()) };
        let (mut n, mut scales) = (unfilled(rows * width), unfilled(rows));
        let tasks = n.par_chunks_mut(ROWS * width).zip(scales.par_chunks_mut(ROWS));
        tasks.zip(x_values.par_chunks(ROWS * x_width)).for_each(|((n, scales), x)| {
            self.through(x, norm, n, scales);
        });
        (Cow::Owned(n), self.scales(scales))
    }

    /// As [`Prologue::input`] for few rows, and packed for their product.
    pub(super) fn few_input<'a>(
        self,
        x: &'a FlexTensor,
        norm: Option<&FlexTensor>,
        packing: Packing,
    ) -> (Cow<'a, [f32]>, Vec<f32>, Vec<f32>) {
        let (x_values, [rows, x_width], norm, lanes) = (values(x), dims2(x), norm.map(values), packing.lanes);
        let Some(width) = self.width_behind(x_width) else {
            return (Cow::Borrowed(x_values), Vec::new(), packing.packed(x_values, x_width));
        };
        let (mut n, mut scales, mut packed) =
            (unfilled(rows * width), unfilled(rows), unfilled(packing.length(width)));
        let tasks = n.par_chunks_mut(lanes * width).zip(scales.par_chunks_mut(lanes));
        let tasks = tasks.zip(packed.par_chunks_mut(lanes * width)).zip(x_values.par_chunks(lanes * x_width));
        tasks.for_each(|(((n, scales), packed), x)| {
            self.through(x, norm, n, scales);
            packing.pack(n, width, packed);
        });
        (Cow::Owned(n), self.scales(scales), packed)
    }

    /// The norm's factors where there is a norm: nothing else has written any.
    fn scales(self, scales: Vec<f32>) -> Vec<f32> {
        if matches!(self, Prologue::RmsNorm { .. }) { scales } else { Vec::new() }
    }

    /// Width of a row behind a prologue that there is.
    fn width_behind(self, width: usize) -> Option<usize> {
        match self {
            Prologue::None => None,
            Prologue::RmsNorm { .. } => Some(width),
            Prologue::Gated(_) => Some(width / 2),
        }
    }

    /// Some rows through the prologue.
    fn through(self, x: &[f32], norm: Option<&[f32]>, n: &mut [f32], scales: &mut [f32]) {
        match self {
            Prologue::None => {}
            Prologue::RmsNorm { eps } => forward_rows(x, norm.expect("a norm's weight"), eps, n, scales),
            Prologue::Gated(activation) => {
                let width = n.len() / scales.len();
                for (y, x) in n.chunks_exact_mut(width).zip(x.chunks_exact(2 * width)) {
                    gate::forward(activation, &x[..width], &x[width..], y);
                }
            }
        }
    }

    /// The gradient of `x` from that of the input behind the prologue.
    pub(super) fn back(
        self,
        x: &FlexTensor,
        norm: Option<&FlexTensor>,
        scales: &[f32],
        dn: Vec<f32>,
    ) -> Vec<f32> {
        let x_values = values(x);
        match self {
            Prologue::None => dn,
            Prologue::RmsNorm { .. } => {
                let mut dx = unfilled(x_values.len());
                backward_rows(x_values, values(norm.expect("a norm's weight")), scales, &dn, &mut dx);
                dx
            }
            Prologue::Gated(activation) => {
                let width = dims2(x)[1] / 2;
                let mut dx = unfilled(x_values.len());
                let tasks = dx.par_chunks_mut(ROWS * 2 * width).zip(x_values.par_chunks(ROWS * 2 * width));
                tasks.zip(dn.par_chunks(ROWS * width)).for_each(|((dx, x), dn)| {
                    let rows = dx.chunks_exact_mut(2 * width).zip(x.chunks_exact(2 * width));
                    for ((dx, x), dn) in rows.zip(dn.chunks_exact(width)) {
                        let (dgate, dup) = dx.split_at_mut(width);
                        gate::backward(activation, &x[..width], &x[width..], dn, dgate, dup);
                    }
                });
                dx
            }
        }
    }
}
