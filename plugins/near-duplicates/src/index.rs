//! Signatures in buckets, so that an example is compared with those few that may be near.

use std::collections::HashMap;

use crate::minhash::similarity;

/// Signatures seen so far.
pub struct Index {
    threshold: f64,
    rows: usize,
    bands: usize,
    seen: Vec<(u64, Vec<u32>)>,
    buckets: HashMap<u64, Vec<u32>>,
}

/// Steps of the integrals below.
const STEPS: usize = 400;

/// Bands and rows of a band, of at most `permutations` in all, with the least sum of false positives and false
/// negatives: the areas under `1 - (1 - s^rows)^bands` below the threshold and above its complement.
pub fn bands_and_rows(threshold: f64, permutations: usize) -> (usize, usize) {
    let area = |from: f64, to: f64, value: &dyn Fn(f64) -> f64| {
        let width = (to - from) / STEPS as f64;
        (0..STEPS).map(|it| value(from + width * (it as f64 + 0.5))).sum::<f64>() * width
    };
    let mut best = (f64::INFINITY, 1, permutations);
    for bands in 1..=permutations {
        for rows in 1..=permutations / bands {
            let missed = |s: f64| (1.0 - s.powi(rows as i32)).powi(bands as i32);
            let wrong =
                0.5 * area(0.0, threshold, &|s| 1.0 - missed(s)) + 0.5 * area(threshold, 1.0, &missed);
            if wrong < best.0 {
                best = (wrong, bands, rows);
            }
        }
    }
    (best.1, best.2)
}

impl Index {
    /// An empty index.
    pub fn new(threshold: f64, permutations: usize) -> Self {
        let (bands, rows) = bands_and_rows(threshold, permutations);
        Self { threshold, rows, bands, seen: Vec::new(), buckets: HashMap::new() }
    }

    /// One key a band.
    fn keys(&self, signature: &[u32]) -> impl Iterator<Item = u64> {
        signature.chunks_exact(self.rows).take(self.bands).zip(1u64..).map(|(band, number)| {
            band.iter().fold(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), |key, it| {
                (key ^ u64::from(*it)).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29)
            })
        })
    }

    /// The row that is nearest of those at the threshold or above, the earliest of several; and how near it is.
    pub fn nearest(&self, signature: &[u32]) -> Option<(u64, f64)> {
        let found = self.keys(signature).filter_map(|it| self.buckets.get(&it)).flatten();
        let mut places: Vec<u32> = found.copied().collect();
        places.sort_unstable();
        places.dedup();
        let mut best: Option<(u64, f64)> = None;
        for place in places {
            let (row, other) = &self.seen[place as usize];
            let near = similarity(signature, other);
            if near >= self.threshold && best.is_none_or(|it| near > it.1) {
                best = Some((*row, near));
            }
        }
        best
    }

    /// Keeps a signature.
    pub fn add(&mut self, row: u64, signature: Vec<u32>) {
        let place = u32::try_from(self.seen.len()).unwrap_or(u32::MAX);
        let keys: Vec<u64> = self.keys(&signature).collect();
        for key in keys {
            self.buckets.entry(key).or_default().push(place);
        }
        self.seen.push((row, signature));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Oracle: `datasketch.lsh._optimal_param`, `tests/golden/generate/minhash.py`.
    #[test]
    fn bands_are_those_of_datasketch() {
        let golden: Value =
            serde_json::from_str(include_str!("../../../tests/golden/minhash/minhash.json")).unwrap();
        for case in golden["bands"].as_array().unwrap() {
            let permutations = case["permutations"].as_u64().unwrap() as usize;
            let (bands, rows) = bands_and_rows(case["threshold"].as_f64().unwrap(), permutations);
            assert_eq!(
                (bands as u64, rows as u64),
                (case["b"].as_u64().unwrap(), case["r"].as_u64().unwrap()),
                "{case}"
            );
        }
    }
}
