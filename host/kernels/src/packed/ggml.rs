//! Rows of ggml's blocks, as a GGUF file stores them: the layouts of `ggml-common.h`.
//!
//! A block is some values and what they share. The bytes are kept as they are, and may be a slice of a mapped file. Values are
//! those of ggml's reference, `ggml-quants.c`, bit for bit: each product and each sum is an f32.

use burn::tensor::f16;
use bytes::Bytes;

use crate::simd::vectorized;

/// Values of a block of the older types.
pub(super) const BLOCK: usize = 32;

/// Values of a block of the `K` types: parts of 32, or of 16, have scales of their own.
const SUPER_BLOCK: usize = 256;

/// How a block is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgmlType {
    /// Four bits and a scale for 32.
    Q4_0,
    /// Four bits, a scale and a least value.
    Q4_1,
    /// Five bits and a scale.
    Q5_0,
    /// Five bits, a scale and a least value.
    Q5_1,
    /// Eight bits and a scale.
    Q8_0,
    /// Four bits, scales and least values of 6 bits for each 32 of 256.
    Q4K,
    /// Five bits, scales and least values as [`GgmlType::Q4K`].
    Q5K,
    /// Six bits, scales of 8 bits for each 16 of 256.
    Q6K,
}

impl GgmlType {
    /// All that are known here.
    pub const ALL: [Self; 8] =
        [Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1, Self::Q8_0, Self::Q4K, Self::Q5K, Self::Q6K];

    /// That of ggml's number; `None` where it is not known here.
    pub fn of_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.number() == number)
    }

    /// ggml's number, which a GGUF file has.
    pub fn number(self) -> u32 {
        self.layout().0
    }

    /// ggml's name.
    pub fn name(self) -> &'static str {
        self.layout().1
    }

    /// Values of a block.
    pub fn block_values(self) -> usize {
        self.layout().2
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.layout().3
    }

    /// Bytes of `rows` rows of `width` values.
    ///
    /// # Errors
    /// Rows that are no whole blocks, and more bytes than can be counted.
    pub fn bytes(self, [rows, width]: [usize; 2]) -> Result<usize, GgmlError> {
        if !width.is_multiple_of(self.block_values()) {
            return Err(GgmlError::PartOfBlock { kind: self, width });
        }
        let blocks = (width / self.block_values()).checked_mul(rows);
        let bytes = blocks.and_then(|it| it.checked_mul(self.block_bytes()));
        // Values are counted, too.
        let values = rows.checked_mul(width);
        values.and(bytes).ok_or(GgmlError::TooLarge { kind: self, shape: [rows, width] })
    }

    /// Number, name, values and bytes of a block.
    const fn layout(self) -> (u32, &'static str, usize, usize) {
        match self {
            Self::Q4_0 => (2, "Q4_0", BLOCK, 18),
            Self::Q4_1 => (3, "Q4_1", BLOCK, 20),
            Self::Q5_0 => (6, "Q5_0", BLOCK, 22),
            Self::Q5_1 => (7, "Q5_1", BLOCK, 24),
            Self::Q8_0 => (8, "Q8_0", BLOCK, 34),
            Self::Q4K => (12, "Q4_K", SUPER_BLOCK, 144),
            Self::Q5K => (13, "Q5_K", SUPER_BLOCK, 176),
            Self::Q6K => (14, "Q6_K", SUPER_BLOCK, 210),
        }
    }
}

/// Why bytes are no rows of blocks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GgmlError {
    /// A row ends inside a block.
    #[error("rows of {width} values are no whole blocks of {}, which have {}", kind.name(), kind.block_values())]
    PartOfBlock {
        /// The blocks.
        kind: GgmlType,
        /// Values of a row.
        width: usize,
    },
    /// No machine holds so many.
    #[error("{} of shape {shape:?} is more than can be counted", kind.name())]
    TooLarge {
        /// The blocks.
        kind: GgmlType,
        /// `[out, in]`.
        shape: [usize; 2],
    },
    /// The bytes are not as many as the shape says.
    #[error("{} of shape {shape:?} takes {expected} bytes, got {found}", kind.name())]
    Length {
        /// The blocks.
        kind: GgmlType,
        /// `[out, in]`.
        shape: [usize; 2],
        /// Bytes of the shape.
        expected: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// Blocks of that type are not made here.
    #[error("{} is read here, and not written", kind.name())]
    OnlyRead {
        /// The blocks.
        kind: GgmlType,
    },
    /// A block's scale is infinite.
    #[error("values are too large for {}, whose scales have 16 bits", kind.name())]
    ValueTooLarge {
        /// The blocks.
        kind: GgmlType,
    },
}

