//! What can go wrong in the engine, each with what a person needs to act on it.

use std::path::PathBuf;

/// Errors of `fthost-engine`.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A file could not be read or written.
    #[error("can't {action} `{}`: {source}", path.display())]
    Io {
        /// `read`, `write`, `map` ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A JSON file does not hold what it should.
    #[error("`{}` can't be understood: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A safetensors file is damaged.
    #[error("`{}` is not a sound safetensors file: {reason}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A GGUF file is damaged, or of a kind that is not known here.
    #[error("`{}` is not a GGUF file that can be read: {reason}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What, and where in the file.
        reason: String,
    },
    /// A weight of a GGUF file is stored in a way that is not known here.
    #[error("`{}`: `{tensor}` is stored as {found}, known are {known}\nhint: take a file of the model in one of these types", path.display())]
    GgufType {
        /// The file.
        path: PathBuf,
        /// llama.cpp's name.
        tensor: String,
        /// ggml's name of the type.
        found: String,
        /// What can be read.
        known: &'static str,
    },
    /// `architectures` names no family known here.
    #[error("`{}`: architecture `{found}` is not known here (known: {})", path.display(), known.join(", "))]
    UnknownArchitecture {
        /// The `config.json`.
        path: PathBuf,
        /// What it names.
        found: String,
        /// What is known.
        known: Vec<&'static str>,
    },
    /// Keys of a configuration hold impossible values.
    #[error("invalid {what}: {}", problems.join("; "))]
    Invalid {
        /// `config.json`, `adapter.lora` ...
        what: String,
        /// Each problem with its key.
        problems: Vec<String>,
    },
    /// A launcher has started several ranks, and they can't find each other.
    #[error("several ranks were started, and no MPI library could be loaded:\n  {}\nhint: install the MPI that the launcher belongs to, or name its library in `FTHOST_MPI_LIBRARY`", tried.join("\n  "))]
    NoMpi {
        /// Each library that was looked for, and why it can't be loaded.
        tried: Vec<String>,
    },
    /// An MPI library that sees other ranks than the launcher started: it belongs to another launcher.
    #[error(
        "{launcher} started {size} ranks, but {library} sees {found}\nhint: name the library of the launcher's own MPI in `FTHOST_MPI_LIBRARY`"
    )]
    OtherMpi {
        /// Who started this process.
        launcher: &'static str,
        /// How many it says that it started.
        size: usize,
        /// How many the library sees.
        found: usize,
        /// What the library is.
        library: String,
    },
    /// A launcher whose ranks can't find each other on this device.
    #[error(
        "{launcher} started {size} ranks, and ranks on the CPU find each other by MPI\nhint: start them with `mpirun -np {size}`, or train with `--device cuda`"
    )]
    Launcher {
        /// Who started this process.
        launcher: &'static str,
        /// How many it says that it started.
        size: usize,
    },
    /// A variable that a launcher sets is not there, or no number.
    #[error("several ranks were started, and `{key}` is not set, or is no number\nhint: torchrun sets it")]
    LaunchVariable {
        /// The variable.
        key: &'static str,
    },
    /// Several ranks on devices, and no NCCL.
    #[error(
        "several ranks were started on devices, and they need NCCL: {name}: {reason}\nhint: install NCCL (PyPI's nvidia-nccl-cu12 has it), or name its library in `FTHOST_NCCL_LIBRARY`"
    )]
    NoNccl {
        /// The library.
        name: String,
        /// Why it can't be used.
        reason: String,
    },
    /// A call of NCCL failed.
    #[error("{call} failed: {reason}\nhint: with NCCL_DEBUG=INFO it says more")]
    Nccl {
        /// The function.
        call: &'static str,
        /// The library's reason.
        reason: String,
    },
    /// A call of the CUDA driver failed.
    #[error("{call} failed: {reason}\nhint: `nvidia-smi` shows what the driver sees")]
    Cuda {
        /// The function.
        call: &'static str,
        /// The driver's reason.
        reason: String,
    },
    /// Ranks that would not do the same run.
    #[error(
        "rank {rank} has another {what} than the first: {own}, not {first}\nhint: all ranks read the same files: put them on a file system that all see, and name a revision that does not move"
    )]
    RanksDiffer {
        /// What differs.
        what: &'static str,
        /// Where.
        rank: usize,
        /// Its value.
        own: String,
        /// The first rank's.
        first: String,
    },
    /// A call of MPI failed.
    #[error("{call} failed{}: {reason}", rank.map(|it| format!(" on rank {it}")).unwrap_or_default())]
    Mpi {
        /// The function.
        call: &'static str,
        /// The library's reason.
        reason: String,
        /// Where, when that is known.
        rank: Option<usize>,
    },
    /// A rank that writes no line any more.
    #[error(
        "rank {rank}{} has given no sign of life for {seconds} s: it was killed or stopped, its machine can't be reached, or it can't write to the output folder",
        if who.is_empty() { String::new() } else { format!(" ({who})") }
    )]
    SilentRank {
        /// Which.
        rank: usize,
        /// Its process and machine, where they are known.
        who: String,
        /// Since when.
        seconds: u64,
    },
    /// A rank waits for others that don't come.
    #[error(
        "rank {rank} has waited {seconds} s for {}\nhint: where that is no hang, raise `parallel.timeout_seconds`",
        if missing.is_empty() { "an answer: all ranks are there, and what lies between them hangs" } else { missing }
    )]
    WaitedTooLong {
        /// Who waits.
        rank: usize,
        /// How long.
        seconds: u64,
        /// Those who have not come, with process and machine; empty where all have.
        missing: String,
    },
    /// A weight the model needs is not in the files.
    #[error("`{name}` is missing from `{}`", folder.display())]
    MissingTensor {
        /// The model's folder.
        folder: PathBuf,
        /// Hugging Face name.
        name: String,
    },
    /// A weight has another shape than the configuration asks for.
    #[error("`{name}` has shape {found:?}, the configuration asks for {expected:?}")]
    ShapeMismatch {
        /// Hugging Face name.
        name: String,
        /// As stored.
        found: Vec<usize>,
        /// As configured.
        expected: Vec<usize>,
    },
    /// A weight is stored as something that is not a float.
    #[error("`{name}` is stored as {dtype}, known are F32, F16 and BF16")]
    Dtype {
        /// Hugging Face name.
        name: String,
        /// As stored.
        dtype: String,
    },
    /// A weight holds NaN or infinity.
    #[error("`{name}` holds a value that is not finite at index {index}")]
    NotFinite {
        /// Hugging Face name.
        name: String,
        /// Flat index of the first one.
        index: usize,
    },
    /// A weight that is stored in fewer bits is not what it should be.
    #[error("`{name}` can't be unpacked: {reason}")]
    PackedWeight {
        /// Hugging Face name.
        name: String,
        /// Which part does not fit, and why.
        reason: String,
    },
    /// Weights were left over after loading.
    #[error("`{}` holds weights that the model does not know: {}", folder.display(), names.join(", "))]
    UnknownTensors {
        /// The model's or adapter's folder.
        folder: PathBuf,
        /// Hugging Face names.
        names: Vec<String>,
    },
    /// No linear matches `target_modules`.
    #[error("`target_modules` {wanted} matches no linear; there are: {}", linears.join(", "))]
    NoTarget {
        /// As configured.
        wanted: String,
        /// Last path elements of every linear.
        linears: Vec<String>,
    },
    /// An adapter that is no part of the weights.
    #[error(
        "{count} virtual tokens stand before every sequence: they are no part of a weight, and can't be merged into one\nhint: use the adapter beside its base"
    )]
    NotMerged {
        /// Virtual tokens.
        count: usize,
    },
    /// An adapter that can't be combined with others.
    #[error("can't combine `{}`: `{at}` {reason}\nhint: {hint}", adapter.display())]
    NotCombined {
        /// Its folder.
        adapter: PathBuf,
        /// A tensor's name, or a key of `adapter_config.json`.
        at: String,
        /// What stands in the way.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// The device asked for can't be used.
    #[error("{0}")]
    Device(String),
    /// Loss or gradient became NaN or infinite.
    #[error("{what} is {value} at step {step}; rows: {}; last good checkpoint: {}", rows.join(", "), shown(last_checkpoint))]
    NotFiniteStep {
        /// `loss` or `grad_norm`.
        what: &'static str,
        /// NaN or an infinity.
        value: f64,
        /// The optimizer step in work, 1-based.
        step: u64,
        /// `file:line` of each row of the step.
        rows: Vec<String>,
        /// Where the run can go on from.
        last_checkpoint: Option<PathBuf>,
    },
    /// A training checkpoint does not belong to this run, or is damaged.
    #[error("can't resume from `{}`: {reason}", path.display())]
    Checkpoint {
        /// `checkpoint-<step>`.
        path: PathBuf,
        /// What differs or is damaged, by name.
        reason: String,
    },
    /// A prompt can't be continued.
    #[error("prompt {}: {reason}", index + 1)]
    Prompt {
        /// 0-based.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Tokens that have no text, or text that has no tokens.
    #[error(transparent)]
    Data(fthost_data::DataError),
    /// A row carries no loss at all.
    #[error("row {row} has no supervised token: nothing in it would be learned")]
    NothingSupervised {
        /// `file:line`.
        row: String,
    },
}

fn shown(checkpoint: &Option<PathBuf>) -> String {
    checkpoint.as_ref().map_or_else(|| "none".to_string(), |it| format!("`{}`", it.display()))
}

/// Results of `fthost-engine`.
pub type Result<T> = std::result::Result<T, EngineError>;

impl EngineError {
    /// For `map_err` on file operations.
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
