//! AdamW: <https://arxiv.org/abs/1711.05101>, step by step as `torch.optim.AdamW` computes it.
//!
//! Moments are f32, or codes of 8 bits in blocks of 256 as in bitsandbytes' `AdamW8bit`: 2.03 bytes a value for both
//! instead of 8; or f32 in files that are mapped. The arithmetic of an update is f32 in each case.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::Tensor;
use fthost_kernels::adamw::adamw_on_host;
use fthost_kernels::{AdamWStep, BlockMoments, adamw, adamw8bit};
use serde::{Deserialize, Serialize};

use super::paged::PagedMoments;
use crate::error::Result;

/// `[optimizer.adamw]`, `[optimizer.adamw8bit]` and `[optimizer.paged_adamw]` of a run file; defaults are torch's, the learning rate apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay, of matrices only: norms and biases are left alone, as in transformers' `Trainer`.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { learning_rate: 2e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

impl AdamWConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |key: &str, value: f64, fine: bool, bound: &str| {
            if !fine {
                problems.push(format!("`{key}` must be {bound}, got `{value}`"));
            }
        };
        check("learning_rate", self.learning_rate, self.learning_rate > 0.0, "> 0");
        check("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "in [0, 1)");
        check("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "in [0, 1)");
        check("eps", self.eps, self.eps > 0.0, "> 0");
        check("weight_decay", self.weight_decay, self.weight_decay >= 0.0, ">= 0");
        problems
    }
}

/// What moments are stored in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MomentStorage {
    /// Four bytes each.
    #[default]
    F32,
    /// One byte each, and a factor a block of 256; parameters of fewer than `min_8bit_size` values keep f32.
    Blocks {
        /// As in bitsandbytes, where it is 4096.
        min_8bit_size: usize,
    },
    /// Four bytes each, in mapped files of this folder.
    Paged(PathBuf),
    /// Four bytes each, in the memory of the host whatever the parameter's device.
    Host,
}

impl MomentStorage {
    /// Blocks with bitsandbytes' default.
    pub const BLOCKS: Self = Self::Blocks { min_8bit_size: 4096 };
}

/// First and second moment of one parameter.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one a parameter")]
pub enum Moments {
    /// On the parameter's device.
    F32(fthost_kernels::Moments),
    /// On the host.
    Blocks(BlockMoments),
    /// On the host, and on its disk where memory is wanted.
    Paged(PagedMoments),
    /// On the host.
    Host([Vec<f32>; 2]),
}

/// The optimizer: moments by parameter name, made when a parameter is first updated unless [`AdamW::reserve`] was before.
#[derive(Debug, Clone, Default)]
pub struct AdamW {
    /// What new moments are stored in.
    pub storage: MomentStorage,
    /// Updates done.
    pub updates: u64,
    /// State, in the order of names.
    pub moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// Before the first update.
    pub fn new(storage: MomentStorage) -> Self {
        Self { storage, ..Self::default() }
    }

    /// Opens the next update; every parameter follows by [`AdamW::update`], in any order and at any time.
    pub fn begin(&mut self) {
        self.updates += 1;
    }

    /// The new value of a parameter. `learning_rate` is that of this step and parameter; the gradient is multiplied by
    /// `gradient_scale`, which clips.
    ///
    /// On Burn's CPU backend a value that nobody else holds is updated where it stands. Matrices decay, vectors do not.
    pub fn update<const D: usize>(
        &mut self,
        config: &AdamWConfig,
        learning_rate: f64,
        gradient_scale: f64,
        name: &str,
        value: Tensor<D>,
        gradient: Tensor<D>,
    ) -> Tensor<D> {
        let step = AdamWStep {
            learning_rate,
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            weight_decay: if D > 1 { config.weight_decay } else { 0.0 },
            gradient_scale,
            updates: self.updates,
        };
        // Taken out, so that moments are held once and are updated where they stand.
        let moments =
            self.moments.remove(name).unwrap_or_else(|| self.fresh(&value, value.shape().num_elements()));
        let (value, moments) = match moments {
            Moments::F32(moments) => {
                let (value, moments) = adamw(value, gradient, moments, &step);
                (value, Moments::F32(moments))
            }
            Moments::Blocks(mut moments) => {
                let value = adamw8bit(value, gradient, &mut moments, &step);
                (value, Moments::Blocks(moments))
            }
            Moments::Paged(mut moments) => {
                let value = moments.update(value, gradient, &step);
                (value, Moments::Paged(moments))
            }
            Moments::Host(mut moments) => {
                let value = adamw_on_host(value, gradient, moments.each_mut().map(Vec::as_mut_slice), &step);
                (value, Moments::Host(moments))
            }
        };
        self.moments.insert(name.to_string(), moments);
        value
    }

    /// Makes the moments of a parameter that has none yet, or of a piece of one that has `whole` values. Those in files are made
    /// here alone.
    ///
    /// # Errors
    /// Files that can't be made.
    pub fn reserve<const D: usize>(&mut self, name: &str, value: &Tensor<D>, whole: usize) -> Result<()> {
        if !self.moments.contains_key(name) {
            let moments = match &self.storage {
                MomentStorage::Paged(folder) => {
                    Moments::Paged(PagedMoments::zeros(value.shape().num_elements(), folder)?)
                }
                _ => self.fresh(value, whole),
            };
            self.moments.insert(name.to_string(), moments);
        }
        Ok(())
    }

    fn fresh<const D: usize>(&self, value: &Tensor<D>, whole: usize) -> Moments {
        match self.storage {
            MomentStorage::Blocks { min_8bit_size } if whole >= min_8bit_size => {
                Moments::Blocks(BlockMoments::zeros(value.shape().num_elements()))
            }
            MomentStorage::Host => Moments::Host([(); 2].map(|()| vec![0.0; value.shape().num_elements()])),
            _ => Moments::F32(fthost_kernels::Moments::zeros(value)),
        }
    }

    /// Bytes that all moments take.
    pub fn bytes(&self) -> usize {
        let of = |moments: &Moments| match moments {
            Moments::F32(it) => 2 * size_of::<f32>() * it.first.shape().num_elements(),
            Moments::Blocks(it) => it.bytes(),
            Moments::Paged(it) => it.bytes(),
            Moments::Host(it) => it.iter().map(|it| size_of_val(it.as_slice())).sum(),
        };
        self.moments.values().map(of).sum()
    }
}
