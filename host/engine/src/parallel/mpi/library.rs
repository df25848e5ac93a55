//! The functions of an MPI library.
//!
//! `unsafe` here: loading it and calling into it. Every pointer comes from a slice or a place that lives through the call, whose
//! length is the count that goes with it.

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use libloading::os::unix::{Library as Loaded, RTLD_GLOBAL, RTLD_NOW};

use super::abi::{Abi, Constants, Handle};
use crate::error::{EngineError, Result};
use crate::parallel::functions::functions;

/// Bytes of the longest text that any of the libraries writes.
const TEXT: usize = 8192;

/// What libraries with MPICH's interface call themselves.
const MPICHS: [&str; 4] = ["mpich", "intel", "mvapich", "cray"];

// A handle of another interface is passed and written as a number of this width: see `Handle`.
const _: () = assert!(cfg!(target_endian = "little") && size_of::<Handle>() == 8);

/// MPI can be initialised once in a process, and not again after its end.
static IS_INITIALISED: AtomicBool = AtomicBool::new(false);

// MPI's functions have these signatures in every binary interface, handles being as wide as `Handle` says.
functions! {
    init_thread = "MPI_Init_thread": fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int);
    finalize = "MPI_Finalize": fn();
    abort = "MPI_Abort": fn(Handle, c_int);
    comm_rank = "MPI_Comm_rank": fn(Handle, *mut c_int);
    comm_size = "MPI_Comm_size": fn(Handle, *mut c_int);
    comm_split = "MPI_Comm_split": fn(Handle, c_int, c_int, *mut Handle);
    comm_split_type = "MPI_Comm_split_type": fn(Handle, c_int, c_int, Handle, *mut Handle);
    comm_set_errhandler = "MPI_Comm_set_errhandler": fn(Handle, Handle);
    error_string = "MPI_Error_string": fn(c_int, *mut c_char, *mut c_int);
    get_library_version = "MPI_Get_library_version": fn(*mut c_char, *mut c_int);
    barrier = "MPI_Barrier": fn(Handle);
    bcast = "MPI_Bcast": fn(*mut c_void, c_int, Handle, c_int, Handle);
    allgather = "MPI_Allgather": fn(*const c_void, c_int, Handle, *mut c_void, c_int, Handle, Handle);
    allreduce = "MPI_Allreduce": fn(*const c_void, *mut c_void, c_int, Handle, Handle, Handle);
    reduce_scatter_block = "MPI_Reduce_scatter_block": fn(*const c_void, *mut c_void, c_int, Handle, Handle, Handle);
}

/// A library that is loaded, with what it calls things.
#[derive(Debug)]
pub(super) struct Library {
    functions: Functions,
    pub(super) constants: Constants,
    /// What the functions are in.
    _loaded: Loaded,
}

impl Library {
    /// Loads the library `name`; gives why it can't be.
    pub(super) fn load(name: &str) -> std::result::Result<Self, String> {
        // SAFETY: initialisers of an MPI library ask nothing of whoever loads it. Its symbols are global, because Open MPI loads
        // parts of itself that look for them.
        let loaded =
            unsafe { Loaded::open(Some(name), RTLD_NOW | RTLD_GLOBAL) }.map_err(|it| it.to_string())?;
        // SAFETY: an address alone, which is not looked behind.
        let symbol = |name: &str| unsafe {
            loaded.get::<*mut c_void>(name.as_bytes()).map(|it| it.into_raw() as Handle)
        };
        let has = |name: &str| symbol(name).is_ok();
        let file = Path::new(name).file_name().unwrap_or_default().to_string_lossy();
        let abi = match () {
            // First: what is found in a library may be in one that it depends on, and MPICH has the function in both of its own.
            () if has("MPI_Abi_get_version") && file.contains("mpi_abi") => Abi::Standard,
            () if has("ompi_mpi_comm_world") => Abi::OpenMpi,
            () => Abi::Mpich,
        };
        let constants = match abi {
            Abi::OpenMpi => Constants::open_mpi(symbol).map_err(|it| it.to_string())?,
            Abi::Mpich => Constants::MPICH,
            Abi::Standard => Constants::STANDARD,
        };
        let functions = Functions::of(&loaded).map_err(|it| it.to_string())?;
        let library = Self { functions, constants, _loaded: loaded };
        // It may be asked before the beginning; a wrong guess would hand over numbers that mean nothing, or anything.
        let version = library.version();
        let is_known = abi != Abi::Mpich || MPICHS.iter().any(|it| version.to_lowercase().contains(it));
        if is_known {
            Ok(library)
        } else {
            Err(format!("`{version}` has a binary interface that is not known"))
        }
    }

    /// Initialises MPI, whose errors are from then on told to whoever calls.
    pub(super) fn initialise(&self) -> Result<()> {
        if IS_INITIALISED.swap(true, Ordering::SeqCst) {
            let reason = "MPI was initialised before in this process, which can be done once".to_string();
            return Err(EngineError::Mpi { call: "MPI_Init_thread", reason, rank: None });
        }
        let (constants, mut provided) = (&self.constants, 0);
        // SAFETY: arguments may be null; `provided` is a place for the one that is written.
        let code = unsafe {
            (self.functions.init_thread)(
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                constants.serialized,
                &raw mut provided,
            )
        };
        self.check("MPI_Init_thread", code)?;
        if provided < constants.serialized {
            let reason = format!("it allows the thread that began it alone (level {provided})");
            return Err(EngineError::Mpi { call: "MPI_Init_thread", reason, rank: None });
        }
        // SAFETY: both are handles of this library.
        let code = unsafe { (self.functions.comm_set_errhandler)(constants.world, constants.errors_return) };
        self.check("MPI_Comm_set_errhandler", code)
    }

