//! `[checkpoint]` of a run file.

use serde::{Deserialize, Serialize};

/// `[checkpoint]`: `checkpoint-<step>` folders in `output.dir` that `--resume` goes on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// After every so many steps; 0 is only when the run is interrupted.
    pub every_steps: u64,
    /// The newest so many are kept.
    pub keep_last: usize,
    /// An evaluation better than all before it saves a checkpoint, which is kept besides.
    pub keep_best: bool,
    /// Written while the next steps are taken, which needs memory for a copy of what is trained and of its moments. Where it is not
    /// said, an adapter's and those of a model that ranks share are, and those of a whole model on one rank are not.
    pub asynchronous: Option<bool>,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every_steps: 0, keep_last: 2, keep_best: false, asynchronous: None }
    }
}

impl CheckpointConfig {
    /// Whether to save after `step` steps.
    pub fn is_due(&self, step: u64) -> bool {
        self.every_steps > 0 && step.is_multiple_of(self.every_steps)
    }
}
