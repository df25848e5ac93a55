//! Values of several tensors, one behind the other, on their way between ranks: in the host's memory, or in a device's.

use burn::tensor::{Device, Tensor, TensorData};

use super::{Collective, OnDevice};
use crate::device::{DeviceMemory, has_memory};
use crate::error::Result;

/// Words of 4 bytes, which are f32 where they are summed up.
#[derive(Debug, Clone)]
pub enum Flat {
    /// In the host's memory.
    Host(Vec<f32>),
    /// In a device's: `[words]`, contiguous, without a graph.
    Device(Box<Tensor<1>>),
}

/// As [`Flat::of`], in the memory of `device`.
fn joined(pieces: impl IntoIterator<Item = (usize, Tensor<1>)>, words: usize, device: &Device) -> Tensor<1> {
    let (mut all, mut end) = (Vec::new(), 0);
    let zeros = |length: usize| Tensor::zeros([length], device);
    for (begin, piece) in pieces {
        if begin > end {
            all.push(zeros(begin - end));
        }
        end = begin + piece.dims()[0];
        all.push(piece);
    }
    if words > end {
        all.push(zeros(words - end));
    }
    if all.len() == 1 { all.remove(0) } else { Tensor::cat(all, 0) }
}

impl Flat {
    /// Pieces, each with the word that it begins at, in so many `words`; what is between them is zero. In the memory of `device`, or
    /// in the host's.
    ///
    /// # Shapes
    /// - pieces: `[length]`, f32, in their order, none over another
    pub(crate) fn of(
        pieces: impl IntoIterator<Item = (usize, Tensor<1>)>,
        words: usize,
        device: Option<&Device>,
    ) -> Self {
        if let Some(device) = device {
            return Self::Device(Box::new(joined(pieces, words, device)));
        }
        let mut all = Vec::new();
        for (begin, piece) in pieces {
            let data = piece.into_data();
            // One that is all there is keeps its memory.
            if all.is_empty() && data.num_elements() == words {
                return Self::Host(data.try_into_vec::<f32>().expect("words are f32"));
            }
            all.resize(words, 0.0);
            let values = data.as_slice::<f32>().expect("words are f32");
            all[begin..][..values.len()].copy_from_slice(values);
        }
        all.resize(words, 0.0);
        Self::Host(all)
    }

    /// What lies at these places, each a word that it begins at and its length; what is in the host's memory comes to `device`.
    ///
    /// # Shapes
    /// - result: `[length]` each
    pub(crate) fn cut(
        self,
        places: impl IntoIterator<Item = (usize, usize)>,
        device: &Device,
    ) -> Vec<Tensor<1>> {
        let places = places.into_iter();
        match self {
            Self::Device(all) => {
                places.map(|(begin, length)| (*all).clone().narrow(0, begin, length)).collect()
            }
            Self::Host(mut all) => {
                let words = all.len();
                let cut = |(begin, length): (usize, usize)| match length == words {
                    true => std::mem::take(&mut all),
                    false => all[begin..][..length].to_vec(),
                };
                places.map(cut).map(|it| on(device, it)).collect()
            }
        }
    }

    /// Has every rank's words, in the order of ranks, from this one's own. Those in the host's memory are all of them already, with this
    /// rank's in their place.
    pub(super) fn all_gather(self, ranks: &dyn Collective) -> Result<Self> {
        let in_hosts = |mut all: Vec<f32>| {
            ranks.all_gather(bytemuck::cast_slice_mut(&mut all))?;
            Ok(all)
        };
        let from_own = |own: Vec<f32>| {
            let mut all = vec![0.0; own.len() * ranks.size()];
            all[ranks.global_rank() * own.len()..][..own.len()].copy_from_slice(&own);
            in_hosts(all)
        };
        match self {
            Self::Host(all) => Ok(Self::Host(in_hosts(all)?)),
            Self::Device(own) => {
                let words = own.dims()[0] * ranks.size();
                in_device(&own, ranks, words, |on, from, to| on.all_gather(from, to), from_own)
            }
        }
    }

    /// Has this rank's part of the sums of all ranks'.
    pub(super) fn reduce_scatter(self, ranks: &dyn Collective) -> Result<Self> {
        let in_hosts = |all: Vec<f32>| {
            let mut own = vec![0.0; all.len() / ranks.size()];
            ranks.reduce_scatter(&all, &mut own).map(|()| own)
        };
        match self {
            Self::Host(all) => Ok(Self::Host(in_hosts(all)?)),
            Self::Device(all) => {
                let words = all.dims()[0] / ranks.size();
                in_device(&all, ranks, words, |on, from, to| on.reduce_scatter(from, to), in_hosts)
            }
        }
    }

    /// Has the sums of all ranks'.
    pub(super) fn all_reduce(self, ranks: &dyn Collective) -> Result<Self> {
        let in_hosts = |mut values: Vec<f32>| ranks.all_reduce(&mut values).map(|()| values);
        match self {
            Self::Host(values) => Ok(Self::Host(in_hosts(values)?)),
            Self::Device(values) => {
                let words = values.dims()[0];
                in_device(&values, ranks, words, |on, from, to| on.all_reduce(from, to), in_hosts)
            }
        }
    }

    /// Adds what `other` holds, which is as long and in the same memory.
    pub(crate) fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Host(sums), Self::Host(other)) => {
                sums.iter_mut().zip(other).for_each(|(sum, it)| *sum += it)
            }
            (Self::Device(sums), Self::Device(other)) => **sums = (**sums).clone() + *other,
            _ => unreachable!("stretches of a part are in one memory"),
        }
    }
}

/// What ranks make of `tensor`, so many `words` in the same memory: where their devices don't do it, their hosts do.
fn in_device(
    tensor: &Tensor<1>,
    ranks: &dyn Collective,
    words: usize,
    by_devices: impl FnOnce(&dyn OnDevice, &DeviceMemory, &DeviceMemory) -> Result<()>,
    in_hosts: impl FnOnce(Vec<f32>) -> Result<Vec<f32>>,
) -> Result<Flat> {
    let device = tensor.device();
    let found = match on_device(ranks, &device) {
        Some(devices) => {
            let found = Tensor::<1>::empty([words], &device);
            let memory = |it: &Tensor<1>| DeviceMemory::of(it.clone());
            by_devices(devices, &memory(tensor)?, &memory(&found)?)?;
            found
        }
        None => {
            let values = tensor.clone().try_into_vec_as::<f32>().expect("words are read as f32");
            on(&device, in_hosts(values)?)
        }
    };
    Ok(Flat::Device(Box::new(found)))
}

/// Who does things in the memory of `device`, where somebody does.
pub(super) fn on_device<'a>(ranks: &'a dyn Collective, device: &Device) -> Option<&'a dyn OnDevice> {
    ranks.on_device().filter(|_| has_memory(device))
}

fn on(device: &Device, values: Vec<f32>) -> Tensor<1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
