//! What a layer multiplies by: a tensor, or a frozen weight in fewer bits, which is none.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};

use crate::linear::is_our_weight;
use crate::linear::weight::{dequantized, is_int8};
use crate::packed::Packed;

/// The weight of a layer, `[out, in]`.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and is moved few times")]
pub enum Weight {
    /// A tensor. A frozen one may be bf16 beside an input in f32: it is widened layer by layer, never all at once. So may
    /// [`crate::int8`], where no gradient is asked for.
    Dense(Tensor<2>),
    /// Frozen. It is widened a tile at a time, forward and backward.
    Packed(Arc<Packed>),
}

impl From<Tensor<2>> for Weight {
    fn from(tensor: Tensor<2>) -> Self {
        Self::Dense(tensor)
    }
}

impl From<Arc<Packed>> for Weight {
    fn from(weight: Arc<Packed>) -> Self {
        Self::Packed(weight)
    }
}

impl Weight {
    /// `[out, in]`.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(it) => it.dims(),
            Self::Packed(it) => it.shape(),
        }
    }

    /// Its values in f32, without a graph, on `device` where it is no tensor.
    pub fn to_dense(&self, device: &Device) -> Tensor<2> {
        match self {
            Self::Dense(it) => dequantized(it.clone().inner()).cast(DType::F32),
            Self::Packed(it) => it.to_tensor(device),
        }
    }

    /// The tensor, where it is one.
    pub fn dense_mut(&mut self) -> Option<&mut Tensor<2>> {
        match self {
            Self::Dense(it) => Some(it),
            Self::Packed(_) => None,
        }
    }

    /// As plain tensor operations take it beside `x`: dense, in the type of `x`.
    pub(super) fn beside(&self, x: &Tensor<2>) -> Tensor<2> {
        let dense = match self {
            Self::Dense(it) => dequantized(it.clone()),
            Self::Packed(it) => it.to_tensor(&x.device()),
        };
        dense.cast(x.dtype())
    }

    /// Whether our own implementation takes it.
    pub(super) fn is_ours(&self, tracked: bool) -> bool {
        match self {
            Self::Dense(it) => is_our_weight(it) && !(tracked && is_int8(it)),
            Self::Packed(_) => true,
        }
    }
}
