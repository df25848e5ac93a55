//! What the model before training says of pairs that a policy is held against.

use fthost_data::Batch;
use fthost_engine::models::CausalLm;
use fthost_engine::train::reference_logps;

/// A model that is not trained. Its weights are those that training starts from, shared for as long as both have them.
pub(crate) struct Reference {
    model: CausalLm,
}

impl Reference {
    /// Of `model`, which is kept.
    pub(crate) fn new(model: CausalLm) -> Self {
        Self { model }
    }

    /// Log-probabilities of the supervised tokens of each batch, end to end.
    pub(crate) fn logps(&self, batches: &[Batch]) -> Vec<Vec<f32>> {
        batches.iter().map(|it| reference_logps(&self.model, it)).collect()
    }
}
