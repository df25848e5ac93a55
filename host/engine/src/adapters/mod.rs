//! What is trained beside frozen weights.

pub mod combine;
pub mod dropout;
mod experts;
pub mod init;
pub mod lora;
pub mod merge;
pub mod peft;
pub mod target;

pub use lora::{LoraConfig, attach_lora};
pub use target::TargetModules;
