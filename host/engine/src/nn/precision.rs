//! The types that blocks compute in and that frozen weights are stored in. Weights that are trained stay f32 and are
//! rounded where they are used, so that an optimizer step of any size reaches them; norms, softmax of the head and the
//! loss are f32 in either case.

use burn::tensor::{DType, Tensor};
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

/// A weight for an input in `dtype`: itself where it is stored in bf16 and the input is f32, because the product widens
/// it; otherwise in `dtype`.
pub fn weight_for(weight: Tensor<2>, dtype: DType) -> Tensor<2> {
    if weight.dtype() == DType::BF16 && dtype == DType::F32 { weight } else { cast(weight, dtype) }
}

/// `tensor` in `dtype`; itself where it is already.
pub fn cast<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(dtype) }
}
