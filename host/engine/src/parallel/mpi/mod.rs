//! MPI, loaded at run time: the program is linked to none and runs under whichever the launcher belongs to.
//!
//! Counts are C's `int`: what is larger goes in parts. Sums are of f32, since MPI has no type of half the width.

mod abi;
mod library;

use std::env;
use std::ffi::c_int;
use std::sync::{Arc, Mutex};

use abi::Handle;
use library::Library;

use super::Collective;
use crate::error::{EngineError, Result};

/// The path of the library to load, before those that are looked for.
pub const LIBRARY: &str = "FTHOST_MPI_LIBRARY";

/// Values in one message at most.
const MOST: usize = 1 << 28;

/// MPI, initialised: there can be one in a process. It is finalised when the last that has it lets go.
#[derive(Debug)]
struct World {
    library: Library,
    /// MPI is asked by one thread at a time.
    turn: Mutex<()>,
}

/// Ranks of MPI: all of them, or a part.
#[derive(Debug)]
pub struct Mpi {
    world: Arc<World>,
    communicator: Handle,
    rank: usize,
    local_rank: usize,
    size: usize,
    most: usize,
}

/// Names of libraries, those of the launcher's own kind first.
fn candidates() -> Vec<String> {
    if let Some(named) = env::var_os(LIBRARY) {
        return vec![named.to_string_lossy().into_owned()];
    }
    let (standard, mpich, open_mpi) =
        (["libmpi_abi.so.1"], ["libmpi.so.12", "libmpich.so.12", "libmpi_gnu.so.12"], ["libmpi.so.40"]);
    let is_open_mpi = env::var_os("OMPI_COMM_WORLD_SIZE").is_some();
    let all: Vec<&str> = match is_open_mpi {
        true => open_mpi.iter().chain(&standard).chain(&mpich).copied().collect(),
        false => standard.iter().chain(&mpich).chain(&open_mpi).copied().collect(),
    };
    all.into_iter().map(String::from).collect()
}

impl Mpi {
    /// Loads the first of the libraries that is there and initialises it.
    ///
    /// # Errors
    /// None is there, or it refuses.
    pub fn open() -> Result<Self> {
        let mut tried = Vec::new();
        for name in candidates() {
            match Library::load(&name) {
                Ok(library) => return Self::initialised(library),
                Err(reason) => tried.push(format!("{name}: {reason}")),
            }
        }
        Err(EngineError::NoMpi { tried })
    }

    fn initialised(library: Library) -> Result<Self> {
        library.initialise()?;
        let (all, number) = (library.constants.world, |it: c_int| usize::try_from(it).unwrap_or_default());
        let rank = number(library.rank(all)?);
        let size = number(library.size(all)?);
        let local_rank = number(library.rank(library.machine()?)?);
        let world = Arc::new(World { library, turn: Mutex::new(()) });
        Ok(Self { world, communicator: all, rank, local_rank, size, most: MOST })
    }

    /// With so many values in a message at most.
    #[must_use]
    pub fn with_most(mut self, most: usize) -> Self {
        self.most = most.max(1);
        self
    }

    /// Calls `function` of the library, one at a time.
    fn call(&self, call: &'static str, function: impl FnOnce(&Library, Handle) -> c_int) -> Result<()> {
        let World { library, turn } = &*self.world;
        let _turn = turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let code = function(library, self.communicator);
        library.check(call, code).map_err(|error| self.of_rank(error))
    }

    fn of_rank(&self, error: EngineError) -> EngineError {
        match error {
            EngineError::Mpi { call, reason, .. } => EngineError::Mpi { call, reason, rank: Some(self.rank) },
            error => error,
        }
    }

    fn send_all(&self, bytes: &mut [u8], root: usize) -> Result<()> {
        for part in bytes.chunks_mut(self.most) {
            self.call("MPI_Bcast", |it, on| it.broadcast(on, part, root))?;
        }
        Ok(())
    }
}

impl Collective for Mpi {
    fn name(&self) -> String {
        self.world.library.version()
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
        self.call("MPI_Barrier", Library::barrier)
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<()> {
        assert!(root < self.size, "rank {root} of {}", self.size);
        self.send_all(bytes, root)
    }

    fn all_gather(&self, all: &mut [u8]) -> Result<()> {
        assert!(all.len().is_multiple_of(self.size), "one part a rank");
        let length = all.len() / self.size;
        if length == 0 {
            return Ok(());
        }
        // Some libraries count what all have together in an `int`, too.
        let count = if length.is_multiple_of(size_of::<f32>()) { length / size_of::<f32>() } else { length };
        if count <= (self.most / self.size).max(1) {
            return self.call("MPI_Allgather", |it, on| it.all_gather(on, length, all));
        }
        // Parts of a part lie apart, and MPI says how far in an `int`, too: each rank sends its own, one after the other.
        all.chunks_exact_mut(length).enumerate().try_for_each(|(root, of_rank)| self.send_all(of_rank, root))
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        for part in values.chunks_mut(self.most) {
            self.call("MPI_Allreduce", |it, on| it.all_reduce(on, part))?;
        }
        Ok(())
    }

    fn reduce_scatter(&self, all: &[f32], own: &mut [f32]) -> Result<()> {
        let length = own.len();
        assert_eq!(length * self.size, all.len(), "one part a rank");
        if length == 0 {
            return Ok(());
        }
        let most = (self.most / self.size).max(1);
        if length <= most {
            return self.call("MPI_Reduce_scatter_block", |it, on| it.reduce_scatter(on, all, own));
        }
        let mut parts = Vec::with_capacity(most * self.size);
        for first in (0..length).step_by(most) {
            let some = most.min(length - first);
            parts.clear();
            all.chunks_exact(length).for_each(|it| parts.extend_from_slice(&it[first..][..some]));
            self.call("MPI_Reduce_scatter_block", |it, on| {
                it.reduce_scatter(on, &parts, &mut own[first..][..some])
            })?;
        }
        Ok(())
    }

    fn split(&self, group: usize) -> Result<Box<dyn Collective>> {
        let library = &self.world.library;
        let communicator = library.split(self.communicator, group, self.rank)?;
        let number = |it: c_int| usize::try_from(it).unwrap_or_default();
        let (rank, size) = (number(library.rank(communicator)?), number(library.size(communicator)?));
        let (world, local_rank, most) = (Arc::clone(&self.world), self.local_rank, self.most);
        Ok(Box::new(Self { world, communicator, rank, local_rank, size, most }))
    }

    fn abort(&self, code: i32) -> ! {
        // Without a turn: a call that hangs may have it.
        self.world.library.abort(code);
        std::process::exit(code)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A rank that panics must not wait for the others, who wait for it: its end is the launcher's business.
        if !std::thread::panicking() {
            self.library.finalise();
        }
    }
}
