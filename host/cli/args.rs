//! The command line, as typed.

mod author;
mod launch;
mod model;
mod share;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fthost_run::models::combine::Weighted;

pub use author::{AuthorVerb, BenchArgs, BuildArgs, NewArgs, PackageArgs, TestArgs, TryArgs};
pub use launch::LaunchArgs;
pub use model::{CombineArgs, ConvertArgs, InitArgs, InspectArgs, MergeArgs, ModelVerb, PullArgs};
pub use share::{KeyVerb, PullPackageArgs, PushArgs, ShareVerb, UpdateArgs, VerifyArgs};

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
    /// Say what a run would take in memory and operations, without starting it
    ///
    /// Plugins that make rows are run where that is quick; weights are not loaded.
    Estimate(EstimateArgs),
    /// Write a Slurm script or a Kubernetes MPIJob that starts a run; nothing is submitted
    ///
    /// Nodes, ranks, cores and all that a cluster wants to know stand in `[launch]` of the run file, or after `--set`. The run file
    /// is checked as it will be on its ranks. A job that is started again goes on from its newest checkpoint.
    Launch(LaunchArgs),
    /// Print a model's answers to prompts
    Generate(Box<GenerateArgs>),
    /// Judge a model, or one with an adapter, on the held-out rows of a run file
    Eval(EvalArgs),
    /// Look at data as training sees it
    #[command(subcommand)]
    Data(DataVerb),
    /// Look at plugins, write, test and share them
    #[command(subcommand)]
    Plugin(PluginVerb),
    /// Compute the scores of a run again, offline, and tell every difference
    ///
    /// Rewards are those of the run by digest, inputs those that it recorded; what a reward asked a model is answered from
    /// the record. Exit code 4 where a score is another.
    Replay(ReplayArgs),
    /// Score a run's completions by other rewards and compare
    Rescore(RescoreArgs),
    /// Browse the completions that a run sampled and learned from
    Rollouts(RolloutsArgs),
    /// Make, merge and look at models' files
    #[command(subcommand)]
    Model(ModelVerb),
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
    /// Plugin set, by name (`plugins/sets/<SET>.toml`) or file, in place of the run file's `plugin_sets`
    #[arg(long = "plugins", value_name = "SET")]
    pub plugin_sets: Vec<String>,
}

