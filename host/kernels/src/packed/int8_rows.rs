//! Weights in 8 bits with a factor a row, as LLM.int8() stores them: <https://arxiv.org/abs/2208.07339>, section 2.1.
//!
//! A row's factor is its largest magnitude, and a value is so many 127ths of it. Codes, factors and the values that come
//! back are those of bitsandbytes on the CPU, bit for bit, where its threshold for outliers is 0, as it is for weights. Not
//! [`crate::int8`], whose rows are for decoding: those are cut into blocks.

use rayon::prelude::*;

use crate::flex::unfilled;
use crate::simd::vectorized;

/// Values of a task, about.
const TASK: usize = 16 * 1024;

/// The largest code.
const LARGEST: f32 = 127.0;

/// What a code is multiplied by behind its factor: the f32 that bitsandbytes has for `1 / 127`.
const STEP: f32 = 7.874_016e-3;

/// A weight in 8 bits, a factor a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Int8Rows {
    /// `[out, in]`: bitsandbytes' `CB`.
    pub codes: Vec<i8>,
    /// `[out]`: the largest magnitude of each row, bitsandbytes' `SCB`.
    pub absmax: Vec<f32>,
    /// `[out, in]`.
    pub shape: [usize; 2],
}

impl Int8Rows {
    /// `values`, row by row, rounded to 8 bits. What is not finite makes its row meaningless.
    ///
    /// # Panics
    /// Where `values` are not as many as `shape` says.
    pub fn quantize(values: &[f32], shape: [usize; 2]) -> Self {
        assert_eq!(values.len(), shape[0] * shape[1], "values of a weight of shape {shape:?}");
        let width = shape[1].max(1);
        let (mut codes, mut absmax) = (vec![0; values.len()], unfilled(shape[0]));
        if values.is_empty() {
            absmax.fill(0.0);
            return Self { codes, absmax, shape };
        }
        let rows = (TASK / width).max(1);
        let tasks = codes.par_chunks_mut(rows * width).zip(absmax.par_chunks_mut(rows));
        tasks.zip(values.par_chunks(rows * width)).for_each(|((codes, absmax), values)| {
            quantize_rows(values, width, codes, absmax);
        });
        Self { codes, absmax, shape }
    }

    /// Fills `to` with the values of whole rows, of which the first begins at `first`.
    ///
    /// To be called where the machine's instructions are chosen.
    #[inline(always)]
    pub(crate) fn widen(&self, first: usize, to: &mut [f32]) {
        let width = self.shape[1].max(1);
        let rows = self.codes[first..].chunks_exact(width).zip(&self.absmax[first / width..]);
        for (to, (codes, absmax)) in to.chunks_exact_mut(width).zip(rows) {
            // Two products, each rounded, in bitsandbytes' order.
            to.iter_mut().zip(codes).for_each(|(to, code)| *to = f32::from(*code) * absmax * STEP);
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.codes.len() + size_of_val(self.absmax.as_slice())
    }
}

vectorized! {
    fn quantize_rows(values: &[f32], width: usize, codes: &mut [i8], absmax: &mut [f32]) {
        let rows = values.chunks_exact(width).zip(codes.chunks_exact_mut(width)).zip(absmax);
        for ((values, codes), absmax) in rows {
            *absmax = values.iter().fold(0.0f32, |a, b| if b.abs() > a || b.is_nan() { b.abs() } else { a });
            // torch divides by a tensor so: the inverse is rounded, and then the product.
            let inverse = 1.0 / *absmax * LARGEST;
            for (code, value) in codes.iter_mut().zip(values) {
                let rounded = (value * inverse).round_ties_even();
                // Where the inverse is infinite, so is the product, or it is none: the code of both is 0 there.
                *code = if rounded.abs() <= LARGEST { rounded as i8 } else { 0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::packed::Packed;

    const CASES: [&str; 9] =
        ["few", "rows", "many", "single", "outliers", "zeros", "tiny", "halves", "large"];

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|it| it.to_bits()).collect()
    }

    /// Oracle: bitsandbytes, `tests/golden/generate/int8_rows.py`. Every comparison is of bits.
    #[test]
    fn codes_factors_and_values_are_those_of_bitsandbytes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/int8_rows.safetensors");
        let golden = std::fs::read(path).unwrap();
        let golden = SafeTensors::deserialize(&golden).unwrap();
        for case in CASES {
            let view = |it: &str| golden.tensor(&format!("{case}.{it}")).unwrap();
            let floats = |it: &str| -> Vec<f32> {
                view(it).data().as_chunks::<4>().0.iter().map(|it| f32::from_le_bytes(*it)).collect()
            };
            let shape: [usize; 2] = view("values").shape().try_into().unwrap();
            let found = Int8Rows::quantize(&floats("values"), shape);
            let codes: Vec<i8> = view("codes").data().iter().map(|it| *it as i8).collect();
            assert_eq!(bits(&found.absmax), bits(&floats("absmax")), "{case}");
            assert_eq!(found.codes, codes, "{case}");
            let dequantized = Packed::from(found).dequantize();
            assert_eq!(bits(&dequantized), bits(&floats("dequantized")), "{case}");
        }
    }

    #[test]
    fn what_is_not_finite_does_not_panic() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE] {
            let mut values = [0.5; 130];
            values[17] = value;
            let found = Packed::from(Int8Rows::quantize(&values, [10, 13])).dequantize();
            let others = found[..13].iter().chain(&found[26..]);
            assert!(others.into_iter().all(|it| (it - 0.5).abs() < 1e-3), "{value} is in the second row");
        }
        for shape in [[0, 7], [7, 0], [0, 0]] {
            let none = Int8Rows::quantize(&[], shape);
            assert_eq!(none.absmax.len(), shape[0]);
            assert!(Packed::from(none).dequantize().is_empty());
        }
    }

    #[test]
    fn bytes_are_counted() {
        assert_eq!(Int8Rows::quantize(&[1.0; 600], [20, 30]).bytes(), 600 + 4 * 20);
    }
}
