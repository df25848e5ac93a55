//! What the host offers. Outside a component (in a plugin's own tests) these calls panic.

use crate::bindings::host::fthost::plugin as wit;
use crate::record::{Completion, Prompt};

/// Lines for the person who runs the training.
pub mod log {
    use super::wit::log::{Level, log};

    /// For the plugin's author.
    pub fn debug(message: &str) {
        log(Level::Debug, message);
    }

    /// For whoever runs it.
    pub fn info(message: &str) {
        log(Level::Info, message);
    }

    /// Something is odd.
    pub fn warn(message: &str) {
        log(Level::Warn, message);
    }

    /// Something failed.
    pub fn error(message: &str) {
        log(Level::Error, message);
    }
}

/// Numbers seeded by run seed, plugin and call: the same run draws the same.
pub mod random {
    /// 64 random bits.
    pub fn next_u64() -> u64 {
        super::wit::random::next_u64()
    }

    /// A number in `0..bound`, without bias; 0 for a bound of 0.
    pub fn below(bound: u64) -> u64 {
        // The low end of the range is drawn once too often where `bound` does not divide 2^64: drawn again.
        let surplus = bound.wrapping_neg().checked_rem(bound).unwrap_or(0);
        loop {
            let drawn = next_u64();
            if drawn >= surplus {
                return drawn.checked_rem(bound).unwrap_or(0);
            }
        }
    }
}

/// The run's model, where the run file grants it.
pub mod model {
    use super::{Completion, Prompt, wit};

    pub use super::wit::generate::Sampling;
    pub use super::wit::logprobs::TextLogprob;

    /// `completions_per_prompt` answers a prompt, in order. Needs `grants.generate = true`.
    ///
    /// # Errors
    /// The model's reason, in words. A call without the grant ends the plugin.
    pub fn generate(prompts: Vec<Prompt>, sampling: &Sampling) -> Result<Vec<Vec<Completion>>, String> {
        let prompts: Vec<_> = prompts.into_iter().map(Into::into).collect();
        let answers = wit::generate::generate(&prompts, sampling)?;
        Ok(answers.into_iter().map(|it| it.into_iter().map(Completion::from).collect()).collect())
    }

    /// Log-probability of each continuation after its prompt, in nats. Needs `grants.logprobs = true`.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn logprobs(pairs: Vec<(Prompt, String)>) -> Result<Vec<TextLogprob>, String> {
        let pairs: Vec<_> = pairs.into_iter().map(|(prompt, text)| (prompt.into(), text)).collect();
        wit::logprobs::logprobs(&pairs)
    }
}
