//! Run files and recipes: the only place where engine and plugins meet.

pub mod config;
pub mod error;
pub mod metrics;
pub mod sft;

pub use config::RunConfig;
pub use error::{Result, RunError};
pub use fthost_engine::device::DeviceKind;
