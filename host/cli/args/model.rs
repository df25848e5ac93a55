//! `fthost model`, as typed.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};
use fthost_run::models::combine::{MajoritySign, Method, MethodOptions, Weighted};
use fthost_run::models::{FourBitOptions, GgmlType, Int8Options, QuantConfig, StoredDtype, Written};

/// `fthost model`.
#[derive(Debug, Subcommand)]
pub enum ModelVerb {
    /// Make a model's folder of a GGUF file or of a folder, in other floats, in 4 bits, in several files; or a GGUF file of it
    Convert(ConvertArgs),
    /// Fetch a model from the hub
    Pull(PullArgs),
    /// Make a model that has learned nothing, to be trained from scratch
    Init(InitArgs),
    /// Fold an adapter into its base model
    Merge(MergeArgs),
    /// Make one adapter of several of one base
    Combine(CombineArgs),
    /// Say what is in a model's folder, an adapter's folder or a GGUF file
    Inspect(InspectArgs),
}

/// How a folder is written.
#[derive(Debug, Args)]
pub struct WrittenArgs {
    /// How weights are written: f32 keeps every value as it is
    #[arg(long, value_enum, default_value_t)]
    pub dtype: DtypeArg,
    /// Pack linears, as bitsandbytes stores them; 4 bits in blocks of 64 values, their factors in 8 bits
    #[arg(long, value_enum)]
    pub quant: Option<QuantArg>,
    /// Write several files of at most this size, `5GB` for instance, and an index
    #[arg(long, value_name = "SIZE")]
    pub max_shard_size: Option<ByteSize>,
    /// Replace a model that is there already
    #[arg(long)]
    pub force: bool,
}

/// `fthost model convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// A GGUF file, or a folder in Hugging Face's layout
    pub source: PathBuf,
    /// The folder to make, or the GGUF file where the name ends in `.gguf`; a folder beside the source, without its `.gguf`, if absent
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Of a GGUF file to be made: store linears in ggml's blocks of 32 values
    #[arg(long, value_enum, conflicts_with_all = ["dtype", "quant", "keep_blocks"])]
    pub blocks: Option<BlocksArg>,
    /// Of a GGUF file: keep it as the folder's weights, linears in the blocks that it stores
    #[arg(long, conflicts_with_all = ["dtype", "quant", "max_shard_size"])]
    pub keep_blocks: bool,
    /// Type and replacement.
    #[command(flatten)]
    pub written: WrittenArgs,
}

/// `fthost model pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The model's name on the hub, `owner/name`
    pub repo: String,
    /// Branch, tag or commit
    #[arg(long)]
    pub revision: Option<String>,
}

/// `fthost model init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// A folder with `config.json` and the tokenizer's files
    pub source: PathBuf,
    /// The folder to make
    #[arg(long)]
    pub out: PathBuf,
    /// Decides every weight
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Type and replacement.
    #[command(flatten)]
    pub written: WrittenArgs,
}

/// `fthost model merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The base model's folder
    #[arg(long)]
    pub model: PathBuf,
    /// The adapter's folder, as PEFT writes it
    #[arg(long)]
    pub adapter: PathBuf,
    /// The folder to make
    #[arg(long)]
    pub out: PathBuf,
    /// Widen a base model in 4 bits: what the adapter adds would be lost in them
    #[arg(long)]
    pub dequantize: bool,
    /// Type and replacement.
    #[command(flatten)]
    pub written: WrittenArgs,
}

/// `fthost model combine`.
#[derive(Debug, Args)]
pub struct CombineArgs {
    /// An adapter's folder, as PEFT writes it, and its weight, which may be below 0; 1 if absent. Given once an adapter
    #[arg(long = "adapter", value_name = "DIR[=WEIGHT]", required = true, value_parser = weighted)]
    pub adapters: Vec<Weighted>,
    /// The folder to make
    #[arg(long)]
    pub out: PathBuf,
    /// How
    #[arg(long, value_enum, default_value_t)]
    pub method: MethodArg,
    /// Share of each adapter's values that is kept, of ties, dare_linear and dare_ties [default: 0.5]
    #[arg(long, value_name = "SHARE")]
    pub density: Option<f64>,
    /// Which sign a value gets, of ties and dare_ties [default: total]
    #[arg(long, value_enum)]
    pub majority_sign: Option<MajoritySignArg>,
    /// Decides every draw, of dare_linear and dare_ties [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Where between two adapters, 0 the first and 1 the second, of slerp [default: 0.5]
    #[arg(long, value_name = "T")]
    pub t: Option<f64>,
    /// The base that the result names, for adapters that name one base differently
    #[arg(long, value_name = "NAME")]
    pub base: Option<String>,
    /// How weights are written: f32 keeps every value as it is
    #[arg(long, value_enum, default_value_t)]
    pub dtype: DtypeArg,
    /// Replace an adapter that is there already
    #[arg(long)]
    pub force: bool,
}

