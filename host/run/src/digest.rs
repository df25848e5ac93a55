//! Digests that name what a run was made of.

use std::path::{Path, PathBuf};

use fthost_data::DataError;
use fthost_data::source::file_digest;
use sha2::{Digest, Sha256};

use crate::error::Result;

/// `sha256:<hex>` of bytes.
pub fn of_bytes(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// `sha256:<hex>` of a model's folder: names and contents of what decides logits and tokens, in the order of names.
///
/// # Errors
/// Files that can't be read.
pub fn of_model(folder: &Path) -> Result<String> {
    let fail = |source| DataError::Io { path: folder.to_path_buf(), source };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        files.push(entry.map_err(fail)?.path());
    }
    files.retain(|it| {
        let name = it.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        let companions = [
            "config.json",
            "adapter_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        ]
        .contains(&name);
        companions || name.ends_with(".safetensors")
    });
    files.sort();
    let mut told = String::new();
    for file in &files {
        let name = file.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        told.push_str(&format!("{name} {}\n", file_digest(file)?));
    }
    Ok(of_bytes(told.as_bytes()))
}
