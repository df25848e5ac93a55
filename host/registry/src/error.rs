//! What keeps a package from being made, shared or used.

use std::path::{Path, PathBuf};

use crate::package::Package;

/// Errors of `fthost-registry`; the program prints them as they stand.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file could not be read or written.
    #[error("can't {action} `{}`: {source}", path.display())]
    Io {
        /// `read`, `write`, `remove`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A manifest with problems.
    #[error("invalid manifest `{place}`\n  {}", problems.join("\n  "))]
    Manifest {
        /// The file, or the package it came in.
        place: String,
        /// Every problem, each with its key.
        problems: Vec<String>,
    },
    /// Files that are no package.
    #[error("`{place}` is no package: {problem}")]
    Package {
        /// Folder or address.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A manifest and a component that say different things.
    #[error(
        "`{place}`: manifest and component disagree\n  {}\nhint: build the component again, or correct `plugin.toml`",
        problems.join("\n  ")
    )]
    Described {
        /// Folder.
        place: String,
        /// Each with the manifest's key.
        problems: Vec<String>,
    },
    /// An address that can't be understood.
    #[error(
        "`{given}` is no place for packages: {problem}\nhint: a place is `oci://host/repository`, `oci://host/prefix/` for many packages, `file:///folder`, or a folder"
    )]
    Place {
        /// As given.
        given: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A package that is named so that it can't be understood.
    #[error(
        "`{given}` names no package: its {what} can't be read\nhint: a package is `team/bleu`, `team/bleu@^0.1`, or where one version is meant `team/bleu@0.1.0`"
    )]
    Unclear {
        /// As given.
        given: String,
        /// `name`, `version`, `requirement`.
        what: &'static str,
    },
    /// A registry said no, or nothing.
    #[error("{place}: {reason}\nhint: {hint}")]
    Registry {
        /// What was asked.
        place: String,
        /// What it answered.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// A place that does not hold what is looked for.
    #[error(
        "`{place}` has no version of `{name}` that satisfies {}; it has {}",
        listed(requirements),
        or_nothing(available)
    )]
    NoVersion {
        /// The package.
        name: String,
        /// What is asked for, and by whom.
        requirements: Vec<String>,
        /// Where it was looked for.
        place: String,
        /// What is there.
        available: Vec<String>,
    },
    /// A package that is not at hand.
    #[error("`{name}` is not among the pulled packages\nhint: {hint}")]
    NotPulled {
        /// The package.
        name: String,
        /// What to do.
        hint: String,
    },
    /// What a place calls one thing is another.
    #[error(
        "`{place}` is said to be {expected}, but holds {found}; it is refused\nhint: somebody moved a tag; ask whoever publishes there"
    )]
    Swapped {
        /// The address.
        place: String,
        /// What was asked for.
        expected: String,
        /// What came.
        found: String,
    },
    /// Bytes that are not those that were named by digest.
    #[error("{what} from `{place}` was changed: its digest is {found}, not {expected}; it is refused")]
    Changed {
        /// The file or package.
        what: String,
        /// Where it came from.
        place: String,
        /// As recorded.
        expected: String,
        /// Of the bytes.
        found: String,
    },
    /// Something else is published under this version.
    #[error(
        "`{place}` holds another {name} {version}; published versions don't change\nhint: raise `version`, or replace it with `--force`, which breaks every lock file that pins it"
    )]
    Published {
        /// The package.
        name: String,
        /// The version.
        version: String,
        /// Where.
        place: String,
    },
    /// A lower version than the pinned one.
    #[error("`{name}` {offered} is lower than {pinned}, which `{}` pins; it is refused\nhint: `--allow-downgrade` takes it", lock.display())]
    Downgrade {
        /// The package.
        name: String,
        /// What would come.
        offered: String,
        /// What is pinned.
        pinned: String,
        /// The lock file.
        lock: PathBuf,
    },
    /// A policy asks for a signature, and there is none.
    #[error("{release} is not signed, and `{}` asks for a signature of `{pattern}`; it is refused\nhint: ask its publisher for one (`fthost plugin sign`)", policy.display())]
    Unsigned {
        /// The package.
        release: Box<Release>,
        /// The policy file.
        policy: PathBuf,
        /// The pattern that names the package.
        pattern: String,
    },
    /// Signed by somebody who may not publish this name.
    #[error("{release} is signed by {}, whom `{}` does not allow to publish `{pattern}`; it is refused\nhint: if that key is its publisher's, add it to `keys`", listed(signers), policy.display())]
    Untrusted {
        /// The package.
        release: Box<Release>,
        /// The keys that did sign.
        signers: Vec<String>,
        /// The policy file.
        policy: PathBuf,
        /// The pattern that names the package.
        pattern: String,
    },
    /// A signature that does not fit.
    #[error("the signature of {release} is wrong: {problem}; it is refused")]
    Signature {
        /// The package.
        release: Box<Release>,
        /// What does not fit.
        problem: String,
    },
    /// Another signer than the one that is pinned.
    #[error("{release} is signed by {found}, but `{}` pins {pinned}; it is refused\nhint: if its publisher has a new key, remove `signer` of `{}` from the lock file", lock.display(), release.name)]
    SignerChanged {
        /// The package.
        release: Box<Release>,
        /// Who signed, or `nobody`.
        found: String,
        /// Who signed what is pinned.
        pinned: String,
        /// The lock file.
        lock: PathBuf,
    },
    /// A policy file that can't be used. Nothing is trusted then.
    #[error("invalid trust policy `{}`\n  {problem}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// With line and key.
        problem: String,
    },
    /// A key that can't be used.
    #[error("{what} is no key: {problem}")]
    Key {
        /// The file, or where it stands.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A lock file that can't be used.
    #[error("invalid lock file `{}`\n  {}", path.display(), problems.join("\n  "))]
    Lock {
        /// The file.
        path: PathBuf,
        /// Each with its entry.
        problems: Vec<String>,
    },
    /// `--locked`, and something is not as locked.
    #[error("`--locked`, but `{}` does not fit\n  {}\nhint: `fthost plugin update` writes it anew; `--dry-run` shows what would change", path.display(), problems.join("\n  "))]
    Locked {
        /// The file.
        path: PathBuf,
        /// Each with its plugin.
        problems: Vec<String>,
    },
    /// A set that can't be used.
    #[error("invalid plugin set `{}`\n  {}", path.display(), problems.join("\n  "))]
    Set {
        /// The file.
        path: PathBuf,
        /// With line and key.
        problems: Vec<String>,
    },
    /// A set that is not found.
    #[error(transparent)]
    Sandbox(#[from] fthost_sandbox::SandboxError),
}

/// A package and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The package.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Release {
    pub(crate) fn of(package: &Package) -> Box<Self> {
        Box::new(Self { name: package.name.to_string(), version: package.version.to_string() })
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` {}", self.name, self.version)
    }
}

/// Results of `fthost-registry`.
pub type Result<T> = std::result::Result<T, RegistryError>;

impl RegistryError {
    /// Whether what somebody wrote is wrong, rather than what somebody published.
    pub fn is_usage(&self) -> bool {
        use RegistryError as E;
        matches!(
            self,
            E::Manifest { .. }
                | E::Described { .. }
                | E::Unclear { .. }
                | E::Sandbox(_)
                | E::Place { .. }
                | E::Policy { .. }
                | E::Lock { .. }
                | E::Locked { .. }
                | E::Set { .. }
        )
    }
}

/// For `map_err` on file operations.
pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RegistryError + use<> {
    let path = path.to_path_buf();
    move |source| RegistryError::Io { action, path, source }
}

fn listed(items: &[String]) -> String {
    items.join(", ")
}

fn or_nothing(items: &[String]) -> String {
    if items.is_empty() { "none".to_string() } else { listed(items) }
}
