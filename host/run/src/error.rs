//! What stops a run, and the exit code that says so.

use fthost_data::DataError;
use fthost_engine::EngineError;

/// Errors of a run; the program prints them as they stand.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The run file can't be used.
    #[error("invalid run file `{path}`\n  {}", problems.join("\n  "))]
    Config {
        /// As given on the command line.
        path: String,
        /// Every problem, each with its key.
        problems: Vec<String>,
    },
    /// Data that can't be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The engine stopped.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Output that can't be written.
    #[error("can't write `{path}`: {source}")]
    Output {
        /// The file or folder.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Results of a run.
pub type Result<T> = std::result::Result<T, RunError>;

impl RunError {
    /// 2 for the run file, 3 for data, 5 for numbers that are not finite, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. } => 2,
            Self::Data(_) | Self::Engine(EngineError::NothingSupervised { .. }) => 3,
            Self::Engine(EngineError::NotFiniteStep { .. }) => 5,
            Self::Engine(_) | Self::Output { .. } => 1,
        }
    }
}
