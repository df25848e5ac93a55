//! Models written as GGUF files, and read again.

use std::path::{Path, PathBuf};

use fthost_engine::Device;
use fthost_engine::checkpoint::gguf::{self, GgmlType, GgufFile, GgufStored, write_gguf};
use fthost_engine::checkpoint::{SaveConfig, StoredDtype, load_model, save_model};
use fthost_engine::models::CausalLm;

use super::architectures::{cases, file, meaning, weights};
use crate::support::golden;

/// The folder of a case with what a GGUF can't say otherwise.
fn source(folder: &Path, config: &serde_json::Value) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("model.safetensors"), place.path().join("model.safetensors")).unwrap();
    std::fs::write(place.path().join("config.json"), config.to_string()).unwrap();
    place
}

fn written(model: &mut CausalLm, folder: &Path, stored: GgufStored) -> PathBuf {
    let path = folder.join("model.gguf");
    write_gguf(model, &path, &[], stored).unwrap();
    path
}

/// Every family: what a folder becomes as a GGUF file and as a folder again is the folder, bit for bit; of Gemma's norms, which
/// are stored plus one, what is left of that.
#[test]
fn a_model_that_is_written_and_imported_is_the_same() {
    for (case, folder, config) in cases() {
        let place = source(&folder, &config);
        let mut model = load_model(place.path(), &Device::flex()).unwrap();
        let path = written(&mut model, place.path(), GgufStored::default());
        let imported = tempfile::tempdir().unwrap();
        gguf::write_model(&GgufFile::open(&path).unwrap(), imported.path(), StoredDtype::F32).unwrap();
        let config = |folder: &Path| meaning(&folder.join("config.json"));
        assert_eq!(config(imported.path()), config(place.path()), "{case}");
        let (found, expected) = (weights(imported.path()), weights(&folder));
        for ((name, shape, found), (of_source, source_shape, expected)) in found.iter().zip(&expected) {
            assert_eq!((name, shape), (of_source, source_shape), "{case}");
            let kept = |bits: &u32| match shape.len() {
                1 if case.starts_with("gemma") => ((f32::from_bits(*bits) + 1.0) - 1.0).to_bits(),
                _ => *bits,
            };
            assert!(found.iter().zip(expected).all(|(a, b)| *a == kept(b)), "{case}: `{name}` differs");
        }
        assert_eq!(found.len(), expected.len(), "{case}");
    }
}

/// Oracle: the Python package gguf, `tests/golden/generate/gguf_families.py`: the tensors of its file and of ours have the same
/// names, types and values, F16 where a matrix is.
#[test]
fn a_file_has_the_tensors_of_llama_cpps_converter() {
    for (case, folder, config) in cases() {
        let place = source(&folder, &config);
        let mut model = load_model(place.path(), &Device::flex()).unwrap();
        let stored = GgufStored { dtype: StoredDtype::F16, blocks: None };
        let found = GgufFile::open(&written(&mut model, place.path(), stored)).unwrap();
        let expected = file(&case);
        let told = |file: &GgufFile| {
            let mut told: Vec<_> = file
                .tensors()
                .iter()
                .map(|it| {
                    let bits: Vec<u32> = file.values(it).unwrap().into_iter().map(f32::to_bits).collect();
                    (it.name.clone(), it.shape.clone(), it.stored, bits)
                })
                .collect();
            told.sort_by(|a, b| a.0.cmp(&b.0));
            told
        };
        assert!(told(&found) == told(&expected), "{case}");
    }
}

/// Linears in blocks: in place, and imported, they have the same values, those of merged linears, of linears turned and of
/// experts among them. Rows that are no whole blocks are F16.
#[test]
fn linears_are_stored_in_blocks() {
    for (case, folder, config) in cases() {
        let place = source(&folder, &config);
        for (kind, name) in [
            (GgmlType::Q8_0, "Q8_0"),
            (GgmlType::Q4_0, "Q4_0"),
            (GgmlType::Q4_1, "Q4_1"),
            (GgmlType::Q5_0, "Q5_0"),
            (GgmlType::Q5_1, "Q5_1"),
        ] {
            let mut model = load_model(place.path(), &Device::flex()).unwrap();
            let stored = GgufStored { blocks: Some(kind), ..GgufStored::default() };
            let path = tempfile::tempdir().unwrap();
            let file = GgufFile::open(&written(&mut model, path.path(), stored)).unwrap();
            let in_blocks = file.tensors().iter().filter(|it| it.stored.name() == name).count();
            assert!(in_blocks >= 2, "{case}: {in_blocks} in {name}");
            assert_eq!(file.tensor("token_embd.weight").unwrap().stored.name(), "Q8_0", "{case}");
            let (kept, imported) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            gguf::write_in_place(&file, kept.path()).unwrap();
            gguf::write_model(&file, imported.path(), StoredDtype::F32).unwrap();
            let mut model = load_model(kept.path(), &Device::flex()).unwrap();
            assert!(model.is_packed(), "{case}");
            let imported = values(&mut load_model(imported.path(), &Device::flex()).unwrap());
            assert!(values(&mut model) == imported, "{case}");
            // And dense again, linears turned where the family stores them so.
            let dense = tempfile::tempdir().unwrap();
            save_model(&mut model, kept.path(), dense.path(), &SaveConfig::default()).unwrap();
            assert!(values(&mut load_model(dense.path(), &Device::flex()).unwrap()) == imported, "{case}");
        }
    }
}

fn values(model: &mut CausalLm) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let mut found = Vec::new();
    model.visit_base(&mut |name, parameter| {
        let (shape, values) = parameter.to_f32();
        found.push((name.to_string(), shape, values.into_iter().map(f32::to_bits).collect()));
    });
    found
}

/// A model whose computation a file has no way to say is refused before a byte is written.
#[test]
fn what_a_file_can_not_say_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.gguf");
    let refused = |folder: &str| {
        let mut model = load_model(&golden(folder), &Device::flex()).unwrap();
        let error = write_gguf(&mut model, &path, &[], GgufStored::default()).unwrap_err().to_string();
        assert!(!path.exists());
        error
    };
    let told = [
        // Every second layer does not rotate, and llama.cpp knows every fourth.
        refused("families/smollm3"),
        // Scores of a factor of their own.
        refused("families/gemma2"),
        refused("llama/rope_dynamic"),
    ];
    insta::assert_snapshot!(told.join("\n"));
}

/// A window in some layers is written where llama.cpp reads it and where it does not, and read here in both.
#[test]
fn windows_and_llama3s_scaling_are_kept() {
    for folder in ["families/qwen2_window", "families/mistral", "llama/rope_llama3", "families/phi3_short"] {
        let place = tempfile::tempdir().unwrap();
        let mut model = load_model(&golden(folder), &Device::flex()).unwrap();
        let path = written(&mut model, place.path(), GgufStored::default());
        let found = gguf::decoder_config(&GgufFile::open(&path).unwrap()).unwrap();
        let expected = meaning(&golden(folder).join("config.json"));
        assert_eq!(found, expected, "{folder}");
    }
}
