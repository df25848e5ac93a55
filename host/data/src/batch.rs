//! Tokenised rows and the batches made of them.
//!
//! There is no padding anywhere: the sequences of a micro-batch lie end to end in one line of `T` tokens, and
//! `cu_seqlens` says where each begins. Attention and positions restart at every sequence, so a packed row and
//! the rows it was packed from are the same batch.
//!
//! A beginning that sequences have in common may be there once ([`Batch::shared`]): then it is a segment of its own, and
//! those that go on from it are segments with a parent. What is learned from the batch is the same, up to rounding; where
//! an adapter has dropout, what is there once is dropped once.

use std::ops::Range;
use std::sync::Arc;

use crate::prefix::{prompts_of, runs, sequences_of};
use crate::record::Origin;

/// Label of a token that carries no loss.
pub const IGNORED: i64 = -100;

/// Judgement of a completion that is as it should be.
pub const GOOD: f32 = 1.0;

/// Judgement of a completion that is not.
pub const BAD: f32 = -1.0;

/// One example as tokens: one sequence, or the two of a preference pair end to end.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// Token ids, `[len]`.
    pub input_ids: Vec<u32>,
    /// `input_ids` where supervised, [`IGNORED`] elsewhere, `[len]`; not shifted (Hugging Face's convention).
    pub labels: Vec<i64>,
    /// Where the second sequence begins: prompt and rejected answer, after prompt and chosen one. 0 where there is one.
    pub cut: usize,
    /// What was judged of it: by how much the first of a pair is the better one; of a completion alone [`GOOD`] or [`BAD`]. 0
    /// where nothing was.
    pub judgement: f32,
    /// The row it was made from.
    pub origin: Arc<Origin>,
}

impl Sequence {
    /// Tokens that carry loss. The first token of a sequence is predicted by nothing and never counts.
    pub fn supervised_tokens(&self) -> usize {
        let begins = |it: usize| it == 0 || it == self.cut;
        self.labels.iter().enumerate().filter(|it| *it.1 != IGNORED && !begins(it.0)).count()
    }
}

/// A row of tokens, wherever it lies.
pub trait TokenRow {
    /// Token ids, `[len]`.
    fn input_ids(&self) -> &[u32];
    /// Writes the labels, as in [`Sequence::labels`], behind `labels`.
    fn extend_labels(&self, labels: &mut Vec<i64>);
    /// Tokens from `from` on before the first with a label.
    fn unlabelled(&self, from: usize) -> usize;
    /// As [`Sequence::cut`].
    fn cut(&self) -> usize;
    /// As [`Sequence::judgement`].
    fn judgement(&self) -> f32;
    /// The row of the data it was made from.
    fn origin(&self) -> Arc<Origin>;
}

impl TokenRow for Sequence {
    fn input_ids(&self) -> &[u32] {
        &self.input_ids
    }

    fn extend_labels(&self, labels: &mut Vec<i64>) {
        labels.extend_from_slice(&self.labels);
    }

    fn unlabelled(&self, from: usize) -> usize {
        self.labels[from..].iter().take_while(|it| **it == IGNORED).count()
    }

    fn cut(&self) -> usize {
        self.cut
    }

    fn judgement(&self) -> f32 {
        self.judgement
    }

    fn origin(&self) -> Arc<Origin> {
        Arc::clone(&self.origin)
    }
}

impl<R: TokenRow + ?Sized> TokenRow for &R {
    fn input_ids(&self) -> &[u32] {
        (**self).input_ids()
    }

    fn extend_labels(&self, labels: &mut Vec<i64>) {
        (**self).extend_labels(labels);
    }

    fn unlabelled(&self, from: usize) -> usize {
        (**self).unlabelled(from)
    }

    fn cut(&self) -> usize {
        (**self).cut()
    }

    fn judgement(&self) -> f32 {
        (**self).judgement()
    }

    fn origin(&self) -> Arc<Origin> {
        (**self).origin()
    }
}

/// A micro-batch: sequences end to end, in segments.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Token ids, `[T]`.
    pub input_ids: Vec<u32>,
    /// Labels as in [`Sequence::labels`], `[T]`.
    pub labels: Vec<i64>,
    /// Position of each token in its own sequence, `[T]`.
    pub position_ids: Vec<u32>,
    /// Start of each segment and, last, `T`: `[segments + 1]`.
    pub cu_seqlens: Vec<usize>,
    /// The segment that a sequence begins with before its own, an earlier one without a parent: `[segments]`. A segment
    /// that is none's parent ends a sequence; where nothing is shared, segments are sequences.
    pub parents: Vec<Option<usize>>,
    /// The row of each sequence.
    pub origins: Vec<Arc<Origin>>,
    /// As [`Sequence::judgement`], of the row that each sequence is of: `[sequences]`.
    pub judgements: Vec<f32>,
}

/// Where a sequence lies in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What it shares with others; empty where nothing.
    pub prefix: Range<usize>,
    /// What follows, its own.
    pub own: Range<usize>,
}

impl Place {
    /// Its last token; none of an empty sequence.
    pub fn last(&self) -> Option<usize> {
        self.own.clone().next_back().or_else(|| self.prefix.clone().next_back())
    }
}

