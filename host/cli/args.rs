//! The command line, as typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Fine-tunes language models.
///
/// Exit codes: 0 done; 1 failure; 2 usage or an invalid run file; 3 data; 5 a loss or gradient that is not finite.
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
    /// Check a run file without training
    Check(FileArgs),
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
    /// Where to compute
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceArg,
    /// Print nothing but errors
    #[arg(long)]
    pub quiet: bool,
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
