//! Frozen weights in fewer bits than a tensor has. They are widened a tile at a time, forward and backward: a dense one
//! never stands beside them.

pub mod four_bit;
pub mod ggml;
mod ggml_quantize;
pub mod int8_rows;
mod stored;

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::flex::unfilled;
use crate::linear::linear_reference;
use crate::lora_linear::{LoraLinear, lora_linear};
use crate::simd::vectorized;
use four_bit::FourBit;
use ggml::GgmlBlocks;
use int8_rows::Int8Rows;

/// A frozen weight, and how it is stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Packed {
    /// NF4 or FP4.
    FourBit(FourBit),
    /// LLM.int8()'s rows.
    Int8(Int8Rows),
    /// Blocks of a GGUF file.
    Ggml(GgmlBlocks),
}

impl From<FourBit> for Packed {
    fn from(weight: FourBit) -> Self {
        Self::FourBit(weight)
    }
}

impl From<Int8Rows> for Packed {
    fn from(weight: Int8Rows) -> Self {
        Self::Int8(weight)
    }
}

impl From<GgmlBlocks> for Packed {
    fn from(weight: GgmlBlocks) -> Self {
        Self::Ggml(weight)
    }
}

impl Packed {
    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::FourBit(it) => it.shape,
            Self::Int8(it) => it.shape,
            Self::Ggml(it) => it.shape(),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match self {
            Self::FourBit(it) => it.bytes(),
            Self::Int8(it) => it.bytes(),
            Self::Ggml(it) => it.bytes(),
        }
    }

    /// The values that are stored, row by row.
    pub fn dequantize(&self) -> Vec<f32> {
        /// Values of a task, about.
        const TASK: usize = 16 * 1024;
        let [rows, width] = self.shape();
        let mut values = unfilled(rows * width);
        let whole_rows = (TASK / width.max(1)).max(1) * width.max(1);
        let tasks = values.par_chunks_mut(whole_rows).enumerate();
        tasks.for_each(|(task, to)| widen(self, task * whole_rows, to));
        values
    }

    /// The values that are stored as a dense tensor, `[out, in]`.
    pub fn to_tensor(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(self.dequantize(), self.shape()), device)
    }

    /// Fills `to` with the values of whole rows, of which the first begins at `first`.
    ///
    /// To be called where the machine's instructions are chosen.
    #[inline(always)]
    pub(crate) fn widen(&self, first: usize, to: &mut [f32]) {
        match self {
            Self::FourBit(it) => it.widen(first, to),
            Self::Int8(it) => it.widen(first, to),
            Self::Ggml(it) => it.widen(first, to),
        }
    }
}

vectorized! {
    fn widen(weight: &Packed, first: usize, to: &mut [f32]) {
        weight.widen(first, to);
    }
}

/// `x weight^T`. The weight is frozen and is widened a tile at a time, in forward and in backward.
///
/// # Shapes
/// - `x`: `[T, in]`, `weight`: `[out, in]`, result: `[T, out]`
pub fn packed_linear(x: Tensor<2>, weight: &Arc<Packed>) -> Tensor<2> {
    lora_linear(x, &LoraLinear { weight: Arc::clone(weight).into(), bias: None, lora: None })
}

