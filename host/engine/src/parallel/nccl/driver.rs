//! As much of the CUDA driver as NCCL needs: a stream, and memory for what comes from the host.
//!
//! `unsafe` here: loading the driver and calling into it. Slices give address and length of what is copied, and memory of the
//! device is at least as long.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use libloading::os::unix::{Library as Loaded, RTLD_NOW};

use crate::error::{EngineError, Result};
use crate::parallel::functions::functions;

/// `CU_STREAM_NON_BLOCKING`: what others compute is not waited for.
const NON_BLOCKING: c_uint = 1;
/// The driver's library.
const DRIVER: &str = "libcuda.so.1";

/// `CUstream`.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(super) struct Stream(*mut c_void);

/// `CUcontext`.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
struct Context(*mut c_void);

// SAFETY: both are handles, which the driver takes from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}
// SAFETY: as above.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

// As `cuda.h` has them since CUDA 11.
functions! {
    init = "cuInit": fn(c_uint);
    device_get_count = "cuDeviceGetCount": fn(*mut c_int);
    device_get = "cuDeviceGet": fn(*mut c_int, c_int);
    retain = "cuDevicePrimaryCtxRetain": fn(*mut Context, c_int);
    set_current = "cuCtxSetCurrent": fn(Context);
    stream_create = "cuStreamCreate": fn(*mut Stream, c_uint);
    stream_synchronize = "cuStreamSynchronize": fn(Stream);
    alloc = "cuMemAlloc_v2": fn(*mut u64, usize);
    free = "cuMemFree_v2": fn(u64);
    to_device = "cuMemcpyHtoDAsync_v2": fn(u64, *const c_void, usize, Stream);
    to_host = "cuMemcpyDtoHAsync_v2": fn(*mut c_void, u64, usize, Stream);
    get_error_string = "cuGetErrorString": fn(c_int, *mut *const c_char);
}

/// One device, with a stream of its own.
#[derive(Debug)]
pub(super) struct Driver {
    functions: Functions,
    context: Context,
    pub(super) stream: Stream,
    _loaded: Loaded,
}

impl Driver {
    /// Opens the device of the process that is at `local_rank` of those of its machine: the one of that place, or the only one that
    /// it is shown.
    pub(super) fn open(local_rank: usize) -> Result<Self> {
        // SAFETY: the driver's initialisers ask nothing of whoever loads it.
        let loaded = unsafe { Loaded::open(Some(DRIVER), RTLD_NOW) };
        let missing =
            |error: libloading::Error| EngineError::Cuda { call: "dlopen", reason: error.to_string() };
        let loaded = loaded.map_err(missing)?;
        let functions = Functions::of(&loaded).map_err(missing)?;
        let (context, stream) = (Context(std::ptr::null_mut()), Stream(std::ptr::null_mut()));
        let mut driver = Self { functions, context, stream, _loaded: loaded };
        let (mut count, mut device) = (0, 0);
        // SAFETY: places for what is written.
        unsafe {
            driver.check("cuInit", (driver.functions.init)(0))?;
            driver.check("cuDeviceGetCount", (driver.functions.device_get_count)(&raw mut count))?;
        }
        let index = crate::device::index_of(local_rank, usize::try_from(count).unwrap_or_default())?;
        let index = c_int::try_from(index).expect("devices are few");
        let (mut context, mut stream) = (driver.context, driver.stream);
        // SAFETY: as above. The context is the one that Burn's tensors are in, too.
        unsafe {
            driver.check("cuDeviceGet", (driver.functions.device_get)(&raw mut device, index))?;
            driver.check("cuDevicePrimaryCtxRetain", (driver.functions.retain)(&raw mut context, device))?;
            driver.check("cuCtxSetCurrent", (driver.functions.set_current)(context))?;
            driver
                .check("cuStreamCreate", (driver.functions.stream_create)(&raw mut stream, NON_BLOCKING))?;
        }
        (driver.context, driver.stream) = (context, stream);
        Ok(driver)
    }

    /// Has this thread use the device.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: the context is never let go of.
        self.check("cuCtxSetCurrent", unsafe { (self.functions.set_current)(self.context) })
    }

    /// Waits for what was begun on the stream.
    pub(super) fn wait(&self) -> Result<()> {
        // SAFETY: a stream of this driver.
        self.check("cuStreamSynchronize", unsafe { (self.functions.stream_synchronize)(self.stream) })
    }

    /// `bytes` of the device's memory.
    pub(super) fn memory(&self, bytes: usize) -> Result<u64> {
        let mut at = 0;
        // SAFETY: a place for the address.
        self.check("cuMemAlloc", unsafe { (self.functions.alloc)(&raw mut at, bytes) }).map(|()| at)
    }

    pub(super) fn free(&self, at: u64) {
        // SAFETY: nobody has it any more. There is nobody left to tell of an error.
        let _ = unsafe { (self.functions.free)(at) };
    }

    /// Begins to copy `from` to the device. The slice stays until [`Driver::wait`].
    pub(super) fn send(&self, from: &[u8], to: u64) -> Result<()> {
        let (at, length) = (from.as_ptr().cast(), from.len());
        // SAFETY: as many bytes as there are.
        self.check("cuMemcpyHtoD", unsafe { (self.functions.to_device)(to, at, length, self.stream) })
    }

    /// Begins to copy from the device to `to`. The slice stays until [`Driver::wait`].
    pub(super) fn fetch(&self, from: u64, to: &mut [u8]) -> Result<()> {
        let (at, length) = (to.as_mut_ptr().cast(), to.len());
        // SAFETY: as many bytes as there are.
        self.check("cuMemcpyDtoH", unsafe { (self.functions.to_host)(at, from, length, self.stream) })
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: a place for the address of a text of the driver's own, or null.
        let reason = unsafe {
            let found = (self.functions.get_error_string)(code, &raw mut text);
            if found == 0 && !text.is_null() {
                CStr::from_ptr(text).to_string_lossy().into_owned()
            } else {
                String::new()
            }
        };
        Err(EngineError::Cuda { call, reason: format!("{reason} (code {code})") })
    }
}
