//! One optimizer step of supervised fine-tuning.

use fthost_data::Batch;

use super::executor::ActivationCheckpointing;
use super::gradients::Gradients;
use super::release;
use super::state::TrainState;
use crate::adapters::dropout::with_dropout;
use crate::error::{EngineError, Result};
use crate::optim::{AdamWConfig, clip_scale};

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
    /// Mean negative log-likelihood of the step's supervised tokens, in nats.
    pub loss: f64,
    /// Global norm before clipping.
    pub grad_norm: f64,
    /// As used.
    pub learning_rate: f64,
    /// Mean entropy of the predictions, in nats.
    pub entropy: f64,
    /// Share of supervised tokens predicted right.
    pub mean_token_accuracy: f64,
    /// Tokens read.
    pub num_tokens: usize,
    /// Tokens that carried loss.
    pub supervised_tokens: usize,
}

/// One optimizer step over `micro_batches`.
///
/// The loss is divided by the supervised tokens of all micro-batches together, so accumulation and a partial last
/// window change nothing.
///
/// # Errors
/// A row without a supervised token, and a loss or gradient that is not finite; the state is then as before.
pub fn step(state: &mut TrainState, micro_batches: &[Batch], config: &StepConfig) -> Result<StepMetrics> {
    // On a worker of the pool: from outside of it each of a step's thousands of parallel loops would wake one.
    rayon::scope(|_| step_on_worker(state, micro_batches, config))
}

fn step_on_worker(
    state: &mut TrainState,
    micro_batches: &[Batch],
    config: &StepConfig,
) -> Result<StepMetrics> {
    micro_batches.iter().try_for_each(every_row_is_supervised)?;
    state.reserve_moments();
    let dropout = state.adapter.as_ref().map_or(0.0, |it| it.dropout);
    let dropped = |state: &TrainState, index: usize| {
        let drops = dropout > 0.0;
        drops.then(|| with_dropout(&state.model, dropout, state.seed, state.step, index as u64))
    };
    if config.gradient_release {
        let [batch] = micro_batches else {
            let problem = format!(
                "`gradient_release` takes one micro-batch a step, got {}: they share one update",
                micro_batches.len()
            );
            return Err(EngineError::Invalid { what: "train".into(), problems: vec![problem] });
        };
        let dropped = dropped(state, 0);
        return release::step(state, batch, config, dropped);
    }
    let mut gradients = Gradients::default();
    for (index, batch) in micro_batches.iter().enumerate() {
        let dropped = dropped(state, index);
        gradients.add(dropped.as_ref().unwrap_or(&state.model), batch, config.activation_checkpointing);
    }
    let tokens = gradients.supervised_tokens as f64;
    let loss = gradients.loss_sum / tokens;
    let grad_norm = gradients.norm(1.0 / tokens);
    not_finite(state, micro_batches, [("loss", loss), ("grad_norm", grad_norm)])?;
    let clip = config.max_grad_norm.map_or(1.0, |bound| clip_scale(grad_norm, bound));
    state.update(&config.adamw, config.learning_rate, clip / tokens, gradients.values);
    Ok(StepMetrics {
        loss,
        grad_norm,
        learning_rate: config.learning_rate,
        entropy: gradients.entropy_sum / tokens,
        mean_token_accuracy: gradients.correct / tokens,
        num_tokens: micro_batches.iter().map(Batch::len).sum(),
        supervised_tokens: gradients.supervised_tokens,
    })
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

/// A row whose labels are all ignored teaches nothing: more likely a broken template than a wish.
fn every_row_is_supervised(batch: &Batch) -> Result<()> {
    let targets = batch.targets();
    for (bounds, origin) in batch.cu_seqlens.windows(2).zip(&batch.origins) {
        let inside = |it: &u32| (bounds[0]..bounds[1]).contains(&(*it as usize));
        if !targets.positions.iter().any(inside) {
            return Err(EngineError::NothingSupervised { row: origin.to_string() });
        }
    }
    Ok(())
}
