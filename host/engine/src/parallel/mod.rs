//! Ranks: processes that train one model together.
//!
//! Every rank makes the same calls in the same order. [`Collective`] is what they do together; who does it is another
//! library's business: [`Single`] is a process alone, [`mpi`] whatever MPI the launcher belongs to.
//!
//! What is summed has one result on all ranks, and in one library, on one placement, the same again: a run is repeated bit for bit.

mod flat;
mod functions;
#[cfg(test)]
pub(crate) mod lonely;
pub mod mpi;
pub mod nccl;
mod ordered;
mod ranks;
pub mod watch;

use std::fmt::Debug;

pub use flat::Flat;
pub use ordered::{Ordered, Pending};
pub use ranks::{LAUNCHERS, Merge, Ranks, Turn, launched, open};
pub use watch::{Patience, Vigil};

use crate::device::DeviceMemory;
use crate::error::Result;

/// What ranks do together.
pub trait Collective: Debug + Send + Sync {
    /// What does it, for a person: `Open MPI v4.1.4`.
    fn name(&self) -> String;

    /// This process, from 0 to [`Collective::size`].
    fn global_rank(&self) -> usize;

    /// This process among those of its machine.
    fn local_rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Waits for all.
    ///
    /// # Errors
    /// A rank that can't be reached; so do all that follow.
    fn barrier(&self) -> Result<()>;

    /// Has `bytes` be those of `root` everywhere; they are as long on every rank.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<()>;

    /// Has `all` hold every rank's part, in the order of ranks; each comes with its own in its place. Parts are of one length.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    fn all_gather(&self, all: &mut [u8]) -> Result<()>;

    /// Has `values` be the sums of those of all ranks.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    fn all_reduce(&self, values: &mut [f32]) -> Result<()>;

    /// Has `own` be this rank's part of the sums of all ranks' `all`, which is as many parts of one length.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    fn reduce_scatter(&self, all: &[f32], own: &mut [f32]) -> Result<()>;

    /// The ranks that call it with the same `group`, in their order: what they do together concerns no others.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    fn split(&self, group: usize) -> Result<Box<dyn Collective>>;

    /// What does the same in the memory of devices, where something does.
    fn on_device(&self) -> Option<&dyn OnDevice> {
        None
    }

    /// Ends every rank: this one can't go on, and the others would wait for it.
    fn abort(&self, code: i32) -> !;
}

/// What ranks do together in the memory of their devices: it is done when a call comes back, and what the device was to compute
/// before it is whoever calls to see to.
pub trait OnDevice: Debug + Send + Sync {
    /// As [`Collective::all_gather`], from `own` to `all`.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    fn all_gather(&self, own: &DeviceMemory, all: &DeviceMemory) -> Result<()>;

    /// As [`Collective::all_reduce`], from `values` to `sums`.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    fn all_reduce(&self, values: &DeviceMemory, sums: &DeviceMemory) -> Result<()>;

    /// As [`Collective::reduce_scatter`], from `all` to `own`.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    fn reduce_scatter(&self, all: &DeviceMemory, own: &DeviceMemory) -> Result<()>;
}

/// A process alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Single;

impl Collective for Single {
    fn name(&self) -> String {
        "one process".to_string()
    }

    fn global_rank(&self) -> usize {
        0
    }

    fn local_rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, _: &mut [u8], _: usize) -> Result<()> {
        Ok(())
    }

    fn all_gather(&self, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    fn all_reduce(&self, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn reduce_scatter(&self, all: &[f32], own: &mut [f32]) -> Result<()> {
        own.copy_from_slice(all);
        Ok(())
    }

    fn split(&self, _: usize) -> Result<Box<dyn Collective>> {
        Ok(Box::new(Self))
    }

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}
