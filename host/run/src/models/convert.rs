//! A model's folder made of another form of it: a GGUF file, other floats, or packed weights.

use std::path::Path;

use fthost_data::DataError;
use fthost_data::gguf_tokenizer::{GgufVocabulary, TokenizerFiles};
use fthost_engine::Device;
use fthost_engine::checkpoint::gguf::{self, GgufFile};
use fthost_engine::checkpoint::{LoadConfig, StoredDtype, load_model_as, save_model};

use super::Written;
use super::folder::{temporary_in, write_folder};
use crate::error::{Result, RunError};

/// Writes the model of `source`, a GGUF file or a folder, as the folder `out`.
///
/// # Errors
/// What can't be read or is not known here; `out` is there and `force` is not given.
pub fn convert(source: &Path, out: &Path, written: &Written) -> Result<()> {
    if source.is_dir() && written.keep_blocks {
        return Err(RunError::NoBlocks { path: source.to_path_buf() });
    }
    if source.is_dir() {
        return write_folder(out, written.force, |folder| stored_anew(source, folder, written));
    }
    let file = GgufFile::open(source)?;
    // The tokenizer first: what it refuses is refused before gigabytes are written.
    let fail = |reason: String| DataError::Tokenizer { folder: source.to_path_buf(), reason };
    let tokenizer = vocabulary(&file).to_files().map_err(fail)?;
    write_folder(out, written.force, |folder| {
        if written.keep_blocks {
            gguf::write_in_place(&file, folder)?;
            return write_tokenizer(&tokenizer, folder);
        }
        if written.quant.is_none() && written.max_shard_bytes.is_none() {
            return write_gguf(&file, &tokenizer, folder, written.dtype);
        }
        // As it is first: packing reads a folder.
        let dense = temporary_in(folder)?;
        write_gguf(&file, &tokenizer, dense.path(), StoredDtype::F32)?;
        stored_anew(dense.path(), folder, written)
    })
}

/// The model of the folder `source`, packed on its way if it is to be.
fn stored_anew(source: &Path, folder: &Path, written: &Written) -> Result<()> {
    let load = LoadConfig { quant: written.quant.clone(), ..LoadConfig::default() };
    let mut model = load_model_as(source, &Device::flex(), &load)?;
    Ok(save_model(&mut model, source, folder, &written.save())?)
}

fn write_gguf(file: &GgufFile, tokenizer: &TokenizerFiles, folder: &Path, dtype: StoredDtype) -> Result<()> {
    gguf::write_model(file, folder, dtype)?;
    write_tokenizer(tokenizer, folder)
}

fn write_tokenizer(tokenizer: &TokenizerFiles, folder: &Path) -> Result<()> {
    let json = |value: &serde_json::Value| {
        serde_json::to_string_pretty(value).expect("a JSON value serialises") + "\n"
    };
    let mut files = vec![
        ("tokenizer.json", json(&tokenizer.tokenizer)),
        ("tokenizer_config.json", json(&tokenizer.tokenizer_config)),
    ];
    files.extend(tokenizer.chat_template.iter().map(|it| ("chat_template.jinja", it.clone())));
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(RunError::output(&path))?;
    }
    Ok(())
}

/// What the file says of its tokenizer.
pub(super) fn vocabulary(file: &GgufFile) -> GgufVocabulary<'_> {
    let id = |key: &str| file.whole(&format!("tokenizer.ggml.{key}_token_id"));
    let architecture = file.text("general.architecture").unwrap_or_default();
    GgufVocabulary {
        model: file.text("tokenizer.ggml.model"),
        pre: file.text("tokenizer.ggml.pre"),
        tokens: file.texts("tokenizer.ggml.tokens").unwrap_or_default(),
        token_types: file.wholes("tokenizer.ggml.token_type").unwrap_or_default(),
        merges: file.texts("tokenizer.ggml.merges").unwrap_or_default(),
        bos: id("bos"),
        eos: id("eos"),
        unknown: id("unknown"),
        padding: id("padding"),
        add_bos: file.truth("tokenizer.ggml.add_bos_token"),
        add_eos: file.truth("tokenizer.ggml.add_eos_token"),
        chat_template: file.text("tokenizer.chat_template"),
        context_length: file.whole(&format!("{architecture}.context_length")),
    }
}
