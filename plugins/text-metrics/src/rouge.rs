//! ROUGE as rouge-score 0.1.2 computes it: Lin 2004, <https://aclanthology.org/W04-1013>;
//! <https://github.com/google-research/google-research/tree/master/rouge>.

use std::collections::HashMap;

use crate::ngrams::{Ngrams, shared};
use crate::porter::stem;
use crate::tokenize::Tokenizer;

/// Which ROUGE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
pub enum RougeType {
    /// Shared words.
    #[serde(rename = "rouge1")]
    Rouge1,
    /// Shared pairs of words.
    #[serde(rename = "rouge2")]
    Rouge2,
    /// Shared triples of words.
    #[serde(rename = "rouge3")]
    Rouge3,
    /// Shared quadruples of words.
    #[serde(rename = "rouge4")]
    Rouge4,
    /// Longest common subsequence.
    #[serde(rename = "rougeL")]
    RougeL,
    /// Union of the longest common subsequences of lines.
    #[serde(rename = "rougeLsum")]
    RougeLsum,
}

impl RougeType {
    /// rouge-score's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rouge1 => "rouge1",
            Self::Rouge2 => "rouge2",
            Self::Rouge3 => "rouge3",
            Self::Rouge4 => "rouge4",
            Self::RougeL => "rougeL",
            Self::RougeLsum => "rougeLsum",
        }
    }
}

/// How texts become words.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rouge {
    /// One of sacrebleu's tokenisers. By default rouge-score's own: lower case, runs of ASCII letters and digits; it finds
    /// no word in other scripts, so their scores are 0.
    pub tokenizer: Option<Tokenizer>,
    /// Whether words of rouge-score's tokeniser lose their endings (Porter's stemmer; English).
    pub stemmer: bool,
    /// Whether case is ignored with one of sacrebleu's tokenisers.
    pub lowercase: bool,
}

/// How much two texts share: each 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Overlap {
    /// Share of the answer that the reference has.
    pub precision: f64,
    /// Share of the reference that the answer has.
    pub recall: f64,
    /// Harmonic mean of both.
    pub fmeasure: f64,
}

impl Overlap {
    fn new(shared: u64, hypothesis: u64, reference: u64) -> Self {
        let share = |of: u64| shared as f64 / of.max(1) as f64;
        let (precision, recall) = (share(hypothesis), share(reference));
        let both = precision + recall;
        let fmeasure = if both > 0.0 { 2.0 * precision * recall / both } else { 0.0 };
        Self { precision, recall, fmeasure }
    }
}

impl Rouge {
    /// One ROUGE of a text against the reference that gives the best F-measure; of equals the first. `references` holds
    /// at least one.
    pub fn score<R: AsRef<str>>(&self, which: RougeType, hypothesis: &str, references: &[R]) -> Overlap {
        let mut best: Option<Overlap> = None;
        for reference in references {
            let overlap = self.against(which, hypothesis, reference.as_ref());
            if best.is_none_or(|best| overlap.fmeasure > best.fmeasure) {
                best = Some(overlap);
            }
        }
        best.unwrap_or_default()
    }

    fn against(&self, which: RougeType, hypothesis: &str, reference: &str) -> Overlap {
        let n = match which {
            RougeType::Rouge1 => 1,
            RougeType::Rouge2 => 2,
            RougeType::Rouge3 => 3,
            RougeType::Rouge4 => 4,
            RougeType::RougeL => {
                return longest(self.words(hypothesis), self.words(reference));
            }
            RougeType::RougeLsum => {
                let lines = |text: &str| text.split('\n').map(|it| self.words(it)).collect::<Vec<_>>();
                return longest_of_lines(lines(hypothesis), lines(reference));
            }
        };
        let (hypothesis, reference) = (self.words(hypothesis), self.words(reference));
        let mut ngrams = Ngrams::new([&hypothesis[..], &reference[..]]);
        (1..n).for_each(|_| ngrams.lengthen());
        let shared = shared(&ngrams.counts(0), &ngrams.counts(1));
        Overlap::new(shared, ngrams.of(0).len() as u64, ngrams.of(1).len() as u64)
    }

    /// The words that are compared.
    pub fn words(&self, text: &str) -> Vec<String> {
        match self.tokenizer {
            Some(tokenizer) if self.lowercase => tokenizer.words(&text.to_lowercase()),
            Some(tokenizer) => tokenizer.words(text),
            None => {
                let text = text.to_lowercase();
                let words = text.split(|it: char| !it.is_ascii_alphanumeric()).filter(|it| !it.is_empty());
                // Three letters have no ending to lose.
                words.map(|it| if self.stemmer && it.len() > 3 { stem(it) } else { it.to_owned() }).collect()
            }
        }
    }
}

/// Words as numbers: equal ones have the same.
#[derive(Default)]
struct Numbers(HashMap<String, u32>);

impl Numbers {
    fn of(&mut self, words: Vec<String>) -> Vec<u32> {
        let mut number = |word| {
            let next = self.0.len() as u32;
            *self.0.entry(word).or_insert(next)
        };
        words.into_iter().map(&mut number).collect()
    }
}

