//! A weight in the form it is stored in.

use burn::tensor::bf16;

/// Values of an int8 weight that share a scale: a run of a row.
pub(crate) const INT8_BLOCK: usize = 64;

/// Rows of a weight as they are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stored<'a> {
    /// Four bytes a value.
    F32(&'a [f32]),
    /// Two.
    Bf16(&'a [bf16]),
    /// One, and a factor for each [`INT8_BLOCK`] of a row, the last of which may be shorter.
    Int8 { values: &'a [i8], scales: &'a [f32] },
}

impl<'a> Stored<'a> {
    fn len(&self) -> usize {
        match self {
            Self::F32(it) => it.len(),
            Self::Bf16(it) => it.len(),
            Self::Int8 { values, .. } => values.len(),
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
            Self::Int8 { values, scales } => {
                let blocks = width.div_ceil(INT8_BLOCK);
                let scales = &scales[first * blocks..(first + count) * blocks];
                Self::Int8 { values: &values[of], scales }
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
            Self::Int8 { values, scales } => {
                let blocks = width.div_ceil(INT8_BLOCK);
                let scales = scales[first * blocks..].chunks_exact(blocks);
                let rows = values[of].chunks_exact(width).zip(room.chunks_exact_mut(width));
                for ((values, room), scales) in rows.zip(scales) {
                    let blocks = values.chunks(INT8_BLOCK).zip(room.chunks_mut(INT8_BLOCK));
                    for ((values, room), scale) in blocks.zip(scales) {
                        room.iter_mut().zip(values).for_each(|(to, from)| *to = f32::from(*from) * scale);
                    }
                }
            }
        }
        &room[..count * width]
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
