//! Plugins as sandboxed WebAssembly components.
//!
//! A [`Sandbox`] compiles components (once: the result is cached by digest) and a [`Plugin`] plays the roles of
//! [`fthost_data::role`] with them. A guest reaches nothing but the imports in `wit/host.wit`, within [`Limits`]
//! and [`Grants`]; whatever it does comes back as a result, a [`fthost_data::Failure`] or a [`SandboxError`].

mod cache;
mod component;
mod contract;
mod error;
mod grants;
mod handle;
mod limits;
mod plugin;
mod resources;
mod roles;
mod schema;
mod scoring;
mod set;
mod state;
mod usage;
mod wasi;

pub use component::{RoleKind, Sandbox, SandboxConfig};
pub use contract::{CONTRACT_VERSION, Contract};
pub use error::{Result, SandboxError};
pub use grants::{GrantedFile, GrantedModels, Grants};
pub use limits::Limits;
pub use plugin::{Description, Inspection, Plugin};
pub use resources::resource_folder;
pub use set::{Named, PluginConfig, PluginTable, SearchPath};
pub use state::{LogLevel, LogSink, ModelSlot};
pub use usage::Usage;
