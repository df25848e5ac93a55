//! `[train]`: how long, and how much at a time.

use fthost_engine::nn::FloatDtype;
use fthost_engine::train::ActivationCheckpointing;
use serde::{Deserialize, Serialize};

/// Steps of a run that says neither `train.steps` nor `train.epochs`.
const DEFAULT_STEPS: u64 = 100;

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Optimizer steps, at most where `epochs` is given too; 100 where neither is.
    pub steps: Option<u64>,
    /// Passes over the training rows; a part of a pass is rounded up to whole steps.
    pub epochs: Option<f64>,
    /// Rows whose graph exists at one time.
    pub micro_batch_size: usize,
    /// Tokens whose graph exists at one time when rows are packed; `micro_batch_size * data.max_length` if absent,
    /// which is what rows of full length would take unpacked.
    pub micro_batch_tokens: Option<usize>,
    /// An optimizer step sees `micro_batch_size * gradient_accumulation_steps` rows a rank, packed or not.
    pub gradient_accumulation_steps: usize,
    /// Decides the order of rows, the adapter's first values and dropout.
    pub seed: u64,
    /// Bound of the gradient's norm; 0 is no clipping.
    pub max_grad_norm: f64,
    /// What is kept between forward and backward.
    pub activation_checkpointing: ActivationCheckpointing,
    /// What the blocks compute in; what is trained stays f32.
    pub compute_dtype: FloatDtype,
    /// What linears, embedding and head are stored in while they are frozen, below an adapter: `f32` or `bf16`.
    pub frozen_dtype: FloatDtype,
    /// Update each block as soon as its gradients are there, and let go of them: they never exist all at once. Needs
    /// `max_grad_norm = 0`, `gradient_accumulation_steps = 1` and no packing, because those need them all.
    pub gradient_release: bool,
    /// Ranks that share an optimizer step; the launcher says how many there are, no run file.
    #[serde(skip)]
    pub data_parallel: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: None,
            epochs: None,
            micro_batch_size: 8,
            micro_batch_tokens: None,
            gradient_accumulation_steps: 1,
            seed: 0,
            max_grad_norm: 1.0,
            activation_checkpointing: ActivationCheckpointing::Off,
            compute_dtype: FloatDtype::F32,
            frozen_dtype: FloatDtype::F32,
            gradient_release: false,
            data_parallel: 1,
        }
    }
}

impl TrainConfig {
    /// Rows an optimizer step sees.
    pub fn global_batch_size(&self) -> usize {
        self.micro_batch_size * self.gradient_accumulation_steps * self.data_parallel
    }

    /// Optimizer steps of a run over `rows` rows.
    pub fn total_steps(&self, rows: usize) -> u64 {
        let steps_per_epoch = rows.div_ceil(self.global_batch_size()) as f64;
        let of_epochs = self.epochs.map(|epochs| (epochs * steps_per_epoch).ceil() as u64);
        match (self.steps, of_epochs) {
            (Some(steps), Some(of_epochs)) => steps.min(of_epochs),
            (steps, of_epochs) => steps.or(of_epochs).unwrap_or(DEFAULT_STEPS),
        }
    }

    /// Every impossible value, each with its key.
    pub(super) fn problems(&self, max_length: usize) -> Vec<String> {
        let mut problems = Vec::new();
        let counts = [
            ("steps", self.steps.unwrap_or(1)),
            ("micro_batch_size", self.micro_batch_size as u64),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps as u64),
        ];
        let zero = counts.iter().filter(|it| it.1 == 0);
        problems.extend(zero.map(|it| format!("`{}` must be > 0, got `0`", it.0)));
        if let Some(epochs) = self.epochs.filter(|it| !(*it > 0.0 && it.is_finite())) {
            problems.push(format!("`epochs` must be > 0, got `{epochs}`"));
        }
        if let Some(tokens) = self.micro_batch_tokens.filter(|it| *it < max_length) {
            problems.push(format!(
                "`micro_batch_tokens` must be at least `data.max_length` = {max_length}, got `{tokens}`"
            ));
        }
        problems.extend(self.activation_checkpointing.problems());
        if self.gradient_release {
            if self.max_grad_norm != 0.0 {
                let bound = self.max_grad_norm;
                problems.push(format!(
                    "`gradient_release` needs `train.max_grad_norm` = 0, got `{bound}`: a global norm needs all gradients"
                ));
            }
            if self.gradient_accumulation_steps != 1 {
                let steps = self.gradient_accumulation_steps;
                problems.push(format!(
                    "`gradient_release` needs `train.gradient_accumulation_steps` = 1, got `{steps}`"
                ));
            }
        }
        let bound = self.max_grad_norm;
        if !(bound >= 0.0 && bound.is_finite()) {
            problems.push(format!("`max_grad_norm` must be >= 0, got `{bound}`"));
        }
        problems
    }
}
