//! (IA)^3: <https://arxiv.org/abs/2205.05638>, as PEFT computes it. What a linear puts out, its bias included, or what it is
//! given, is multiplied by a vector that is trained.

use burn::tensor::{DType, Tensor};

use super::precision::cast;

/// The vector of one linear.
#[derive(Debug, Clone)]
pub struct Ia3 {
    /// `[1, in]` on what the linear is given, `[out, 1]` on what it puts out.
    pub scale: Tensor<2>,
    /// PEFT's `feedforward_modules`: the vector stands before the linear.
    pub is_feedforward: bool,
}

impl Ia3 {
    /// One that changes nothing, of a linear of these widths.
    pub fn ones([out, width]: [usize; 2], is_feedforward: bool, device: &burn::tensor::Device) -> Self {
        Self { scale: Tensor::ones(Self::shape([out, width], is_feedforward), device), is_feedforward }
    }

    /// PEFT's shape of it.
    pub fn shape([out, width]: [usize; 2], is_feedforward: bool) -> [usize; 2] {
        if is_feedforward { [1, width] } else { [out, 1] }
    }

    /// Flat, in `dtype`.
    pub(super) fn vector(&self, dtype: DType) -> Tensor<1> {
        cast(self.scale.clone().flatten(0, 1), dtype)
    }
}
