//! A weight in the form it is stored in.

use burn::tensor::bf16;
use rayon::prelude::*;

use crate::flex::unfilled;
use crate::packed::Packed;
use crate::simd::vectorized;

/// Values that are widened at a time where not all are, 1 MiB: enough rows that packing the other factor again for each
/// tile costs little, and few enough that they stay in the cache.
const TILE: usize = 256 * 1024;
/// Values of a task.
const TASK: usize = 64 * 1024;

/// Rows of a weight as they are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stored<'a> {
    /// Four bytes a value.
    F32(&'a [f32]),
    /// Two.
    Bf16(&'a [bf16]),
    /// One, and a factor for each `block` values of a row, which is a whole number of blocks.
    Int8 { values: &'a [i8], scales: &'a [f32], block: usize },
    /// `length` values from the one at `first` on.
    Packed { weight: &'a Packed, first: usize, length: usize },
}

impl<'a> Stored<'a> {
    fn len(&self) -> usize {
        match self {
            Self::F32(it) => it.len(),
            Self::Bf16(it) => it.len(),
            Self::Int8 { values, .. } => values.len(),
            Self::Packed { length, .. } => *length,
        }
    }

    /// Rows of `width` values.
    pub(crate) fn outputs(&self, width: usize) -> usize {
        self.len() / width
    }

    /// `count` rows from `first` on.
    pub(crate) fn rows(self, width: usize, first: usize, count: usize) -> Self {
        let of = first * width..(first + count) * width;
        match self {
            Self::F32(it) => Self::F32(&it[of]),
            Self::Bf16(it) => Self::Bf16(&it[of]),
            Self::Int8 { values, scales, block } => {
                let scales = &scales[of.start / block..of.end / block];
                Self::Int8 { values: &values[of], scales, block }
            }
            Self::Packed { weight, first, .. } => {
                Self::Packed { weight, first: first + of.start, length: of.len() }
            }
        }
    }

    /// What [`Stored::widened`] needs to work with for `length` values.
    pub(crate) fn room(&self, length: usize) -> usize {
        if matches!(self, Self::F32(_)) { 0 } else { length }
    }

    /// `count` rows from `first` on in f32: as they lie, or in `room`.
    ///
    /// To be called where the machine's instructions are chosen.
    #[inline(always)]
    pub(crate) fn widened<'b>(
        self,
        width: usize,
        first: usize,
        count: usize,
        room: &'b mut [f32],
    ) -> &'b [f32]
    where
        'a: 'b,
    {
        let of = first * width..(first + count) * width;
        match self {
            Self::F32(it) => return &it[of],
            Self::Bf16(it) => {
                for (room, stored) in room.iter_mut().zip(&it[of]) {
                    *room = f32::from_bits(u32::from(stored.to_bits()) << 16);
                }
            }
            Self::Int8 { values, scales, block } => {
                let scales = &scales[of.start / block..];
                let blocks = values[of].chunks_exact(block).zip(room.chunks_exact_mut(block));
                for ((values, room), scale) in blocks.zip(scales) {
                    room.iter_mut().zip(values).for_each(|(to, from)| *to = f32::from(*from) * scale);
                }
            }
            Self::Packed { weight, first, .. } => weight.widen(first + of.start, &mut room[..of.len()]),
        }
        &room[..count * width]
    }

    /// Calls `each` with rows in f32 and the place of the first of them: with all at once, but for what is packed, of which a
    /// tile at a time is widened, so that they are never all there.
    pub(crate) fn in_tiles(self, width: usize, mut each: impl FnMut(usize, &[f32])) {
        match self {
            Self::F32(it) => each(0, it),
            Self::Packed { .. } => self.in_small_tiles(width, each),
            _ => self.in_tiles_of(width, self.outputs(width).max(1), each),
        }
    }

    /// As [`Stored::in_tiles`], a tile at a time of whatever is not f32: for a weight that is large beside a layer's.
    pub(crate) fn in_small_tiles(self, width: usize, mut each: impl FnMut(usize, &[f32])) {
        match self {
            Self::F32(it) => each(0, it),
            _ => self.in_tiles_of(width, (TILE / width).clamp(1, self.outputs(width).max(1)), each),
        }
    }

    fn in_tiles_of(self, width: usize, rows: usize, mut each: impl FnMut(usize, &[f32])) {
        let outputs = self.outputs(width);
        let mut room = unfilled(rows.min(outputs) * width);
        for first in (0..outputs.max(1)).step_by(rows) {
            let tile = &mut room[..rows.min(outputs - first) * width];
            let rows = (TASK / width).max(1);
            tile.par_chunks_mut(rows * width).enumerate().for_each(|(task, tile)| {
                widen(self, width, first + task * rows, tile);
            });
            each(first, tile);
        }
    }

    /// As [`Stored::widened`], the rows `first`, `first + run` and so on.
    #[inline(always)]
    pub(crate) fn widened_runs<'b, const N: usize>(
        self,
        width: usize,
        first: usize,
        run: usize,
        room: &'b mut [f32],
    ) -> [&'b [f32]; N]
    where
        'a: 'b,
    {
        if !matches!(self, Self::F32(_)) {
            for (row, room) in room.chunks_exact_mut(width).take(N).enumerate() {
                self.widened(width, first + row * run, 1, room);
            }
        }
        std::array::from_fn(|row| match self {
            Self::F32(it) => &it[(first + row * run) * width..][..width],
            _ => &room[row * width..][..width],
        })
    }
}

vectorized! {
    fn widen(weight: Stored<'_>, width: usize, first: usize, to: &mut [f32]) {
        weight.widened(width, first, to.len() / width, to);
    }
}
