//! Which device computes: Burn's `flex` on the CPU, or CUDA where the feature `cuda` and a driver are there.
//!
//! `unsafe` here: loading the driver at run time and asking it for its version.

mod memory;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use burn::tensor::Device;

pub use self::memory::DeviceMemory;
pub(crate) use self::memory::{has_memory, seen_as, words};
use crate::error::{EngineError, Result};
use crate::parallel::Collective;

/// Where tensors live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceKind {
    /// Burn's `flex` backend.
    #[default]
    Cpu,
    /// The CUDA device at this place, or the only one that the process is shown: a rank has that of its place on its machine.
    Cuda(usize),
}

impl DeviceKind {
    /// The device of this rank.
    #[must_use]
    pub fn of_rank(self, ranks: &impl Collective) -> Self {
        match self {
            Self::Cpu => Self::Cpu,
            Self::Cuda(_) => Self::Cuda(ranks.local_rank()),
        }
    }
}

/// The place of the device for the process that is at `place` of those of its machine, of so many `devices`.
pub(crate) fn index_of(place: usize, devices: usize) -> Result<usize> {
    match devices {
        // It may be all that a process is shown of its machine's.
        1 => Ok(0),
        _ if place < devices => Ok(place),
        _ => Err(EngineError::Device(format!(
            "device `cuda`: there are {devices} devices, and this is process {} of its machine (start one process a device)",
            place + 1
        ))),
    }
}

/// Opens a device.
///
/// # Errors
/// Says by name what is missing for CUDA: the feature `cuda` of this build, the driver, a device, or the library of
/// mathematical functions that kernels are linked with.
pub fn open(kind: DeviceKind) -> Result<Device> {
    match kind {
        DeviceKind::Cpu => Ok(Device::flex()),
        DeviceKind::Cuda(place) => open_cuda(place),
    }
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_: usize) -> Result<Device> {
    Err(EngineError::Device(
        "device `cuda`: this fthost was built without the feature `cuda` (build with `--features cuda`)"
            .into(),
    ))
}

#[cfg(feature = "cuda")]
fn open_cuda(place: usize) -> Result<Device> {
    use burn::tensor::DeviceType;
    // Touching a CUDA device that is not there panics on another thread, so driver and devices are asked for first.
    let Some(version) = cuda_driver() else {
        return Err(EngineError::Device(
            "device `cuda`: no CUDA driver (`libcuda.so.1`) on this machine (train with `--device cpu`)"
                .into(),
        ));
    };
    let devices = Device::enumerate(DeviceType::Cuda).len();
    if devices == 0 {
        return Err(EngineError::Device(format!(
            "device `cuda`: the driver (CUDA {}.{}) finds no device (`nvidia-smi` shows what it sees)",
            version / 1000,
            version % 1000 / 10
        )));
    }
    // CubeCL misses it at the first kernel that calls `exp`, and whoever reads the result panics.
    if cuda_libdevice().is_none() {
        return Err(EngineError::Device(
            "device `cuda`: no `nvvm/libdevice/libdevice.10.bc` (set CUDA_PATH to a CUDA toolkit, or to \
             `nvidia/cuda_nvcc` of PyPI's nvidia-cuda-nvcc-cu12)"
                .into(),
        ));
    }
    Ok(Device::cuda(index_of(place, devices)?))
}

/// The CUDA toolkit's mathematical functions, if they are where CubeCL looks for them: under `CUDA_PATH`, or, where
/// that is not set, in a usual place.
pub fn cuda_libdevice() -> Option<PathBuf> {
    libdevice_below(std::env::var_os("CUDA_PATH"))
}

/// CubeCL 0.11's rule: what `CUDA_PATH` names is the only place, even where nothing is there.
fn libdevice_below(cuda_path: Option<OsString>) -> Option<PathBuf> {
    let usual = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"];
    let holds = |root: &&Path| root.join("nvvm/libdevice").is_dir();
    let root = match &cuda_path {
        Some(path) => Path::new(path),
        None => usual.iter().map(Path::new).find(holds)?,
    };
    let file = root.join("nvvm/libdevice/libdevice.10.bc");
    file.is_file().then_some(file)
}

/// The version of the CUDA driver (`12080` is 12.8), if one can be loaded.
pub fn cuda_driver() -> Option<i32> {
    // SAFETY: `libcuda.so.1` has no constructor with preconditions, and `cuDriverGetVersion` takes one out pointer
    // to a C int and may be called before `cuInit`.
    unsafe {
        let library = libloading::Library::new("libcuda.so.1").ok()?;
        let get_version: libloading::Symbol<unsafe extern "C" fn(*mut i32) -> i32> =
            library.get(b"cuDriverGetVersion").ok()?;
        let mut version = 0;
        (get_version(&mut version) == 0).then_some(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libdevice_is_looked_for_where_cuda_path_says_and_nowhere_else() {
        let toolkit = tempfile::tempdir().unwrap();
        let below = |toolkit: &tempfile::TempDir| libdevice_below(Some(toolkit.path().into()));
        assert_eq!(below(&toolkit), None);
        let file = toolkit.path().join("nvvm/libdevice/libdevice.10.bc");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        assert_eq!(below(&toolkit), None);
        std::fs::write(&file, "").unwrap();
        assert_eq!(below(&toolkit), Some(file));
    }

    #[test]
    fn a_process_has_the_device_of_its_place() {
        assert_eq!((index_of(0, 1).unwrap(), index_of(3, 1).unwrap(), index_of(3, 4).unwrap()), (0, 0, 3));
        let error = index_of(4, 4).unwrap_err().to_string();
        assert!(error.contains("there are 4 devices, and this is process 5"), "{error}");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_without_the_feature_says_so_by_name() {
        let error = open(DeviceKind::Cuda(0)).unwrap_err().to_string();
        assert!(error.contains("without the feature `cuda`"), "{error}");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn cuda_without_a_driver_is_an_error_and_no_panic() {
        if cuda_driver().is_some() {
            println!("SKIPPED: this machine has a CUDA driver");
            return;
        }
        let error = open(DeviceKind::Cuda(0)).unwrap_err().to_string();
        assert!(error.contains("no CUDA driver (`libcuda.so.1`)"), "{error}");
    }
}
