//! BLEU as sacrebleu computes it: Papineni et al. 2002, <https://aclanthology.org/P02-1040>; Post 2018,
//! <https://aclanthology.org/W18-6319>. Smoothing as in Chen and Cherry 2014, <https://aclanthology.org/W14-3346>.

use crate::ngrams::{Ngrams, shared};
use crate::tokenize::Tokenizer;

/// sacrebleu's options, with its defaults.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bleu {
    /// How texts become words.
    pub tokenizer: Tokenizer,
    /// Whether case is ignored.
    pub lowercase: bool,
    /// What stands in for a precision of 0.
    pub smoothing: Smoothing,
    /// Length of the longest n-grams.
    pub max_order: usize,
    /// Whether lengths of which the answer has no n-gram are left out. For single sentences.
    pub effective_order: bool,
}

impl Default for Bleu {
    fn default() -> Self {
        let (tokenizer, smoothing) = (Tokenizer::default(), Smoothing::default());
        Self { tokenizer, lowercase: false, smoothing, max_order: 4, effective_order: false }
    }
}

/// What stands in for a precision of 0, where at least one n-gram of some length is shared.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Smoothing {
    /// Half of one match, then a quarter, and so on (method 3, NIST's).
    #[default]
    Exp,
    /// Nothing: the score is 0.
    None,
    /// This many matches (method 1); sacrebleu's value is 0.1.
    Floor(f64),
    /// This many matches and n-grams more, from pairs on (method 2); sacrebleu's value is 1.
    AddK(f64),
}

/// BLEU and its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct BleuScore {
    /// 0 to 100.
    pub score: f64,
    /// What is taken off answers shorter than the references: 0 to 1.
    pub brevity_penalty: f64,
    /// Of each length in percent, smoothed.
    pub precisions: Vec<f64>,
}

impl Bleu {
    /// What one sample adds to the sums: the answer's words, the words of the reference next to it in length, matches of
    /// each length, n-grams of each length. `references` holds at least one.
    pub fn statistics<R: AsRef<str>>(&self, hypothesis: &str, references: &[R]) -> Vec<f64> {
        let hypothesis = self.words(hypothesis);
        let references: Vec<_> = references.iter().map(|it| self.words(it.as_ref())).collect();
        let closest = references.iter().map(Vec::len).min_by_key(|it| (it.abs_diff(hypothesis.len()), *it));
        let (mut correct, mut total) = (Vec::new(), Vec::new());
        let texts = std::iter::once(&hypothesis).chain(&references).map(Vec::as_slice);
        let mut ngrams = Ngrams::new(texts);
        for n in 1..=self.max_order {
            if n > 1 {
                ngrams.lengthen();
            }
            let mut allowed = vec![0; ngrams.kinds()];
            for reference in 1..=references.len() {
                for (most, count) in allowed.iter_mut().zip(ngrams.counts(reference)) {
                    *most = count.max(*most);
                }
            }
            correct.push(shared(&ngrams.counts(0), &allowed) as f64);
            total.push(ngrams.of(0).len() as f64);
        }
        let mut statistics = vec![hypothesis.len() as f64, closest.unwrap_or(0) as f64];
        statistics.extend(correct);
        statistics.extend(total);
        statistics
    }

    /// BLEU of summed statistics.
    pub fn score(&self, sums: &[f64]) -> BleuScore {
        let (length, reference_length) = (sums[0], sums[1]);
        let (correct, total) = sums[2..].split_at(self.max_order);
        let brevity_penalty = match length {
            _ if length >= reference_length => 1.0,
            0.0 => 0.0,
            _ => (1.0 - reference_length / length).exp(),
        };
        let mut precisions = vec![0.0; self.max_order];
        if correct.iter().all(|it| *it == 0.0) {
            return BleuScore { score: 0.0, brevity_penalty, precisions };
        }
        let mut order = self.max_order;
        let mut halved = 1.0;
        for (n, precision) in precisions.iter_mut().enumerate() {
            let added = match self.smoothing {
                Smoothing::AddK(k) if n > 0 => k,
                _ => 0.0,
            };
            let (correct, total) = (correct[n] + added, total[n] + added);
            if total == 0.0 {
                break;
            }
            if self.effective_order {
                order = n + 1;
            }
            *precision = match self.smoothing {
                _ if correct > 0.0 => 100.0 * correct / total,
                Smoothing::Exp => {
                    halved *= 2.0;
                    100.0 / (halved * total)
                }
                Smoothing::Floor(value) => 100.0 * value / total,
                Smoothing::None | Smoothing::AddK(_) => 0.0,
            };
        }
        // ln 0 is -inf and its exponential 0, where sacrebleu takes a large number.
        let mean = precisions[..order].iter().map(|it| it.ln()).sum::<f64>() / order as f64;
        BleuScore { score: brevity_penalty * mean.exp(), brevity_penalty, precisions }
    }

    /// BLEU of one sample, of those orders that the answer has: what sacrebleu advises for sentences.
    pub fn sentence<R: AsRef<str>>(&self, hypothesis: &str, references: &[R]) -> f64 {
        let sentence = Self { effective_order: true, ..self.clone() };
        sentence.score(&sentence.statistics(hypothesis, references)).score
    }

    /// The first option that can't be, and why.
    ///
    /// # Errors
    /// Key and reason.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match self.smoothing {
            Smoothing::Floor(value) | Smoothing::AddK(value) if !(value > 0.0 && value.is_finite()) => {
                Err(("smoothing", format!("must be > 0, got `{value}`")))
            }
            _ if !(1..=16).contains(&self.max_order) => {
                Err(("max_order", format!("must be in 1..=16, got `{}`", self.max_order)))
            }
            _ => Ok(()),
        }
    }

    /// The words that are counted.
    pub fn words(&self, text: &str) -> Vec<String> {
        if self.lowercase { self.tokenizer.words(&text.to_lowercase()) } else { self.tokenizer.words(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_next_in_length_counts_and_of_two_the_shorter() {
        let statistics = Bleu::default().statistics("a b c", &["a b c d", "a b", "a b c d e f"]);
        assert_eq!(statistics[..2], [3.0, 2.0]);
    }

    #[test]
    fn impossible_options_are_named() {
        let bleu = Bleu { smoothing: Smoothing::Floor(0.0), ..Bleu::default() };
        assert_eq!(bleu.check().unwrap_err().0, "smoothing");
        assert_eq!(Bleu { max_order: 0, ..Bleu::default() }.check().unwrap_err().0, "max_order");
    }
}
