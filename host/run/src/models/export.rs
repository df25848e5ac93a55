//! A model's folder as a GGUF file, its tokenizer and chat template included.

use std::path::Path;

use fthost_data::DataError;
use fthost_data::gguf_tokenizer::{SourceFiles, WrittenVocabulary, written};
use fthost_engine::Device;
use fthost_engine::checkpoint::gguf::{Entry, GgufStored, architecture_of, write_gguf};
use fthost_engine::checkpoint::load_model;
use serde_json::Value;

use super::Written;
use crate::error::{Result, RunError};

/// Whether a path names a GGUF file to be written.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|it| it.eq_ignore_ascii_case("gguf"))
}

/// Writes the model of the folder `source` as the file `out`, and returns what such a file can't say of its tokenizer.
///
/// # Errors
/// A model or a tokenizer that a GGUF file can't say; `out` is there and `force` is not given.
pub fn export(source: &Path, out: &Path, how: &Written) -> Result<Vec<String>> {
    check_output(out, how)?;
    let mut model = load_model(source, &Device::flex())?;
    let tokenizer = tokenizer(source, model.config.vocab_size, architecture_of(&model.config))?;
    let name = source.file_name().map_or_else(String::new, |it| it.to_string_lossy().into_owned());
    let mut about = vec![("general.name".to_string(), Entry::Text(name))];
    about.extend(entries(&tokenizer));
    if let Some(parent) = out.parent().filter(|it| !it.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(RunError::output(parent))?;
    }
    write_gguf(&mut model, out, &about, GgufStored { dtype: how.dtype, blocks: how.blocks })?;
    Ok(tokenizer.notes)
}

/// What can be told before any work is done.
pub(super) fn check_output(out: &Path, how: &Written) -> Result<()> {
    if how.quant.is_some() || how.max_shard_bytes.is_some() || how.keep_blocks {
        return Err(RunError::NotForGguf { path: out.to_path_buf() });
    }
    if out.symlink_metadata().is_ok() && !how.force {
        return Err(RunError::ModelInTheWay { folder: out.to_path_buf() });
    }
    // A file would be made, and only then not renamed to it.
    if out.is_dir() {
        return Err(RunError::output(out)(std::io::ErrorKind::IsADirectory.into()));
    }
    Ok(())
}

pub(super) fn tokenizer(folder: &Path, vocab_size: usize, architecture: &str) -> Result<WrittenVocabulary> {
    let fail = |reason: String| DataError::Tokenizer { folder: folder.to_path_buf(), reason };
    let text = |name: &str| match std::fs::read_to_string(folder.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fail(format!("`{name}`: {error}"))),
    };
    let json = |name: &str| match text(name)? {
        Some(text) => serde_json::from_str(&text).map_err(|error| fail(format!("`{name}`: {error}"))),
        None => Ok(Value::Null),
    };
    let tokenizer = json("tokenizer.json")?;
    if tokenizer.is_null() {
        return Err(fail("`tokenizer.json` is missing".to_string()).into());
    }
    let (config, template) = (json("tokenizer_config.json")?, text("chat_template.jinja")?);
    let generation = json("generation_config.json")?;
    let ends = match &generation["eos_token_id"] {
        Value::Array(ids) => ids.iter().filter_map(Value::as_u64).collect(),
        id => id.as_u64().into_iter().collect::<Vec<u64>>(),
    };
    let eos_ids: Vec<usize> = ends.into_iter().filter_map(|it| usize::try_from(it).ok()).collect();
    let files = SourceFiles {
        eos_ids: &eos_ids,
        tokenizer: &tokenizer,
        tokenizer_config: &config,
        chat_template: template.as_deref(),
        vocab_size,
        architecture,
    };
    Ok(written(&files).map_err(fail)?)
}

/// Metadata of a tokenizer.
fn entries(tokenizer: &WrittenVocabulary) -> Vec<(String, Entry)> {
    let mut entries: Vec<(String, Entry)> = vec![
        ("model".into(), tokenizer.model.into()),
        ("pre".into(), tokenizer.pre.into()),
        ("tokens".into(), Entry::Texts(tokenizer.tokens.clone())),
        ("token_type".into(), Entry::Wholes(tokenizer.token_types.iter().map(|it| *it as i32).collect())),
        ("add_bos_token".into(), Entry::Truth(tokenizer.add_bos)),
        ("add_eos_token".into(), Entry::Truth(tokenizer.add_eos)),
    ];
    if !tokenizer.scores.is_empty() {
        entries.push(("scores".into(), Entry::Numbers(tokenizer.scores.clone())));
    }
    if !tokenizer.merges.is_empty() {
        entries.push(("merges".into(), Entry::Texts(tokenizer.merges.clone())));
    }
    if let Some(prefix) = tokenizer.add_space_prefix {
        entries.push(("add_space_prefix".into(), Entry::Truth(prefix)));
    }
    for (name, id) in &tokenizer.special {
        entries.push((format!("{name}_token_id"), Entry::Whole(*id as u32)));
    }
    entries.iter_mut().for_each(|it| it.0 = format!("tokenizer.ggml.{}", it.0));
    if let Some(template) = &tokenizer.chat_template {
        entries.push(("tokenizer.chat_template".to_string(), Entry::Text(template.clone())));
    }
    entries
}
