//! Training steps.

pub mod gradients;
pub mod sft;
pub mod state;

pub use gradients::{ActivationCheckpointing, Gradients};
pub use sft::{StepConfig, StepMetrics, step};
pub use state::TrainState;
