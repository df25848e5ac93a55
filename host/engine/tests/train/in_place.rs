//! Weights that are used where they lie in their file: no copy until they are trained, and never a write to the file.

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use fthost_engine::checkpoint::load_model;
use fthost_engine::models::CausalLm;
use fthost_engine::models::block::FeedForward;
use fthost_engine::train::{TrainState, step};
use fthost_engine::{Device, EngineError};
use fthost_kernels::Weight;

use super::support::{batches, config, golden};

/// The golden model in a folder of its own.
fn model_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(golden("train/model").join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn load(folder: &Path) -> CausalLm {
    load_model(folder, &Device::flex()).unwrap()
}

/// Bytes of the file at `path` with its header longer by `by` blanks, and with `change` made to its tensors' bytes.
fn rewritten(path: &Path, by: usize, change: impl Fn(&mut [u8])) {
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut file = ((header + by) as u64).to_le_bytes().to_vec();
    file.extend(&bytes[8..8 + header]);
    file.extend(vec![b' '; by]);
    let start = file.len();
    file.extend(&bytes[8 + header..]);
    change(&mut file[start..]);
    // Beside it, then renamed: what is mapped of the file that was there stays what it was.
    let beside = path.with_extension("new");
    std::fs::write(&beside, file).and_then(|()| std::fs::rename(&beside, path)).unwrap();
}

/// Whether the values lie in pages that the system maps from `path`.
#[cfg(target_os = "linux")]
fn lies_in(data: &TensorData, path: &Path) -> bool {
    let address = data.bytes().as_ptr().addr();
    let name = path.canonicalize().unwrap().display().to_string();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|it| it.ends_with(&name)).any(|line| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let bound = |it: &str| usize::from_str_radix(it, 16).unwrap();
        (bound(start)..bound(end)).contains(&address)
    })
}

/// Where the tensor alone holds its values, they are given as they lie.
fn every_weight(model: CausalLm) -> Vec<TensorData> {
    let mut matrices = vec![model.embed_tokens];
    let mut vectors = vec![model.norm.weight];
    matrices.extend(model.lm_head);
    for block in model.blocks {
        vectors.extend([block.attention_norm, block.mlp_norm].into_iter().flatten().map(|it| it.weight));
        let FeedForward::Dense { up, down } = block.feed_forward else { panic!("a dense model") };
        let linears = block.qkv.into_iter().chain([block.output]).chain(up).chain([down]);
        matrices.extend(linears.map(|it| match it.1.weight {
            Weight::Dense(it) => it,
            Weight::Packed(_) => panic!("a dense model"),
        }));
    }
    let matrices = matrices.into_iter().map(Tensor::into_data);
    matrices.chain(vectors.into_iter().map(Tensor::into_data)).collect()
}

fn file(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("model.safetensors")
}

#[cfg(target_os = "linux")]
#[test]
fn weights_of_a_loaded_model_are_the_pages_of_its_file() {
    let folder = model_folder();
    let weights = every_weight(load(folder.path()));
    assert!(weights.len() > 10 && weights.iter().all(|it| lies_in(it, &file(&folder))));
    // What is written to is copied first.
    let scaled = load(folder.path()).norm.weight.mul_scalar(2.0).into_data();
    assert!(!lies_in(&scaled, &file(&folder)));
}

#[test]
fn training_leaves_the_file_of_its_weights_as_it_was() {
    let folder = model_folder();
    let before = std::fs::read(file(&folder)).unwrap();
    let mut state = TrainState::new(load(folder.path()), None);
    for number in 0..2 {
        step(&mut state, &batches(number), &config(1e-2)).unwrap();
    }
    assert!(std::fs::read(file(&folder)).unwrap() == before);
    let (trained, stored) = (every_weight(state.model), every_weight(load(folder.path())));
    assert!(
        trained.iter().zip(&stored).all(|(a, b)| a.as_bytes() != b.as_bytes()),
        "every weight was trained"
    );
}

/// The header of another writer may end anywhere; f32 at an odd address can't be used in place.
#[test]
fn weights_that_are_not_aligned_are_copied_and_the_same() {
    let folder = model_folder();
    let aligned = every_weight(load(folder.path()));
    rewritten(&file(&folder), 1, |_| ());
    let copied = every_weight(load(folder.path()));
    assert!(aligned.iter().zip(&copied).all(|(a, b)| a.as_bytes() == b.as_bytes()));
    #[cfg(target_os = "linux")]
    assert!(copied.iter().all(|it| !lies_in(it, &file(&folder))));
}

/// In place or copied, the same weight and index are named.
#[test]
fn a_value_that_is_not_finite_is_named_wherever_weights_lie() {
    let told = |by: usize, value: f32| {
        let folder = model_folder();
        let change = |bytes: &mut [u8]| {
            let last = bytes.len() - 4;
            bytes[last..].copy_from_slice(&value.to_le_bytes());
        };
        rewritten(&file(&folder), by, change);
        match load_model(folder.path(), &Device::flex()) {
            Err(EngineError::NotFinite { name, index }) => (name, index),
            other => panic!("{:?}", other.map(|_| "a model")),
        }
    };
    let first = told(0, f32::NAN);
    assert!(first.1 > 0);
    for (by, value) in [(0, f32::NEG_INFINITY), (1, f32::NAN), (1, f32::INFINITY)] {
        assert_eq!(told(by, value), first);
    }
}