/// The positions whose hidden state is asked for a next token, and that token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Targets {
    /// Positions in `[0, T)`, ascending within a sequence; a position that several sequences go on from is asked by each.
    pub positions: Vec<u32>,
    /// The token that follows each position.
    pub token_ids: Vec<u32>,
}

impl Batch {
    /// The rows end to end, in order.
    pub fn new<R: TokenRow>(rows: impl IntoIterator<Item = R>) -> Self {
        let mut batch = Self { cu_seqlens: vec![0], ..Self::default() };
        for row in rows {
            let mut labels = Vec::with_capacity(row.input_ids().len());
            row.extend_labels(&mut labels);
            for tokens in sequences_of(&row) {
                batch.push(&row.input_ids()[tokens.clone()], &labels[tokens], None);
                batch.origins.push(row.origin());
                batch.judgements.push(row.judgement());
            }
        }
        batch
    }

    /// As [`Batch::new`], but what consecutive sequences have in common before their labels is there once, where it is
    /// long enough to pay.
    pub fn shared<R: TokenRow>(rows: impl IntoIterator<Item = R>) -> Self {
        let rows: Vec<R> = rows.into_iter().collect();
        let prompts: Vec<&[u32]> = rows.iter().flat_map(prompts_of).collect();
        let mut runs = runs(&prompts).into_iter();
        let mut batch = Self { cu_seqlens: vec![0], ..Self::default() };
        // Of the run in work: its sequences to come, what they share and the segment of it.
        let (mut left, mut shared, mut parent) = (0, 0, None);
        for row in &rows {
            let mut labels = Vec::with_capacity(row.input_ids().len());
            row.extend_labels(&mut labels);
            for Range { start, end } in sequences_of(row) {
                if left == 0 {
                    let run = runs.next().expect("the runs have every sequence");
                    (left, shared) = (run.sequences.len(), run.shared);
                    parent = (shared > 0).then(|| {
                        let prefix = start..start + shared;
                        batch.push(&row.input_ids()[prefix.clone()], &labels[prefix], None)
                    });
                }
                left -= 1;
                let own = start + shared..end;
                batch.push(&row.input_ids()[own.clone()], &labels[own], parent);
                batch.origins.push(row.origin());
                batch.judgements.push(row.judgement());
            }
        }
        batch
    }

    /// Adds a segment; gives its index.
    fn push(&mut self, input_ids: &[u32], labels: &[i64], parent: Option<usize>) -> usize {
        let first = parent.map_or(0, |it| self.segment(it).len() as u32);
        self.input_ids.extend_from_slice(input_ids);
        self.labels.extend_from_slice(labels);
        self.position_ids.extend(first..first + input_ids.len() as u32);
        self.cu_seqlens.push(self.input_ids.len());
        self.parents.push(parent);
        self.parents.len() - 1
    }

    fn segment(&self, index: usize) -> Range<usize> {
        self.cu_seqlens[index]..self.cu_seqlens[index + 1]
    }

    /// Where each sequence lies, in the order of their rows.
    pub fn sequences(&self) -> Vec<Place> {
        let mut goes_on = vec![false; self.parents.len()];
        self.parents.iter().flatten().for_each(|it| goes_on[*it] = true);
        let ends = (0..self.parents.len()).filter(|it| !goes_on[*it]);
        let prefix = |it: usize| self.parents[it].map_or(0..0, |it| self.segment(it));
        ends.map(|it| Place { prefix: prefix(it), own: self.segment(it) }).collect()
    }

    /// Tokens that are computed, `T`: what is shared counts once.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// Tokens of the sequences, however they are laid out: what is shared counts in each.
    pub fn sequence_tokens(&self) -> usize {
        self.sequences().iter().map(|it| it.prefix.len() + it.own.len()).sum()
    }

