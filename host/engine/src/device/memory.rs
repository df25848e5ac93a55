//! Where a tensor lies in the memory of a device, for a library that reads and writes there; and tensors that share it.
//!
//! On the runtimes of CubeCL alone. What lies in the host's memory (`flex`) others have as slices.

use burn::tensor::{Device, Tensor};

use crate::error::{EngineError, Result};

/// A stretch of a device's memory, which stays as long as this does.
#[derive(Debug)]
pub struct DeviceMemory {
    address: u64,
    bytes: usize,
    /// Whose memory it is.
    _tensor: Tensor<1>,
}

impl DeviceMemory {
    /// Of `tensor`, whose values lie in order; what the device was to compute of it is done.
    ///
    /// # Errors
    /// A tensor that is in no device's memory; what failed on the device before.
    pub fn of(tensor: Tensor<1>) -> Result<Self> {
        let bytes = tensor.shape().num_elements() * tensor.dtype().size();
        let address = cube::address(&tensor).map_err(EngineError::Device)?;
        Ok(Self { address, bytes, _tensor: tensor })
    }

    /// Where it begins.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// How long it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

pub(crate) use cube::{seen_as, words};

/// Whether tensors of `device` are in a device's memory, which others than the host's processor reach.
pub(crate) fn has_memory(device: &Device) -> bool {
    cfg!(any(feature = "cuda", feature = "cubecl-cpu")) && device.clone().inner() != Device::flex()
}

#[cfg(not(any(feature = "cuda", feature = "cubecl-cpu")))]
mod cube {
    use burn::tensor::{DType, Tensor};

    /// Of a build without such runtimes.
    pub(super) fn address(_: &Tensor<1>) -> Result<u64, String> {
        Err("a tensor that no device's memory has".into())
    }

    pub(crate) fn words<const D: usize>(_: Tensor<D>) -> Tensor<1> {
        unreachable!("no tensor is in a device's memory")
    }

    pub(crate) fn seen_as<const D: usize>(_: &Tensor<1>, _: usize, _: &[usize], _: DType) -> Tensor<D> {
        unreachable!("no tensor is in a device's memory")
    }
}

#[cfg(any(feature = "cuda", feature = "cubecl-cpu"))]
mod cube {
    use burn::tensor::{DType, Shape, Tensor};
    use burn_cubecl::kernel::into_contiguous;
    use burn_cubecl::tensor::CubeTensor;
    use burn_cubecl::{Cube, CubeDevice};
    use cubecl_runtime::runtime::Runtime;

    const WORD: usize = size_of::<f32>();

    fn primitive<const D: usize>(tensor: Tensor<D>) -> Option<CubeTensor> {
        tensor.inner().try_into_primitive::<Cube>().ok()
    }

    fn expected<const D: usize>(tensor: Tensor<D>) -> CubeTensor {
        into_contiguous(primitive(tensor).expect("a tensor in a device's memory"))
    }

    /// Where a tensor begins, which is contiguous, when it is computed; otherwise what the device says.
    pub(super) fn address(tensor: &Tensor<1>) -> Result<u64, String> {
        let found = primitive(tensor.clone()).ok_or("a tensor that no device's memory has")?;
        let CubeTensor { client, handle, device, .. } = found;
        let address = match device {
            #[cfg(feature = "cuda")]
            CubeDevice::Cuda(_) => {
                use burn_cubecl::cubecl::cuda::CudaRuntime;
                let found = client.get_resource::<<CudaRuntime as Runtime>::Server>(handle);
                found.map_err(|it| it.to_string())?.resource().ptr
            }
            #[cfg(feature = "cubecl-cpu")]
            CubeDevice::Cpu(_) => {
                use burn_cubecl::cubecl::cpu::CpuRuntime;
                let found = client.get_resource::<<CpuRuntime as Runtime>::Server>(handle);
                found.map_err(|it| it.to_string())?.resource().get_write_ptr_and_length().0 as u64
            }
            other => return Err(format!("a tensor on {other:?}")),
        };
        // Afterwards: asked for its place, this thread's stream waits for the one that allocated it, which is the one that computes it
        // of everything that is made anew.
        tensor.device().sync().map_err(|it| format!("{it:?}"))?;
        Ok(address)
    }

    /// The memory of `tensor` as words of 4 bytes, as many as its bytes fill; what fills the last one up is zero.
    pub(crate) fn words<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
        let per_word = WORD / tensor.dtype().size();
        let length = tensor.shape().num_elements();
        let (mut flat, over) = (tensor.reshape([length]), length % per_word);
        if over > 0 {
            let fill = Tensor::zeros([per_word - over], (&flat.device(), flat.dtype()));
            flat = Tensor::cat(vec![flat, fill], 0);
        }
        let words = length.div_ceil(per_word);
        let CubeTensor { client, handle, device, .. } = expected(flat);
        let seen = CubeTensor::new_contiguous(client, device, Shape::new([words]), handle, DType::F32);
        Tensor::from_primitive::<Cube>(seen)
    }

    /// What begins at the word `begin` of `whole`, as a tensor: it is the same memory.
    pub(crate) fn seen_as<const D: usize>(
        whole: &Tensor<1>,
        begin: usize,
        dims: &[usize],
        dtype: DType,
    ) -> Tensor<D> {
        let bytes = dims.iter().product::<usize>() * dtype.size();
        let CubeTensor { client, handle, device, .. } = expected(whole.clone());
        let begin = (begin * WORD) as u64;
        let behind = handle.size_in_used() - begin - bytes as u64;
        let handle = handle.offset_start(begin).offset_end(behind);
        Tensor::from_primitive::<Cube>(CubeTensor::new_contiguous(
            client,
            device,
            Shape::from(dims.to_vec()),
            handle,
            dtype,
        ))
    }
}
