//! `[eval]` of a run file.

use fthost_engine::generate::GenerateConfig;
use fthost_engine::nn::DecodeWeights;
use serde::{Deserialize, Serialize};

/// `[eval]`: when the rows of `data.held_out` are looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// After every so many steps; 0 is never between the first and the last.
    pub every_steps: u64,
    /// Before the first step.
    pub before: bool,
    /// After the last step.
    pub after: bool,
    /// How answers are generated, where plugins score or judge them.
    pub generation: GenerateConfig,
    /// Answers that grow at one time.
    pub batch_size: usize,
    /// What answers are generated with: `bf16` and `int8` are copies, made anew for each evaluation, that are read in
    /// less time. The loss on held-out rows is that of the model as it is.
    pub weights: DecodeWeights,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            every_steps: 0,
            before: true,
            after: true,
            generation: GenerateConfig::default(),
            batch_size: 16,
            weights: DecodeWeights::default(),
        }
    }
}

impl EvalConfig {
    /// Whether to evaluate after `step` steps of `total`.
    pub fn is_due(&self, step: u64, total: u64) -> bool {
        match step {
            0 => self.before,
            step if step >= total => self.after,
            step => self.every_steps > 0 && step.is_multiple_of(self.every_steps),
        }
    }
}
