//! How GGUF stores values, and back to f32: the block layouts of ggml's `ggml-common.h`.

use half::{bf16, f16};

/// Values of one block of every quantised type known here.
const BLOCK: usize = 32;

/// The type of a tensor, by ggml's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorType(pub u32);

/// Number, name, values of a block, bytes of a block.
const LAYOUTS: [(u32, &str, usize, usize); 8] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", BLOCK, 18),
    (3, "Q4_1", BLOCK, 20),
    (6, "Q5_0", BLOCK, 22),
    (7, "Q5_1", BLOCK, 24),
    (8, "Q8_0", BLOCK, 34),
    (30, "BF16", 1, 2),
];

/// Types that exist and are not read here, so that an error can name them.
const OTHERS: [(u32, &str); 24] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

impl TensorType {
    /// What can be read, for errors.
    pub const KNOWN: &'static str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0";

    /// ggml's name, or its number where the type is not even known by name.
    pub fn name(self) -> String {
        let known = LAYOUTS.iter().map(|it| (it.0, it.1)).chain(OTHERS).find(|it| it.0 == self.0);
        known.map_or_else(|| format!("type {}", self.0), |it| it.1.to_string())
    }

    /// Whether its values can be read here.
    pub fn is_known(self) -> bool {
        self.layout().is_some()
    }

    fn layout(self) -> Option<(usize, usize)> {
        LAYOUTS.iter().find(|it| it.0 == self.0).map(|it| (it.2, it.3))
    }

    /// Bytes that a tensor of `shape` takes; `None` for a type that is not known, a row that is not whole blocks, or
    /// a size that no machine has.
    pub(super) fn bytes(self, shape: &[usize]) -> Option<usize> {
        let (values, bytes) = self.layout()?;
        let row = *shape.last()?;
        if !row.is_multiple_of(values) {
            return None;
        }
        let elements = shape.iter().try_fold(1usize, |product, it| product.checked_mul(*it))?;
        (elements / values).checked_mul(bytes)
    }

    /// Whole blocks to f32. Every product and sum is f32, as in ggml's reference.
    pub(super) fn dequantize(self, data: &[u8]) -> Vec<f32> {
        let Some((values, bytes)) = self.layout() else { return Vec::new() };
        let mut out = Vec::with_capacity(data.len() / bytes * values);
        match self.0 {
            0 => out.extend(data.as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it))),
            1 => out.extend(data.as_chunks::<2>().0.iter().map(|it| f16::from_le_bytes(*it).to_f32())),
            30 => out.extend(data.as_chunks::<2>().0.iter().map(|it| bf16::from_le_bytes(*it).to_f32())),
            2 => data.as_chunks::<18>().0.iter().for_each(|it| q4_0(it, &mut out)),
            3 => data.as_chunks::<20>().0.iter().for_each(|it| q4_1(it, &mut out)),
            6 => data.as_chunks::<22>().0.iter().for_each(|it| q5_0(it, &mut out)),
            7 => data.as_chunks::<24>().0.iter().for_each(|it| q5_1(it, &mut out)),
            8 => data.as_chunks::<34>().0.iter().for_each(|it| q8_0(it, &mut out)),
            _ => unreachable!("every layout has its arm"),
        }
        out
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The 32 nibbles of 16 bytes: the low ones first, then the high ones.
fn nibbles(packed: &[u8]) -> impl Iterator<Item = u8> + '_ {
    packed.iter().map(|it| it & 0x0f).chain(packed.iter().map(|it| it >> 4))
}

/// 32 values of five bits: the nibbles, and a word that holds the fifth bit of each.
fn five_bits<'a>(high: &[u8], packed: &'a [u8]) -> impl Iterator<Item = u8> + 'a {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    nibbles(packed).enumerate().map(move |(index, low)| low | ((high >> index & 1) << 4) as u8)
}

fn q4_0(block: &[u8; 18], out: &mut Vec<f32>) {
    let scale = half_at(block, 0);
    out.extend(nibbles(&block[2..]).map(|it| scale * f32::from(it as i8 - 8)));
}

fn q4_1(block: &[u8; 20], out: &mut Vec<f32>) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    out.extend(nibbles(&block[4..]).map(|it| scale * f32::from(it) + least));
}

fn q5_0(block: &[u8; 22], out: &mut Vec<f32>) {
    let scale = half_at(block, 0);
    out.extend(five_bits(&block[2..6], &block[6..]).map(|it| scale * f32::from(it as i8 - 16)));
}

fn q5_1(block: &[u8; 24], out: &mut Vec<f32>) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    out.extend(five_bits(&block[4..8], &block[8..]).map(|it| scale * f32::from(it) + least));
}

fn q8_0(block: &[u8; 34], out: &mut Vec<f32>) {
    let scale = half_at(block, 0);
    out.extend(block[2..].iter().map(|it| scale * f32::from(*it as i8)));
}
