//! LoRA: <https://arxiv.org/abs/2106.09685>; rsLoRA: <https://arxiv.org/abs/2312.03732>; initialised as PEFT does.

use burn::tensor::{Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::target::TargetModules;
use crate::error::{EngineError, Result};
use crate::models::CausalLm;
use crate::nn::LoraWeights;

/// `[adapter.lora]` of a run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Inner width of the low-rank pair.
    pub rank: usize,
    /// The adapter's share is `alpha / rank` (`alpha / sqrt(rank)` for rsLoRA).
    pub alpha: f64,
    /// Share of the adapter's input that is dropped in training, in `[0, 1)`.
    pub dropout: f64,
    /// Which linears.
    pub target_modules: TargetModules,
    /// Rank-stabilised scaling.
    pub use_rslora: bool,
    /// Learning rate of B over that of A (LoRA+: <https://arxiv.org/abs/2402.12354>); 1 is plain LoRA.
    pub loraplus_lr_ratio: f64,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            target_modules: TargetModules::default(),
            use_rslora: false,
            loraplus_lr_ratio: 1.0,
        }
    }
}

impl LoraConfig {
    /// Factor of the adapter's share.
    pub fn scaling(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.rank == 0 {
            problems.push("`rank` must be > 0, got `0`".to_string());
        }
        for (key, value) in [("alpha", self.alpha), ("loraplus_lr_ratio", self.loraplus_lr_ratio)] {
            if !(value > 0.0 && value.is_finite()) {
                problems.push(format!("`{key}` must be > 0, got `{value}`"));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            problems.push(format!("`dropout` must be in [0, 1), got `{}`", self.dropout));
        }
        problems
    }
}

/// Puts a fresh adapter on every linear that `config` names: A drawn from `seed`, B zero.
///
/// A is uniform in `±1 / sqrt(in)`, which is PEFT's `kaiming_uniform_(a = sqrt(5))`.
///
/// # Errors
/// Impossible values, and a `target_modules` that matches nothing.
pub fn attach_lora(model: &mut CausalLm, config: &LoraConfig, seed: u64) -> Result<()> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(EngineError::Invalid { what: "adapter.lora".into(), problems });
    }
    let device = model.device();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    attach_with(model, config, &mut |_, out_width, in_width| {
        let bound = (in_width as f32).powf(-0.5);
        let a: Vec<f32> = (0..config.rank * in_width).map(|_| rng.random_range(-bound..bound)).collect();
        let a = Tensor::from_data(TensorData::new(a, [config.rank, in_width]), &device);
        Ok((a, Tensor::zeros([out_width, config.rank], &device)))
    })
}

/// A and B of a linear, from its path and its widths out and in.
pub(crate) type PairSource<'a> = &'a mut dyn FnMut(&str, usize, usize) -> Result<(Tensor<2>, Tensor<2>)>;

/// Puts the pair that `weights(path, out, in)` gives on every linear that `config` names.
pub(crate) fn attach_with(model: &mut CausalLm, config: &LoraConfig, weights: PairSource<'_>) -> Result<()> {
    let matches = config.target_modules.matcher()?;
    let mut attached = 0;
    let mut linears = Vec::new();
    let blocks = model.config.names.blocks;
    for (layer, block) in model.blocks.iter_mut().enumerate() {
        for (name, linear) in block.linears_mut() {
            let path = format!("{blocks}.{layer}.{name}");
            if layer == 0 {
                linears.push(name.to_string());
            }
            if !matches(&path) {
                continue;
            }
            let [out_width, in_width] = linear.weight.dims();
            let (a, b) = weights(&path, out_width, in_width)?;
            linear.lora = Some(LoraWeights { a, b, scaling: config.scaling(), dropout: None });
            attached += 1;
        }
    }
    if attached == 0 {
        return Err(EngineError::NoTarget { wanted: format!("{:?}", config.target_modules), linears });
    }
    Ok(())
}
