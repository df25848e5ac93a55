//! Counting.

use std::collections::HashMap;
use std::hash::Hash;

/// How often each `n` neighbours of `tokens` occur. Callers add counts up, never in the map's order.
pub(crate) fn counts<T: Eq + Hash>(tokens: &[T], n: usize) -> HashMap<&[T], u64> {
    let mut counts = HashMap::new();
    if n > 0 {
        for ngram in tokens.windows(n) {
            *counts.entry(ngram).or_default() += 1;
        }
    }
    counts
}

/// Occurrences that both share, each n-gram as often as the rarer side has it.
pub(crate) fn matches<T: Eq + Hash>(left: &HashMap<&[T], u64>, right: &HashMap<&[T], u64>) -> u64 {
    left.iter().map(|(ngram, count)| right.get(ngram).map_or(0, |other| *count.min(other))).sum()
}

/// How many n-grams of this length a text of `length` tokens has.
pub(crate) fn total(length: usize, n: usize) -> u64 {
    (length + 1).saturating_sub(n) as u64
}
