//! Plugins as sandboxed WebAssembly components.
//!
//! A [`Sandbox`] compiles components (once: the result is cached by digest) and a [`Plugin`] plays the roles of
//! [`fthost_data::role`] with them. A guest reaches nothing but the imports in `wit/host.wit`, within [`Limits`]
//! and [`Grants`]; whatever it does comes back as a result, a [`fthost_data::Failure`] or a [`SandboxError`].

mod cache;
mod component;
mod convert;
mod error;
mod grants;
mod handle;
mod limits;
mod plugin;
mod roles;
mod set;
mod state;
mod wit;

pub use component::{CONTRACT_VERSION, RoleKind, Sandbox, SandboxConfig};
pub use error::{Result, SandboxError};
pub use grants::Grants;
pub use limits::Limits;
pub use plugin::{Description, Plugin};
pub use set::{Named, PluginConfig, PluginTable, SearchPath};
pub use state::{LogLevel, LogSink, ModelSlot};
