//! Objectives: pure functions of hidden states, log-probabilities, rewards, values and masks; no model, no device.
//!
//! Values of tokens lie end to end, `[T]`, with the length of each completion beside them ([`segments`]): only tokens that
//! count are there, so there is nothing to mask. Where a gradient flows a value is a tensor, elsewhere a slice.
//!
//! A `loss` is the micro-batch's part of its optimizer step: it is divided by counts of the whole step (`*Totals`), so
//! the parts add up and accumulation equals one large batch. TRL divides within a micro-batch, then by their number.

mod check;
pub mod cpo;
pub mod dpo;
pub mod grpo;
pub mod kl;
pub mod kto;
pub mod orpo;
pub mod ppo;
pub mod preference;
pub mod reward;
pub mod segments;
pub mod sft;
pub mod simpo;
pub mod statistics;

pub use cpo::{CpoConfig, CpoLossType, cpo_loss};
pub use dpo::{DpoConfig, DpoLossType, FDivergence, dpo_loss};
pub use grpo::{GrpoConfig, group_advantages, grpo_loss};
pub use kl::{AdaptiveKlConfig, KlController, KlEstimator};
pub use kto::{KtoConfig, KtoLossType, kto_loss};
pub use orpo::{OrpoConfig, orpo_loss};
pub use ppo::{PpoConfig, gae, policy_loss, ppo_loss, value_loss};
pub use preference::{PairLengths, PairLogps, PairTotals, PolicyPairs, PreferenceMetrics, PreferenceOutput};
pub use reward::{RewardConfig, reward_loss};
pub use simpo::{SimPoConfig, simpo_loss};
