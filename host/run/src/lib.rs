//! Run files and recipes: the only place where engine and plugins meet.

pub mod config;
pub mod course;
pub mod dataset;
pub mod digest;
pub mod doctor;
pub mod error;
pub mod eval;
pub mod evaluate;
pub mod event;
pub mod generate;
pub mod host_model;
pub mod interrupt;
pub mod judge;
pub mod lock;
pub mod metrics;
pub mod models;
pub mod performance;
pub mod place;
pub mod plugins;
pub mod prefetch;
pub mod report;
pub mod rows;
pub mod settings;
pub mod sft;
pub mod summary;
pub mod tensorboard;
pub mod token_cache;

pub use config::RunConfig;
pub use error::{Result, RunError};
pub use event::Event;
pub use fthost_engine::allocator::KeepPages;
pub use fthost_engine::device::DeviceKind;
pub use fthost_sandbox::{LogLevel, LogSink, PluginConfig, SearchPath};
pub use interrupt::Interrupt;
pub use plugins::Plugins;
