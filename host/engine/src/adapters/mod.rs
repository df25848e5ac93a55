//! What is trained beside frozen weights.

pub mod combine;
pub mod config;
pub mod dropout;
mod experts;
pub mod ia3;
pub mod init;
pub mod lora;
pub mod merge;
pub mod peft;
pub(crate) mod saved;
pub mod target;
pub mod virtual_tokens;

pub use config::AdapterConfig;
pub use ia3::{Ia3Config, attach_ia3};
pub use lora::{LoraConfig, attach_lora};
pub use target::TargetModules;
pub use virtual_tokens::{PrefixTuningConfig, PromptTuningConfig, attach_prefix, attach_prompt};
