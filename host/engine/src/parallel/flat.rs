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

/// Pieces, each with the word that it begins at, as one tensor of `words` words; what is between them is zero.
///
/// # Shapes
/// - pieces: `[length]`, in their order, none over another; result: `[words]`
pub(crate) fn joined(
    pieces: impl IntoIterator<Item = (usize, Tensor<1>)>,
    words: usize,
    device: &Device,
) -> Tensor<1> {
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
    /// Has every rank's words, in the order of ranks, from this one's own. Those in the host's memory are all of them already, with this
    /// rank's in their place.
    pub(super) fn all_gather(self, ranks: &dyn Collective) -> Result<Self> {
        match self {
            Self::Host(mut all) => {
                ranks.all_gather(bytemuck::cast_slice_mut(&mut all))?;
                Ok(Self::Host(all))
            }
            Self::Device(own) => {
                let ([length], device) = (own.dims(), own.device());
                if let Some(on) = on_device(ranks, &device) {
                    let all = Tensor::<1>::empty([length * ranks.size()], &device);
                    on.all_gather(&memory(&own)?, &memory(&all)?)?;
                    return Ok(Self::Device(Box::new(all)));
                }
                let mut all = vec![0.0; length * ranks.size()];
                all[ranks.global_rank() * length..][..length].copy_from_slice(&values(*own));
                ranks.all_gather(bytemuck::cast_slice_mut(&mut all))?;
                Ok(Self::Device(Box::new(on(&device, all))))
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
                let ([length], device) = (all.dims(), all.device());
                if let Some(on) = on_device(ranks, &device) {
                    let own = Tensor::<1>::empty([length / ranks.size()], &device);
                    on.reduce_scatter(&memory(&all)?, &memory(&own)?)?;
                    return Ok(Self::Device(Box::new(own)));
                }
                Ok(Self::Device(Box::new(on(&device, in_hosts(values(*all))?))))
            }
        }
    }

    /// Has the sums of all ranks'.
    pub(super) fn all_reduce(self, ranks: &dyn Collective) -> Result<Self> {
        match self {
            Self::Host(mut values) => {
                ranks.all_reduce(&mut values)?;
                Ok(Self::Host(values))
            }
            Self::Device(tensor) => {
                let device = tensor.device();
                if let Some(on) = on_device(ranks, &device) {
                    let sums = Tensor::<1>::empty(tensor.dims(), &device);
                    on.all_reduce(&memory(&tensor)?, &memory(&sums)?)?;
                    return Ok(Self::Device(Box::new(sums)));
                }
                let mut values = values(*tensor);
                ranks.all_reduce(&mut values)?;
                Ok(Self::Device(Box::new(on(&device, values))))
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

/// Who does things in the memory of `device`, where somebody does.
pub(super) fn on_device<'a>(ranks: &'a dyn Collective, device: &Device) -> Option<&'a dyn OnDevice> {
    ranks.on_device().filter(|_| has_memory(device))
}

fn memory(tensor: &Tensor<1>) -> Result<DeviceMemory> {
    DeviceMemory::of(tensor.clone())
}

fn values(tensor: Tensor<1>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().expect("words are read as f32")
}

fn on(device: &Device, values: Vec<f32>) -> Tensor<1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
