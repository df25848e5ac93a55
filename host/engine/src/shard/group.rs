//! Parameters that are gathered together, of which a rank has a stretch.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{AllocationProperty, Bytes, DType, Device, Tensor, TensorData};

use super::layout::{Entry, FlatLayout, Stored, Stretch, WORD};
use crate::device::{has_memory, seen_as, words};
use crate::models::Parameter;
use crate::models::parameter::FROZEN;
use crate::parallel::{Collective, Flat, Pending, Ranks};

/// What a rank has of frozen parameters.
#[derive(Debug, Clone)]
pub(super) struct Frozen {
    pub layout: FlatLayout,
    own: Own,
}

/// Words of a rank, in the host's memory or in that of the model's device.
#[derive(Debug, Clone)]
enum Own {
    Host(Arc<Vec<f32>>),
    Device(Box<Tensor<1>>),
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
    /// Where what is gathered and summed up lies, where that is not the host's memory.
    device: Option<Device>,
}

/// Every word of a group, on its way.
pub(super) struct Coming(Option<Pending>);

/// Every word of a group, shared by the tensors that are made of them.
pub(super) enum Whole {
    Host(bytes::Bytes),
    Device(Box<Tensor<1>>),
}

impl Coming {
    /// Waits for it; `None` of a group without parameters.
    pub fn wait(self) -> Option<Whole> {
        Some(match self.0?.wait() {
            Flat::Host(words) => Whole::Host(whole(words)),
            Flat::Device(words) => Whole::Device(words),
        })
    }
}

