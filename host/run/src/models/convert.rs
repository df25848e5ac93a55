//! A model's folder made of another form of it: a GGUF file, other floats, or packed weights.

use std::path::Path;

use fthost_data::DataError;
use fthost_data::gguf_tokenizer::{GgufVocabulary, TokenizerFiles};
use fthost_engine::Device;
use fthost_engine::checkpoint::gguf::{self, GgufFile};
use fthost_engine::checkpoint::{LoadConfig, StoredDtype, load_model_as, save_model};

use super::Written;
use super::export::{check_output, export, is_gguf};
use super::folder::{temporary_beside, temporary_in, write_folder};
use crate::error::{Result, RunError};

/// Writes the model of `source`, a GGUF file or a folder, as the folder `out`, or as a GGUF file where `out` is named like
/// one. Returns what that can't say of the tokenizer.
///
/// # Errors
/// What can't be read, is not known here or can't be said in a GGUF file; `out` is there and `force` is not given.
pub fn convert(source: &Path, out: &Path, written: &Written) -> Result<Vec<String>> {
    if !is_gguf(out) {
        if written.blocks.is_some() {
            return Err(RunError::BlocksOfFolder { folder: out.to_path_buf() });
        }
        return to_folder(source, out, written).map(|()| Vec::new());
    }
    if source.is_dir() {
        return export(source, out, written);
    }
    check_output(out, written)?;
    // As a folder first, whose weights are the file itself: a link, and no copy of all values.
    let linked = temporary_beside(out)?;
    let folder = linked.path().join(source.file_stem().unwrap_or_default());
    to_folder(source, &folder, &Written { keep_blocks: true, ..Written::default() })?;
    export(&folder, out, written)
}

fn to_folder(source: &Path, out: &Path, written: &Written) -> Result<()> {
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
    let scores = file.numbers("tokenizer.ggml.scores").unwrap_or_default();
    GgufVocabulary {
        architecture: file.text("general.architecture"),
        model: file.text("tokenizer.ggml.model"),
        pre: file.text("tokenizer.ggml.pre"),
        tokens: file.texts("tokenizer.ggml.tokens").unwrap_or_default(),
        token_types: file.wholes("tokenizer.ggml.token_type").unwrap_or_default(),
        scores: scores.into_iter().map(|it| it as f32).collect(),
        merges: file.texts("tokenizer.ggml.merges").unwrap_or_default(),
        bos: id("bos"),
        eos: id("eos"),
        unknown: id("unknown"),
        padding: id("padding"),
        add_bos: file.truth("tokenizer.ggml.add_bos_token"),
        add_eos: file.truth("tokenizer.ggml.add_eos_token"),
        add_space_prefix: file.truth("tokenizer.ggml.add_space_prefix"),
        chat_template: file.text("tokenizer.chat_template"),
        context_length: file.whole(&format!("{architecture}.context_length")),
    }
}

