//! `fthost plugin new` and what an author does next, as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use fthost_authoring::Language;

/// What authors do.
#[derive(Debug, Subcommand)]
pub enum AuthorVerb {
    /// Make a package that builds and passes its own tests at once
    New(NewArgs),
    /// Build a package's component, and say its size and digest
    Build(BuildArgs),
    /// Run a package's cases, and check what holds for every plugin
    Test(TestArgs),
    /// Try a plugin on a file of rows
    Run(TryArgs),
    /// Time a plugin: loading, and calls by batch size
    Bench(BenchArgs),
    /// Build and test a package whenever a file of it is saved
    Watch(PackageArgs),
}

/// A package.
#[derive(Debug, Args)]
pub struct PackageArgs {
    /// The package's folder
    #[arg(default_value = ".")]
    pub dir: PathBuf,
}

/// `fthost plugin new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The plugin's name, and its folder's: lower-case letters, digits and `-`
    pub name: String,
    /// What it plays
    #[arg(long, value_enum)]
    pub role: RoleArg,
    /// What it is written in
    #[arg(long, value_enum, default_value_t)]
    pub lang: LangArg,
    /// Where its folder is made
    #[arg(long = "in", value_name = "DIR", default_value = ".")]
    pub parent: PathBuf,
}

/// `fthost plugin build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The package.
    #[command(flatten)]
    pub package: PackageArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `fthost plugin test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// The package.
    #[command(flatten)]
    pub package: PackageArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What a plugin is told, and which of its roles it plays.
#[derive(Debug, Args)]
pub struct PlayedArgs {
    /// Which of the plugin's roles
    #[arg(long, value_enum)]
    pub role: Option<RoleArg>,
    /// The configuration, one JSON object
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub config: String,
}

/// `fthost plugin run`.
#[derive(Debug, Args)]
pub struct TryArgs {
    /// A package's folder, or the file of a component
    #[arg(default_value = ".")]
    pub plugin: PathBuf,
    /// Rows (JSONL, JSON, CSV, Parquet). A reward takes `prompt` and `completion` or `completions`, an evaluator `reference`
    /// besides
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Role and configuration.
    #[command(flatten)]
    pub played: PlayedArgs,
    /// Rows at most
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub rows: usize,
    /// Rows a call
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub batch: usize,
    /// Print one JSON object a row
    #[arg(long)]
    pub json: bool,
}

/// `fthost plugin bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// A package's folder, or the file of a component
    #[arg(default_value = ".")]
    pub plugin: PathBuf,
    /// Role and configuration.
    #[command(flatten)]
    pub played: PlayedArgs,
    /// Milliseconds spent on each batch size
    #[arg(long, value_name = "MS", default_value_t = 500)]
    pub budget_ms: u64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// A role.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleArg {
    /// Makes examples of rows
    DataBuilder,
    /// Derives examples from examples
    Augmenter,
    /// Scores completions
    Reward,
    /// Judges a model's answers
    Evaluator,
}

impl From<RoleArg> for fthost_authoring::RoleKind {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::DataBuilder => Self::DataBuilder,
            RoleArg::Augmenter => Self::Augmenter,
            RoleArg::Reward => Self::Reward,
            RoleArg::Evaluator => Self::Evaluator,
        }
    }
}

/// A language.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum LangArg {
    /// With the SDK; small and fast
    #[default]
    Rust,
    /// Through componentize-py
    Python,
    /// Through componentize-js
    Js,
    /// Through wit-bindgen and zig; rewards and evaluators
    C,
}

impl From<LangArg> for Language {
    fn from(lang: LangArg) -> Self {
        match lang {
            LangArg::Rust => Self::Rust,
            LangArg::Python => Self::Python,
            LangArg::Js => Self::Js,
            LangArg::C => Self::C,
        }
    }
}
