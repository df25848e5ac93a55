//! Weights in 4 bits, as QLoRA has them: <https://arxiv.org/abs/2305.14314>.
//!
//! A weight is taken as one row of values. Each block of them shares a factor, its largest magnitude, and a value is one of
//! sixteen fractions of it. With double quantisation the factors are in 8 bits themselves. Codes, factors and the values
//! that come back are those of bitsandbytes on the CPU, bit for bit.

mod code;
mod nested;
mod values;

use code::Code;

/// Which sixteen fractions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FourBitKind {
    /// Quantiles of the normal distribution, `nf4` in bitsandbytes.
    #[default]
    Nf4,
    /// Floats of 4 bits, `fp4`.
    Fp4,
}

/// How a weight is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FourBitConfig {
    /// The fractions.
    pub kind: FourBitKind,
    /// Values that share a factor, an even number; bitsandbytes takes powers of two from 32 to 4096.
    pub block_size: usize,
    /// Factors in 8 bits, 256 of which share one in f32: 0.127 bits a value instead of 0.5.
    pub double_quant: bool,
}

impl Default for FourBitConfig {
    /// NF4 in blocks of 64, and double quantisation: the paper's.
    fn default() -> Self {
        Self { kind: FourBitKind::Nf4, block_size: 64, double_quant: true }
    }
}

/// How many factors of factors there are, where those of `factors` blocks are in 8 bits.
pub(super) fn nested_groups(factors: usize) -> usize {
    factors.div_ceil(nested::BLOCK)
}

/// The factors of a weight's blocks.
#[derive(Debug, Clone, PartialEq)]
pub enum Absmax {
    /// As they are.
    Plain(Vec<f32>),
    /// In 8 bits: `map[code] * absmax + offset` with the map of [`crate::adamw::signed_map`].
    Nested {
        /// One a factor.
        codes: Vec<u8>,
        /// One for each 256 factors.
        absmax: Vec<f32>,
        /// Mean of the factors.
        offset: f32,
    },
}

/// A weight in 4 bits.
#[derive(Debug, Clone, PartialEq)]
pub struct FourBit {
    /// Two a byte, the first in the high half. Where their number is odd, the last half has the code of 0.
    pub codes: Vec<u8>,
    /// A factor for each block of values, of which the last may be short.
    pub absmax: Absmax,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// What the rest is to be read by.
    pub config: FourBitConfig,
}

impl Absmax {
    /// The factor of a block; `map` is that of nested ones.
    #[inline(always)]
    fn of(&self, block: usize, map: &[f32]) -> f32 {
        match self {
            Self::Plain(it) => it[block],
            // In two steps, each rounded: no fused multiply-add.
            Self::Nested { codes, absmax, offset } => {
                map[usize::from(codes[block])] * absmax[block / nested::BLOCK] + offset
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Plain(it) => size_of_val(it.as_slice()),
            Self::Nested { codes, absmax, offset } => {
                codes.len() + size_of_val(absmax.as_slice()) + size_of_val(offset)
            }
        }
    }
}

impl FourBit {
    /// `values`, row by row, rounded to 4 bits. What is not finite makes its block meaningless.
    ///
    /// # Panics
    /// Where `values` are not as many as `shape` says, or a block has an odd number of values.
    pub fn quantize(values: &[f32], shape: [usize; 2], config: FourBitConfig) -> Self {
        assert_eq!(values.len(), shape[0] * shape[1], "values of a weight of shape {shape:?}");
        assert!(config.block_size > 0 && config.block_size.is_multiple_of(2), "blocks of whole bytes");
        let (codes, absmax) = values::quantized(values, Code::of(config.kind), config.block_size);
        let absmax = if config.double_quant { nested::nested(&absmax) } else { Absmax::Plain(absmax) };
        Self { codes, absmax, shape, config }
    }

    /// Fills `to` with the values from the one at `first` on.
    ///
    /// To be called where the machine's instructions are chosen.
    #[inline(always)]
    pub(crate) fn widen(&self, first: usize, to: &mut [f32]) {
        values::widen(self, first, to);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.codes.len() + self.absmax.bytes()
    }
}

#[cfg(test)]
mod tests;
