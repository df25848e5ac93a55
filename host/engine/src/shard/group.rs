//! Parameters that are gathered together, of which a rank has a stretch.

use std::sync::Arc;

use burn::tensor::{AllocationProperty, Bytes, DType, Device, Tensor, TensorData};

use super::layout::{Entry, FlatLayout, Stored, Stretch, WORD};
use crate::models::Parameter;
use crate::models::parameter::FROZEN;
use crate::parallel::{Collective, Pending, Ranks};

/// What a rank has of frozen parameters.
#[derive(Debug, Clone)]
pub(super) struct Frozen {
    pub layout: FlatLayout,
    own: Arc<Vec<f32>>,
}

/// A rank's stretch of a trained parameter: whoever trains it meets a vector, or a matrix of one row.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    name: String,
    /// Its first value, of the parameter's.
    begin: usize,
    /// Where it begins in what the rank has.
    offset: usize,
    value: PieceValue,
}

#[derive(Debug, Clone)]
enum PieceValue {
    Vector(Tensor<1>),
    /// What decays: `[1, length]`.
    Matrix(Tensor<2>),
}

/// What a rank has of trained parameters.
#[derive(Debug, Clone)]
pub(super) struct Trained {
    pub layout: FlatLayout,
    pub pieces: Vec<Piece>,
}

/// Every word of a group, on its way.
pub(super) struct Coming(Option<Pending>);

/// Every word of a group, shared by the tensors that are made of them.
pub(super) type Whole = bytes::Bytes;

impl Coming {
    /// Waits for it; `None` of a group without parameters.
    pub fn wait(self) -> Option<Whole> {
        Some(whole(self.0?.wait()))
    }
}

