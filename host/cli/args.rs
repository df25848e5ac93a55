//! The command line, as typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Fine-tunes language models.
///
/// Exit codes: 0 done; 1 failure; 2 usage or an invalid run file; 3 data; 4 a plugin failed or hit a limit; 5 a loss
/// or gradient that is not finite; 130 SIGINT and 143 SIGTERM, the step finished and a checkpoint saved.
#[derive(Debug, Parser)]
#[command(name = "fthost", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Train as a run file says
    Run(RunArgs),
    /// Check a run file without loading or training anything
    Check(FileArgs),
    /// Look at data as training sees it
    #[command(subcommand)]
    Data(DataVerb),
    /// Say what this machine has for fthost
    Doctor,
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// A run file and what is changed in it.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// The run file (TOML)
    pub file: PathBuf,
    /// Override a key of the run file, as in `--set train.steps=20`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
}

/// `fthost run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Run file and overrides.
    #[command(flatten)]
    pub file: FileArgs,
    /// Go on from the newest checkpoint in the output folder
    #[arg(long, conflicts_with_all = ["overwrite", "dry_run"])]
    pub resume: bool,
    /// Remove an earlier run's checkpoints from the output folder
    #[arg(long)]
    pub overwrite: bool,
    /// Load everything, say what would be done, and do no step
    #[arg(long)]
    pub dry_run: bool,
    /// Where to compute
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceArg,
    /// Print nothing but errors
    #[arg(long, conflicts_with = "json")]
    pub quiet: bool,
    /// Print one JSON object a line, for programs
    #[arg(long)]
    pub json: bool,
}

/// `fthost data`.
#[derive(Debug, Subcommand)]
pub enum DataVerb {
    /// Print rows with what is supervised apart from what is masked
    Preview(PreviewArgs),
}

/// `fthost data preview`.
#[derive(Debug, Args)]
pub struct PreviewArgs {
    /// Run file and overrides.
    #[command(flatten)]
    pub file: FileArgs,
    /// Rows to print
    #[arg(long, default_value_t = 3)]
    pub rows: usize,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum DeviceArg {
    /// Burn's flex backend
    #[default]
    Cpu,
    /// The first CUDA device (needs the feature `cuda`)
    Cuda,
}

impl From<DeviceArg> for fthost_run::DeviceKind {
    fn from(device: DeviceArg) -> Self {
        match device {
            DeviceArg::Cpu => Self::Cpu,
            DeviceArg::Cuda => Self::Cuda,
        }
    }
}