/// [`packed_linear`] in plain tensor operations, on the dense weight.
pub fn packed_linear_reference(x: Tensor<2>, weight: &Packed) -> Tensor<2> {
    let dense = weight.to_tensor(&x.device()).cast(x.dtype());
    linear_reference(x, dense)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::check::{compare, random};
    use four_bit::{FourBitConfig, FourBitKind};
    use ggml::GgmlType;

    fn values(shape: [usize; 2]) -> Vec<f32> {
        random::<2>(shape, 7).try_into_vec_as().unwrap()
    }

    fn four_bit(shape: [usize; 2], kind: FourBitKind) -> Packed {
        FourBit::quantize(&values(shape), shape, FourBitConfig { kind, ..Default::default() }).into()
    }

    fn int8(shape: [usize; 2]) -> Packed {
        Int8Rows::quantize(&values(shape), shape).into()
    }

    /// Of bytes from 0x20 to 0x2f: wherever a block has a float of 16 bits, it is a small one.
    fn ggml(shape: [usize; 2], kind: GgmlType) -> Packed {
        let bytes =
            values([kind.bytes(shape).unwrap(), 1]).into_iter().map(|it| 0x20 | (4.0 * it + 8.0) as u8);
        GgmlBlocks::new(kind, bytes.collect::<Vec<u8>>().into(), shape).unwrap().into()
    }

    /// Sums of at most 1000 products in f32, in two orders: 1e-5 of the largest. The wide weights have several tiles, the odd
    /// ones rows that begin inside a byte, or are no whole vectors.
    #[test]
    fn products_and_gradients_equal_those_of_the_dense_weight() {
        let mut weights = vec![
            four_bit([1000, 600], FourBitKind::Nf4),
            four_bit([37, 45], FourBitKind::Fp4),
            int8([1000, 600]),
            int8([37, 45]),
        ];
        for kind in GgmlType::ALL {
            let width = kind.block_values();
            weights.extend([[600, 3 * 256], [37, width], [5, 3 * width]].map(|shape| ggml(shape, kind)));
        }
        for weight in weights.into_iter().map(Arc::new) {
            for rows in [1, 2, 5, 48, 300] {
                compare(
                    &[random([rows, weight.shape()[1]], 1).into()],
                    |it| packed_linear(it[0].matrix(), &weight),
                    |it| packed_linear_reference(it[0].matrix(), &weight),
                    1e-5,
                );
            }
        }
    }

    /// Any whole rows, from any of them on, as a tile or a task takes them.
    #[test]
    fn rows_are_widened_to_what_they_are_in_the_whole() {
        let kinds = GgmlType::ALL.map(|kind| ggml([9, 2 * kind.block_values()], kind));
        for weight in kinds.into_iter().chain([int8([9, 45]), four_bit([9, 45], FourBitKind::Nf4)]) {
            let (whole, width) = (weight.dequantize(), weight.shape()[1]);
            for first in 0..9 {
                for count in 0..=9 - first {
                    let mut found = vec![f32::NAN; count * width];
                    widen(&weight, first * width, &mut found);
                    assert!(found == whole[first * width..][..count * width], "{count} rows from {first} on");
                }
            }
        }
    }

    /// A hollow weight has the shape, holds next to nothing, and is the weight again with what was stored.
    #[test]
    fn what_is_stored_comes_back() {
        let kinds = GgmlType::ALL.map(|kind| ggml([9, 2 * kind.block_values()], kind));
        let plain = FourBitConfig { double_quant: false, ..FourBitConfig::default() };
        let plain = FourBit::quantize(&values([37, 45]), [37, 45], plain).into();
        let odd = [int8([9, 45]), four_bit([37, 45], FourBitKind::Nf4), plain];
        for weight in kinds.into_iter().chain(odd).chain([four_bit([300, 300], FourBitKind::Fp4)]) {
            let (stored, hollow) = (weight.stored(), weight.hollow());
            assert_eq!(stored.len(), hollow.stored_bytes());
            assert_eq!(hollow.shape(), weight.shape());
            assert!(hollow.bytes() <= size_of::<f32>() && stored.len() < weight.bytes() + 16);
            assert!(hollow.with_stored(&stored.into()) == weight);
        }
    }

    #[test]
    fn bytes_are_those_that_are_held() {
        let held = GgmlBlocks::new(GgmlType::Q8_0, Bytes::from(vec![0; 4 * 68]), [4, 64]).unwrap();
        assert_eq!(Packed::from(held).bytes(), 4 * 68);
        assert_eq!(int8([3, 64]).bytes(), 3 * 64 + 3 * 4);
    }
}
