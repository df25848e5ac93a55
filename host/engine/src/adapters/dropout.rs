//! Dropout on the input of an adapter's share, as PEFT's `lora_dropout`, from seeds instead of a running generator.
//!
//! A mask is a function of seed, step, micro-batch and linear alone: a block that is computed again, and a run that
//! is resumed, meet the same masks.

use burn::tensor::{Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::models::CausalLm;

/// Dropout of one linear in one micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Dropout {
    /// Share of values that become 0, in `[0, 1)`.
    pub rate: f64,
    /// Seed of the mask.
    pub seed: [u8; 32],
}

impl Dropout {
    /// `x` with some values 0 and the others scaled so that the mean is kept, `[T, in]`.
    pub fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        let shape = x.dims();
        let mut rng = ChaCha8Rng::from_seed(self.seed);
        let kept = (1.0 / (1.0 - self.rate)) as f32;
        let bound = (self.rate * f64::from(u32::MAX)) as u32;
        let count = shape[0] * shape[1];
        let mask: Vec<f32> = (0..count).map(|_| if rng.next_u32() < bound { 0.0 } else { kept }).collect();
        let mask = Tensor::<2>::from_data(TensorData::new(mask, shape), &x.device().inner());
        let dtype = x.dtype();
        x * mask.cast(dtype)
    }
}

/// `model` with dropout on every adapted linear, for one micro-batch of one step.
pub fn with_dropout(model: &CausalLm, rate: f64, seed: u64, step: u64, micro_batch: u64) -> CausalLm {
    let mut model = model.clone();
    for (layer, block) in model.blocks.iter_mut().enumerate() {
        for (name, linear) in block.linears_mut() {
            if let Some(lora) = &mut linear.lora {
                let mut hasher = Sha256::new();
                for number in [seed, step, micro_batch, layer as u64] {
                    hasher.update(number.to_le_bytes());
                }
                hasher.update(name.as_bytes());
                lora.dropout = Some(Dropout { rate, seed: hasher.finalize().into() });
            }
        }
    }
    model
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn a_mask_keeps_the_mean_and_depends_on_its_seed_alone() {
        let x = Tensor::<2>::ones([200, 100], &Device::flex());
        let values = |seed: u8| {
            let dropout = Dropout { rate: 0.25, seed: [seed; 32] };
            dropout.apply(x.clone()).try_into_vec_as::<f32>().unwrap()
        };
        let mask = values(1);
        let zeros = mask.iter().filter(|it| **it == 0.0).count();
        // 20000 draws: the standard deviation of the share is 0.003.
        assert!((zeros as f64 / 20_000.0 - 0.25).abs() < 0.015, "{zeros}");
        assert!(mask.iter().all(|it| *it == 0.0 || (it - 4.0 / 3.0).abs() < 1e-6));
        assert_eq!(mask, values(1));
        assert_ne!(mask, values(2));
    }
}
