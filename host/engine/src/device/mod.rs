//! Which device computes: Burn's `flex` on the CPU, or CUDA where the feature `cuda` and a driver are there.
//!
//! `unsafe` here: loading the driver at run time and asking it for its version.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::error::{EngineError, Result};

/// Where tensors live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceKind {
    /// Burn's `flex` backend.
    #[default]
    Cpu,
    /// The first CUDA device.
    Cuda,
}

/// Opens a device.
///
/// # Errors
/// Says by name what is missing for CUDA: the feature `cuda` of this build, the driver, a device, or the library of
/// mathematical functions that kernels are linked with.
pub fn open(kind: DeviceKind) -> Result<Device> {
    match kind {
        DeviceKind::Cpu => Ok(Device::flex()),
        DeviceKind::Cuda => open_cuda(),
    }
}

#[cfg(not(feature = "cuda"))]
fn open_cuda() -> Result<Device> {
    Err(EngineError::Device(
        "device `cuda`: this fthost was built without the feature `cuda` (build with `--features cuda`)"
            .into(),
    ))
}

#[cfg(feature = "cuda")]
fn open_cuda() -> Result<Device> {
    use burn::tensor::DeviceType;
    // Touching a CUDA device that is not there panics on another thread, so driver and devices are asked for first.
    let Some(version) = cuda_driver() else {
        return Err(EngineError::Device(
            "device `cuda`: no CUDA driver (`libcuda.so.1`) on this machine (train with `--device cpu`)"
                .into(),
        ));
    };
    if Device::enumerate(DeviceType::Cuda).is_empty() {
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
    Ok(Device::cuda(0))
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

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_without_the_feature_says_so_by_name() {
        let error = open(DeviceKind::Cuda).unwrap_err().to_string();
        assert!(error.contains("without the feature `cuda`"), "{error}");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn cuda_without_a_driver_is_an_error_and_no_panic() {
        if cuda_driver().is_some() {
            println!("SKIPPED: this machine has a CUDA driver");
            return;
        }
        let error = open(DeviceKind::Cuda).unwrap_err().to_string();
        assert!(error.contains("no CUDA driver (`libcuda.so.1`)"), "{error}");
    }
}
