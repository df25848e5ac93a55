//! A model from a GGUF file, or from a folder in another type of float, as a folder in Hugging Face's layout.

use std::path::Path;

use fthost_data::DataError;
use fthost_data::gguf_tokenizer::GgufVocabulary;
use fthost_engine::Device;
use fthost_engine::adapters::merge::save_merged_as;
use fthost_engine::checkpoint::gguf::{self, GgufFile};
use fthost_engine::checkpoint::{StoredDtype, load_model};

use super::folder::write_folder;
use crate::error::{Result, RunError};

/// Writes the model of `source`, a GGUF file or a folder, as the folder `out`, its weights as `dtype`.
///
/// # Errors
/// What can't be read or is not known here; `out` is there and `force` is not given.
pub fn import(source: &Path, out: &Path, dtype: StoredDtype, force: bool) -> Result<()> {
    if source.is_dir() {
        let mut model = load_model(source, &Device::flex())?;
        return write_folder(out, force, |folder| Ok(save_merged_as(&mut model, source, folder, dtype)?));
    }
    let file = GgufFile::open(source)?;
    // The tokenizer first: what it refuses is refused before gigabytes are written.
    let fail = |reason: String| DataError::Tokenizer { folder: source.to_path_buf(), reason };
    let tokenizer = vocabulary(&file).to_files().map_err(fail)?;
    write_folder(out, force, |folder| {
        gguf::write_model(&file, folder, dtype)?;
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
    })
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
