//! chrF and chrF++ as sacrebleu computes them: Popović 2015, <https://aclanthology.org/W15-3049>, and 2017,
//! <https://aclanthology.org/W17-4770>.

use std::hash::Hash;

use crate::ngrams::{Ngrams, shared};
use crate::tokenize::words;

/// sacrebleu's options, with its defaults.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Chrf {
    /// Length of the longest n-grams of characters.
    pub char_order: usize,
    /// Length of the longest n-grams of words: 0 for chrF, 2 for chrF++.
    pub word_order: usize,
    /// Weight of recall against precision.
    pub beta: f64,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// Whether white space counts as characters.
    pub whitespace: bool,
    /// Whether lengths without n-grams count with a tiny share, as in Popović's own program, in place of not at all.
    pub eps_smoothing: bool,
}

impl Default for Chrf {
    fn default() -> Self {
        let (lowercase, whitespace, eps_smoothing) = (false, false, false);
        Self { char_order: 6, word_order: 0, beta: 2.0, lowercase, whitespace, eps_smoothing }
    }
}

/// A text as chrF looks at it.
struct Pieces {
    characters: Vec<char>,
    words: Vec<String>,
}

impl Chrf {
    /// What one sample adds to the sums: of each length of n-gram the answer's, the reference's and the shared ones, for
    /// the reference that gives the best score. `references` holds at least one.
    pub fn statistics<R: AsRef<str>>(&self, hypothesis: &str, references: &[R]) -> Vec<f64> {
        let hypothesis = self.pieces(hypothesis);
        let mut best = vec![0.0; 3 * (self.char_order + self.word_order)];
        let mut best_score = -1.0;
        for reference in references {
            let reference = self.pieces(reference.as_ref());
            let mut statistics = Vec::with_capacity(best.len());
            overlaps(&hypothesis.characters, &reference.characters, self.char_order, &mut statistics);
            overlaps(&hypothesis.words, &reference.words, self.word_order, &mut statistics);
            let score = self.score(&statistics);
            if score > best_score {
                (best, best_score) = (statistics, score);
            }
        }
        best
    }

    /// chrF of summed statistics: 0 to 100.
    pub fn score(&self, sums: &[f64]) -> f64 {
        const EPS: f64 = 1e-16;
        let factor = self.beta * self.beta;
        let (mut smoothed, mut orders) = (0.0, 0.0);
        let (mut precision, mut recall) = (0.0, 0.0);
        for counts in sums.chunks_exact(3) {
            let &[hypothesis, reference, shared] = counts else { continue };
            let share = |of: f64| if of > 0.0 { shared / of } else { EPS };
            let (p, r) = (share(hypothesis), share(reference));
            let weighted = factor * p + r;
            smoothed += if weighted > 0.0 { (1.0 + factor) * p * r / weighted } else { EPS };
            if hypothesis > 0.0 && reference > 0.0 {
                (precision, recall, orders) = (precision + p, recall + r, orders + 1.0);
            }
        }
        if self.eps_smoothing {
            return 100.0 * smoothed / (self.char_order + self.word_order) as f64;
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        let (precision, recall) = (precision / orders, recall / orders);
        100.0 * (1.0 + factor) * precision * recall / (factor * precision + recall)
    }

    /// chrF of one sample.
    pub fn sentence<R: AsRef<str>>(&self, hypothesis: &str, references: &[R]) -> f64 {
        self.score(&self.statistics(hypothesis, references))
    }

    /// The first option that can't be, and why.
    ///
    /// # Errors
    /// Key and reason.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !(1..=16).contains(&self.char_order) {
            return Err(("char_order", format!("must be in 1..=16, got `{}`", self.char_order)));
        }
        if self.word_order > 16 {
            return Err(("word_order", format!("must be in 0..=16, got `{}`", self.word_order)));
        }
        if !(self.beta > 0.0 && self.beta.is_finite()) {
            return Err(("beta", format!("must be > 0, got `{}`", self.beta)));
        }
        Ok(())
    }

    fn pieces(&self, text: &str) -> Pieces {
        let lower = self.lowercase.then(|| text.to_lowercase());
        let text = lower.as_deref().unwrap_or(text);
        let characters =
            if self.whitespace { text.chars().collect() } else { words(text).flat_map(str::chars).collect() };
        let words = if self.word_order > 0 { separated(text) } else { Vec::new() };
        Pieces { characters, words }
    }
}

/// Of each length up to `order`: n-grams of the hypothesis (0 where the reference has none of this length), of the
/// reference, and shared ones.
fn overlaps<T: Eq + Hash>(hypothesis: &[T], reference: &[T], order: usize, statistics: &mut Vec<f64>) {
    let mut ngrams = Ngrams::new([hypothesis, reference]);
    for n in 1..=order {
        if n > 1 {
            ngrams.lengthen();
        }
        let of_reference = ngrams.of(1).len();
        let of_hypothesis = if of_reference == 0 { 0 } else { ngrams.of(0).len() };
        let shared = shared(&ngrams.counts(0), &ngrams.counts(1));
        statistics.extend([of_hypothesis as f64, of_reference as f64, shared as f64]);
    }
}

/// Words with one ASCII punctuation mark taken off their end, or else off their start.
fn separated(text: &str) -> Vec<String> {
    let mut separated = Vec::new();
    for word in words(text) {
        let mut characters = word.chars();
        let (Some(first), Some(last)) = (characters.next(), characters.next_back()) else {
            separated.push(word.to_owned());
            continue;
        };
        if last.is_ascii_punctuation() {
            separated.extend([word[..word.len() - 1].to_owned(), last.to_string()]);
        } else if first.is_ascii_punctuation() {
            separated.extend([first.to_string(), word[1..].to_owned()]);
        } else {
            separated.push(word.to_owned());
        }
    }
    separated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mark_is_taken_off_a_word() {
        assert_eq!(separated("(hi) “yes”, \"no ! 。"), ["(hi", ")", "“yes”", ",", "\"", "no", "!", "。"]);
    }

    #[test]
    fn impossible_options_are_named() {
        assert_eq!(Chrf { char_order: 0, ..Chrf::default() }.check().unwrap_err().0, "char_order");
        assert_eq!(Chrf { beta: f64::NAN, ..Chrf::default() }.check().unwrap_err().0, "beta");
    }
}
