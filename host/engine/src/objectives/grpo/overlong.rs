//! Soft punishment of completions that come near the greatest length: DAPO, <https://arxiv.org/abs/2503.14476>, eq. 13.

use serde::{Deserialize, Serialize};

use crate::objectives::check::Check;

/// `[objective.grpo.overlong]`; names are those of TRL's `get_soft_overlong_punishment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlongConfig {
    /// Tokens at which the punishment is whole.
    pub max_completion_length: usize,
    /// Over how many tokens it grows.
    pub soft_punish_cache: usize,
}

impl OverlongConfig {
    /// Every impossible value, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let (most, cache) = (self.max_completion_length, self.soft_punish_cache);
        let mut check = Check::default();
        check.refuse(most == 0, || "`max_completion_length` must be > 0, got `0`".into());
        check.refuse(cache > most, || {
            format!("`soft_punish_cache` must be at most `max_completion_length` = {most}, got `{cache}`")
        });
        check.problems()
    }

    /// What is added to the score of a completion of `length` tokens: 0 up to `max - cache`, -1 from `max` on, a straight line
    /// between.
    pub fn punishment(&self, length: usize) -> f32 {
        let free = self.max_completion_length.saturating_sub(self.soft_punish_cache);
        match length {
            _ if length <= free => 0.0,
            _ if length <= self.max_completion_length => {
                (free as f32 - length as f32) / self.soft_punish_cache as f32
            }
            _ => -1.0,
        }
    }
}
