//! The 256 values of an 8-bit moment: bitsandbytes' `create_dynamic_map`, a value with a dynamic exponent.
//!
//! The nearest value is found by a table over the upper 16 bits of a float: no more than one middle between two values
//! lies in what they leave open, so that one comparison remains.

use std::sync::LazyLock;

/// Values in rising order, and for each upper half of a float the code nearest to the least float with that half.
pub struct Map {
    /// The last is infinite: it is never nearer.
    values: [f32; 257],
    codes: Box<[u8; 1 << 16]>,
}

/// For first moments: 127 negative values, 0, and 128 positive ones up to 1.
pub fn signed_map() -> &'static Map {
    static MAP: LazyLock<Map> = LazyLock::new(|| Map::new(true));
    &MAP
}

/// For second moments: 0, and 255 positive values up to 1.
pub fn unsigned_map() -> &'static Map {
    static MAP: LazyLock<Map> = LazyLock::new(|| Map::new(false));
    &MAP
}

impl std::fmt::Debug for Map {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Map").field(&self.values).finish()
    }
}

impl Map {
    fn new(signed: bool) -> Self {
        let values = dynamic_map(signed);
        let mut codes = Box::new([0; 1 << 16]);
        for (half, code) in codes.iter_mut().enumerate() {
            let (low, high) =
                (f32::from_bits((half as u32) << 16), f32::from_bits((half as u32) << 16 | 0xffff));
            *code = nearest(&values, if low.is_sign_negative() { high } else { low });
        }
        let mut padded = [f32::INFINITY; 257];
        padded[..256].copy_from_slice(&values);
        Self { values: padded, codes }
    }

    /// The values, in the order of their codes.
    pub fn values(&self) -> &[f32] {
        &self.values[..256]
    }

    /// The value of a code.
    #[inline(always)]
    pub(super) fn value(&self, code: u8) -> f32 {
        self.values[usize::from(code)]
    }

    /// The code nearest to `x` in [-1, 1]; of two the lower.
    #[inline(always)]
    pub fn code(&self, x: f32) -> u8 {
        let code = self.codes[(x.to_bits() >> 16) as usize];
        let (below, above) = (self.values[usize::from(code)], self.values[usize::from(code) + 1]);
        code + u8::from(above - x < x - below)
    }
}

/// The index of the value nearest to `x`, the first of several, found by looking at all: what [`Map::code`] is quicker at.
pub(super) fn nearest(values: &[f32], x: f32) -> u8 {
    let mut best = (0, f32::INFINITY);
    for (index, value) in values.iter().enumerate() {
        let distance = (x - value).abs();
        if distance < best.1 {
            best = (index, distance);
        }
    }
    best.0 as u8
}

/// The values in rising order. Each power of ten from 1e-6 to 1 has twice as many as the one below.
fn dynamic_map(signed: bool) -> [f32; 256] {
    let mut values = vec![0.0f32, 1.0];
    for exponent in 0..7 {
        let count = if signed { 1usize << exponent } else { 2 << exponent };
        let factor = 10f64.powi(exponent - 6) as f32;
        let boundaries = linspace(0.1, 1.0, count + 1);
        for pair in boundaries.windows(2) {
            let value = factor * ((pair[0] + pair[1]) / 2.0);
            values.push(value);
            if signed {
                values.push(-value);
            }
        }
    }
    values.sort_by(f32::total_cmp);
    values.try_into().expect("256 values")
}

/// As torch's on a processor with fused multiply-add: from both ends to the middle, in f32.
fn linspace(begin: f32, end: f32, count: usize) -> Vec<f32> {
    let step = (end - begin) / (count - 1) as f32;
    let value = |index: usize| match index < count / 2 {
        true => step.mul_add(index as f32, begin),
        false => (-step).mul_add((count - index - 1) as f32, end),
    };
    (0..count).map(value).collect()
}
