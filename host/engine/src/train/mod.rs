//! Training steps.

pub mod early_stop;
pub mod evaluate;
pub mod executor;
pub mod gradients;
pub mod memory;
mod release;
pub mod sft;
pub mod state;

pub use evaluate::{EvalMetrics, evaluate};
pub use executor::ActivationCheckpointing;
pub use gradients::Gradients;
pub use sft::{StepConfig, StepMetrics, step};
pub use state::TrainState;
