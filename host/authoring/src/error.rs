//! What stands between an author and a plugin that works.

use std::path::{Path, PathBuf};

use fthost_data::DataError;
use fthost_registry::RegistryError;
use fthost_sandbox::SandboxError;

/// Errors of `fthost-authoring`; the program prints them as they stand.
#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    /// A file or folder could not be read or written.
    #[error("can't {action} `{}`: {source}", path.display())]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A name that no plugin can have.
    #[error(
        "`{name}` can't be a plugin's name: {problem}\nhint: lower-case letters, digits and `-`, a letter first, as in `short-answer`"
    )]
    Name {
        /// As given.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A scaffold would be written over something.
    #[error("`{}` is already there\nhint: give another name, or another place with `--in DIR`", path.display())]
    Exists {
        /// What is in the way.
        path: PathBuf,
    },
    /// There is no scaffold of this role in this language.
    #[error("there is no scaffold for `{role}` in {language}\nhint: the languages that have one are {}", languages.join(", "))]
    NoScaffold {
        /// The role.
        role: String,
        /// The language.
        language: String,
        /// Languages that have one.
        languages: Vec<String>,
    },
    /// A folder is no plugin package.
    #[error("`{}` is no plugin package: it has no `plugin.toml`\nhint: `fthost plugin new NAME` makes one", folder.display())]
    NoPackage {
        /// The folder.
        folder: PathBuf,
    },
    /// `plugin.toml` can't be used.
    #[error("invalid `{}`\n  {}", path.display(), problems.join("\n  "))]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Every problem, with key or line.
        problems: Vec<String>,
    },
    /// A package without sources in a language that is known.
    #[error("`{}` has no sources: looked for {}", folder.display(), looked.join(", "))]
    NoSources {
        /// The package's folder.
        folder: PathBuf,
        /// Every place.
        looked: Vec<String>,
    },
    /// A package that was not built yet.
    #[error("`{}` is not built: there is no `{}`\nhint: `fthost plugin build` makes it", folder.display(), component.display())]
    NotBuilt {
        /// The package's folder.
        folder: PathBuf,
        /// Where its component should be.
        component: PathBuf,
    },
    /// A program that is needed is absent.
    #[error("`{tool}` is needed to {purpose}, and it was not found\nhint: {hint}")]
    ToolMissing {
        /// The program.
        tool: String,
        /// As in `build plugins in Python`.
        purpose: String,
        /// What to do.
        hint: String,
    },
    /// A program failed.
    #[error("{what} failed: {reason}{}\nhint: {hint}", indented(output))]
    ToolFailed {
        /// What was done.
        what: String,
        /// Exit code or signal.
        reason: String,
        /// The end of what it printed; empty where it was seen already.
        output: String,
        /// What to do.
        hint: String,
    },
    /// Sources that can't be made a component.
    #[error("can't make a component of `{}`: {reason}", path.display())]
    Componentize {
        /// The core module or source.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A case that can't be understood.
    #[error("{}:{line}: {problem}", path.display())]
    Case {
        /// The file.
        path: PathBuf,
        /// 1-based.
        line: usize,
        /// With the key.
        problem: String,
    },
    /// A package whose component is not what its manifest says.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Something is asked of a plugin that does not apply to it.
    #[error("{problem}\nhint: {hint}")]
    Usage {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// The sandbox refuses the component.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A call into the plugin failed.
    #[error(transparent)]
    Role(#[from] fthost_data::RoleError),
    /// Rows that can't be used.
    #[error(transparent)]
    Data(#[from] DataError),
}

impl AuthorError {
    /// 2 for what the author wrote, 3 for data, 4 for a plugin that is refused or fails, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Name { .. }
            | Self::Exists { .. }
            | Self::NoScaffold { .. }
            | Self::NoPackage { .. }
            | Self::Manifest { .. }
            | Self::NoSources { .. }
            | Self::Case { .. }
            | Self::Usage { .. }
            | Self::Sandbox(SandboxError::Config { .. }) => 2,
            Self::Data(_) => 3,
            Self::Sandbox(_) | Self::Role(_) | Self::Registry(_) => 4,
            Self::Io { .. }
            | Self::NotBuilt { .. }
            | Self::ToolMissing { .. }
            | Self::ToolFailed { .. }
            | Self::Componentize { .. } => 1,
        }
    }
}

/// Results of `fthost-authoring`.
pub type Result<T> = std::result::Result<T, AuthorError>;

/// For `map_err` on file operations.
pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> AuthorError {
    let path = path.to_path_buf();
    move |source| AuthorError::Io { action, path, source }
}

/// Lines of another program's output, below the error.
fn indented(output: &str) -> String {
    output.lines().map(|it| format!("\n  {it}")).collect()
}
