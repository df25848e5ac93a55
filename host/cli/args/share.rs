//! `fthost plugin`, as typed: packages that are shared.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What is done with packages.
#[derive(Debug, Subcommand)]
pub enum ShareVerb {
    /// Publish a plugin's folder or a set's file
    ///
    /// A place is `oci://host/repository`, `oci://host/prefix/` for many packages, each under its name, `file:///folder` or
    /// a folder. Docker's credential file says who pushes.
    Push(PushArgs),
    /// Fetch a package, check it, and keep it for runs
    Pull(PullPackageArgs),
    /// List the packages of a place, each at its highest version
    Search {
        /// Registry, or folder
        place: String,
        /// Only those with this in their name or description
        #[arg(default_value = "")]
        term: String,
    },
    /// Remove pulled packages
    Remove {
        /// `name`, or `name@version`
        package: String,
    },
    /// Resolve a run file's plugins anew and write `plugins.lock` beside it
    Update(UpdateArgs),
    /// Sign a plugin's folder, or a set's file, as it is now
    Sign {
        /// A plugin's folder, or a set's file
        package: PathBuf,
        /// The secret key's file
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Say who signed a package, and fail if it is nobody or somebody who may not
    Verify(VerifyArgs),
    /// Make keys to sign with
    #[command(subcommand)]
    Key(KeyVerb),
}

/// `fthost plugin push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// A plugin's folder, or a set's file
    pub package: PathBuf,
    /// Where to publish it
    pub place: String,
    /// Sign it with this secret key
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Replace other files that were published under this version
    #[arg(long)]
    pub force: bool,
    /// Do not load the component to compare what it says of itself with the manifest
    #[arg(long)]
    pub no_verify: bool,
}

/// `fthost plugin pull`.
#[derive(Debug, Args)]
pub struct PullPackageArgs {
    /// `name`, or `name@requirement` as in `team/bleu@^0.1`; the highest version that will do is taken
    pub package: String,
    /// Where it is published
    pub place: String,
    /// A lock file whose pins are kept to
    #[arg(long, value_name = "FILE", default_value = fthost_registry::LOCK)]
    pub lock: PathBuf,
    /// Take a lower version than the pinned one
    #[arg(long)]
    pub allow_downgrade: bool,
    /// A further trust policy, beside the user's and `trust.toml` of this folder
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
}

/// `fthost plugin update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The run file
    pub file: PathBuf,
    /// Plugin set, in place of the run file's `plugin_sets`
    #[arg(long = "plugins", value_name = "SET")]
    pub plugin_sets: Vec<String>,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `fthost plugin verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A folder, a set's file, or a pulled package (`name`, `name@version`)
    pub package: String,
    /// The key that must have signed
    #[arg(long, value_name = "ed25519:KEY")]
    pub key: Option<String>,
    /// A further trust policy, beside the user's and `trust.toml` of this folder
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
}

/// `fthost plugin key`.
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Make a secret key and print its public half, for others' `trust.toml`
    New {
        /// The file to make; it is its owner's alone
        file: PathBuf,
    },
}