/// A weight in ggml's blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct GgmlBlocks {
    kind: GgmlType,
    data: Bytes,
    shape: [usize; 2],
}

impl GgmlBlocks {
    /// `data` as rows of blocks, `shape` being `[out, in]`. Nothing is copied.
    ///
    /// # Errors
    /// Rows that are no whole blocks, and data of another length than the shape's.
    pub fn new(kind: GgmlType, data: Bytes, shape: [usize; 2]) -> Result<Self, GgmlError> {
        let (expected, found) = (kind.bytes(shape)?, data.len());
        if expected != found {
            return Err(GgmlError::Length { kind, shape, expected, found });
        }
        Ok(Self { kind, data, shape })
    }

    /// A copy whose rows are those of `order`.
    ///
    /// # Panics
    /// Where a row of `order` is not there.
    pub fn with_rows(&self, order: &[usize]) -> Self {
        let row = self.shape[1] / self.kind.block_values() * self.kind.block_bytes();
        let data: Vec<u8> =
            order.iter().flat_map(|it| &self.data[it * row..(it + 1) * row]).copied().collect();
        Self { kind: self.kind, data: data.into(), shape: [order.len(), self.shape[1]] }
    }

    /// How blocks are laid out.
    pub fn kind(&self) -> GgmlType {
        self.kind
    }

    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Bytes held, or of the file that is mapped.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// The blocks.
    pub(crate) fn data(&self) -> &Bytes {
        &self.data
    }

    /// Of the same kind and shape, without the blocks.
    pub(crate) fn hollow(&self) -> Self {
        Self { kind: self.kind, data: Bytes::new(), shape: self.shape }
    }

    /// Fills `to` with the values of whole rows, of which the first begins at `first`.
    pub(crate) fn widen(&self, first: usize, to: &mut [f32]) {
        let start = first / self.kind.block_values() * self.kind.block_bytes();
        widen(self.kind, &self.data[start..], to);
    }
}

/// Calls a function with each block and its values. A loop in place: what is passed as a value is called, not inlined, and is
/// then compiled for the lowest common set of instructions.
macro_rules! each {
    ($data:ident, $to:ident, $widen:ident) => {
        for (to, block) in $to.as_chunks_mut().0.iter_mut().zip($data.as_chunks().0) {
            $widen(block, to);
        }
    };
}

vectorized! {
    /// Fills `to` with the values of the first blocks of `data`. The machine's instructions are chosen here and not where it is
    /// called from, which would have the code of eight layouts each.
    fn widen(kind: GgmlType, data: &[u8], to: &mut [f32]) {
        match kind {
            GgmlType::Q4_0 => each!(data, to, q4_0),
            GgmlType::Q4_1 => each!(data, to, q4_1),
            GgmlType::Q5_0 => each!(data, to, q5_0),
            GgmlType::Q5_1 => each!(data, to, q5_1),
            GgmlType::Q8_0 => each!(data, to, q8_0),
            GgmlType::Q4K => each!(data, to, q4_k),
            GgmlType::Q5K => each!(data, to, q5_k),
            GgmlType::Q6K => each!(data, to, q6_k),
        }
    }
}

/// The f16 at a byte of a block.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32_const()
}

/// Values of four bits: the low halves of all bytes come first, then the high ones. `value` is given a code and its place.
///
/// One loop over bytes that stand there twice: the compiler unrolls two of sixteen steps, and then finds no vectors.
#[inline(always)]
fn nibbles(packed: &[u8; 16], to: &mut [f32; BLOCK], value: impl Fn(u8, usize) -> f32) {
    let mut bytes = [0; BLOCK];
    bytes[..16].copy_from_slice(packed);
    bytes[16..].copy_from_slice(packed);
    for (place, (to, byte)) in to.iter_mut().zip(bytes).enumerate() {
        *to = value((u32::from(byte) >> (place / 16 * 4) & 15) as u8, place);
    }
}

/// The codes, which end a block.
#[inline(always)]
fn last(block: &[u8]) -> &[u8; 16] {
    block.last_chunk().expect("a block has more bytes")
}

#[inline(always)]
fn q4_0(block: &[u8; 18], to: &mut [f32; BLOCK]) {
    let scale = half_at(block, 0);
    nibbles(last(block), to, |code, _| scale * (i32::from(code) - 8) as f32);
}

