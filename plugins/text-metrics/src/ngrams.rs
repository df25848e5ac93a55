//! N-grams as numbers: those of one length get numbers from 0 on, so that counting is adding to a list.

use std::hash::Hash;

use rustc_hash::{FxBuildHasher, FxHashMap};

/// The n-grams of several texts, of one length after the other.
pub(crate) struct Ngrams {
    /// Of each text its tokens.
    tokens: Vec<Vec<u32>>,
    /// Of each text its n-grams: each is the n-gram one shorter that begins with it, and a token.
    ngrams: Vec<Vec<u32>>,
    n: usize,
    kinds: usize,
}

impl Ngrams {
    /// N-grams of length 1.
    pub(crate) fn new<'a, T: Eq + Hash + 'a>(texts: impl IntoIterator<Item = &'a [T]>) -> Self {
        let mut numbers: FxHashMap<&T, u32> = FxHashMap::default();
        let mut number = |token| {
            let next = numbers.len() as u32;
            *numbers.entry(token).or_insert(next)
        };
        let tokens: Vec<Vec<u32>> =
            texts.into_iter().map(|text| text.iter().map(&mut number).collect()).collect();
        Self { ngrams: tokens.clone(), tokens, n: 1, kinds: numbers.len() }
    }

    /// N-grams one longer.
    pub(crate) fn lengthen(&mut self) {
        let all = self.ngrams.iter().map(Vec::len).sum();
        let mut numbers: FxHashMap<u64, u32> = FxHashMap::with_capacity_and_hasher(all, FxBuildHasher);
        for (ngrams, tokens) in self.ngrams.iter_mut().zip(&self.tokens) {
            ngrams.pop();
            for (ngram, token) in ngrams.iter_mut().zip(tokens.iter().skip(self.n)) {
                let next = numbers.len() as u32;
                *ngram = *numbers.entry(u64::from(*ngram) << 32 | u64::from(*token)).or_insert(next);
            }
        }
        self.n += 1;
        self.kinds = numbers.len();
    }

    /// A text's n-grams in order.
    pub(crate) fn of(&self, text: usize) -> &[u32] {
        &self.ngrams[text]
    }

    /// How many different n-grams there are.
    pub(crate) fn kinds(&self) -> usize {
        self.kinds
    }

    /// How often each n-gram occurs in a text.
    pub(crate) fn counts(&self, text: usize) -> Vec<u64> {
        let mut counts = vec![0; self.kinds];
        for ngram in self.of(text) {
            counts[*ngram as usize] += 1;
        }
        counts
    }
}

/// Occurrences that both share, each n-gram as often as the rarer side has it.
pub(crate) fn shared(left: &[u64], right: &[u64]) -> u64 {
    left.iter().zip(right).map(|(left, right)| left.min(right)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ngrams_of_all_texts_have_one_number() {
        let mut ngrams = Ngrams::new([&["a", "b", "a", "b"][..], &["b", "a", "b"], &["c"], &[]]);
        assert_eq!((ngrams.kinds(), ngrams.of(1)), (3, &[1, 0, 1][..]));
        ngrams.lengthen();
        // `a b`, `b a`.
        assert_eq!((ngrams.kinds(), ngrams.of(0), ngrams.of(1)), (2, &[0, 1, 0][..], &[1, 0][..]));
        assert_eq!(ngrams.counts(0), [2, 1]);
        ngrams.lengthen();
        assert_eq!((ngrams.of(1), ngrams.of(2), ngrams.of(3)), (&[1][..], &[][..], &[][..]));
    }
}
