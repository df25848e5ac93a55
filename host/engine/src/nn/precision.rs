//! The types that blocks compute in and that frozen weights are stored in. Weights that are trained stay f32 and are
//! rounded where they are used, so that an optimizer step of any size reaches them; norms, softmax of the head and the
//! loss are f32 in either case.

use burn::tensor::{DType, Tensor};
use fthost_kernels::int8;
use serde::{Deserialize, Serialize};

/// `compute_dtype` and `frozen_dtype` of a run file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatDtype {
    /// 32 bits.
    #[default]
    F32,
    /// bfloat16: f32's range, 8 bits of precision.
    Bf16,
}

impl From<FloatDtype> for DType {
    fn from(dtype: FloatDtype) -> Self {
        match dtype {
            FloatDtype::F32 => Self::F32,
            FloatDtype::Bf16 => Self::BF16,
        }
    }
}

/// What generation takes of the weights: decoding is as fast as they come from memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecodeWeights {
    /// The model's own, however they are stored; nothing is copied.
    #[default]
    F32,
    /// A copy of the matrices in bf16: half the bytes, 8 bits of precision.
    Bf16,
    /// A copy of the matrices in 8 bits with a scale for each 64 values: little more than a quarter of the bytes.
    Int8,
}

impl DecodeWeights {
    /// `weight` as it is read in decoding.
    pub fn of(self, weight: Tensor<2>) -> Tensor<2> {
        match self {
            Self::F32 => weight,
            Self::Bf16 => cast(weight, DType::BF16),
            Self::Int8 => int8(cast(weight, DType::F32)),
        }
    }
}

/// A weight for an input in `dtype`: itself where it is stored in fewer bits and the input is f32, because the product
/// widens it; otherwise in `dtype`.
pub fn weight_for(weight: Tensor<2>, dtype: DType) -> Tensor<2> {
    match weight.dtype() {
        DType::QFloat(_) => weight,
        DType::BF16 if dtype == DType::F32 => weight,
        _ => cast(weight, dtype),
    }
}

/// `tensor` in `dtype`; itself where it is already.
pub fn cast<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(dtype) }
}
