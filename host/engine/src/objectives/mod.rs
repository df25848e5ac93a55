//! Objectives: pure functions of hidden states, log-probabilities, rewards and masks.

pub mod sft;
