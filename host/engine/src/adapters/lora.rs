//! LoRA: <https://arxiv.org/abs/2106.09685>; rsLoRA: <https://arxiv.org/abs/2312.03732>; initialised as PEFT does.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::experts::Place;
use super::target::{Patterns, TargetModules};
use crate::error::{EngineError, Result};
use crate::models::CausalLm;
use crate::nn::{LoraWeights, Magnitude};

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
    /// Lengths of the weights' rows are trained apart from their direction: DoRA, <https://arxiv.org/abs/2402.09353>. Not
    /// with `dropout`, and not on experts of a mixture.
    pub use_dora: bool,
    /// Ranks of the linears whose path a regular expression matches, as a whole or behind a dot.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// As `rank_pattern`, of `alpha`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
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
            use_dora: false,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            loraplus_lr_ratio: 1.0,
        }
    }
}

impl LoraConfig {
    /// Factor of the share of an adapter of this rank and alpha.
    pub fn scaling(&self, rank: usize, alpha: f64) -> f64 {
        let rank = rank as f64;
        alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Rank and alpha of the linear at a path.
    ///
    /// # Errors
    /// A pattern that is no regular expression; from what is returned, the keys of two patterns that match one path, of
    /// which PEFT would take the first.
    pub fn sizes(&self) -> Result<impl Fn(&str) -> std::result::Result<(usize, f64), String> + '_> {
        let ranks = Patterns::of("rank_pattern", &self.rank_pattern)?;
        let alphas = Patterns::of("alpha_pattern", &self.alpha_pattern)?;
        Ok(move |path: &str| {
            let rank = ranks.find(path)?.copied().unwrap_or(self.rank);
            Ok((rank, alphas.find(path)?.copied().unwrap_or(self.alpha)))
        })
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
        problems.extend(
            self.rank_pattern
                .iter()
                .filter(|it| *it.1 == 0)
                .map(|(pattern, rank)| format!("`rank_pattern` of `{pattern}` must be > 0, got `{rank}`")),
        );
        let bad = self.alpha_pattern.iter().filter(|it| !(*it.1 > 0.0 && it.1.is_finite()));
        problems.extend(
            bad.map(|(pattern, alpha)| format!("`alpha_pattern` of `{pattern}` must be > 0, got `{alpha}`")),
        );
        if self.use_dora && self.dropout > 0.0 {
            problems.push(format!("`use_dora` is known with `dropout` = 0 only, got `{}`", self.dropout));
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
    attach_with(model, config, &mut |_, [out_width, in_width], rank| {
        let bound = (in_width as f32).powf(-0.5);
        let a: Vec<f32> = (0..rank * in_width).map(|_| rng.random_range(-bound..bound)).collect();
        let a = Tensor::from_data(TensorData::new(a, [rank, in_width]), &device);
        Ok(Pair { a, b: Tensor::zeros([out_width, rank], &device), length: None })
    })
}

/// The weights of one linear's adapter.
pub(crate) struct Pair {
    /// `[rank, in]`.
    pub a: Tensor<2>,
    /// `[out, rank]`.
    pub b: Tensor<2>,
    /// DoRA's, `[out]`; the rows' own where `None`.
    pub length: Option<Tensor<1>>,
}

/// Those of a linear, from its path, its widths out and in, and their rank.
pub(crate) type PairSource<'a> = &'a mut dyn FnMut(&str, [usize; 2], usize) -> Result<Pair>;

/// Puts the pair that `weights(path, [out, in], rank)` gives on every linear that `config` names.
pub(crate) fn attach_with(model: &mut CausalLm, config: &LoraConfig, weights: PairSource<'_>) -> Result<()> {
    let (matches, sizes) = (config.target_modules.matcher()?, config.sizes()?);
    let mut attached = 0;
    let mut linears = Vec::new();
    let blocks = model.config.names.blocks;
    let (shape, device) = (model.config.clone(), model.device());
    let on_mixture = |path: &str| Place::of(&shape, path, 1).is_some();
    for (layer, block) in model.blocks.iter_mut().enumerate() {
        for (name, linear) in block.linears_mut() {
            let path = format!("{blocks}.{layer}.{name}");
            if layer == 0 {
                linears.push(name.to_string());
            }
            if !matches(&path) {
                continue;
            }
            let invalid = |problem: String| EngineError::Invalid {
                what: "adapter.lora".into(),
                problems: vec![problem],
            };
            let (rank, alpha) = sizes(&path).map_err(invalid)?;
            if config.use_dora && on_mixture(&path) {
                return Err(invalid(format!("`use_dora` is not known on experts of a mixture: `{path}`")));
            }
            let Pair { a, b, length } = weights(&path, linear.weight.dims(), rank)?;
            let scaling = config.scaling(rank, alpha);
            let magnitude =
                config.use_dora.then(|| Box::new(Magnitude::new(&linear.weight, length, &device)));
            linear.lora = Some(LoraWeights { a, b, scaling, magnitude, dropout: None });
            attached += 1;
        }
    }
    if attached == 0 {
        return Err(EngineError::NoTarget { wanted: format!("{:?}", config.target_modules), linears });
    }
    Ok(())
}
