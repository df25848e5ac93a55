//! Rows of benches that time optimizer steps.

use std::sync::Arc;

use fthost_data::{Batch, Origin, Sequence};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Rows of random tokens below `vocab`, so many of so many, all supervised.
pub fn random_batch(vocab: usize, [rows, length]: [usize; 2], rng: &mut ChaCha8Rng) -> Batch {
    let origin = Arc::new(Origin { source: "random".into(), line: 1 });
    let rows: Vec<Sequence> = (0..rows)
        .map(|_| {
            let input_ids: Vec<u32> = (0..length).map(|_| rng.random_range(0..vocab as u32)).collect();
            let labels = input_ids.iter().map(|&it| i64::from(it)).collect();
            Sequence { input_ids, labels, cut: 0, judgement: 0.0, origin: Arc::clone(&origin) }
        })
        .collect();
    Batch::new(&rows)
}
