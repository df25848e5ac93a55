//! NCCL, loaded at run time: what ranks with a GPU each do together in the memory of their devices.
//!
//! Under a launcher with MPI that has the host's memory and all control, and hands over the id by which ranks of NCCL find each
//! other. Under `torchrun` there is no MPI: the id is made of `MASTER_ADDR` and `MASTER_PORT`, and what lies in the host's memory
//! goes through the device's.

mod driver;
mod library;

use std::env;
use std::sync::{Arc, Mutex, PoisonError};

use driver::Driver;
use library::{Comm, ID, Library, UniqueId};

use super::{Collective, OnDevice};
use crate::device::DeviceMemory;
use crate::error::{EngineError, Result};

/// The path of the library to load, in place of the one that is looked for.
pub const LIBRARY: &str = "FTHOST_NCCL_LIBRARY";
/// By which NCCL makes the same id in every process.
const COMM_ID: &str = "NCCL_COMM_ID";
/// Bytes of the device's memory that what comes from the host goes through.
const STAGED: usize = 64 << 20;

/// Library, device and what is lent of its memory.
#[derive(Debug)]
struct Opened {
    library: Library,
    driver: Driver,
    /// One call at a time; where what comes from the host lies, once something has come.
    staged: Mutex<Option<u64>>,
}

/// Ranks of NCCL: all of them, or a part.
#[derive(Debug)]
pub struct Nccl {
    opened: Arc<Opened>,
    comm: Comm,
    rank: usize,
    local_rank: usize,
    size: usize,
    /// Who has what lies in the host's memory; without one it goes through the device's.
    hosts: Option<Box<dyn Collective>>,
}

impl Opened {
    fn open(local_rank: usize) -> Result<Self> {
        let name = env::var(LIBRARY).unwrap_or_else(|_| "libnccl.so.2".to_string());
        let library = Library::load(&name);
        let library = library.map_err(|reason| EngineError::NoNccl { name, reason })?;
        Ok(Self { library, driver: Driver::open(local_rank)?, staged: Mutex::default() })
    }

    fn join(self, id: UniqueId, rank: usize, size: usize) -> Result<(Arc<Self>, Comm)> {
        let comm = self.library.join(id, rank, size)?;
        Ok((Arc::new(self), comm))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(at) = self.staged.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            self.driver.free(at);
        }
    }
}

impl Nccl {
    /// The ranks of `hosts`, each with the device that is at its place on its machine.
    ///
    /// # Errors
    /// No NCCL or no device, on any rank; ranks that do not find each other.
    pub fn over(hosts: impl Collective + 'static) -> Result<Self> {
        let (rank, local_rank, size) = (hosts.global_rank(), hosts.local_rank(), hosts.size());
        let opened = Opened::open(local_rank);
        let id = match &opened {
            Ok(it) if rank == 0 => it.library.unique_id(),
            _ => Ok(UniqueId([0; ID])),
        };
        // Who can't go on says so before the others wait for it.
        let mut failed = vec![0; size];
        failed[rank] = u8::from(opened.is_err() || id.is_err());
        hosts.all_gather(&mut failed)?;
        let (opened, mut id) = (opened?, id?);
        if let Some(rank) = failed.iter().position(|it| *it == 1) {
            return Err(EngineError::NoNccl {
                name: "NCCL".into(),
                reason: format!("rank {rank} has none, or no device"),
            });
        }
        hosts.broadcast(&mut id.0, 0)?;
        let (opened, comm) = opened.join(id, rank, size)?;
        Ok(Self { opened, comm, rank, local_rank, size, hosts: Some(Box::new(hosts)) })
    }

    /// The ranks that `torchrun`, or whoever sets its variables, has started.
    ///
    /// # Errors
    /// A variable that is missing or no number; no NCCL or no device; ranks that do not find each other.
    pub fn by_environment() -> Result<Self> {
        let said = |key: &'static str| env::var(key).map_err(|_| EngineError::LaunchVariable { key });
        let number = |key| said(key)?.parse::<usize>().map_err(|_| EngineError::LaunchVariable { key });
        let (rank, local_rank, size) = (number("RANK")?, number("LOCAL_RANK")?, number("WORLD_SIZE")?);
        if env::var_os(COMM_ID).is_none() {
            let (address, port) = (said("MASTER_ADDR")?, number("MASTER_PORT")?);
            let is_v6 = address.contains(':') && !address.starts_with('[');
            let address = if is_v6 { format!("[{address}]") } else { address };
            // torchrun itself listens at its port.
            library::set_variable(COMM_ID, &format!("{address}:{}", port + 1));
        }
        let opened = Opened::open(local_rank)?;
        let id = opened.library.unique_id()?;
        let (opened, comm) = opened.join(id, rank, size)?;
        Ok(Self { opened, comm, rank, local_rank, size, hosts: None })
    }

    /// Does `call` on the device, and waits until it is done.
    fn on_stream(&self, call: impl FnOnce(&Opened, &mut Option<u64>) -> Result<()>) -> Result<()> {
        let mut staged = self.opened.staged.lock().unwrap_or_else(PoisonError::into_inner);
        self.opened.driver.enter()?;
        let done = call(&self.opened, &mut staged);
        // Of a call that failed, too: what was begun before it may still write.
        let waited = self.opened.driver.wait();
        done.and(waited)
    }

