//! The functions of NCCL.
//!
//! `unsafe` here: loading it and calling into it. Addresses are of memory that the device can reach; who gives them holds it.

use std::ffi::{CStr, c_char, c_int, c_void};

use libloading::os::unix::{Library as Loaded, RTLD_NOW};

use super::driver::Stream;
use crate::error::{EngineError, Result};
use crate::parallel::functions::functions;

/// Bytes of an id, `NCCL_UNIQUE_ID_BYTES`.
pub(super) const ID: usize = 128;
/// `ncclUint8`, `ncclFloat32`, `ncclSum` of `nccl.h`.
const BYTE: c_int = 1;
const FLOAT: c_int = 7;
const SUM: c_int = 0;
/// The first version with `ncclCommSplit`, as `ncclGetVersion` has it.
const OLDEST: c_int = 21804;

/// `ncclUniqueId`, which is handed over whole.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct UniqueId(pub(super) [u8; ID]);

/// `ncclComm_t`.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(super) struct Comm(*mut c_void);

// SAFETY: NCCL takes a communicator from any thread, from one at a time; callers see to that.
unsafe impl Send for Comm {}
// SAFETY: as above.
unsafe impl Sync for Comm {}

// As `nccl.h` has them since 2.18.
functions! {
    get_version = "ncclGetVersion": fn(*mut c_int);
    get_unique_id = "ncclGetUniqueId": fn(*mut UniqueId);
    comm_init_rank = "ncclCommInitRank": fn(*mut Comm, c_int, UniqueId, c_int);
    comm_split = "ncclCommSplit": fn(Comm, c_int, c_int, *mut Comm, *mut c_void);
    comm_abort = "ncclCommAbort": fn(Comm);
    comm_count = "ncclCommCount": fn(Comm, *mut c_int);
    comm_user_rank = "ncclCommUserRank": fn(Comm, *mut c_int);
    broadcast = "ncclBroadcast": fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, Stream);
    all_gather = "ncclAllGather": fn(*const c_void, *mut c_void, usize, c_int, Comm, Stream);
    all_reduce = "ncclAllReduce": fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, Stream);
    get_last_error = "ncclGetLastError": fn(Comm) -> *const c_char;
    get_error_string = "ncclGetErrorString": fn(c_int) -> *const c_char;
    reduce_scatter = "ncclReduceScatter": fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, Stream);
}

/// A library that is loaded.
#[derive(Debug)]
pub(super) struct Library {
    functions: Functions,
    version: c_int,
    /// What the functions are in.
    _loaded: Loaded,
}

impl Library {
    /// Loads the library `name`; gives why it can't be.
    pub(super) fn load(name: &str) -> std::result::Result<Self, String> {
        // SAFETY: initialisers of NCCL ask nothing of whoever loads it.
        let loaded = unsafe { Loaded::open(Some(name), RTLD_NOW) }.map_err(|it| it.to_string())?;
        let functions = Functions::of(&loaded).map_err(|it| it.to_string())?;
        let mut version = 0;
        // SAFETY: a place for the number.
        let code = unsafe { (functions.get_version)(&raw mut version) };
        if code != 0 || version < OLDEST {
            return Err(format!("its version is {version}, needed is {OLDEST} or later"));
        }
        Ok(Self { functions, version, _loaded: loaded })
    }

    /// `2.27.3`.
    pub(super) fn version(&self) -> String {
        let version = self.version;
        format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
    }

    /// What a communicator's ranks have in common.
    pub(super) fn unique_id(&self) -> Result<UniqueId> {
        let mut id = UniqueId([0; ID]);
        // SAFETY: a place for the id.
        let code = unsafe { (self.functions.get_unique_id)(&raw mut id) };
        self.check("ncclGetUniqueId", None, code).map(|()| id)
    }

    /// Joins the ranks of `id`, on the device that is this thread's.
    pub(super) fn join(&self, id: UniqueId, rank: usize, size: usize) -> Result<Comm> {
        let mut comm = Comm(std::ptr::null_mut());
        // SAFETY: a place for the communicator.
        let code = unsafe { (self.functions.comm_init_rank)(&raw mut comm, int(size), id, int(rank)) };
        self.check("ncclCommInitRank", None, code).map(|()| comm)
    }

