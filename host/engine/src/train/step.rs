//! What the optimizer steps of all objectives share: their configuration, what they tell, and how they end.

use burn::tensor::Tensor;
use fthost_data::Batch;
use fthost_kernels::global_norm;

use super::executor::ActivationCheckpointing;
use super::state::TrainState;
use crate::adapters::AdapterConfig;
use crate::adapters::dropout::with_dropout;
use crate::error::{EngineError, Result};
use crate::models::CausalLm;
use crate::optim::{AdamWConfig, clip_scale};
use crate::parallel::Turn;

/// What a step needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct StepConfig {
    /// The optimizer.
    pub adamw: AdamWConfig,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Bound of the gradient's global norm; `None` is no clipping.
    pub max_grad_norm: Option<f64>,
    /// What is kept between forward and backward.
    pub activation_checkpointing: ActivationCheckpointing,
    /// Update each block as soon as its gradients are there, and let go of them. Takes one micro-batch and no clipping.
    pub gradient_release: bool,
}

/// What a step did. Names are TRL's.
#[derive(Debug, Clone, PartialEq)]
pub struct StepMetrics {
    /// What was minimised.
    pub loss: f64,
    /// Global norm before clipping.
    pub grad_norm: f64,
    /// As used.
    pub learning_rate: f64,
    /// What the objective says besides, in a fixed order.
    pub figures: Vec<(String, f64)>,
    /// Tokens of the sequences, one that several share as often as it is shared.
    pub num_tokens: usize,
    /// Tokens that carried loss.
    pub supervised_tokens: usize,
}

impl StepMetrics {
    /// A figure of the objective.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|it| it.0 == name).map(|it| it.1)
    }
}

/// The model with dropout for one micro-batch of the step in work, where the adapter has any.
pub(super) fn dropped(state: &TrainState, micro_batch: usize) -> Option<CausalLm> {
    let rate = state.adapter.as_ref().map_or(0.0, AdapterConfig::dropout);
    (rate > 0.0).then(|| with_dropout(&state.model, rate, state.seed, state.step, micro_batch as u64))
}

/// Which of `micro_batches` this rank computes.
pub(super) fn turns(state: &TrainState, micro_batches: &[Batch]) -> Vec<Turn> {
    state.ranks.turns(micro_batches)
}

/// Tokens that carry loss, of all ranks.
pub(super) fn supervised_tokens(micro_batches: &[Batch]) -> usize {
    micro_batches.iter().flat_map(Batch::supervised_tokens).sum()
}

/// Clips the `gradients` of a loss that was summed and is to be divided by `divisor`, and updates; returns their norm.
///
/// # Errors
/// A loss or gradient that is not finite; the state is then as before.
pub(super) fn finish(
    state: &mut TrainState,
    micro_batches: &[Batch],
    config: &StepConfig,
    loss: f64,
    gradients: Vec<Tensor<1>>,
    divisor: f64,
) -> Result<f64> {
    let grad_norm = norm(state, &gradients)? * (1.0 / divisor);
    not_finite(state, micro_batches, [("loss", loss), ("grad_norm", grad_norm)])?;
    let clip = config.max_grad_norm.map_or(1.0, |bound| clip_scale(grad_norm, bound));
    state.update(&config.adamw, config.learning_rate, clip / divisor, gradients);
    Ok(grad_norm)
}

/// The norm of all gradients, of which a rank has those of its pieces where the model is shared.
fn norm(state: &TrainState, gradients: &[Tensor<1>]) -> Result<f64> {
    let own = global_norm(gradients);
    let Some(shards) = &state.model.shards else { return Ok(own) };
    let [squares] = shards.mesh.shard.sum([own.powi(2)])?;
    Ok(squares.sqrt())
}

/// The first of `values` that is not finite, as an error with the rows of the step.
pub(super) fn not_finite(
    state: &TrainState,
    micro_batches: &[Batch],
    values: [(&'static str, f64); 2],
) -> Result<()> {
    let Some((what, value)) = values.into_iter().find(|it| !it.1.is_finite()) else { return Ok(()) };
    let rows = micro_batches.iter().flat_map(|it| &it.origins).map(ToString::to_string).collect();
    let last_checkpoint = state.last_checkpoint.clone();
    Err(EngineError::NotFiniteStep { what, value, step: state.step + 1, rows, last_checkpoint })
}