#[inline(always)]
fn q4_1(block: &[u8; 20], to: &mut [f32; BLOCK]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    nibbles(last(block), to, |code, _| scale * f32::from(code) + least);
}

/// Four bits and the fifth, which stands in a word at the value's place.
#[inline(always)]
fn with_fifth(word: u32, code: u8, place: usize) -> i32 {
    i32::from(code) | ((word >> place & 1) << 4) as i32
}

#[inline(always)]
fn q5_0(block: &[u8; 22], to: &mut [f32; BLOCK]) {
    let (scale, word) = (half_at(block, 0), u32::from_le_bytes([block[2], block[3], block[4], block[5]]));
    nibbles(last(block), to, |code, place| scale * (with_fifth(word, code, place) - 16) as f32);
}

#[inline(always)]
fn q5_1(block: &[u8; 24], to: &mut [f32; BLOCK]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let word = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    nibbles(last(block), to, |code, place| scale * with_fifth(word, code, place) as f32 + least);
}

#[inline(always)]
fn q8_0(block: &[u8; 34], to: &mut [f32; BLOCK]) {
    let scale = half_at(block, 0);
    for (to, code) in to.iter_mut().zip(&block[2..]) {
        *to = scale * f32::from(*code as i8);
    }
}

/// Scale and least value of part `part` of eight, in 6 bits each: those of the first four stand in the low bits of bytes 0 to
/// 3 and 4 to 7; of the others, four bits are in bytes 8 to 11 and two above those.
#[inline(always)]
fn scale_and_least(packed: &[u8], part: usize) -> (f32, f32) {
    let (scale, least) = match part {
        0..4 => (packed[part] & 63, packed[part + 4] & 63),
        _ => {
            let low = packed[part + 4];
            (low & 15 | packed[part - 4] >> 6 << 4, low >> 4 | packed[part] >> 6 << 4)
        }
    };
    (f32::from(scale), f32::from(least))
}

/// A part of 32 values.
#[inline(always)]
fn part(codes: [u8; 32], (scale, least): (f32, f32), to: &mut [f32; 32]) {
    for (to, code) in to.iter_mut().zip(codes) {
        *to = scale * f32::from(code) - least;
    }
}

#[inline(always)]
fn q4_k(block: &[u8; 144], to: &mut [f32; SUPER_BLOCK]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let (shared, packed) = block[4..].split_at(12);
    let packed = packed.as_chunks::<32>().0;
    for (index, to) in to.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (of_scale, of_least) = scale_and_least(shared, index);
        let mut codes = packed[index / 2];
        for code in &mut codes {
            *code = *code >> (4 * (index % 2)) & 15;
        }
        part(codes, (scale * of_scale, least * of_least), to);
    }
}

#[inline(always)]
fn q5_k(block: &[u8; 176], to: &mut [f32; SUPER_BLOCK]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let (shared, rest) = block[4..].split_at(12);
    // Bit `index` of each byte is the fifth of a code of that part.
    let (fifths, packed) = rest.split_at(32);
    let packed = packed.as_chunks::<32>().0;
    for (index, to) in to.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (of_scale, of_least) = scale_and_least(shared, index);
        let mut codes = packed[index / 2];
        for (code, fifth) in codes.iter_mut().zip(fifths) {
            *code = *code >> (4 * (index % 2)) & 15 | (fifth >> index & 1) << 4;
        }
        part(codes, (scale * of_scale, least * of_least), to);
    }
}

