//! LoRA: <https://arxiv.org/abs/2106.09685>; rsLoRA: <https://arxiv.org/abs/2312.03732>; initialised as PEFT does.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use fthost_kernels::Weight;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::config::check;
use super::experts::Place;
use super::init::{self, LoraInit};
use super::saved;
use super::target::{Patterns, TargetModules};
use crate::checkpoint::init::normal;
use crate::error::{EngineError, Result};
use crate::models::CausalLm;
use crate::nn::linear::{Linear, Origin};
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
    /// What a pair begins with. What is a part of the weight needs `dropout` = 0, and goes neither with `use_dora` nor with
    /// experts of a mixture.
    pub init_lora_weights: LoraInit,
    /// Ranks of the linears whose path a regular expression matches, as a whole or behind a dot.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// As `rank_pattern`, of `alpha`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Learning rate of B over that of A (LoRA+: <https://arxiv.org/abs/2402.12354>); 1 is plain LoRA.
    pub loraplus_lr_ratio: f64,
    /// Modules that are trained whole and saved with the adapter, by the ends of their paths: `embed_tokens`, `lm_head`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules_to_save: Vec<String>,
    /// An embedding that serves as the head stays one with it where `modules_to_save` names either; otherwise each goes its
    /// own way, as in PEFT.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ensure_weight_tying: bool,
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
            init_lora_weights: LoraInit::Default,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            loraplus_lr_ratio: 1.0,
            modules_to_save: Vec::new(),
            ensure_weight_tying: false,
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
        if self.init_lora_weights.is_of_weight() {
            let init = self.init_lora_weights.name();
            if self.dropout > 0.0 {
                problems.push(format!(
                    "`init_lora_weights` = \"{init}\" is known with `dropout` = 0 only, got `{}`",
                    self.dropout
                ));
            }
            if self.use_dora {
                problems.push(format!("`init_lora_weights` = \"{init}\" is not known with `use_dora`"));
            }
        }
        if self.ensure_weight_tying && self.modules_to_save.is_empty() {
            problems.push("`ensure_weight_tying` is of `modules_to_save`, which is empty".to_string());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            problems.push(format!("`dropout` must be in [0, 1), got `{}`", self.dropout));
        }
        problems
    }
}

