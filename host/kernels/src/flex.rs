//! The storage of Burn's CPU backend as plain slices, and back.
//!
//! `unsafe` here: a vector that is handed out before it is filled.

use burn::backend::Flex;
use burn::tensor::{Bytes, DType, Shape, Tensor};
use burn_flex::{FlexTensor, Layout};

/// What stands behind a tensor of Burn's CPU backend, without its graph.
pub(crate) fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    tensor.inner().try_into_primitive::<Flex>().expect("a tensor of Burn's CPU backend")
}

/// `tensor` with its elements in order; itself where they are already.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.layout().contiguous_offsets().is_some() { tensor } else { tensor.to_contiguous() }
}

/// The elements of a contiguous f32 tensor.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("a contiguous f32 tensor")
}

/// The elements of a tensor as a vector of its own: without a copy where nobody else holds them.
pub(crate) fn into_values(tensor: FlexTensor) -> Vec<f32> {
    let data = contiguous(tensor).into_data();
    data.try_into_vec::<f32>().expect("an f32 tensor")
}

/// `tensor` as one that may be written to: itself where nobody else holds its storage, otherwise a copy.
pub(crate) fn owned(tensor: FlexTensor) -> FlexTensor {
    let tensor = contiguous(tensor);
    if tensor.is_unique() { tensor } else { self::tensor(values(&tensor).to_vec(), tensor.layout().shape()) }
}

/// The elements of a tensor that is [`owned`].
pub(crate) fn values_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    let (start, end) = tensor.layout().contiguous_offsets().expect("a contiguous tensor");
    &mut tensor.try_storage_mut::<f32>().expect("storage of its own")[start..end]
}

/// Both axes of a matrix.
pub(crate) fn dims2(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.layout().shape();
    [shape[0], shape[1]]
}

/// A tensor that takes `values` over.
pub(crate) fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    debug_assert_eq!(values.len(), shape.iter().product::<usize>());
    let layout = Layout::contiguous(Shape::from(shape.to_vec()));
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}

/// `length` floats of unspecified value, for a caller that writes every one: clearing a large buffer first costs as
/// much as many operations do.
#[expect(clippy::uninit_vec, reason = "every caller writes all of it before it reads any")]
pub(crate) fn unfilled(length: usize) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(length);
    // SAFETY: the capacity is there, and every bit pattern is an f32. Callers write each element before reading it.
    unsafe { values.set_len(length) };
    values
}
