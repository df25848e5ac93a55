//! How different texts are from one another: distinct-n (Li et al. 2016, <https://aclanthology.org/N16-1014>) and
//! self-BLEU (Zhu et al. 2018, <https://arxiv.org/abs/1802.01886>).

use std::collections::BTreeMap;
use std::hash::Hash;

use crate::bleu::Bleu;
use crate::ngrams::Ngrams;

/// The n-grams of one length of many texts, numbered, so that shares over many selections of texts are cheap.
#[derive(Debug, Clone)]
pub struct Distinct {
    /// Of each text its different n-grams.
    different: Vec<Vec<u32>>,
    /// Of each text all of its n-grams.
    totals: Vec<u64>,
    /// Of each n-gram the selection in which it was seen last.
    seen: Vec<u32>,
    selection: u32,
}

impl Distinct {
    /// `n` is at least 1.
    pub fn new<T: Eq + Hash, W: AsRef<[T]>>(texts: &[W], n: usize) -> Self {
        let mut ngrams = Ngrams::new(texts.iter().map(AsRef::as_ref));
        (1..n).for_each(|_| ngrams.lengthen());
        let own = |text| {
            let mut own = ngrams.of(text).to_vec();
            own.sort_unstable();
            own.dedup();
            own
        };
        let different = (0..texts.len()).map(own).collect();
        let totals = (0..texts.len()).map(|it| ngrams.of(it).len() as u64).collect();
        Self { different, totals, seen: vec![0; ngrams.kinds()], selection: 0 }
    }

    /// Share of different n-grams among all n-grams of the selected texts together: 0 to 1; not a number where they have
    /// none of this length.
    pub fn share(&mut self, selected: &[usize]) -> f64 {
        self.selection += 1;
        let (mut different, mut all) = (0u64, 0u64);
        for text in selected {
            all += self.totals[*text];
            for ngram in &self.different[*text] {
                let seen = &mut self.seen[*ngram as usize];
                different += u64::from(*seen != self.selection);
                *seen = self.selection;
            }
        }
        different as f64 / all as f64
    }
}

/// Where an n-gram occurs most often, and how often at most elsewhere.
#[derive(Clone, Default)]
struct Most {
    count: u64,
    text: usize,
    elsewhere: u64,
}

/// Of each text its BLEU against all the others as references: 0 (nothing shared) to 100; empty for fewer than two.
///
/// Equal to [`Bleu::statistics`] with the others as references, in one pass over all n-grams.
pub fn self_bleu<S: AsRef<str>>(bleu: &Bleu, texts: &[S]) -> Vec<f64> {
    if texts.len() < 2 {
        return Vec::new();
    }
    let words: Vec<Vec<String>> = texts.iter().map(|it| bleu.words(it.as_ref())).collect();
    let mut lengths: BTreeMap<usize, usize> = BTreeMap::new();
    for text in &words {
        *lengths.entry(text.len()).or_default() += 1;
    }
    let mut statistics: Vec<Vec<f64>> =
        words.iter().map(|it| vec![it.len() as f64, closest(&lengths, it.len()) as f64]).collect();
    let mut totals: Vec<Vec<f64>> = vec![Vec::new(); words.len()];
    let mut ngrams = Ngrams::new(words.iter().map(Vec::as_slice));
    for n in 1..=bleu.max_order {
        if n > 1 {
            ngrams.lengthen();
        }
        let counts: Vec<Vec<(u32, u64)>> = (0..words.len()).map(|it| counted(ngrams.of(it))).collect();
        let mut most: Vec<Most> = vec![Most::default(); ngrams.kinds()];
        for (text, counts) in counts.iter().enumerate() {
            for (ngram, count) in counts {
                let most = &mut most[*ngram as usize];
                if *count > most.count {
                    *most = Most { count: *count, text, elsewhere: most.count };
                } else {
                    most.elsewhere = most.elsewhere.max(*count);
                }
            }
        }
        for (text, counts) in counts.iter().enumerate() {
            let elsewhere = |ngram: u32| {
                let most = &most[ngram as usize];
                if most.text == text { most.elsewhere } else { most.count }
            };
            let shared: u64 = counts.iter().map(|(ngram, count)| elsewhere(*ngram).min(*count)).sum();
            statistics[text].push(shared as f64);
            totals[text].push(ngrams.of(text).len() as f64);
        }
    }
    for (statistics, totals) in statistics.iter_mut().zip(totals) {
        statistics.extend(totals);
    }
    statistics.iter().map(|it| bleu.score(it).score).collect()
}

/// Each n-gram of a text with how often it occurs.
fn counted(ngrams: &[u32]) -> Vec<(u32, u64)> {
    let mut sorted = ngrams.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).map(|it| (it[0], it.len() as u64)).collect()
}

/// The length next to `length` among the other texts; of two equally far the shorter.
fn closest(lengths: &BTreeMap<usize, usize>, length: usize) -> usize {
    if lengths.get(&length).is_some_and(|it| *it > 1) {
        return length;
    }
    let below = lengths.range(..length).next_back().map(|it| *it.0);
    let above = lengths.range(length + 1..).next().map(|it| *it.0);
    let nearest = below.into_iter().chain(above).min_by_key(|it| (it.abs_diff(length), *it));
    nearest.unwrap_or(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_equals_bleu_against_all_the_others() {
        let texts = ["a b c d e", "a b c d f g", "a a a b", "x y z", "a b c d e", "a a b c", ""];
        for effective_order in [false, true] {
            let bleu = Bleu { effective_order, ..Bleu::default() };
            for (at, found) in self_bleu(&bleu, &texts).into_iter().enumerate() {
                let others: Vec<_> =
                    texts.iter().enumerate().filter(|it| it.0 != at).map(|it| *it.1).collect();
                assert_eq!(found, bleu.score(&bleu.statistics(texts[at], &others)).score, "{at}");
            }
        }
    }

    #[test]
    fn distinct_counts_over_the_selected_texts() {
        let texts = [vec!["a", "b", "a"], vec!["a", "b"]];
        let share = |n, selected: &[usize]| Distinct::new(&texts, n).share(selected);
        assert_eq!(share(1, &[0, 1]), 2.0 / 5.0);
        assert_eq!(share(2, &[0, 1]), 2.0 / 3.0);
        assert_eq!(share(2, &[1, 1]), 1.0 / 2.0);
        assert!(share(4, &[0, 1]).is_nan());
    }
}