#[cfg(test)]
mod tests {
    use fthost_data::Tokenizer;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn golden(path: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path)
    }

    /// Texts, and the ids of each source.
    fn ids() -> (Vec<String>, serde_json::Map<String, serde_json::Value>) {
        let ids = std::fs::read(golden("gguf/tokenizers/ids.json")).unwrap();
        let ids: serde_json::Value = serde_json::from_slice(&ids).unwrap();
        let texts = ids["texts"].as_array().unwrap().iter();
        (texts.map(|it| it.as_str().unwrap().to_string()).collect(), ids["ids"].as_object().unwrap().clone())
    }

    fn folder_of(case: &str) -> (GgufFile, tempfile::TempDir) {
        let file = GgufFile::open(&golden(&format!("gguf/tokenizers/{case}.gguf"))).unwrap();
        let folder = tempfile::tempdir().unwrap();
        write_tokenizer(&vocabulary(&file).to_files().unwrap(), folder.path()).unwrap();
        (file, folder)
    }

    /// Oracle: the source tokenizers themselves, `tests/golden/generate/gguf_tokenizers.py`. Texts in fourteen scripts, with
    /// numbers, blanks, code, forms of one letter and special tokens.
    #[test]
    fn an_imported_tokenizer_gives_the_ids_of_its_source() {
        let (texts, cases) = ids();
        assert_eq!(cases.len(), 12);
        for (case, expected) in cases {
            let tokenizer = Tokenizer::load(folder_of(&case).1.path()).unwrap();
            for (text, expected) in texts.iter().zip(expected.as_array().unwrap()) {
                let found = tokenizer.encode(text).unwrap().ids;
                assert_eq!(serde_json::json!(found), *expected, "{case}: {text:?}");
            }
        }
    }

    /// What is written of an imported tokenizer is what it was imported from: tokens, types, merges, the rule's name, and
    /// scores that give the merges.
    #[test]
    fn a_tokenizer_that_is_written_is_the_one_that_was_read() {
        for (case, _) in ids().1 {
            let (file, folder) = folder_of(&case);
            let expected = vocabulary(&file);
            let architecture = expected.architecture.unwrap();
            let size = expected.tokens.len() + 2;
            let written = crate::models::export::tokenizer(folder.path(), size, architecture).unwrap();
            assert_eq!(written.notes, [""; 0], "{case}");
            let found = written.view(architecture);
            assert_eq!((found.model, found.pre), (expected.model, expected.pre), "{case}");
            assert_eq!(found.tokens[..size - 2], expected.tokens, "{case}");
            assert_eq!(found.token_types[..size - 2], expected.token_types, "{case}");
            assert_eq!(written.token_types[size - 1], 5, "{case}: an id that no token has");
            assert_eq!((found.bos, found.eos), (expected.bos, expected.eos), "{case}");
            let read = |it: &GgufVocabulary<'_>| it.to_files().unwrap();
            let (found, expected) = (read(&found), read(&expected));
            for part in ["normalizer", "pre_tokenizer", "decoder", "added_tokens", "post_processor"] {
                assert_eq!(found.tokenizer[part], expected.tokenizer[part], "{case}: {part}");
            }
            assert_eq!(found.tokenizer["model"]["merges"], expected.tokenizer["model"]["merges"], "{case}");
        }
    }

    /// Told before the source is looked at, which is not there.
    #[test]
    fn an_output_that_can_not_be_written_is_told_first() {
        let place = tempfile::tempdir().unwrap();
        let (source, out) = (place.path().join("none.gguf"), place.path().join("out.gguf"));
        let told = |written: &Written| convert(&source, &out, written).unwrap_err();
        let forced = Written { force: true, ..Written::default() };
        let kept = Written { keep_blocks: true, ..Written::default() };
        assert!(matches!(told(&kept), RunError::NotForGguf { .. }));
        std::fs::create_dir(&out).unwrap();
        assert!(matches!(told(&Written::default()), RunError::ModelInTheWay { .. }));
        assert!(told(&forced).to_string().contains("out.gguf"));
    }

    /// 600 files, each with a few bytes changed of what it says of its tokenizer: every one is refused or gives a tokenizer that
    /// loads or is refused, and then encodes.
    #[test]
    fn files_that_lie_about_their_tokenizer_are_imported_or_refused() {
        let mut rng = ChaCha8Rng::seed_from_u64(13);
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lie.gguf");
        let cases: Vec<String> = ids().1.into_iter().map(|it| it.0).collect();
        let (mut refused, mut imported) = (0, 0);
        for index in 0..600 {
            let case = &cases[index % cases.len()];
            let mut bytes = std::fs::read(golden(&format!("gguf/tokenizers/{case}.gguf"))).unwrap();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(24..bytes.len());
                bytes[at] = match rng.random_range(0..3) {
                    0 => rng.random(),
                    1 => bytes[at] ^ 1,
                    _ => rng.random_range(b' '..b'~'),
                };
            }
            std::fs::write(&path, bytes).unwrap();
            let file = GgufFile::open(&path);
            let files = file.map_err(|it| it.to_string()).and_then(|it| vocabulary(&it).to_files());
            let Ok(files) = files else {
                refused += 1;
                continue;
            };
            write_tokenizer(&files, place.path()).unwrap();
            if let Ok(tokenizer) = Tokenizer::load(place.path()) {
                imported += 1;
                let _ = tokenizer
                    .encode("The fox can't, 1234; \u{e9}e\u{301} \u{4f60}\u{597d}\n\n  <|endoftext|>");
            }
        }
        assert!(refused > 100 && imported > 30, "{refused} refused, {imported} imported");
    }
}
