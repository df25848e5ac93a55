//! What the engine's tests share: the tiny models under `tests/golden`, and comparisons.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fthost_data::{Batch, Origin, Sequence};
use fthost_engine::Device;
use fthost_engine::checkpoint::load_model;
use fthost_engine::checkpoint::safetensors::TensorFiles;
use fthost_engine::models::CausalLm;

pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path)
}

pub fn tiny_model() -> CausalLm {
    load_model(&golden("llama/gqa_tied"), &Device::flex()).unwrap()
}

/// The values of a golden file by name.
pub struct Golden(TensorFiles);

impl Golden {
    pub fn open(path: &Path) -> Self {
        Self(TensorFiles::open(path.parent().unwrap(), vec![path.to_path_buf()]).unwrap())
    }

    pub fn names(&self) -> impl Iterator<Item = String> {
        self.0.list().into_iter().map(|it| it.0)
    }

    pub fn values(&self, name: &str) -> Vec<f32> {
        let read = match self.0.shape(name).unwrap()[..] {
            [length] => self.0.read(name, [length]),
            [rows, columns] => self.0.read(name, [rows, columns]),
            ref shape => panic!("`{name}` has {shape:?}"),
        };
        read.unwrap().try_into_vec::<f32>().unwrap()
    }
}

pub fn sequence(input_ids: Vec<u32>, labels: Vec<i64>, line: u64) -> Sequence {
    Sequence {
        input_ids,
        labels,
        cut: 0,
        judgement: 0.0,
        origin: Arc::new(Origin { source: "rows.json".into(), line }),
    }
}

/// One sequence with every token supervised.
pub fn whole(input_ids: &[u32]) -> Batch {
    let labels = input_ids.iter().map(|it| i64::from(*it)).collect();
    Batch::new(&[sequence(input_ids.to_vec(), labels, 1)])
}

#[track_caller]
pub fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{what}: differs by {worst:e}, allowed {tolerance:e}");
}
