//! The sixteen values of a 4-bit code, of each kind.

use super::FourBitKind;

/// Values of a code.
pub(super) const CODES: usize = 16;

/// Quantiles of the normal distribution, 0 among them: <https://arxiv.org/abs/2305.14314>, appendix E.
const NF4: [f32; CODES] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// A sign, two bits of exponent and one of mantissa, as fractions of the largest.
const FP4: [f32; CODES] = {
    let magnitudes = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0];
    let mut values = [0.0; CODES];
    let mut code = 0;
    while code < CODES {
        let magnitude = magnitudes[code % 8] / 12.0;
        // Both zeros are positive.
        values[code] = if code > 8 { -magnitude } else { magnitude };
        code += 1;
    }
    values
};

/// The codes of [`FP4`] by rising value.
const FP4_ORDER: [u8; CODES] = [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3];

impl FourBitKind {
    /// The value of each code, as a fraction of its block's factor: bitsandbytes' `quant_map`.
    pub fn fractions(self) -> [f32; CODES] {
        match self {
            Self::Nf4 => NF4,
            Self::Fp4 => FP4,
        }
    }
}

/// What both directions need of a kind.
#[derive(Debug)]
pub(super) struct Code {
    /// Middles between neighbouring values, rising: a number above `n` of them has the code `order[n]`.
    pub middles: [f32; CODES - 1],
    pub order: [u8; CODES],
    /// Both values of a byte: that of the high half comes first.
    pub pairs: [[f32; 2]; 256],
}

impl Code {
    const fn new(values: [f32; CODES], order: [u8; CODES]) -> Self {
        let mut middles = [0.0; CODES - 1];
        let mut place = 0;
        while place < CODES - 1 {
            middles[place] = (values[order[place] as usize] + values[order[place + 1] as usize]) / 2.0;
            place += 1;
        }
        let mut pairs = [[0.0; 2]; 256];
        let mut byte = 0;
        while byte < 256 {
            pairs[byte] = [values[byte >> 4], values[byte & 15]];
            byte += 1;
        }
        Self { middles, order, pairs }
    }

    pub(super) fn of(kind: FourBitKind) -> &'static Self {
        static OF_NF4: Code = Code::new(NF4, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        static OF_FP4: Code = Code::new(FP4, FP4_ORDER);
        match kind {
            FourBitKind::Nf4 => &OF_NF4,
            FourBitKind::Fp4 => &OF_FP4,
        }
    }
}