    /// Ends MPI.
    pub(super) fn finalise(&self) {
        // SAFETY: it is initialised, and nobody calls it any more. There is nobody left to tell of an error.
        let _ = unsafe { (self.functions.finalize)() };
    }

    /// Ends every rank, where the library can.
    pub(super) fn abort(&self, code: i32) {
        // SAFETY: it may be called at any time between beginning and end.
        let _ = unsafe { (self.functions.abort)(self.constants.world, code) };
    }

    /// The error of a `call` that returned `code`, in the library's words.
    pub(super) fn check(&self, call: &'static str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: a place of `TEXT` bytes, more than any library writes.
        let reason = text(|to, length| unsafe { (self.functions.error_string)(code, to, length) });
        Err(EngineError::Mpi { call, reason, rank: None })
    }

    /// The first line of what the library says that it is.
    pub(super) fn version(&self) -> String {
        // SAFETY: as above.
        let text = text(|to, length| unsafe { (self.functions.get_library_version)(to, length) });
        text.lines().next().unwrap_or_default().split(',').next().unwrap_or_default().trim().to_string()
    }

    pub(super) fn rank(&self, of: Handle) -> Result<c_int> {
        let mut rank = 0;
        // SAFETY: a communicator of this library, and a place for the number.
        let code = unsafe { (self.functions.comm_rank)(of, &raw mut rank) };
        self.check("MPI_Comm_rank", code).map(|()| rank)
    }

    pub(super) fn size(&self, of: Handle) -> Result<c_int> {
        let mut size = 0;
        // SAFETY: as above.
        let code = unsafe { (self.functions.comm_size)(of, &raw mut size) };
        self.check("MPI_Comm_size", code).map(|()| size)
    }

    /// The ranks of this machine.
    pub(super) fn machine(&self) -> Result<Handle> {
        let (mut machine, constants) = (0, &self.constants);
        // SAFETY: handles of this library, and a zeroed place for another.
        let code = unsafe {
            (self.functions.comm_split_type)(
                constants.world,
                constants.shared,
                0,
                constants.info_null,
                &raw mut machine,
            )
        };
        self.check("MPI_Comm_split_type", code).map(|()| machine)
    }

    /// The ranks of `of` that say the same `group`; errors are told to whoever calls, as those of `of`.
    pub(super) fn split(&self, of: Handle, group: usize, rank: usize) -> Result<Handle> {
        let mut part = 0;
        // SAFETY: a communicator of this library, and a zeroed place for another.
        let code = unsafe { (self.functions.comm_split)(of, int(group), int(rank), &raw mut part) };
        self.check("MPI_Comm_split", code)?;
        // SAFETY: both are handles of this library.
        let code = unsafe { (self.functions.comm_set_errhandler)(part, self.constants.errors_return) };
        self.check("MPI_Comm_set_errhandler", code).map(|()| part)
    }

    pub(super) fn barrier(&self, on: Handle) -> c_int {
        // SAFETY: a communicator of this library.
        unsafe { (self.functions.barrier)(on) }
    }

    /// Bytes of `root`, to all.
    pub(super) fn broadcast(&self, on: Handle, bytes: &mut [u8], root: usize) -> c_int {
        let byte = self.constants.byte;
        let (count, root) = (int(bytes.len()), int(root));
        // SAFETY: as many bytes as there are.
        unsafe { (self.functions.bcast)(bytes.as_mut_ptr().cast(), count, byte, root, on) }
    }

    /// One part of `length` bytes a rank, in place; the caller has seen to the lengths.
    pub(super) fn all_gather(&self, on: Handle, length: usize, all: &mut [u8]) -> c_int {
        let Constants { byte, float, in_place, .. } = self.constants;
        // Nothing is computed with them: a float is four bytes.
        let words = length.is_multiple_of(size_of::<f32>());
        let (kind, count) = if words { (float, length / size_of::<f32>()) } else { (byte, length) };
        let (count, to) = (int(count), all.as_mut_ptr().cast());
        // SAFETY: `all` has as many bytes a rank; in the place of what is sent stands the mark of what is in place.
        unsafe { (self.functions.allgather)(in_place as *const c_void, count, kind, to, count, kind, on) }
    }

    /// Sums, in place.
    pub(super) fn all_reduce(&self, on: Handle, values: &mut [f32]) -> c_int {
        let Constants { float, sum, in_place, .. } = self.constants;
        let (count, to) = (int(values.len()), values.as_mut_ptr().cast());
        // SAFETY: as many values as there are; in the place of what is sent stands the mark of what is in place.
        unsafe { (self.functions.allreduce)(in_place as *const c_void, to, count, float, sum, on) }
    }

    /// One part of the sums a rank; the caller has seen to the lengths.
    pub(super) fn reduce_scatter(&self, on: Handle, all: &[f32], own: &mut [f32]) -> c_int {
        let Constants { float, sum, .. } = self.constants;
        let (count, from, to) = (int(own.len()), all.as_ptr().cast(), own.as_mut_ptr().cast());
        // SAFETY: `own` has as many values, and `all` has them once a rank.
        unsafe { (self.functions.reduce_scatter_block)(from, to, count, float, sum, on) }
    }
}

/// A count, or a rank, as MPI takes it.
fn int(count: usize) -> c_int {
    c_int::try_from(count).expect("what is larger goes in parts")
}

/// What `write` writes, and how long it says that it is.
fn text(write: impl FnOnce(*mut c_char, *mut c_int) -> c_int) -> String {
    let (mut bytes, mut length) = (vec![0u8; TEXT], 0);
    write(bytes.as_mut_ptr().cast(), &raw mut length);
    bytes.truncate(usize::try_from(length).unwrap_or_default());
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_string()
}