    /// As [`Nccl::on_stream`], for `length` bytes of each of `parts` parts, as many at a time as there is room for: `call` is told which,
    /// and where they may lie.
    fn staged(
        &self,
        length: usize,
        parts: usize,
        mut call: impl FnMut(&Opened, std::ops::Range<usize>, u64) -> Result<()>,
    ) -> Result<()> {
        // Whole values, whose beginnings are at a multiple of what devices copy at a time.
        let most = (STAGED / parts / 256).max(1) * 256;
        self.on_stream(|opened, staged| {
            let at = match staged {
                Some(at) => *at,
                None => *staged.insert(opened.driver.memory(STAGED.max(parts * 256))?),
            };
            for begin in (0..length).step_by(most) {
                call(opened, begin..length.min(begin + most), at)?;
                // The next ones lie in the same place.
                opened.driver.wait()?;
            }
            Ok(())
        })
    }

    fn on(&self) -> (Comm, driver::Stream) {
        (self.comm, self.opened.driver.stream)
    }
}

impl Collective for Nccl {
    fn name(&self) -> String {
        let nccl = format!("NCCL {}", self.opened.library.version());
        self.hosts.as_ref().map_or(nccl.clone(), |it| format!("{nccl} and {}", it.name()))
    }

    fn global_rank(&self) -> usize {
        self.rank
    }

    fn local_rank(&self) -> usize {
        self.local_rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn barrier(&self) -> Result<()> {
        match &self.hosts {
            Some(hosts) => hosts.barrier(),
            None => Collective::all_reduce(self, &mut [0.0]),
        }
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<()> {
        if let Some(hosts) = &self.hosts {
            return hosts.broadcast(bytes, root);
        }
        self.staged(bytes.len(), 1, |opened, part, at| {
            let part = &mut bytes[part];
            opened.driver.send(part, at)?;
            opened.library.broadcast(self.on(), at, part.len(), root)?;
            opened.driver.fetch(at, part)
        })
    }

    fn all_gather(&self, all: &mut [u8]) -> Result<()> {
        if let Some(hosts) = &self.hosts {
            return hosts.all_gather(all);
        }
        let length = all.len() / self.size;
        self.staged(length, self.size, |opened, part, at| {
            let (count, own) = (part.len(), at + (self.rank * part.len()) as u64);
            opened.driver.send(&all[self.rank * length..][part.clone()], own)?;
            opened.library.all_gather(self.on(), own, at, count)?;
            let mut places = all.chunks_exact_mut(length).enumerate();
            places.try_for_each(|(rank, it)| {
                opened.driver.fetch(at + (rank * count) as u64, &mut it[part.clone()])
            })
        })
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        if let Some(hosts) = &self.hosts {
            return hosts.all_reduce(values);
        }
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
        self.staged(bytes.len(), 1, |opened, part, at| {
            let part = &mut bytes[part];
            opened.driver.send(part, at)?;
            opened.library.all_reduce(self.on(), at, at, part.len() / size_of::<f32>())?;
            opened.driver.fetch(at, part)
        })
    }

    fn reduce_scatter(&self, all: &[f32], own: &mut [f32]) -> Result<()> {
        if let Some(hosts) = &self.hosts {
            return hosts.reduce_scatter(all, own);
        }
        let (all, own): (&[u8], &mut [u8]) = (bytemuck::cast_slice(all), bytemuck::cast_slice_mut(own));
        self.staged(own.len(), self.size, |opened, part, at| {
            let count = part.len();
            for (rank, it) in all.chunks_exact(own.len()).enumerate() {
                opened.driver.send(&it[part.clone()], at + (rank * count) as u64)?;
            }
            let to = at + (self.rank * count) as u64;
            opened.library.reduce_scatter(self.on(), at, to, count / size_of::<f32>())?;
            opened.driver.fetch(to, &mut own[part])
        })
    }

    fn split(&self, group: usize) -> Result<Box<dyn Collective>> {
        let hosts = self.hosts.as_ref().map(|it| it.split(group)).transpose()?;
        let comm = {
            let _turn = self.opened.staged.lock().unwrap_or_else(PoisonError::into_inner);
            self.opened.driver.enter()?;
            self.opened.library.split(self.comm, group, self.rank)?
        };
        let mut part = Self { opened: Arc::clone(&self.opened), comm, rank: 0, size: 1, hosts, ..*self };
        (part.rank, part.size) = part.opened.library.place(comm)?;
        Ok(Box::new(part))
    }

    fn on_device(&self) -> Option<&dyn OnDevice> {
        Some(self)
    }

    fn abort(&self, code: i32) -> ! {
        match &self.hosts {
            Some(hosts) => hosts.abort(code),
            // Its launcher ends the others.
            None => std::process::exit(code),
        }
    }
}

impl OnDevice for Nccl {
    fn all_gather(&self, own: &DeviceMemory, all: &DeviceMemory) -> Result<()> {
        assert_eq!(own.bytes() * self.size, all.bytes(), "one part a rank");
        self.on_stream(|it, _| it.library.all_gather(self.on(), own.address(), all.address(), own.bytes()))
    }

    fn all_reduce(&self, values: &DeviceMemory, sums: &DeviceMemory) -> Result<()> {
        assert_eq!(values.bytes(), sums.bytes(), "one sum a value");
        let count = values.bytes() / size_of::<f32>();
        self.on_stream(|it, _| it.library.all_reduce(self.on(), values.address(), sums.address(), count))
    }

    fn reduce_scatter(&self, all: &DeviceMemory, own: &DeviceMemory) -> Result<()> {
        assert_eq!(own.bytes() * self.size, all.bytes(), "one part a rank");
        let count = own.bytes() / size_of::<f32>();
        self.on_stream(|it, _| it.library.reduce_scatter(self.on(), all.address(), own.address(), count))
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        // Of a rank that panics others may wait in it.
        if !std::thread::panicking() && self.opened.driver.enter().is_ok() {
            self.opened.library.abort(self.comm);
        }
    }
}