    /// The ranks of `of` that say the same `group`.
    pub(super) fn split(&self, of: Comm, group: usize, rank: usize) -> Result<Comm> {
        let (mut part, as_it_is) = (Comm(std::ptr::null_mut()), std::ptr::null_mut());
        // SAFETY: a communicator of this library and a place for another.
        let code = unsafe { (self.functions.comm_split)(of, int(group), int(rank), &raw mut part, as_it_is) };
        self.check("ncclCommSplit", Some(of), code).map(|()| part)
    }

    /// Lets go of a communicator, without its other ranks: they may wait in it for one that has failed.
    pub(super) fn abort(&self, comm: Comm) {
        // SAFETY: nobody has it any more. There is nobody left to tell of an error.
        let _ = unsafe { (self.functions.comm_abort)(comm) };
    }

    /// This process's rank in a communicator, and how many there are.
    pub(super) fn place(&self, of: Comm) -> Result<(usize, usize)> {
        let (mut rank, mut size) = (0, 0);
        // SAFETY: a communicator of this library and places for the numbers.
        let codes = unsafe {
            [
                (self.functions.comm_user_rank)(of, &raw mut rank),
                (self.functions.comm_count)(of, &raw mut size),
            ]
        };
        self.check("ncclCommUserRank", Some(of), codes[0])?;
        self.check("ncclCommCount", Some(of), codes[1])?;
        let number = |it: c_int| usize::try_from(it).unwrap_or_default();
        Ok((number(rank), number(size)))
    }

    /// `bytes` at an address are those of `root`.
    pub(super) fn broadcast(&self, on: (Comm, Stream), at: u64, bytes: usize, root: usize) -> Result<()> {
        let (comm, stream) = on;
        // SAFETY: as the file's head says; in place.
        let code = unsafe {
            (self.functions.broadcast)(address(at), address(at), bytes, BYTE, int(root), comm, stream)
        };
        self.check("ncclBroadcast", Some(comm), code)
    }

    /// `bytes` of each rank, one after the other, to `to`.
    pub(super) fn all_gather(&self, on: (Comm, Stream), from: u64, to: u64, bytes: usize) -> Result<()> {
        let (comm, stream) = on;
        // SAFETY: as the file's head says.
        let code =
            unsafe { (self.functions.all_gather)(address(from), address(to), bytes, BYTE, comm, stream) };
        self.check("ncclAllGather", Some(comm), code)
    }

    /// Sums of `count` values.
    pub(super) fn all_reduce(&self, on: (Comm, Stream), from: u64, to: u64, count: usize) -> Result<()> {
        let (comm, stream) = on;
        // SAFETY: as the file's head says.
        let code = unsafe {
            (self.functions.all_reduce)(address(from), address(to), count, FLOAT, SUM, comm, stream)
        };
        self.check("ncclAllReduce", Some(comm), code)
    }

    /// This rank's `count` of the sums.
    pub(super) fn reduce_scatter(&self, on: (Comm, Stream), from: u64, to: u64, count: usize) -> Result<()> {
        let (comm, stream) = on;
        // SAFETY: as the file's head says.
        let code = unsafe {
            (self.functions.reduce_scatter)(address(from), address(to), count, FLOAT, SUM, comm, stream)
        };
        self.check("ncclReduceScatter", Some(comm), code)
    }

    /// The error of a `call` that returned `code`, in the library's words.
    fn check(&self, call: &'static str, comm: Option<Comm>, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let comm = comm.unwrap_or(Comm(std::ptr::null_mut()));
        // SAFETY: both give texts of the library's own, or null.
        let (what, last) = unsafe {
            (text((self.functions.get_error_string)(code)), text((self.functions.get_last_error)(comm)))
        };
        let reason = if last.is_empty() { what } else { format!("{what}: {last}") };
        Err(EngineError::Nccl { call, reason })
    }
}

/// # Safety
/// Null, or a text that ends.
unsafe fn text(at: *const c_char) -> String {
    if at.is_null() {
        return String::new();
    }
    // SAFETY: as is asked.
    unsafe { CStr::from_ptr(at) }.to_string_lossy().trim().to_string()
}

/// Sets a variable of this process that NCCL reads.
pub(super) fn set_variable(key: &str, value: &str) {
    // SAFETY: ranks are opened before the process has other threads.
    unsafe { std::env::set_var(key, value) };
}

fn int(count: usize) -> c_int {
    c_int::try_from(count).expect("ranks are few")
}

fn address(at: u64) -> *mut c_void {
    at as *mut c_void
}
