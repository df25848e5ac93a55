//! What the host offers. In a plugin's own tests, outside a component, [`crate::testing::with_host`] answers.

#[cfg(target_family = "wasm")]
use crate::bindings::host::fthost::plugin as wit;

/// Lines for the person who runs the training.
pub mod log {
    pub use crate::bindings::host::fthost::plugin::log::Level;

    /// For the plugin's author.
    pub fn debug(message: &str) {
        line(Level::Debug, message);
    }

    /// For whoever runs it.
    pub fn info(message: &str) {
        line(Level::Info, message);
    }

    /// Something is odd.
    pub fn warn(message: &str) {
        line(Level::Warn, message);
    }

    /// Something failed.
    pub fn error(message: &str) {
        line(Level::Error, message);
    }

    fn line(level: Level, message: &str) {
        #[cfg(target_family = "wasm")]
        super::wit::log::log(level, message);
        #[cfg(not(target_family = "wasm"))]
        crate::testing::ask("log", |host| host.log(level, message));
    }
}

/// Numbers seeded by run seed, plugin and call: the same run draws the same.
pub mod random {
    /// 64 random bits.
    pub fn next_u64() -> u64 {
        #[cfg(target_family = "wasm")]
        return super::wit::random::next_u64();
        #[cfg(not(target_family = "wasm"))]
        crate::testing::ask("random", |host| host.next_u64())
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

    /// A number in [0, 1), of 53 random bits.
    pub fn unit() -> f64 {
        (next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Files of the plugin's package, and those that the run file grants by digest.
pub mod resources {
    pub use crate::bindings::host::fthost::plugin::resources::File;

    /// Bytes asked for at a time.
    #[cfg(target_family = "wasm")]
    const CHUNK: u32 = 1 << 20;

    /// What there is, in the order of names.
    pub fn available() -> Vec<File> {
        #[cfg(target_family = "wasm")]
        return super::wit::resources::available();
        #[cfg(not(target_family = "wasm"))]
        crate::testing::ask("resources", |host| host.resources())
    }

    /// A whole file.
    ///
    /// # Errors
    /// A name that is not available.
    pub fn read(name: &str) -> Result<Vec<u8>, String> {
        #[cfg(target_family = "wasm")]
        {
            let mut bytes = Vec::new();
            loop {
                let more = super::wit::resources::read(name, bytes.len() as u64, CHUNK)?;
                let last = more.len() < CHUNK as usize;
                bytes.extend(more);
                if last {
                    return Ok(bytes);
                }
            }
        }
        #[cfg(not(target_family = "wasm"))]
        crate::testing::ask("resources", |host| host.read_resource(name))
    }

    /// A whole file of text.
    ///
    /// # Errors
    /// A name that is not available, and bytes that are no UTF-8.
    pub fn read_text(name: &str) -> Result<String, String> {
        String::from_utf8(read(name)?).map_err(|error| format!("resource `{name}` is no UTF-8: {error}"))
    }
}

/// Models, where the run file grants them: the run's own, the same before training, or a named judge.
pub mod model {
    use crate::record::{Completion, Prompt};

    pub use crate::bindings::host::fthost::plugin::generate::Sampling;
    pub use crate::bindings::host::fthost::plugin::logprobs::TextLogprob;
    pub use crate::bindings::types::Model;

    impl std::str::FromStr for Model {
        type Err = String;

        /// As grants name models: `run`, `reference` or `judges.<name>`.
        fn from_str(name: &str) -> Result<Self, String> {
            match (name, name.strip_prefix("judges.")) {
                ("run", _) => Ok(Self::Run),
                ("reference", _) => Ok(Self::Reference),
                (_, Some(judge)) if !judge.is_empty() => Ok(Self::Judge(judge.into())),
                _ => Err(format!("must be `run`, `reference` or `judges.<name>`, got `{name}`")),
            }
        }
    }

    /// `completions_per_prompt` answers a prompt, in order. Needs `grants.generate`.
    ///
    /// # Errors
    /// The model's reason, in words. A call without the grant ends the plugin.
    pub fn generate(
        model: &Model,
        prompts: Vec<Prompt>,
        sampling: &Sampling,
    ) -> Result<Vec<Vec<Completion>>, String> {
        #[cfg(target_family = "wasm")]
        {
            let prompts: Vec<_> = prompts.into_iter().map(Into::into).collect();
            let answers = super::wit::generate::generate(model, &prompts, sampling)?;
            Ok(answers.into_iter().map(|it| it.into_iter().map(Completion::from).collect()).collect())
        }
        #[cfg(not(target_family = "wasm"))]
        crate::testing::ask("generate", |host| host.generate(model, &prompts, sampling))
    }

    /// Log-probability of each continuation after its prompt, in nats. Needs `grants.logprobs`.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn logprobs(model: &Model, pairs: Vec<(Prompt, String)>) -> Result<Vec<TextLogprob>, String> {
        #[cfg(target_family = "wasm")]
        {
            let pairs: Vec<_> = pairs.into_iter().map(|(prompt, text)| (prompt.into(), text)).collect();
            super::wit::logprobs::logprobs(model, &pairs)
        }
        #[cfg(not(target_family = "wasm"))]
        crate::testing::ask("logprobs", |host| host.logprobs(model, &pairs))
    }

    /// For each text a vector of length 1. Needs `grants.embed`.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn embed(model: &Model, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
        #[cfg(target_family = "wasm")]
        return super::wit::embed::embed(model, texts);
        #[cfg(not(target_family = "wasm"))]
        crate::testing::ask("embed", |host| host.embed(model, texts))
    }
}