fn longest(hypothesis: Vec<String>, reference: Vec<String>) -> Overlap {
    if hypothesis.is_empty() || reference.is_empty() {
        return Overlap::default();
    }
    let mut numbers = Numbers::default();
    let (hypothesis, reference) = (numbers.of(hypothesis), numbers.of(reference));
    let shared = common_length(&hypothesis, &reference, numbers.0.len());
    Overlap::new(shared, hypothesis.len() as u64, reference.len() as u64)
}

/// Length of the longest common subsequence, 64 columns of its table at a time: Hyyrö 2004, "Bit-parallel LCS-length
/// computation revisited". A bit is 0 where the table's row grows. `words` are numbered below `kinds`.
fn common_length(hypothesis: &[u32], reference: &[u32], kinds: usize) -> u64 {
    let blocks = hypothesis.len().div_ceil(64);
    let mut places = vec![0u64; kinds * blocks];
    for (at, word) in hypothesis.iter().enumerate() {
        places[*word as usize * blocks + at / 64] |= 1 << (at % 64);
    }
    let mut row = vec![u64::MAX; blocks];
    for word in reference {
        let places = &places[*word as usize * blocks..][..blocks];
        let mut carry = false;
        for (bits, places) in row.iter_mut().zip(places) {
            let matched = *bits & places;
            let (sum, first) = bits.overflowing_add(matched);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            carry = first || second;
            *bits = sum | (*bits & !matched);
        }
    }
    // Bits beyond the last word never change: they match nothing, and what is carried into ones leaves them ones.
    row.iter().map(|it| u64::from(it.count_zeros())).sum()
}

/// Summary-level ROUGE-L; a word counts at most as often as the side that has it less, as in ROUGE 1.5.5.
fn longest_of_lines(hypothesis: Vec<Vec<String>>, reference: Vec<Vec<String>>) -> Overlap {
    let mut numbers = Numbers::default();
    let hypothesis: Vec<Vec<u32>> = hypothesis.into_iter().map(|it| numbers.of(it)).collect();
    let reference: Vec<Vec<u32>> = reference.into_iter().map(|it| numbers.of(it)).collect();
    let counted = |lines: &[Vec<u32>]| {
        let mut counts = vec![0u64; numbers.0.len()];
        for word in lines.iter().flatten() {
            counts[*word as usize] += 1;
        }
        counts
    };
    let (mut left, mut expected) = (counted(&hypothesis), counted(&reference));
    let (all, wanted) = (left.iter().sum(), expected.iter().sum());
    let mut hits = 0;
    for line in &reference {
        let mut shared = vec![false; line.len()];
        for other in &hypothesis {
            mark_common(line, other, &mut shared);
        }
        for word in line.iter().zip(shared).filter_map(|(word, shared)| shared.then_some(*word as usize)) {
            if left[word] > 0 && expected[word] > 0 {
                (left[word], expected[word], hits) = (left[word] - 1, expected[word] - 1, hits + 1);
            }
        }
    }
    Overlap::new(hits, all, wanted)
}

/// Marks the words of `reference` in one longest common subsequence: of several the one that rouge-score walks back to.
fn mark_common(reference: &[u32], hypothesis: &[u32], shared: &mut [bool]) {
    let width = hypothesis.len() + 1;
    let mut table = vec![0u32; (reference.len() + 1) * width];
    for (row, expected) in reference.iter().enumerate() {
        for (column, word) in hypothesis.iter().enumerate() {
            table[(row + 1) * width + column + 1] = if word == expected {
                table[row * width + column] + 1
            } else {
                table[(row + 1) * width + column].max(table[row * width + column + 1])
            };
        }
    }
    let (mut row, mut column) = (reference.len(), hypothesis.len());
    while row > 0 && column > 0 {
        if reference[row - 1] == hypothesis[column - 1] {
            shared[row - 1] = true;
            (row, column) = (row - 1, column - 1);
        } else if table[row * width + column - 1] > table[(row - 1) * width + column] {
            column -= 1;
        } else {
            row -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chinese_has_no_words_for_rouge_score_and_characters_for_zh() {
        let (answer, reference) = ("今天天气很好。", ["今天天气不好。"]);
        assert_eq!(Rouge::default().score(RougeType::Rouge1, answer, &reference), Overlap::default());
        let zh = Rouge { tokenizer: Some(Tokenizer::Zh), ..Rouge::default() };
        assert!((zh.score(RougeType::Rouge1, answer, &reference).fmeasure - 6.0 / 7.0).abs() < 1e-12);
    }
    /// Against the table that the definition fills, over lengths around a block of 64.
    #[test]
    fn the_bit_parallel_length_is_the_tables() {
        let mut state = 1u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % bound
        };
        for case in 0..300 {
            let kinds = 1 + next(8);
            let mut text = |length: u64| (0..length).map(|_| next(kinds) as u32).collect::<Vec<_>>();
            let (left, right) = (text(1 + case % 200), text(1 + (case * 7) % 150));
            let mut above = vec![0; left.len() + 1];
            for word in &right {
                let mut row = vec![0u64];
                for (at, other) in left.iter().enumerate() {
                    row.push(if word == other { above[at] + 1 } else { row[at].max(above[at + 1]) });
                }
                above = row;
            }
            assert_eq!(common_length(&left, &right, kinds as usize), above[left.len()], "{left:?} {right:?}");
        }
    }
}
