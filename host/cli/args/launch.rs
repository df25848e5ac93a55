//! `fthost launch`, as typed.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{DeviceArg, FileArgs};

/// `fthost launch`.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// Run file and overrides.
    #[command(flatten)]
    pub file: FileArgs,
    /// What starts the job; what the run file has a section of if absent
    #[arg(long, value_enum)]
    pub to: Option<TargetArg>,
    /// The file to write [default: the run file's name with `.sbatch` or `.mpijob.yaml`]
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub out: Option<PathBuf>,
    /// Replace a file that is there already
    #[arg(long, conflicts_with = "dry_run")]
    pub force: bool,
    /// Print the job, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The run uses nothing but what `plugins.lock` beside the run file pins
    #[arg(long)]
    pub locked: bool,
    /// Where the run computes; for `cuda` the job asks for one GPU a rank
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceArg,
}

/// What starts a job.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum TargetArg {
    /// A batch script for `sbatch`
    Slurm,
    /// A manifest for Kubeflow's mpi-operator
    MpiJob,
}

impl From<TargetArg> for fthost_run::launch::Target {
    fn from(target: TargetArg) -> Self {
        match target {
            TargetArg::Slurm => Self::Slurm,
            TargetArg::MpiJob => Self::MpiJob,
        }
    }
}