#[inline(always)]
fn q6_k(block: &[u8; 210], to: &mut [f32; SUPER_BLOCK]) {
    let scale = half_at(block, 208);
    let (low, rest) = block.split_at(128);
    let (high, scales) = rest.split_at(64);
    let (low, high) = (low.as_chunks::<32>().0, high.as_chunks::<32>().0);
    let scales = scales.as_chunks::<2>().0;
    // 32 codes: four bits of one half of 32 bytes, and two of a quarter of 32 others. Two sides of 128 values.
    for (part, (to, of_scale)) in to.as_chunks_mut::<32>().0.iter_mut().zip(scales).enumerate() {
        let (side, quarter) = (part / 4, part % 4);
        let (low, high) = (&low[2 * side + quarter % 2], &high[side]);
        let mut codes = [0; 32];
        for (code, (low, high)) in codes.iter_mut().zip(low.iter().zip(high)) {
            *code = low >> (4 * (quarter / 2)) & 15 | (high >> (2 * quarter) & 3) << 4;
        }
        let of_scale = of_scale.map(|it| scale * f32::from(it as i8));
        // A scale a value: one loop for both.
        let scales: [f32; 32] = std::array::from_fn(|place| of_scale[place / 16]);
        for (to, (code, scale)) in to.iter_mut().zip(codes.iter().zip(scales)) {
            *to = scale * (i32::from(*code) - 32) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::packed::Packed;

    /// Oracle: the Python package gguf, `tests/golden/generate/ggml_blocks.py`. Of bits: f32 arithmetic has one answer.
    #[test]
    fn values_are_those_of_ggml() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/ggml_blocks.safetensors");
        let golden = std::fs::read(path).unwrap();
        let golden = SafeTensors::deserialize(&golden).unwrap();
        for kind in GgmlType::ALL {
            let view = |it: &str| golden.tensor(&format!("{}.{it}", kind.name())).unwrap();
            let (data, expected) = (Bytes::copy_from_slice(view("data").data()), view("values"));
            let shape: [usize; 2] = expected.shape().try_into().unwrap();
            let found = Packed::from(GgmlBlocks::new(kind, data, shape).unwrap()).dequantize();
            let expected = expected.data().as_chunks::<4>().0;
            assert_eq!(found.len(), expected.len(), "{kind:?}");
            for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
                let expected = f32::from_le_bytes(*expected);
                let (block, at) = (place / kind.block_values(), place % kind.block_values());
                assert_eq!(
                    found.to_bits(),
                    expected.to_bits(),
                    "{kind:?}, {block}, {at}: {found} is not {expected}"
                );
            }
        }
    }

    #[test]
    fn a_slice_of_a_file_is_not_copied() {
        let file = Bytes::from(vec![0x2a; 3 * 144 + 7]);
        let rows = GgmlBlocks::new(GgmlType::Q4K, file.slice(5..5 + 2 * 144), [2, 256]).unwrap();
        assert_eq!(rows.data.as_ptr(), file[5..].as_ptr());
        assert_eq!((rows.bytes(), rows.shape(), rows.kind()), (2 * 144, [2, 256], GgmlType::Q4K));
    }

    /// Sizes around those of blocks, powers of two and their products, to where counts overflow.
    #[test]
    fn sizes_that_are_not_of_whole_rows_are_refused_and_never_panic() {
        let around = |it: usize| [it.wrapping_sub(1), it, it.wrapping_add(1)];
        let powers = (0..usize::BITS).map(|it| 1usize << it);
        let mut sizes: Vec<usize> = powers.chain([0, 18, 96, 210, usize::MAX]).flat_map(around).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let held = Bytes::from(vec![0; 4096]);
        let mut taken = 0;
        for kind in GgmlType::ALL {
            for rows in &sizes {
                for width in &sizes {
                    for length in
                        [0, 1, kind.block_bytes() - 1, kind.block_bytes(), 4 * kind.block_bytes(), 4096]
                    {
                        let found = GgmlBlocks::new(kind, held.slice(..length), [*rows, *width]);
                        let blocks = (*rows as u128) * (*width as u128 / kind.block_values() as u128);
                        let whole = width.is_multiple_of(kind.block_values())
                            && blocks * kind.block_bytes() as u128 == length as u128
                            // Rows of nothing may be as many as you like.
                            && (*rows as u128) * (*width as u128) <= usize::MAX as u128;
                        assert_eq!(found.is_ok(), whole, "{kind:?} {rows} {width} {length}: {found:?}");
                        if let Ok(found) = found {
                            taken += 1;
                            assert_eq!(Packed::from(found).dequantize().len(), rows * width);
                        }
                    }
                }
            }
        }
        assert!(taken > 100, "{taken}");
    }

    #[test]
    fn reasons_say_what_and_how_much() {
        let refused = |length, shape| {
            GgmlBlocks::new(GgmlType::Q6K, Bytes::from(vec![0; length]), shape).unwrap_err().to_string()
        };
        insta::assert_snapshot!(
            [refused(210, [1, 200]), refused(210, [2, 256]), refused(0, [usize::MAX, 512])].join("\n"),
            @r"
        rows of 200 values are no whole blocks of Q6_K, which have 256
        Q6_K of shape [2, 256] takes 420 bytes, got 210
        Q6_K of shape [18446744073709551615, 512] is more than can be counted
        "
        );
    }

    #[test]
    fn numbers_are_of_one_type_each() {
        for kind in GgmlType::ALL {
            assert_eq!(GgmlType::of_number(kind.number()), Some(kind));
        }
        assert_eq!([0, 1, 10, 15, 30].map(GgmlType::of_number), [None; 5]);
    }
}
