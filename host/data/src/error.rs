//! What can go wrong between a file and a batch, with file and line.

use std::path::{Path, PathBuf};

use crate::record::Origin;

/// Errors of `fthost-data`.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file could not be read.
    #[error("can't read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No reader for this file name.
    #[error("`{}`: the format is not known by its name (known: .jsonl, .json, .csv, .parquet)", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The file as a whole is damaged.
    #[error("`{}` can't be understood: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// One row can't be used; `on_bad_row` decides what follows.
    #[error("{origin}: {reason}")]
    BadRow {
        /// File and line.
        origin: Origin,
        /// Why.
        reason: String,
    },
    /// Tokenizer files are missing or damaged.
    #[error("tokenizer in `{}`: {reason}", folder.display())]
    Tokenizer {
        /// The model's folder.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
    /// The chat template can't be rendered.
    #[error("chat template: {0}")]
    ChatTemplate(String),
}

/// What a failed reading of `path` becomes.
pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> DataError {
    let path = path.to_path_buf();
    move |source| DataError::Io { path: path.clone(), source }
}

/// Results of `fthost-data`.
pub type Result<T> = std::result::Result<T, DataError>;