    /// Whether the batch holds no token.
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }

    /// Supervised tokens of each sequence, as [`Batch::targets`] has them.
    pub fn supervised_tokens(&self) -> Vec<usize> {
        self.sequences().iter().map(|it| self.predicted(it).count()).collect()
    }

    /// Shifted targets, sequence by sequence: the position before a token predicts its label, if it is supervised.
    pub fn targets(&self) -> Targets {
        let mut targets = Targets::default();
        for (position, label) in self.sequences().iter().flat_map(|it| self.predicted(it)) {
            targets.positions.push(position as u32);
            targets.token_ids.push(label as u32);
        }
        targets
    }

    /// Labels of a sequence's own tokens, each with the position that predicts it. The first token of all is predicted
    /// by nothing.
    fn predicted(&self, sequence: &Place) -> impl Iterator<Item = (usize, i64)> {
        let Place { prefix, own } = sequence.clone();
        let before = move |it: usize| if it > own.start { Some(it - 1) } else { prefix.clone().next_back() };
        let labels = sequence.own.clone().zip(&self.labels[sequence.own.clone()]);
        labels.filter(|it| *it.1 != IGNORED).filter_map(move |(it, label)| Some((before(it)?, *label)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(input_ids: &[u32], supervised_from: usize) -> Sequence {
        let labels = input_ids
            .iter()
            .enumerate()
            .map(|(i, &id)| if i < supervised_from { IGNORED } else { i64::from(id) })
            .collect();
        let origin = Arc::new(Origin { source: "rows.jsonl".into(), line: 1 });
        Sequence { input_ids: input_ids.to_vec(), labels, cut: 0, judgement: 0.0, origin }
    }

    #[test]
    fn the_two_sequences_of_a_pair_know_nothing_of_each_other() {
        let (chosen, rejected) = (sequence(&[5, 6, 7], 2), sequence(&[5, 8], 1));
        let pair = Sequence {
            input_ids: [&chosen.input_ids[..], &rejected.input_ids].concat(),
            labels: [&chosen.labels[..], &rejected.labels].concat(),
            cut: 3,
            judgement: 0.0,
            origin: Arc::clone(&chosen.origin),
        };
        let apart = Batch::new([&chosen, &rejected, &chosen]);
        assert_eq!(Batch::new([&pair, &chosen]), apart);
        assert_eq!(pair.supervised_tokens(), chosen.supervised_tokens() + rejected.supervised_tokens());
    }

    #[test]
    fn targets_are_shifted_within_their_sequence() {
        let batch = Batch::new(&[sequence(&[5, 6, 7], 2), sequence(&[8, 9], 0)]);
        assert_eq!(batch.cu_seqlens, [0, 3, 5]);
        assert_eq!(batch.position_ids, [0, 1, 2, 0, 1]);
        // 7 is predicted at position 1; 8 opens its sequence and is predicted by nothing; 9 at position 3.
        assert_eq!(batch.targets(), Targets { positions: vec![1, 3], token_ids: vec![7, 9] });
    }

    #[test]
    fn supervised_tokens_are_the_targets() {
        let rows = [sequence(&[5, 6, 7], 2), sequence(&[8, 9], 0)];
        let counted: usize = rows.iter().map(Sequence::supervised_tokens).sum();
        assert_eq!(counted, Batch::new(&rows).targets().positions.len());
        assert_eq!(Batch::new(&rows).supervised_tokens(), [1, 1]);
    }
    #[test]
    fn what_sequences_begin_with_is_there_once() {
        let [prompt, other] = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6]];
        let row = |prompt: &[u32], answer: &[u32]| sequence(&[prompt, answer].concat(), prompt.len());
        let (first, second) = (row(&prompt, &[7, 8]), row(&prompt, &[9]));
        let pair = Sequence {
            input_ids: [&first.input_ids[..], &second.input_ids].concat(),
            labels: [&first.labels[..], &second.labels].concat(),
            cut: 7,
            judgement: 0.0,
            origin: Arc::clone(&first.origin),
        };
        let batch = Batch::shared([&pair, &sequence(&[2, 2], 1)]);
        assert_eq!(batch.input_ids, [1, 2, 3, 4, 5, 7, 8, 9, 2, 2]);
        assert_eq!(batch.position_ids, [0, 1, 2, 3, 4, 5, 6, 5, 0, 1]);
        assert_eq!(batch.cu_seqlens, [0, 5, 7, 8, 10]);
        assert_eq!(batch.parents, [None, Some(0), Some(0), None]);
        // The prompt's last token, at position 4, predicts the first of each answer.
        let expected = Targets { positions: vec![4, 5, 4, 8], token_ids: vec![7, 8, 9, 2] };
        assert_eq!(batch.targets(), expected);
        // Rows without an answer, or with the prompt in part.
        let rows = [row(&prompt, &[]), row(&other, &[7]), first.clone(), second.clone(), row(&prompt, &[])];
        for rows in [&rows[..], &rows[1..3], &rows[2..], &rows[3..], &rows[..0]] {
            let (shared, apart) = (Batch::shared(rows), Batch::new(rows));
            assert!(shared.len() < apart.len() || rows.is_empty());
            assert_eq!(shared.sequence_tokens(), apart.len());
            assert_eq!(shared.targets().token_ids, apart.targets().token_ids);
            assert_eq!(shared.supervised_tokens(), apart.supervised_tokens());
            assert_eq!(shared.origins, apart.origins);
            let tokens = |it: &Batch| -> Vec<Vec<u32>> {
                let of = |at: Range<usize>| it.input_ids[at].to_vec();
                it.sequences().into_iter().map(|at| [of(at.prefix), of(at.own)].concat()).collect()
            };
            assert_eq!(tokens(&shared), tokens(&apart));
        }
    }

    #[test]
    fn where_nothing_is_in_common_a_shared_batch_is_any_batch() {
        let rows = [sequence(&[1, 2, 3, 4, 5, 6], 5), sequence(&[2, 2, 3, 4, 5, 6], 5), sequence(&[8], 0)];
        assert_eq!(Batch::shared(&rows), Batch::new(&rows));
        // Labels are learned in each row: they are never shared.
        let rows = [sequence(&[1, 2, 3, 4, 5, 6], 0), sequence(&[1, 2, 3, 4, 5, 6], 0)];
        assert_eq!(Batch::shared(&rows), Batch::new(&rows));
    }
}
