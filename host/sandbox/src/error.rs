//! What stands between a component on disk and a plugin that can be called.

use std::path::PathBuf;

use fthost_data::Failure;

/// Errors of `fthost-sandbox` before a role is played; afterwards there are [`fthost_data::RoleError`]s.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A file could not be read or written.
    #[error("can't {action} `{}`: {source}", path.display())]
    Io {
        /// `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No component or set of this name stands where they are looked for.
    #[error("{kind} `{name}` was not found; looked for {}", looked.join(", "))]
    NotFound {
        /// `plugin` or `plugin set`.
        kind: &'static str,
        /// As the run file or the command line names it.
        name: String,
        /// Every place, in order.
        looked: Vec<String>,
    },
    /// The component is another than the one that was pinned.
    #[error("plugin `{plugin}` has digest {found}, but `plugins.{plugin}.digest` pins {pinned}")]
    Digest {
        /// The plugin.
        plugin: String,
        /// As configured.
        pinned: String,
        /// Of the bytes on disk.
        found: String,
    },
    /// A granted file is another than the one that was pinned.
    #[error(
        "resource `{resource}` of plugin `{plugin}` has digest {found}, but `plugins.{plugin}.grants.resources.\"{resource}\".digest` pins {pinned}"
    )]
    ResourceDigest {
        /// The plugin.
        plugin: String,
        /// As the plugin asks for it.
        resource: String,
        /// As granted.
        pinned: String,
        /// Of the bytes on disk.
        found: String,
    },
    /// The file is no component that can be compiled.
    #[error("plugin `{plugin}`: `{}` is no WebAssembly component that can be run: {reason}", path.display())]
    NotAComponent {
        /// The plugin.
        plugin: String,
        /// The file.
        path: PathBuf,
        /// The compiler's reason.
        reason: String,
    },
    /// The component wants something the host does not offer.
    #[error(
        "plugin `{plugin}` imports `{import}`, which no plugin is given (given: {offered}, and WASI 0.2 without sockets)"
    )]
    ForbiddenImport {
        /// The plugin.
        plugin: String,
        /// The import.
        import: String,
        /// What the host offers.
        offered: String,
    },
    /// The component exports no role of this contract.
    #[error("plugin `{plugin}` exports none of the roles of contract {contracts} (roles: data-builder, augmenter, reward, evaluator); it exports {}", exports.join(", "))]
    WrongWorld {
        /// The plugin.
        plugin: String,
        /// The versions that this host speaks.
        contracts: String,
        /// What it exports.
        exports: Vec<String>,
    },
    /// The component does not play the role it is asked to.
    #[error("plugin `{plugin}` can't play `{role}`: it exports {}", roles.join(", "))]
    Role {
        /// The plugin.
        plugin: String,
        /// The role asked for.
        role: String,
        /// The roles it has.
        roles: Vec<String>,
    },
    /// The plugin refused its configuration.
    #[error("plugin `{plugin}` refuses its configuration\n  {}", problems.join("\n  "))]
    Config {
        /// The plugin.
        plugin: String,
        /// Each with its full key.
        problems: Vec<String>,
    },
    /// The plugin failed before its first batch.
    #[error("plugin `{plugin}` {failure} in `{call}`{}", failure.advice(plugin))]
    Start {
        /// The plugin.
        plugin: String,
        /// `describe` or `configure`.
        call: &'static str,
        /// What happened.
        #[source]
        failure: Failure,
    },
    /// The machine can't run WebAssembly as configured.
    #[error("the WebAssembly engine can't be set up: {0}")]
    Engine(String),
}

/// Results of `fthost-sandbox`.
pub type Result<T> = std::result::Result<T, SandboxError>;

/// For `map_err` on file operations.
pub(crate) fn io(
    action: &'static str,
    path: &std::path::Path,
) -> impl FnOnce(std::io::Error) -> SandboxError {
    let path = path.to_path_buf();
    move |source| SandboxError::Io { action, path, source }
}
