//! Frozen weights in fewer bits than a tensor has. They are widened a tile at a time, forward and backward: a dense one
//! never stands beside them.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::flex::unfilled;
use crate::four_bit::FourBit;
use crate::linear::linear_reference;
use crate::lora_linear::{LoraLinear, lora_linear};
use crate::simd::vectorized;

/// A frozen weight, and how it is stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Packed {
    /// NF4 or FP4.
    FourBit(FourBit),
}

impl From<FourBit> for Packed {
    fn from(weight: FourBit) -> Self {
        Self::FourBit(weight)
    }
}

impl Packed {
    /// `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::FourBit(it) => it.shape,
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match self {
            Self::FourBit(it) => it.bytes(),
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
    use super::*;
    use crate::check::{compare, random};
    use crate::four_bit::{FourBitConfig, FourBitKind};

    fn four_bit(shape: [usize; 2], kind: FourBitKind) -> Arc<Packed> {
        let values: Vec<f32> = random::<2>(shape, 7).try_into_vec_as().unwrap();
        Arc::new(FourBit::quantize(&values, shape, FourBitConfig { kind, ..Default::default() }).into())
    }

    /// Sums of at most 1000 products in f32, in two orders: 1e-5 of the largest. The wide weights have three tiles, the odd
    /// one rows that begin inside a byte.
    #[test]
    fn products_and_gradients_equal_those_of_the_dense_weight() {
        for weight in [four_bit([1000, 600], FourBitKind::Nf4), four_bit([37, 45], FourBitKind::Fp4)] {
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
}
