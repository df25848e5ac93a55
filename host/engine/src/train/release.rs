//! A step that updates a block as soon as its gradients are there and lets go of them: the gradients of one block
//! exist at a time instead of the whole model's.
//!
//! What needs all gradients at once is not to be had: clipping by the global norm, and accumulation over micro-batches.

use burn::tensor::Tensor;
use fthost_data::Batch;
use fthost_kernels::global_norm;

use super::executor::Trunk;
use super::sft::figures;
use super::state::{TrainState, Update};
use super::step::{StepConfig, StepMetrics, not_finite};
use crate::adapters::dropout::without_dropout;
use crate::error::Result;
use crate::models::CausalLm;
use crate::objectives::sft::sft_loss;

/// One optimizer step over `batch`, its only micro-batch; `dropped` is the model with this step's dropout, if any.
///
/// # Errors
/// A loss that is not finite, the state being as before; a gradient that is not, when the blocks above it have been
/// updated: the run goes on from its last checkpoint.
pub(super) fn step(
    state: &mut TrainState,
    batch: &Batch,
    config: &StepConfig,
    dropped: Option<CausalLm>,
) -> Result<StepMetrics> {
    let targets = batch.targets();
    let tokens = targets.positions.len() as f64;
    let rates = state.rates(config.learning_rate);
    let update = Update { config: &config.adamw, rates, gradient_scale: 1.0 / tokens };
    if let Some(dropped) = dropped {
        state.model = dropped;
    }
    let TrainState { model, optimizer, .. } = state;
    // Written by the loss, before anything is updated, and by every part after it.
    let (loss, squares) = (std::cell::Cell::new(f64::NAN), std::cell::Cell::new(0.0));
    let mut begun = false;
    let sums = Trunk::forward(model, batch, config.activation_checkpointing).backward(
        |hidden, heads| {
            let found = sft_loss(hidden, heads.tokens, &targets);
            loss.set(found.loss_sum.clone().inner().into_scalar::<f64>() / tokens);
            let sums = [found.correct.into_scalar::<f64>(), found.entropy_sum.into_scalar::<f64>()];
            (found.loss_sum, sums)
        },
        &mut |model, part, gradients: Vec<Tensor<1>>| {
            squares.set(squares.get() + (global_norm(&gradients) / tokens).powi(2));
            if !loss.get().is_finite() || !squares.get().is_finite() {
                return;
            }
            if !std::mem::replace(&mut begun, true) {
                optimizer.begin();
            }
            let mut gradients = gradients.into_iter();
            part.visit_trained(model, &mut |name, parameter| {
                let gradient = gradients.next().expect("one gradient a trained parameter");
                update.apply(optimizer, name, parameter, gradient);
            });
        },
    );
    without_dropout(model);
    let grad_norm = squares.get().sqrt();
    not_finite(state, std::slice::from_ref(batch), [("loss", loss.get()), ("grad_norm", grad_norm)])?;
    state.step += 1;
    let [correct, entropy] = sums.map(|it| it / tokens);
    Ok(StepMetrics {
        loss: loss.get(),
        grad_norm,
        learning_rate: config.learning_rate,
        figures: figures(entropy, correct),
        num_tokens: batch.sequence_tokens(),
        supervised_tokens: targets.positions.len(),
    })
}
