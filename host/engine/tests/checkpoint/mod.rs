//! GGUF files against the Python package that llama.cpp's authors keep, and against files that lie.

use std::path::Path;

use fthost_engine::Device;
use fthost_engine::checkpoint::gguf::{self, GgufFile};
use fthost_engine::checkpoint::safetensors::TensorFiles;
use fthost_engine::checkpoint::{StoredDtype, load_model};

use crate::support::golden;

mod architectures;
mod export;

fn tiny() -> Vec<u8> {
    std::fs::read(golden("gguf/tiny.gguf")).unwrap()
}

/// The bytes as a file, then opened and written as a model's folder.
fn import(bytes: &[u8], folder: &Path) -> Result<(), String> {
    let path = folder.join("tiny.gguf");
    std::fs::write(&path, bytes).unwrap();
    let written = GgufFile::open(&path)
        .and_then(|file| gguf::write_model(&file, folder, StoredDtype::F32))
        .map_err(|error| error.to_string().replace(&folder.display().to_string(), "."));
    written.map(|()| drop(load_model(folder, &Device::flex()).unwrap()))
}

/// Where `text` stands in the file.
fn position(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).position(|it| it == text.as_bytes()).unwrap()
}

/// The file with `bytes` written over what stands `after` the end of `text`.
fn changed(text: &str, after: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = tiny();
    let start = position(&file, text) + text.len() + after;
    file[start..start + bytes.len()].copy_from_slice(bytes);
    file
}

/// Oracle: the Python package gguf, `tests/golden/generate/gguf_import.py`. F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1 and
/// Q8_0 each hold at least one weight; f32 arithmetic has one answer, so bit for bit.
#[test]
fn imported_weights_are_those_of_the_gguf_package_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    import(&tiny(), folder.path()).unwrap();
    let read = |path: &Path| {
        let files = TensorFiles::open(folder.path(), vec![path.to_path_buf()]).unwrap();
        let list = files.list();
        let values = list.iter().map(|(name, shape, _)| match shape[..] {
            [length] => files.read(name, [length]),
            [rows, columns] => files.read(name, [rows, columns]),
            ref other => panic!("`{name}` has {other:?}"),
        });
        let values: Vec<Vec<u32>> = values
            .map(|it| it.unwrap().try_into_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect())
            .collect();
        (list, values)
    };
    let (got, expected) =
        (read(&folder.path().join("model.safetensors")), read(&golden("gguf/tiny.safetensors")));
    assert_eq!(got.0, expected.0);
    for ((name, ..), (got, expected)) in got.0.iter().zip(got.1.iter().zip(&expected.1)) {
        assert!(got == expected, "`{name}` differs");
    }
}

/// Oracle: the Python package gguf, `tests/golden/generate/ggml_blocks.py`. The tiny model's rows are too short for blocks of
/// 256 values; f32 arithmetic has one answer, so bit for bit.
#[test]
fn q4_k_q5_k_and_q6_k_are_read_as_the_gguf_package_reads_them() {
    let file = GgufFile::open(&golden("gguf/k_types.gguf")).unwrap();
    let expected = std::fs::read(golden("gguf/k_types.safetensors")).unwrap();
    let expected = safetensors::SafeTensors::deserialize(&expected).unwrap();
    for name in ["Q4_K", "Q5_K", "Q6_K"] {
        let tensor = file.tensor(name).unwrap();
        assert_eq!((tensor.stored.name().as_str(), &tensor.shape[..]), (name, &[3, 2, 256][..]));
        let got: Vec<[u8; 4]> = file.values(tensor).unwrap().into_iter().map(f32::to_le_bytes).collect();
        assert!(got == expected.tensor(name).unwrap().data().as_chunks::<4>().0, "`{name}` differs");
        assert_eq!(file.blocks(tensor).unwrap().unwrap().shape(), [6, 256]);
    }
    let floats = GgufFile::open(&golden("gguf/tiny.gguf")).unwrap();
    assert!(floats.blocks(floats.tensor("output_norm.weight").unwrap()).unwrap().is_none());
}

#[test]
fn the_configuration_says_what_the_metadata_says() {
    let folder = tempfile::tempdir().unwrap();
    import(&tiny(), folder.path()).unwrap();
    insta::assert_snapshot!(std::fs::read_to_string(folder.path().join("config.json")).unwrap());
    let generation = std::fs::read_to_string(folder.path().join("generation_config.json")).unwrap();
    let generation: serde_json::Value = serde_json::from_str(&generation).unwrap();
    assert_eq!(generation, serde_json::json!({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}));
}