/// `fthost estimate`.
#[derive(Debug, Args)]
pub struct EstimateArgs {
    /// Run file and overrides.
    #[command(flatten)]
    pub file: FileArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `fthost replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The run's output folder
    pub run: PathBuf,
    /// Where reward models are computed
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceArg,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `fthost rescore`.
#[derive(Debug, Args)]
pub struct RescoreArgs {
    /// The run's output folder
    pub run: PathBuf,
    /// Sets by name or file, components (`*.wasm`) and reward models (folders), the last two also as `NAME=PATH`; a reward is
    /// compared with the run's of its name, or its only one
    #[arg(long, required = true, value_name = "SET|WASM|FOLDER")]
    pub plugins: Vec<String>,
    /// Where reward models are computed
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceArg,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `fthost rollouts`.
#[derive(Debug, Args)]
pub struct RolloutsArgs {
    /// The run's output folder
    pub run: PathBuf,
    /// Only what was sampled after so many steps
    #[arg(long)]
    pub step: Option<u64>,
    /// Only what this reward says: its outcomes and its scores, in place of the sum of all
    #[arg(long, value_name = "NAME")]
    pub plugin: Option<String>,
    /// Only completions with this outcome: `ok`, `abstained`, `trap`, `timeout`, ...
    #[arg(long, value_name = "KIND")]
    pub outcome: Option<String>,
    /// Only completions with at least this reward
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub min_reward: Option<f64>,
    /// Only completions with at most this reward
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub max_reward: Option<f64>,
    /// Completions to show
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

/// `fthost plugin`.
#[derive(Debug, Subcommand)]
pub enum PluginVerb {
    /// List the plugins and sets that are found by name, and the pulled packages
    List,
    /// Show a plugin's roles, digest, imports and configuration
    Inspect {
        /// Name, or file of a component
        plugin: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List every plugin of a run: digest, signer, grants used, limits hit, scores
    Audit {
        /// The run's output folder
        run: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What is done with packages.
    #[command(flatten)]
    Share(ShareVerb),
    /// What authors do.
    #[command(flatten)]
    Author(AuthorVerb),
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
    /// Use nothing but what `plugins.lock` beside the run file pins
    #[arg(long)]
    pub locked: bool,
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

/// `fthost generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// What is asked; each is a person's turn, rendered with the model's chat template
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub prompts: Vec<String>,
    /// The model: a folder in Hugging Face's layout; the embedded model if absent
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// An adapter, a PEFT folder, and its weight, 1 if absent. Given several times, their sum
    #[arg(long = "adapter", value_name = "DIR[=WEIGHT]", value_parser = model::weighted)]
    pub adapters: Vec<Weighted>,
    /// Take prompts from rows (`prompt`, `messages` ...; JSONL, JSON, CSV, Parquet). Text is continued as it stands
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// System message of every conversation that has none
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// Continue the prompts as they stand, without a chat template
    #[arg(long, conflicts_with = "file")]
    pub raw: bool,
    /// Tokens of a completion at most [default: 256]
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Divides the logits; 0 takes the most likely token [default: 0]
    #[arg(long, value_name = "X")]
    pub temperature: Option<f64>,
    /// Draw from the K most likely tokens; 0 is off [default: 0]
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Draw from the fewest tokens whose probabilities reach P; 1 is off [default: 1]
    #[arg(long, value_name = "P")]
    pub top_p: Option<f64>,
    /// Draw from tokens at least P times as likely as the most likely one; 0 is off [default: 0]
    #[arg(long, value_name = "P")]
    pub min_p: Option<f64>,
    /// Makes tokens that were there before less likely; 1 is off [default: 1]
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f64>,
    /// A text that ends a completion; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Decides every draw [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Completions a prompt [default: 1]
    #[arg(long, value_name = "N")]
    pub n: Option<usize>,
    /// Completions that grow at one time
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub batch_size: usize,
    /// What the weights are read as: fewer bits take less time and memory
    #[arg(long, value_enum, default_value_t)]
    pub weights: WeightsArg,
    /// Where to compute
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceArg,
    /// Print one JSON object a completion: prompt, text, tokens, finish
    #[arg(long)]
    pub json: bool,
}

/// `fthost eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Run file and overrides.
    #[command(flatten)]
    pub file: FileArgs,
    /// An adapter, a PEFT folder, and its weight, 1 if absent. Given several times, their sum; the base model alone without
    /// one
    #[arg(long = "adapter", value_name = "DIR[=WEIGHT]", value_parser = model::weighted)]
    pub adapters: Vec<Weighted>,
    /// Use nothing but what `plugins.lock` beside the run file pins
    #[arg(long)]
    pub locked: bool,
    /// Answers to print
    #[arg(long, default_value_t = 2)]
    pub answers: usize,
    /// Where to compute
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceArg,
    /// Print one JSON object
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
    /// The first CUDA device, of several ranks one each (needs the feature `cuda`)
    Cuda,
}

/// What generation reads the weights as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum WeightsArg {
    /// The model's own
    #[default]
    F32,
    /// A copy in bfloat16
    Bf16,
    /// A copy in 8 bits, with a scale for each 64 values
    Int8,
}

impl From<WeightsArg> for fthost_run::generate::DecodeWeights {
    fn from(weights: WeightsArg) -> Self {
        match weights {
            WeightsArg::F32 => Self::F32,
            WeightsArg::Bf16 => Self::Bf16,
            WeightsArg::Int8 => Self::Int8,
        }
    }
}

impl From<DeviceArg> for fthost_run::DeviceKind {
    fn from(device: DeviceArg) -> Self {
        match device {
            DeviceArg::Cpu => Self::Cpu,
            DeviceArg::Cuda => Self::Cuda(0),
        }
    }
}
