//! Training steps.

pub mod early_stop;
pub mod evaluate;
pub mod executor;
pub mod gradients;
mod kept_input;
pub mod kto;
pub mod logps;
pub mod memory;
pub mod policy;
pub mod ppo;
pub mod preference;
mod release;
pub mod reward;
pub mod sft;
pub mod state;
mod step;
pub mod sums;

pub use evaluate::{EvalMetrics, evaluate};
pub use executor::ActivationCheckpointing;
pub use gradients::Gradients;
pub use kto::{KtoReference, evaluate_kto, kto_divergence, kto_step};
pub use logps::{Figure, batch_logps, step_of_logps};
pub use policy::{PolicyBatch, policy_step};
pub use ppo::{PpoBatch, attach_value_model, ppo_step, state_values};
pub use preference::{PreferenceLoss, evaluate_preferences, preference_step, reference_logps};
pub use reward::{attach_reward_head, evaluate_rewards, reward_step, sequence_rewards};
pub use sft::step;
pub use state::TrainState;
pub use step::{StepConfig, StepMetrics};
