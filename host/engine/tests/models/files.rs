//! Files of models that are not what they should be: an error that says which weight, and no panic.

use std::path::Path;

use fthost_engine::Device;
use fthost_engine::checkpoint::load_model;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::support::golden;

/// `from` with other tensors.
fn folder_with(from: &Path, tensors: Vec<(String, TensorView<'_>)>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(from.join("config.json"), folder.path().join("config.json")).unwrap();
    safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

fn refused(folder: &Path) -> String {
    let error = load_model(folder, &Device::flex()).map(drop).unwrap_err().to_string();
    error.replace(&folder.display().to_string(), ".")
}

/// A file of a tied model may repeat the head. One that was trained apart from the embedding would be dropped.
#[test]
fn a_tied_head_of_its_own_is_not_dropped_silently() {
    let from = golden("llama/gqa_tied");
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let embedding = file.tensor("model.embed_tokens.weight").unwrap();
    let mut head = embedding.data().to_vec();
    let folder = |head: &[u8]| {
        let shape = embedding.shape().to_vec();
        let head = TensorView::new(Dtype::F32, shape, head).unwrap();
        let all = file.iter().map(|(name, it)| (name.to_string(), it));
        folder_with(&from, all.chain([("lm_head.weight".to_string(), head)]).collect())
    };
    assert!(load_model(folder(&head).path(), &Device::flex()).is_ok(), "a repetition is one");
    head[5] ^= 1;
    insta::assert_snapshot!(refused(folder(&head).path()), @"invalid `.`: `tie_word_embeddings` is true, and `lm_head.weight` holds other values than `model.embed_tokens.weight`: one of them would be dropped");
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    let from = golden("llama/gqa_tied");
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let name = "model.layers.1.mlp.up_proj.weight";
    let mut values = file.tensor(name).unwrap().data().to_vec();
    values[28..32].copy_from_slice(&f32::NAN.to_le_bytes());
    let tensors = file.iter().map(|(found, it)| match found == name {
        true => (found.to_string(), TensorView::new(it.dtype(), it.shape().to_vec(), &values).unwrap()),
        false => (found.to_string(), it),
    });
    let folder = folder_with(&from, tensors.collect());
    insta::assert_snapshot!(refused(folder.path()), @"`model.layers.1.mlp.up_proj.weight` holds a value that is not finite at index 7");
}

/// 2000 files, each with a few bytes of its header, of its JSON or of what packed weights say of themselves changed, or cut
/// short: every one is loaded or refused.
#[test]
fn files_that_lie_are_loaded_or_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut refusals = 0;
    for (case, of) in [("quant/nf4", 800), ("quant/int8", 600), ("llama/gqa_tied", 600)] {
        let from = golden(case);
        let whole = std::fs::read(from.join("model.safetensors")).unwrap();
        let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 8;
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(from.join("config.json"), folder.path().join("config.json")).unwrap();
        let states: Vec<usize> =
            (header..whole.len()).filter(|it| whole[*it..].starts_with(b"{\"quant_type")).collect();
        for _ in 0..of {
            let mut bytes = whole.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = match rng.random_range(0..4) {
                    0 => rng.random_range(0..8),
                    1 if !states.is_empty() => {
                        states[rng.random_range(0..states.len())] + rng.random_range(0..160)
                    }
                    _ => rng.random_range(8..header),
                };
                let last = bytes.len() - 1;
                bytes[at.min(last)] = match rng.random_range(0..3) {
                    0 => rng.random(),
                    1 => b'0' + rng.random_range(0..10u8),
                    _ => bytes[at.min(last)] ^ 1,
                };
            }
            if rng.random_range(0..8) == 0 {
                bytes.truncate(rng.random_range(0..bytes.len()));
            }
            std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
            refusals += usize::from(load_model(folder.path(), &Device::flex()).is_err());
        }
    }
    assert!(refusals > 1000, "{refusals} of 2000");
}
