//! Values to ggml's blocks of 32, as `quantize_row_*_ref` of `ggml-quants.c` has it and the Python package gguf, bit for bit:
//! each product and each sum is an f32. The `K` types, whose scales are searched for, are only read.

use burn::tensor::f16;
use rayon::prelude::*;

use super::ggml::{BLOCK, GgmlError, GgmlType};

impl GgmlType {
    /// Those that [`GgmlType::quantize`] makes.
    pub const WRITTEN: [Self; 5] = [Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1];

    /// `values`, row by row, as blocks.
    ///
    /// # Errors
    /// A type that is only read; rows of `width` that are no whole blocks; values so large that their scale, 16 bits, is
    /// infinite, and values that are not finite.
    pub fn quantize(self, values: &[f32], width: usize) -> Result<Vec<u8>, GgmlError> {
        let quantize = match self {
            Self::Q4_0 => q4_0,
            Self::Q4_1 => q4_1,
            Self::Q5_0 => q5_0,
            Self::Q5_1 => q5_1,
            Self::Q8_0 => q8_0,
            Self::Q4K | Self::Q5K | Self::Q6K => return Err(GgmlError::OnlyRead { kind: self }),
        };
        let mut data = vec![0; self.bytes([values.len() / width.max(1), width])?];
        let blocks = data.par_chunks_exact_mut(self.block_bytes()).zip(values.as_chunks::<BLOCK>().0);
        // A NaN is neither more nor less than another value, and would become any code without a sign.
        let finite = |values: &Values| values.iter().all(|it| it.is_finite());
        let sound = blocks.map(|(to, values)| finite(values) && quantize(values, to)).all(|it| it);
        if sound { Ok(data) } else { Err(GgmlError::ValueTooLarge { kind: self }) }
    }
}

/// A block's values.
type Values = [f32; BLOCK];

/// Writes a 16-bit float and says whether it is finite.
fn half(value: f32, to: &mut [u8]) -> bool {
    let half = f16::from_f32(value);
    to.copy_from_slice(&half.to_le_bytes());
    half.is_finite()
}

/// The value that is furthest from 0, the first of them.
fn furthest(values: &Values) -> f32 {
    let further = |found: f32, it: &f32| if it.abs() > found.abs() { *it } else { found };
    values.iter().fold(0.0, further)
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Least value and step, of so many steps.
fn range(values: &Values, steps: f32) -> (f32, f32) {
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (least, (most - least) / steps)
}

/// Codes of four bits: those of the first half in the low bits of a byte, of the second in the high ones.
fn nibbles(codes: &[u8; BLOCK], to: &mut [u8]) {
    for (to, at) in to.iter_mut().zip(0..BLOCK / 2) {
        *to = codes[at] & 15 | (codes[at + BLOCK / 2] & 15) << 4;
    }
}

/// The fifth bits, each at its value's place.
fn fifths(codes: &[u8; BLOCK], to: &mut [u8]) {
    let word = codes.iter().enumerate().map(|(at, code)| u32::from(code >> 4 & 1) << at).sum::<u32>();
    to.copy_from_slice(&word.to_le_bytes());
}

fn q4_0(values: &Values, to: &mut [u8]) -> bool {
    let scale = furthest(values) / -8.0;
    let by = inverse(scale);
    nibbles(&values.map(|it| ((it * by + 8.5) as u8).min(15)), &mut to[2..]);
    half(scale, &mut to[..2])
}

fn q4_1(values: &Values, to: &mut [u8]) -> bool {
    let (least, step) = range(values, 15.0);
    let by = inverse(step);
    nibbles(&values.map(|it| (((it - least) * by + 0.5) as u8).min(15)), &mut to[4..]);
    let sound = half(step, &mut to[..2]);
    half(least, &mut to[2..4]) && sound
}

fn q5_0(values: &Values, to: &mut [u8]) -> bool {
    let scale = furthest(values) / -16.0;
    let by = inverse(scale);
    let codes = values.map(|it| ((it * by + 16.5) as u8).min(31));
    fifths(&codes, &mut to[2..6]);
    nibbles(&codes, &mut to[6..]);
    half(scale, &mut to[..2])
}

fn q5_1(values: &Values, to: &mut [u8]) -> bool {
    let (least, step) = range(values, 31.0);
    let by = inverse(step);
    let codes = values.map(|it| (((it - least) * by + 0.5) as u8).min(31));
    fifths(&codes, &mut to[4..8]);
    nibbles(&codes, &mut to[8..]);
    let sound = half(step, &mut to[..2]);
    half(least, &mut to[2..4]) && sound
}

fn q8_0(values: &Values, to: &mut [u8]) -> bool {
    let scale = furthest(values).abs() / 127.0;
    let by = inverse(scale);
    for (to, value) in to[2..].iter_mut().zip(values) {
        *to = (value * by).round() as i8 as u8;
    }
    half(scale, &mut to[..2])
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    /// Oracle: the Python package gguf, `tests/golden/generate/ggml_blocks.py`. Of bits: f32 arithmetic has one answer.
    #[test]
    fn blocks_are_those_of_ggml() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/ggml_blocks.safetensors");
        let golden = std::fs::read(path).unwrap();
        let golden = SafeTensors::deserialize(&golden).unwrap();
        let source = golden.tensor("source").unwrap();
        let values: Vec<f32> = source.data().as_chunks().0.iter().map(|it| f32::from_le_bytes(*it)).collect();
        for kind in GgmlType::WRITTEN {
            let found = kind.quantize(&values, source.shape()[1]).unwrap();
            assert_eq!(found, golden.tensor(&format!("{}.data", kind.name())).unwrap().data(), "{kind:?}");
        }
    }

    #[test]
    fn what_blocks_can_not_hold_is_refused() {
        let refused = |kind: GgmlType, values: &[f32]| kind.quantize(values, 32).unwrap_err().to_string();
        let mut values = vec![1.0; 32];
        values[7] = 1e30;
        for (kind, value) in GgmlType::WRITTEN
            .into_iter()
            .flat_map(|kind| [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(|value| (kind, value)))
        {
            let mut values = [1.0; 32];
            values[7] = value;
            assert!(kind.quantize(&values, 32).is_err(), "{kind:?}: {value}");
        }
        for kind in GgmlType::WRITTEN {
            assert_eq!(kind.quantize(&[0.0; 32], 32).unwrap().len(), kind.block_bytes());
            assert!(refused(kind, &values).contains("too large"), "{kind:?}");
        }
        insta::assert_snapshot!(
            [refused(GgmlType::Q5_1, &values), refused(GgmlType::Q6K, &[0.0; 256])].join("\n"),
            @r"
        values are too large for Q5_1, whose scales have 16 bits
        Q6_K is read here, and not written
        "
        );
        assert!(GgmlType::Q8_0.quantize(&[0.0; 48], 48).is_err());
    }
}