impl CombineArgs {
    /// What was given for the method.
    pub fn options(&self) -> MethodOptions {
        let majority_sign = self.majority_sign.map(Into::into);
        MethodOptions { density: self.density, majority_sign, seed: self.seed, t: self.t }
    }
}

/// What stands behind the last `=` is the weight, if it is a number, else part of the path.
pub(super) fn weighted(text: &str) -> Result<Weighted, std::convert::Infallible> {
    let apart = text.rsplit_once('=').and_then(|(path, weight)| Some((path, weight.parse().ok()?)));
    let (path, weight) = apart.unwrap_or((text, 1.0));
    Ok(Weighted { folder: path.into(), weight })
}

/// How adapters are combined.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum MethodArg {
    /// Their weighted sum, exactly; ranks add up
    #[default]
    Cat,
    /// Weighted sums of A and of B, of one rank: rough, products of different adapters stand in it
    Linear,
    /// As linear, of each tensor's largest values that agree in sign
    Ties,
    /// As linear, of values drawn at random
    DareLinear,
    /// As ties, of values drawn at random
    DareTies,
    /// On the arc between two; ranks add up
    Slerp,
}

/// Which sign a value of several adapters gets.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum MajoritySignArg {
    /// That of their sum
    Total,
    /// That of most
    Frequency,
}

impl From<MethodArg> for Method {
    fn from(method: MethodArg) -> Self {
        match method {
            MethodArg::Cat => Self::Cat,
            MethodArg::Linear => Self::Linear,
            MethodArg::Ties => Self::Ties,
            MethodArg::DareLinear => Self::DareLinear,
            MethodArg::DareTies => Self::DareTies,
            MethodArg::Slerp => Self::Slerp,
        }
    }
}

impl From<MajoritySignArg> for MajoritySign {
    fn from(method: MajoritySignArg) -> Self {
        match method {
            MajoritySignArg::Total => Self::Total,
            MajoritySignArg::Frequency => Self::Frequency,
        }
    }
}

/// `fthost model inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A folder or a GGUF file
    pub path: PathBuf,
    /// Say which ways of training fit so much memory, `24GB` for instance; what this machine has available if absent
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
}

/// How weights are written.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum DtypeArg {
    /// Four bytes, exact
    #[default]
    F32,
    /// Two bytes, the range of f32
    Bf16,
    /// Two bytes, more digits and a smaller range
    F16,
}

/// What linears are packed in.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum QuantArg {
    /// Quantiles of the normal distribution
    Nf4,
    /// Floats of 4 bits
    Fp4,
    /// 8 bits, a factor a row
    Int8,
}

/// What linears of a GGUF file are stored in; names are ggml's.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum BlocksArg {
    /// 8 bits and a scale
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 bits and a scale
    #[value(name = "q4_0")]
    Q4_0,
    /// 4 bits, a scale and a least value
    #[value(name = "q4_1")]
    Q4_1,
    /// 5 bits and a scale
    #[value(name = "q5_0")]
    Q5_0,
    /// 5 bits, a scale and a least value
    #[value(name = "q5_1")]
    Q5_1,
}

impl From<BlocksArg> for GgmlType {
    fn from(blocks: BlocksArg) -> Self {
        match blocks {
            BlocksArg::Q8_0 => Self::Q8_0,
            BlocksArg::Q4_0 => Self::Q4_0,
            BlocksArg::Q4_1 => Self::Q4_1,
            BlocksArg::Q5_0 => Self::Q5_0,
            BlocksArg::Q5_1 => Self::Q5_1,
        }
    }
}

impl From<QuantArg> for QuantConfig {
    fn from(quant: QuantArg) -> Self {
        match quant {
            QuantArg::Nf4 => Self::Nf4(FourBitOptions::default()),
            QuantArg::Fp4 => Self::Fp4(FourBitOptions::default()),
            QuantArg::Int8 => Self::Int8(Int8Options::default()),
        }
    }
}

impl From<&WrittenArgs> for Written {
    fn from(args: &WrittenArgs) -> Self {
        Self {
            dtype: args.dtype.into(),
            quant: args.quant.map(Into::into),
            blocks: None,
            max_shard_bytes: args.max_shard_size.map(|it| it.as_u64()),
            keep_blocks: false,
            force: args.force,
        }
    }
}

impl From<DtypeArg> for StoredDtype {
    fn from(dtype: DtypeArg) -> Self {
        match dtype {
            DtypeArg::F32 => Self::F32,
            DtypeArg::Bf16 => Self::Bf16,
            DtypeArg::F16 => Self::F16,
        }
    }
}