/// Words as bytes that tensors can share.
fn whole(words: Vec<f32>) -> bytes::Bytes {
    struct Words(Vec<f32>);
    impl AsRef<[u8]> for Words {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    bytes::Bytes::from_owner(Words(words))
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
    let bytes = match whole {
        Whole::Host(whole) => bytes_of(layout, entry, whole),
        Whole::Device(whole) => return put_seen(entry, whole, parameter),
    };
    fn tensor<const D: usize>(
        dims: &[usize],
        dtype: DType,
        bytes: bytes::Bytes,
        device: &Device,
    ) -> Tensor<D> {
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

/// What `entry` says of `whole`, in the host's memory.
fn bytes_of(layout: &FlatLayout, entry: &Entry, whole: &bytes::Bytes) -> bytes::Bytes {
    let place = entry.offset * WORD;
    match entry.stored {
        // Codes are taken out of what was gathered: a norm that shares it would keep all of it alive beside them.
        Stored::Float(_) if layout.has_packed => {
            let words = whole[place..place + entry.words() * WORD].as_chunks().0.iter();
            self::whole(words.map(|it| f32::from_ne_bytes(*it)).collect()).slice(..entry.bytes)
        }
        _ => whole.slice(place..place + entry.bytes),
    }
}

/// Has a parameter be what `entry` says of `whole`, whose memory it shares.
fn put_seen(entry: &Entry, whole: &Tensor<1>, parameter: Parameter<'_>) {
    let (begin, dims) = (entry.offset, &entry.dims);
    match (parameter, entry.stored) {
        (Parameter::Vector(to), Stored::Float(dtype)) => *to = seen_as(whole, begin, dims, dtype),
        (Parameter::Matrix(to), Stored::Float(dtype)) => *to = seen_as(whole, begin, dims, dtype),
        _ => unreachable!("what is packed is in the host's memory"),
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

/// The device whose memory what ranks have of `layout` is in, unless it is the host's: that of the model, where nothing is packed and
/// nothing is to be kept in the host's.
fn memory_of(layout: &FlatLayout, (device, offloads): (&Device, bool)) -> Option<Device> {
    let is_there = !layout.entries.is_empty() && !offloads && !layout.has_packed && has_memory(device);
    is_there.then(|| device.clone().inner())
}

/// These words of a parameter, in memory of their own: a view would keep all of it.
fn words_of(parameter: &Parameter<'_>, words: &Range<usize>) -> Tensor<1> {
    let all = match parameter {
        Parameter::Vector(tensor) => self::words((**tensor).clone().inner()),
        Parameter::Matrix(tensor) => self::words((**tensor).clone().inner()),
        Parameter::Packed(_) => unreachable!("what is packed is in the host's memory"),
    };
    let own = Tensor::empty([words.len()], &all.device());
    own.slice_assign(0..words.len(), all.narrow(0, words.start, words.len()))
}

impl Frozen {
    /// This rank's stretch of what `visit_all` visits, all of which is there, on the device or, where that `offloads`, in the host's memory.
    pub fn new(
        layout: FlatLayout,
        rank: usize,
        place: (&Device, bool),
        visit_all: impl FnOnce(&mut dyn FnMut(&str, Parameter<'_>)),
    ) -> Self {
        if let Some(device) = memory_of(&layout, place) {
            let mut pieces = Vec::new();
            visit_stretches(&layout, rank, visit_all, |_, parameter, it| {
                pieces.push((it.offset, words_of(parameter, &it.words)));
            });
            let Flat::Device(own) = Flat::of(pieces, layout.own, Some(&device)) else {
                unreachable!("it is in the device's memory")
            };
            return Self { layout, own: Own::Device(own) };
        }
        let mut own = vec![0.0; layout.own];
        visit_stretches(&layout, rank, visit_all, |_, parameter, it| {
            copy(parameter, it.words.start, &mut own[it.offset..][..it.words.len()]);
        });
        Self { layout, own: Own::Host(Arc::new(own)) }
    }

    /// Begins to gather it.
    pub fn gather(&self, ranks: &Ranks) -> Coming {
        gather(&self.layout, ranks, || match &self.own {
            Own::Host(own) => {
                let mut all = vec![0.0; self.layout.words()];
                all[ranks.global_rank() * own.len()..][..own.len()].copy_from_slice(own);
                Flat::Host(all)
            }
            Own::Device(own) => Flat::Device(own.clone()),
        })
    }
}

impl Piece {
    /// Its values, flat.
    fn flat(&self) -> Tensor<1> {
        match &self.value {
            PieceValue::Vector(it) => it.clone(),
            PieceValue::Matrix(it) => it.clone().flatten(0, 1),
        }
    }
}

impl Trained {
    /// As [`Frozen::new`].
    pub fn new(
        layout: FlatLayout,
        rank: usize,
        place: (&Device, bool),
        visit_all: impl FnOnce(&mut dyn FnMut(&str, Parameter<'_>)),
    ) -> Self {
        let (mut pieces, device) = (Vec::new(), memory_of(&layout, place));
        visit_stretches(&layout, rank, visit_all, |name, parameter, it| {
            let length = it.words.len();
            let values = match &device {
                Some(_) => words_of(parameter, &it.words),
                None => {
                    let mut values = vec![0.0; length];
                    copy(parameter, it.words.start, &mut values);
                    let device = if place.1 { Device::flex() } else { parameter.device().inner() };
                    Tensor::from_data(TensorData::new(values, [length]), &device)
                }
            };
            let value = match parameter {
                Parameter::Vector(_) => PieceValue::Vector(values),
                Parameter::Matrix(_) => PieceValue::Matrix(values.reshape([1, length])),
                Parameter::Packed(_) => unreachable!("{FROZEN}"),
            };
            pieces.push(Piece { name: name.to_string(), begin: it.words.start, offset: it.offset, value });
        });
        Self { layout, pieces, device }
    }

    /// Begins to gather it.
    pub fn gather(&self, ranks: &Ranks) -> Coming {
        gather(&self.layout, ranks, || {
            let FlatLayout { own, .. } = self.layout;
            // In the host's memory those of all ranks have their places.
            let (begin, words) = match &self.device {
                Some(_) => (0, own),
                None => (ranks.global_rank() * own, self.layout.words()),
            };
            let pieces = self.pieces.iter().map(|it| (begin + it.offset, it.flat()));
            Flat::of(pieces, words, self.device.as_ref())
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
    pub fn flat(&self, gradients: Vec<Tensor<1>>) -> Flat {
        let placed = self.layout.entries.iter().map(|it| it.offset).zip(gradients);
        Flat::of(placed, self.layout.words(), self.device.as_ref())
    }

    /// Zeros in place of this rank's stretch.
    pub fn own_zeros(&self) -> Flat {
        match &self.device {
            Some(device) => Flat::Device(Box::new(Tensor::zeros([self.layout.own], device))),
            None => Flat::Host(vec![0.0; self.layout.own]),
        }
    }

    /// What `own`, this rank's stretch of something, has for each piece.
    pub fn cut(&self, own: Flat) -> Vec<Tensor<1>> {
        let Some(first) = self.pieces.first() else { return Vec::new() };
        let places = self.pieces.iter().map(|it| (it.offset, it.flat().dims()[0]));
        own.cut(places, &first.flat().device())
    }
}

/// Begins to gather a group of which this rank has these `words`.
fn gather(layout: &FlatLayout, ranks: &Ranks, words: impl FnOnce() -> Flat) -> Coming {
    let is_there = !layout.entries.is_empty();
    Coming(is_there.then(|| ranks.begin_all_gather(words())))
}