/// Oracle: llama.cpp's converter, `tests/golden/generate/gguf_import.py`: it stores only what Llama 3.2's published
/// parameters give.
#[test]
fn llama3_scaling_is_known_by_its_factors() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(golden("gguf/tiny_llama3.gguf")).unwrap();
    import(&bytes, folder.path()).unwrap();
    let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let expected = serde_json::json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    assert_eq!(config["rope_scaling"], expected);
    // Factors of another scaling are refused, not ignored: the base they were made for is changed.
    let at = position(&bytes, "llama.rope.freq_base") + "llama.rope.freq_base".len() + 4;
    bytes[at..at + 4].copy_from_slice(&600_000f32.to_le_bytes());
    let refused = import(&bytes, folder.path()).unwrap_err();
    assert!(refused.contains("`rope_freqs.weight` holds factors of no scaling known here"), "{refused}");
}

/// Two-byte types hold the nearest value, and `config.json` says which type it is.
#[test]
fn weights_are_written_in_the_type_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = GgufFile::open(&golden("gguf/tiny.gguf")).unwrap();
    for (dtype, stored, name) in
        [(StoredDtype::Bf16, "BF16", "bfloat16"), (StoredDtype::F16, "F16", "float16")]
    {
        gguf::write_model(&file, folder.path(), dtype).unwrap();
        let files = TensorFiles::open_model(folder.path()).unwrap();
        assert!(files.list().iter().all(|it| it.2 == stored));
        let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
        assert!(config.contains(&format!("\"dtype\": \"{name}\"")), "{config}");
        // Half a unit in the last of bf16's 8 bits.
        let norm = "model.layers.0.mlp.gate_proj.weight";
        let got = files.read(norm, [96, 64]).unwrap().try_into_vec::<f32>().unwrap();
        let exact = TensorFiles::open(folder.path(), vec![golden("gguf/tiny.safetensors")]).unwrap();
        let exact = exact.read(norm, [96, 64]).unwrap().try_into_vec::<f32>().unwrap();
        assert!(got.iter().zip(&exact).all(|(a, b)| (a - b).abs() <= b.abs() / 256.0));
    }
}

/// Cut anywhere, a file is an error and never a panic.
#[test]
fn a_file_cut_short_is_an_error_wherever_it_is_cut() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), tiny());
    let path = folder.path().join("cut.gguf");
    for length in (0..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(GgufFile::open(&path).is_err(), "cut at {length}");
    }
}

/// Any byte of the head changed gives an error or another file, never a panic or a large allocation.
#[test]
fn a_damaged_head_never_panics() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), tiny());
    let path = folder.path().join("damaged.gguf");
    let head = position(&whole, "output_norm.weight") + 40;
    for at in (0..head).step_by(7) {
        for value in [0x00, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            std::fs::write(&path, &bytes).unwrap();
            let _ = GgufFile::open(&path).and_then(|file| gguf::check(&file));
        }
    }
}

#[test]
fn a_file_that_lies_is_told_what_about() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |bytes: &[u8]| import(bytes, folder.path()).unwrap_err();
    let huge = u64::MAX.to_le_bytes();
    let lies = [
        refused(b"GGML"),
        refused(&changed("GGUF", 0, &1u32.to_le_bytes())),
        refused(&changed("GGUF", 0, &3u32.to_be_bytes())),
        // More tensors than the file has bytes.
        refused(&changed("GGUF", 4, &huge)),
        // An array of tokens without end.
        refused(&changed("tokenizer.ggml.tokens", 8, &huge)),
        // A weight with a dimension of 0, and one without end.
        refused(&changed("blk.0.ffn_up.weight", 4, &0u64.to_le_bytes())),
        refused(&changed("blk.0.ffn_up.weight", 4, &huge)),
        // Rows of 64 as Q4_K, type 12, whose blocks have 256 values.
        refused(&changed("blk.0.ffn_up.weight", 20, &12u32.to_le_bytes())),
        // An offset beyond the file.
        refused(&changed("blk.0.ffn_up.weight", 24, &(1u64 << 40).to_le_bytes())),
    ];
    insta::assert_snapshot!(lies.join("\n"));
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |bytes: &[u8]| import(bytes, folder.path()).unwrap_err();
    let renamed = |from: &str, to: &str| {
        let (mut file, start) = (tiny(), position(&tiny(), from));
        file[start..start + to.len()].copy_from_slice(to.as_bytes());
        file
    };
    let told = [
        // Q2_K is type 10.
        refused(&changed("blk.0.ffn_up.weight", 20, &10u32.to_le_bytes())),
        refused(&renamed("blk.0.ffn_up.weight", "blk.0.ffn_xx.weight")),
        refused(&renamed("llama.rope.freq_base", "llama.rope.freq_bass")),
        refused(&changed("general.architecture", 12, b"bloom")),
        refused(&changed("llama.block_count", 4, &2u32.to_le_bytes())),
        refused(&changed("llama.attention.head_count", 4, &0u32.to_le_bytes())),
        refused(&changed("llama.feed_forward_length", 4, &u32::MAX.to_le_bytes())),
    ];
    insta::assert_snapshot!(told.join("\n"));
}
