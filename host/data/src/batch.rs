//! Tokenised rows and the batches made of them.
//!
//! There is no padding anywhere: the sequences of a micro-batch lie end to end in one line of `T` tokens, and
//! `cu_seqlens` says where each begins. Attention and positions restart at every sequence, so a packed row and
//! the rows it was packed from are the same batch.

use std::sync::Arc;

use crate::record::Origin;

/// Label of a token that carries no loss.
pub const IGNORED: i64 = -100;

/// One example as tokens: one sequence, or the two of a preference pair end to end.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// Token ids, `[len]`.
    pub input_ids: Vec<u32>,
    /// `input_ids` where supervised, [`IGNORED`] elsewhere, `[len]`; not shifted (Hugging Face's convention).
    pub labels: Vec<i64>,
    /// Where the second sequence begins: prompt and rejected answer, after prompt and chosen one. 0 where there is one.
    pub cut: usize,
    /// By how much the first of a pair is the better one, where that was judged; otherwise 0.
    pub margin: f32,
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
    /// As [`Sequence::cut`].
    fn cut(&self) -> usize;
    /// As [`Sequence::margin`].
    fn margin(&self) -> f32;
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

    fn cut(&self) -> usize {
        self.cut
    }

    fn margin(&self) -> f32 {
        self.margin
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

    fn cut(&self) -> usize {
        (**self).cut()
    }

    fn margin(&self) -> f32 {
        (**self).margin()
    }

    fn origin(&self) -> Arc<Origin> {
        (**self).origin()
    }
}

/// A micro-batch: sequences end to end.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Token ids, `[T]`.
    pub input_ids: Vec<u32>,
    /// Labels as in [`Sequence::labels`], `[T]`.
    pub labels: Vec<i64>,
    /// Position of each token in its own sequence, `[T]`.
    pub position_ids: Vec<u32>,
    /// Start of each sequence and, last, `T`: `[sequences + 1]`.
    pub cu_seqlens: Vec<usize>,
    /// The row of each sequence.
    pub origins: Vec<Arc<Origin>>,
    /// As [`Sequence::margin`], of the pair that each sequence is of: `[sequences]`.
    pub margins: Vec<f32>,
}

/// The positions whose hidden state is asked for a next token, and that token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Targets {
    /// Positions in `[0, T)`, ascending.
    pub positions: Vec<u32>,
    /// The token that follows each position.
    pub token_ids: Vec<u32>,
}

impl Batch {
    /// The rows end to end, in order.
    pub fn new<R: TokenRow>(rows: impl IntoIterator<Item = R>) -> Self {
        let mut batch = Self { cu_seqlens: vec![0], ..Self::default() };
        for row in rows {
            let (begin, length, cut) = (batch.input_ids.len(), row.input_ids().len(), row.cut());
            batch.input_ids.extend_from_slice(row.input_ids());
            row.extend_labels(&mut batch.labels);
            let sequences = if cut == 0 { vec![0..length] } else { vec![0..cut, cut..length] };
            for sequence in sequences {
                batch.position_ids.extend(0..sequence.len() as u32);
                batch.cu_seqlens.push(begin + sequence.end);
                batch.origins.push(row.origin());
                batch.margins.push(row.margin());
            }
        }
        batch
    }

    /// Tokens in the batch, `T`.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// Whether the batch holds no token.
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }

    /// Supervised tokens of each sequence, as [`Batch::targets`] has them.
    pub fn supervised_tokens(&self) -> Vec<usize> {
        let of_sequence = |bounds: &[usize]| {
            let after_first = (bounds[0] + 1).min(bounds[1])..bounds[1];
            self.labels[after_first].iter().filter(|it| **it != IGNORED).count()
        };
        self.cu_seqlens.windows(2).map(of_sequence).collect()
    }

    /// Shifted targets: position `i` predicts the label at `i + 1` of the same sequence, if it is supervised.
    pub fn targets(&self) -> Targets {
        let mut targets = Targets::default();
        for bounds in self.cu_seqlens.windows(2) {
            for position in bounds[0]..bounds[1].saturating_sub(1) {
                let label = self.labels[position + 1];
                if label != IGNORED {
                    targets.positions.push(position as u32);
                    targets.token_ids.push(label as u32);
                }
            }
        }
        targets
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
        Sequence { input_ids: input_ids.to_vec(), labels, cut: 0, margin: 0.0, origin }
    }

    #[test]
    fn the_two_sequences_of_a_pair_know_nothing_of_each_other() {
        let (chosen, rejected) = (sequence(&[5, 6, 7], 2), sequence(&[5, 8], 1));
        let pair = Sequence {
            input_ids: [&chosen.input_ids[..], &rejected.input_ids].concat(),
            labels: [&chosen.labels[..], &rejected.labels].concat(),
            cut: 3,
            margin: 0.0,
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
}
