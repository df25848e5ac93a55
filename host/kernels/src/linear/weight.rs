//! A frozen weight in fewer bits, for products that are as fast as it comes from memory: bf16, or int8 in blocks, which is
//! Burn's own quantised tensor. It is widened to f32 as it is used.

use burn::backend::{BackendTensor, DispatchKindConversion, DispatchTensor, Flex};
use burn::tensor::quantization::{QuantScheme, ScaleDtype};
use burn::tensor::{DType, Device, Tensor, bf16};
use burn_flex::FlexTensor;

use super::stored::Stored;
use crate::extension::is_ours;
use crate::flex::{contiguous, primitive, tensor, values};

/// Values that share a scale, the first of these that the width of a row is a multiple of.
const BLOCKS: [u8; 4] = [64, 32, 16, 8];

/// `weight`, `[out, in]`, in 8 bits: of each block of a row the largest magnitude is 127, the others are rounded in
/// proportion. Itself where `in` is no multiple of 8.
pub fn int8(weight: Tensor<2>) -> Tensor<2> {
    let width = weight.dims()[1];
    match BLOCKS.into_iter().find(|it| width.is_multiple_of(usize::from(*it))) {
        Some(block) => weight.quantize_dynamic(&QuantScheme::default().per_block([block], ScaleDtype::F32)),
        None => weight,
    }
}

/// A weight in the type that plain tensor operations take.
pub(crate) fn dequantized(weight: Tensor<2>) -> Tensor<2> {
    if is_int8(&weight) { weight.dequantize() } else { weight }
}

pub(crate) fn is_int8(weight: &Tensor<2>) -> bool {
    matches!(weight.dtype(), DType::QFloat(_))
}

/// As [`is_ours`], for a weight that may be stored in bf16 or int8 while it is frozen.
pub(crate) fn is_our_weight(weight: &Tensor<2>) -> bool {
    let narrow = weight.dtype() == DType::BF16 || is_int8(weight);
    is_ours(weight) || narrow && !weight.is_autodiff() && weight.device() == Device::flex()
}

/// What an operation is given of a weight: its values, and the scales of int8.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    values: FlexTensor,
    scales: Option<FlexTensor>,
}

impl Given {
    /// Of a weight that [`is_our_weight`].
    pub(crate) fn new(weight: Tensor<2>) -> Self {
        if !is_int8(&weight) {
            return Self { values: contiguous(primitive(weight)), scales: None };
        }
        let backend =
            <DispatchTensor as DispatchKindConversion<Flex>>::try_into_backend(weight.into_dispatch());
        let Ok(BackendTensor::Quantized(quantized)) = backend else { unreachable!("asked for before") };
        let scales = quantized.scales().to_vec();
        let count = scales.len();
        Self { values: contiguous(quantized.tensor().clone()), scales: Some(tensor(scales, &[count])) }
    }

    /// As inputs of an operation.
    pub(crate) fn into_inputs(self) -> impl Iterator<Item = FlexTensor> {
        std::iter::once(self.values).chain(self.scales)
    }

    /// The weight as it is stored.
    pub(crate) fn stored(&self) -> Stored<'_> {
        stored(&self.values, self.scales.as_ref())
    }
}

/// A contiguous weight as it is stored; `scales` are those of int8.
pub(crate) fn stored<'a>(weight: &'a FlexTensor, scales: Option<&'a FlexTensor>) -> Stored<'a> {
    match (weight.dtype(), scales.map(values)) {
        (_, Some(scales)) => {
            let values = weight.as_slice::<i8>().expect("a contiguous tensor");
            Stored::Int8 { values, scales, block: values.len() / scales.len() }
        }
        (DType::BF16, None) => Stored::Bf16(weight.as_slice::<bf16>().expect("a contiguous tensor")),
        (_, None) => Stored::F32(values(weight)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::random;

    /// Half a step of each block: its largest magnitude over 254.
    #[test]
    fn int8_is_off_by_half_a_step_at_most() {
        for width in [8, 48, 64, 576] {
            let weight: Tensor<2> = random([5, width], 1);
            let back = int8(weight.clone()).dequantize();
            let block = BLOCKS.into_iter().map(usize::from).find(|it| width % it == 0).unwrap();
            let blocks = |it: Tensor<2>| it.reshape([5 * width / block, block]);
            let steps = blocks(weight.clone()).abs().max_dim(1) / 254.0;
            let worst = (blocks(back - weight).abs() / steps).max().into_scalar::<f32>();
            assert!(worst < 1.001, "width {width}: off by {worst} half steps");
            assert!(worst > 0.5, "width {width}: nothing was rounded");
        }
        assert!(!is_int8(&int8(random([5, 20], 1))));
    }
}
