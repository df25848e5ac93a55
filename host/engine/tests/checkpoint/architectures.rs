//! GGUF files of every architecture against the folders they were made of.

use std::path::Path;

use fthost_engine::Device;
use fthost_engine::checkpoint::gguf::{self, GgufFile};
use fthost_engine::checkpoint::safetensors::TensorFiles;
use fthost_engine::checkpoint::{StoredDtype, load_model};
use fthost_engine::models::DecoderConfig;
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::support::golden;

/// A file, the folder it was made of, and what the folder's `config.json` says otherwise.
pub fn cases() -> Vec<(String, std::path::PathBuf, Value)> {
    let cases = std::fs::read(golden("gguf/families/cases.json")).unwrap();
    let cases: serde_json::Map<String, Value> = serde_json::from_slice(&cases).unwrap();
    let case = |(name, case): (String, Value)| {
        let folder = golden(case["folder"].as_str().unwrap());
        let mut config: Value =
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        config.as_object_mut().unwrap().extend(case["changes"].as_object().unwrap().clone());
        (name, folder, config)
    };
    cases.into_iter().map(case).collect()
}

pub fn file(case: &str) -> GgufFile {
    GgufFile::open(&golden(&format!("gguf/families/{case}.gguf"))).unwrap()
}

/// What `config.json` means, how weights are drawn left out: a GGUF says nothing of it.
pub fn meaning(config: &Path) -> DecoderConfig {
    DecoderConfig { initializer_range: 0.02, ..DecoderConfig::read(config).unwrap() }
}

/// Names, shapes and bits, in the order of names.
pub fn weights(folder: &Path) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let files = TensorFiles::open_model(folder).unwrap();
    let read = |(name, shape, _): (String, Vec<usize>, String)| {
        let values = match shape[..] {
            [length] => files.read(&name, [length]),
            [rows, columns] => files.read(&name, [rows, columns]),
            ref other => panic!("`{name}` has {other:?}"),
        };
        let values = values.unwrap().try_into_vec::<f32>().unwrap();
        (name, shape, values.into_iter().map(f32::to_bits).collect())
    };
    files.list().into_iter().map(read).collect()
}

/// Oracle: llama.cpp's converter as `tests/golden/generate/gguf_families.py` follows it, checked there by transformers' own
/// reader. Configurations mean the same, and weights are the same bit for bit: matrices rounded to F16, which the files hold,
/// routers and positions apart; norms of Gemma are what is left of them after one was added.
#[test]
fn every_architecture_is_imported_as_the_folder_it_was_made_of() {
    for (case, folder, config) in cases() {
        let imported = tempfile::tempdir().unwrap();
        gguf::write_model(&file(&case), imported.path(), StoredDtype::F32).unwrap();
        let expected = imported.path().join("expected.json");
        std::fs::write(&expected, config.to_string()).unwrap();
        assert_eq!(meaning(&imported.path().join("config.json")), meaning(&expected), "{case}");
        let (found, source) = (weights(imported.path()), weights(&folder));
        assert_eq!(found.len(), source.len(), "{case}");
        for ((name, shape, found), (of_source, source_shape, source)) in found.iter().zip(&source) {
            assert_eq!((name, shape), (of_source, source_shape), "{case}");
            let is_exact = ["mlp.gate.", "block_sparse_moe.gate.", "wpe."].iter().any(|it| name.contains(it));
            let stored = |bits: &u32| {
                let value = f32::from_bits(*bits);
                match shape.len() {
                    2 if !is_exact => f16::from_f32(value).to_f32(),
                    1 if case.starts_with("gemma") => (value + 1.0) - 1.0,
                    _ => value,
                }
            };
            let same = found.iter().zip(source).all(|(found, source)| *found == stored(source).to_bits());
            assert!(same, "{case}: `{name}` differs");
        }
        load_model(imported.path(), &Device::flex()).unwrap();
    }
}

/// A file in a folder has the weights of its import, with experts, merged linears and turned ones in their places.
#[test]
fn every_architecture_is_used_in_place() {
    for (case, ..) in cases() {
        let (kept, imported) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        gguf::write_in_place(&file(&case), kept.path()).unwrap();
        gguf::write_model(&file(&case), imported.path(), StoredDtype::F32).unwrap();
        let weights = |folder: &Path| {
            let mut found = Vec::new();
            load_model(folder, &Device::flex()).unwrap().visit_base(&mut |name, parameter| {
                let (shape, values) = parameter.to_f32();
                let bits: Vec<u32> = values.into_iter().map(f32::to_bits).collect();
                found.push((name.to_string(), shape, bits));
            });
            found
        };
        assert!(weights(kept.path()) == weights(imported.path()), "{case}");
    }
}

/// 2000 files of all architectures, each with a few bytes of its head changed, or cut short: every one is imported or refused,
/// and what is imported is loaded or refused.
#[test]
fn files_that_lie_about_their_model_are_imported_or_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let (folder, cases) = (tempfile::tempdir().unwrap(), cases());
    let path = folder.path().join("lie.gguf");
    let (mut refused, mut imported) = (0, 0);
    for index in 0..2000 {
        let case = &cases[index % cases.len()].0;
        let mut bytes = std::fs::read(golden(&format!("gguf/families/{case}.gguf"))).unwrap();
        let found = |name: &[u8]| bytes.windows(name.len()).rposition(|it| it == name).unwrap();
        let head = found(b"output_norm.weight") + 40;
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(8..head);
            bytes[at] = match rng.random_range(0..4) {
                0 => rng.random(),
                1 => bytes[at] ^ 1,
                // Small numbers: sizes and types that may be.
                2 => rng.random_range(0..9),
                _ => b'0' + rng.random_range(0..10u8),
            };
        }
        if rng.random_range(0..16) == 0 {
            bytes.truncate(rng.random_range(0..bytes.len()));
        }
        std::fs::write(&path, bytes).unwrap();
        let made = folder.path().join("made");
        std::fs::create_dir_all(&made).unwrap();
        let outcome =
            GgufFile::open(&path).and_then(|file| gguf::write_model(&file, &made, StoredDtype::F32));
        match outcome {
            Err(_) => refused += 1,
            Ok(()) => {
                imported += 1;
                let _ = load_model(&made, &Device::flex());
            }
        }
    }
    assert!(refused > 1000 && imported > 20, "{refused} refused, {imported} imported");
}
