//! A block's input between forward and backward.

use burn::tensor::{Device, Tensor, TensorData};

use crate::device::has_memory;

/// Where the input of a block that is computed again lies until backward asks for it.
pub(super) enum KeptInput {
    /// Where it was computed.
    Here(Box<Tensor<2>>),
    /// In the memory of the host, with the device that it goes back to.
    Host(TensorData, Device),
}

impl KeptInput {
    /// Of `x`, `[T, D]`. What a device other than the CPU has computed goes to the host where `offloads`: the device is waited
    /// for, and the copy made between two blocks.
    pub fn new(x: Tensor<2>, offloads: bool) -> Self {
        if offloads && has_memory(&x.device()) { Self::on_host(x) } else { Self::Here(Box::new(x)) }
    }

    fn on_host(x: Tensor<2>) -> Self {
        let device = x.device();
        Self::Host(x.into_data(), device)
    }

    /// The input, bit for bit, on the device that has computed it.
    pub fn into_tensor(self) -> Tensor<2> {
        match self {
            Self::Here(x) => *x,
            Self::Host(data, device) => {
                let dtype = data.dtype();
                Tensor::from_data(data, (&device, dtype))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::*;

    #[test]
    fn what_the_host_kept_comes_back_bit_for_bit() {
        let device = Device::flex();
        let values: Vec<f32> = (0..12).map(|it| (it as f32).sin() * 1e-3).collect();
        for dtype in [DType::F32, DType::BF16] {
            let x = Tensor::<2>::from_data(TensorData::new(values.clone(), [3, 4]), (&device, dtype));
            let kept = KeptInput::on_host(x.clone());
            assert!(matches!(&kept, KeptInput::Host(data, _) if data.dtype() == dtype));
            let back = kept.into_tensor();
            assert_eq!((back.dims(), back.dtype()), ([3, 4], dtype));
            assert_eq!(back.into_data(), x.into_data());
        }
    }

    #[cfg(feature = "cubecl-cpu")]
    #[test]
    fn what_a_device_computed_is_on_the_host_until_it_is_asked_for() {
        let device = Device::cpu();
        let x = Tensor::<2>::from_data([[0.1, 0.2], [0.3, 0.4]], &device);
        assert!(matches!(KeptInput::new(x.clone(), false), KeptInput::Here(_)));
        let kept = KeptInput::new(x.clone(), true);
        assert!(matches!(kept, KeptInput::Host(..)));
        let back = kept.into_tensor();
        assert_eq!(back.device(), device);
        assert_eq!(back.into_data(), x.into_data());
    }

    /// There it would be a copy that saves nothing.
    #[test]
    fn what_the_host_computed_stays_where_it_is() {
        let x = Tensor::<2>::zeros([2, 2], &Device::flex());
        assert!(matches!(KeptInput::new(x, true), KeptInput::Here(_)));
    }
}