/// Words as bytes that tensors can share.
fn whole(words: Vec<f32>) -> Whole {
    struct Words(Vec<f32>);
    impl AsRef<[u8]> for Words {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    Whole::from_owner(Words(words))
}

/// The layout of what `visit_all` visits.
pub(super) fn layout_of(
    ranks: &Ranks,
    visit_all: impl FnOnce(&mut dyn FnMut(&str, Parameter<'_>)),
) -> FlatLayout {
    let mut parameters = Vec::new();
    visit_all(&mut |name, parameter| {
        let float = |dtype: DType| (Stored::Float(dtype), parameter.length() * dtype.size());
        let (stored, bytes) = match &parameter {
            Parameter::Packed(weight) => (Stored::Packed, weight.stored_bytes()),
            Parameter::Vector(tensor) => float(tensor.dtype()),
            Parameter::Matrix(tensor) => float(tensor.dtype()),
        };
        parameters.push((name.to_string(), parameter.dims(), stored, bytes));
    });
    FlatLayout::new(parameters, ranks.size())
}

/// Tells `of_stretch` of every parameter that `visit_all` visits and a rank has a stretch of.
fn visit_stretches(
    layout: &FlatLayout,
    rank: usize,
    visit_all: impl FnOnce(&mut dyn FnMut(&str, Parameter<'_>)),
    mut of_stretch: impl FnMut(&str, &Parameter<'_>, &Stretch),
) {
    let (mut stretches, mut index) = (layout.stretches(rank).peekable(), 0);
    visit_all(&mut |name, parameter| {
        if let Some(stretch) = stretches.next_if(|it| it.entry == index) {
            of_stretch(name, &parameter, &stretch);
        }
        index += 1;
    });
}

/// Words `from..` of a parameter, into `to`.
fn copy(parameter: &Parameter<'_>, from: usize, to: &mut [f32]) {
    fn values<const D: usize>(tensor: &Tensor<D>, from: usize, to: &mut [f32]) {
        let (length, size) = (tensor.shape().num_elements(), tensor.dtype().size());
        let (begin, end) = (from * WORD / size, ((from + to.len()) * WORD / size).min(length));
        let flat = tensor.clone().inner().reshape([length]).narrow(0, begin, end - begin);
        let data = flat.into_data();
        bytemuck::cast_slice_mut::<f32, u8>(to)[..(end - begin) * size].copy_from_slice(data.as_bytes());
    }
    match parameter {
        Parameter::Vector(tensor) => values(tensor, from, to),
        Parameter::Matrix(tensor) => values(tensor, from, to),
        Parameter::Packed(weight) => {
            let stored = weight.stored();
            let to = bytemuck::cast_slice_mut::<f32, u8>(to);
            to.copy_from_slice(&stored[from * WORD..][..to.len()]);
        }
    }
}

/// Has a parameter be what `entry` of a `layout` says of `whole`.
pub(super) fn put(
    layout: &FlatLayout,
    entry: &Entry,
    whole: &Whole,
    parameter: Parameter<'_>,
    device: &Device,
) {
    let place = entry.offset * WORD;
    let bytes = match entry.stored {
        // Codes are taken out of what was gathered: a norm that shares it would keep all of it alive beside them.
        Stored::Float(_) if layout.has_packed => {
            let words = whole[place..place + entry.words() * WORD].as_chunks().0.iter();
            self::whole(words.map(|it| f32::from_ne_bytes(*it)).collect()).slice(..entry.bytes)
        }
        _ => whole.slice(place..place + entry.bytes),
    };
    fn tensor<const D: usize>(dims: &[usize], dtype: DType, bytes: Whole, device: &Device) -> Tensor<D> {
        let bytes = Bytes::from_shared(bytes, AllocationProperty::Other);
        Tensor::from_data(TensorData::from_bytes(bytes, dims.to_vec(), dtype), (device, dtype))
    }
    match (parameter, entry.stored) {
        (Parameter::Vector(to), Stored::Float(dtype)) => *to = tensor(&entry.dims, dtype, bytes, device),
        (Parameter::Matrix(to), Stored::Float(dtype)) => *to = tensor(&entry.dims, dtype, bytes, device),
        (Parameter::Packed(to), Stored::Packed) => *to = Arc::new(to.with_stored(&bytes)),
        _ => unreachable!("`{}` is what it was", entry.name),
    }
}

/// Has every parameter that `visit_all` visits be that of `whole`.
pub(super) fn fill(
    layout: &FlatLayout,
    whole: &Whole,
    device: &Device,
    visit_all: impl FnOnce(&mut dyn FnMut(&str, Parameter<'_>)),
) {
    let mut entries = layout.entries.iter();
    visit_all(&mut |name, parameter| {
        let entry = entries.next().expect("one a parameter");
        debug_assert_eq!(entry.name, name);
        put(layout, entry, whole, parameter, device);
    });
}

/// Has a parameter have its shape and nothing else: what is computed with it is not a number.
pub(super) fn hollow(parameter: Parameter<'_>) {
    fn empty<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
        let (device, dtype) = (tensor.device(), tensor.dtype());
        Tensor::<D>::full([1; D], f32::NAN, (&device, dtype)).expand(tensor.dims())
    }
    match parameter {
        Parameter::Vector(tensor) => *tensor = empty(tensor),
        Parameter::Matrix(tensor) => *tensor = empty(tensor),
        Parameter::Packed(weight) => *weight = Arc::new(weight.hollow()),
    }
}

impl Frozen {
    /// This rank's stretch of what `visit_all` visits, all of which is there.
    pub fn new(
        layout: FlatLayout,
        rank: usize,
        visit_all: impl FnOnce(&mut dyn FnMut(&str, Parameter<'_>)),
    ) -> Self {
        let mut own = vec![0.0; layout.own];
        visit_stretches(&layout, rank, visit_all, |_, parameter, it| {
            copy(parameter, it.words.start, &mut own[it.offset..][..it.words.len()]);
        });
        Self { layout, own: Arc::new(own) }
    }

    /// Begins to gather it.
    pub fn gather(&self, ranks: &Ranks) -> Coming {
        gather(&self.layout, ranks, |own| own.copy_from_slice(&self.own))
    }
}

impl Trained {
    /// As [`Frozen::new`]; pieces are on `device`, or on the parameter's.
    pub fn new(
        layout: FlatLayout,
        rank: usize,
        device: Option<&Device>,
        visit_all: impl FnOnce(&mut dyn FnMut(&str, Parameter<'_>)),
    ) -> Self {
        let mut pieces = Vec::new();
        visit_stretches(&layout, rank, visit_all, |name, parameter, it| {
            let (length, mut values) = (it.words.len(), vec![0.0; it.words.len()]);
            copy(parameter, it.words.start, &mut values);
            let device = device.cloned().unwrap_or_else(|| parameter.device().inner());
            let value = match parameter {
                Parameter::Vector(_) => {
                    PieceValue::Vector(Tensor::from_data(TensorData::new(values, [length]), &device))
                }
                Parameter::Matrix(_) => {
                    PieceValue::Matrix(Tensor::from_data(TensorData::new(values, [1, length]), &device))
                }
                Parameter::Packed(_) => unreachable!("{FROZEN}"),
            };
            pieces.push(Piece { name: name.to_string(), begin: it.words.start, offset: it.offset, value });
        });
        Self { layout, pieces }
    }

    /// Begins to gather it.
    pub fn gather(&self, ranks: &Ranks) -> Coming {
        gather(&self.layout, ranks, |own| {
            for piece in &self.pieces {
                let values = match &piece.value {
                    PieceValue::Vector(it) => it.clone().into_data(),
                    PieceValue::Matrix(it) => it.clone().into_data(),
                };
                let values = values.as_slice::<f32>().expect("what is trained is f32");
                own[piece.offset..][..values.len()].copy_from_slice(values);
            }
        })
    }

    /// This rank's piece of every parameter of which it has one, with the place of its first value.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&str, usize, Parameter<'_>)) {
        for piece in &mut self.pieces {
            let parameter = match &mut piece.value {
                PieceValue::Vector(it) => Parameter::Vector(it),
                PieceValue::Matrix(it) => Parameter::Matrix(it),
            };
            visit(&piece.name, piece.begin, parameter);
        }
    }

    /// All gradients of the group, flat as they are summed up; `gradients` stand in the order of the layout.
    pub fn flat(&self, gradients: Vec<Tensor<1>>) -> Vec<f32> {
        let mut flat = vec![0.0; self.layout.words()];
        for (entry, gradient) in self.layout.entries.iter().zip(gradients) {
            let data = gradient.into_data();
            let values = data.as_slice::<f32>().expect("gradients are f32");
            flat[entry.offset..][..values.len()].copy_from_slice(values);
        }
        flat
    }

    /// What `own`, this rank's stretch of something, has for each piece.
    pub fn cut(&self, own: &[f32]) -> Vec<Tensor<1>> {
        let cut = |piece: &Piece| {
            let (length, device) = match &piece.value {
                PieceValue::Vector(it) => (it.dims()[0], it.device()),
                PieceValue::Matrix(it) => (it.dims()[1], it.device()),
            };
            let values = own[piece.offset..][..length].to_vec();
            Tensor::from_data(TensorData::new(values, [length]), &device)
        };
        self.pieces.iter().map(cut).collect()
    }
}

/// Begins to gather a group of which `write` writes this rank's stretch.
fn gather(layout: &FlatLayout, ranks: &Ranks, write: impl FnOnce(&mut [f32])) -> Coming {
    if layout.entries.is_empty() {
        return Coming(None);
    }
    let mut all = vec![0.0; layout.words()];
    write(&mut all[ranks.global_rank() * layout.own..][..layout.own]);
    Coming(Some(ranks.begin_all_gather(all)))
}
