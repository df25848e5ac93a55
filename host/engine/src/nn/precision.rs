//! The type that blocks compute in. Weights stay f32 and are rounded where they are used, so that an optimizer
//! step of any size reaches them; norms, softmax of the head and the loss are f32 in either case.

use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// `compute_dtype` of a run file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeDtype {
    /// 32 bits.
    #[default]
    F32,
    /// bfloat16: f32's range, 8 bits of precision.
    Bf16,
}

impl From<ComputeDtype> for DType {
    fn from(dtype: ComputeDtype) -> Self {
        match dtype {
            ComputeDtype::F32 => Self::F32,
            ComputeDtype::Bf16 => Self::BF16,
        }
    }
}

/// `tensor` in `dtype`; itself where it is already.
pub fn cast<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(dtype) }
}