/// Puts a fresh adapter on every linear that `config` names: drawn from `seed`, or made of the weight.
///
/// The uniform bound is that of PEFT's `kaiming_uniform_(a = sqrt(5))`.
///
/// # Errors
/// Impossible values, and a `target_modules` that matches nothing.
pub fn attach_lora(model: &mut CausalLm, config: &LoraConfig, seed: u64) -> Result<()> {
    check("lora", config.problems())?;
    let device = model.device();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    attach_with(model, config, &mut |of, origin| {
        if let Some(origin) = origin {
            let (a, b) = (origin.a.clone(), origin.negative_b.clone().neg());
            return Ok(Pair { a, b, length: None });
        }
        let (rank, [out, width]) = (of.rank, of.widths);
        let a = match config.init_lora_weights {
            LoraInit::Gaussian => normal(rank * width, 1.0 / rank as f64, &mut rng),
            _ => {
                let bound = (width as f32).powf(-0.5);
                (0..rank * width).map(|_| rng.random_range(-bound..bound)).collect()
            }
        };
        let a = Tensor::from_data(TensorData::new(a, [rank, width]), &device);
        Ok(Pair { a, b: Tensor::zeros([out, rank], &device), length: None })
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

/// A linear that is to have an adapter.
pub(crate) struct Adapted {
    /// In the model.
    pub path: String,
    /// Out and in.
    pub widths: [usize; 2],
    /// The adapter's.
    pub rank: usize,
    scaling: f64,
}

/// The pair of a linear, which may be that of the weight.
pub(crate) type PairSource<'a> = &'a mut dyn FnMut(&Adapted, Option<&Origin>) -> Result<Pair>;

/// Puts the pair that `weights` gives on every linear that `config` names.
pub(crate) fn attach_with(model: &mut CausalLm, config: &LoraConfig, weights: PairSource<'_>) -> Result<()> {
    let adapted = adapted(model, config)?;
    let mut origins = origins(model, config, &adapted)?.into_iter();
    let (blocks, device) = (model.config.names.blocks, model.device());
    let mut adapted = adapted.into_iter().peekable();
    for (layer, block) in model.blocks.iter_mut().enumerate() {
        for (name, linear) in block.linears_mut() {
            let Some(of) = adapted.next_if(|it| it.path == format!("{blocks}.{layer}.{name}")) else {
                continue;
            };
            let origin = origins.next().flatten().map(Box::new);
            let Pair { a, b, length } = weights(&of, origin.as_deref())?;
            let magnitude =
                config.use_dora.then(|| Box::new(Magnitude::new(&linear.weight, length, &device)));
            linear.lora = Some(LoraWeights { a, b, scaling: of.scaling, magnitude, origin, dropout: None });
        }
    }
    saved::train_beside(model, "lora", &config.modules_to_save, config.ensure_weight_tying)
}

/// Every linear with its path, in the model's order.
fn linears(model: &CausalLm) -> impl Iterator<Item = (String, &Linear)> {
    let blocks = model.config.names.blocks;
    model.blocks.iter().enumerate().flat_map(move |(layer, block)| {
        block.linears().map(move |(name, linear)| (format!("{blocks}.{layer}.{name}"), linear))
    })
}

/// The linears that `config` names, in the model's order.
fn adapted(model: &CausalLm, config: &LoraConfig) -> Result<Vec<Adapted>> {
    let (matches, sizes) = (config.target_modules.matcher()?, config.sizes()?);
    let on_mixture = |path: &str| Place::of(&model.config, path, 1).is_some();
    let init = config.init_lora_weights;
    let unknown = [("use_dora", config.use_dora), ("init_lora_weights", init.is_of_weight())];
    let unknown = unknown.iter().find(|it| it.1);
    let mut found = Vec::new();
    for (path, linear) in linears(model).filter(|it| matches(&it.0)) {
        let invalid =
            |problem: String| EngineError::Invalid { what: "adapter.lora".into(), problems: vec![problem] };
        let (rank, alpha) = sizes(&path).map_err(invalid)?;
        if let Some((key, _)) = unknown.filter(|_| on_mixture(&path)) {
            return Err(invalid(format!("`{key}` is not known on experts of a mixture: `{path}`")));
        }
        let (widths, scaling) = (linear.weight.dims(), config.scaling(rank, alpha));
        found.push(Adapted { path, widths, rank, scaling });
    }
    if found.is_empty() {
        return Err(no_target(model, &config.target_modules));
    }
    Ok(found)
}

/// The error of targets that match no linear of `model`.
pub(super) fn no_target(model: &CausalLm, targets: &TargetModules) -> EngineError {
    let linears = model.blocks.iter().take(1).flat_map(|it| it.linears());
    let linears = linears.map(|it| it.0.to_string()).collect();
    EngineError::NoTarget { wanted: format!("{targets:?}"), linears }
}

/// What each pair begins with, where that is a part of the weight: a decomposition a linear, several at a time.
fn origins(model: &CausalLm, config: &LoraConfig, adapted: &[Adapted]) -> Result<Vec<Option<Origin>>> {
    let init = config.init_lora_weights;
    if !init.is_of_weight() {
        return Ok(Vec::new());
    }
    let device = model.device();
    let mut wanted = adapted.iter().peekable();
    let pairs: Vec<(&Adapted, &Weight)> = linears(model)
        .filter_map(|(path, linear)| Some((wanted.next_if(|it| it.path == path)?, &linear.weight)))
        .collect();
    let decomposed = pairs.into_par_iter().map(|(of, weight)| {
        let (a, b) = init::origin(init, &of.path, weight, of.rank, of.scaling, &device)?;
        Ok(Some(Origin { a, negative_b: b.neg() }))
    });
    // All of them first: of several errors the one that is told is to be the first, not the fastest.
    decomposed.collect::<Vec<_>>().into_iter().collect()
}
