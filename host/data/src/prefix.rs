//! Which sequences of a micro-batch have their beginning in common: the two of a pair, the completions of one prompt,
//! conversations under one system message.
//!
//! Only tokens without a label are shared. What is shared is decided by the rows alone, so a batch is the same wherever
//! it is laid out.

use std::ops::Range;

use crate::batch::TokenRow;

/// Fewest tokens that are worth a segment of their own: below that, what a step saves is lost in its noise.
pub(crate) const MIN_SHARED: usize = 4;

/// Consecutive sequences, and how many tokens at their beginning they share: none where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub sequences: Range<usize>,
    pub shared: usize,
}

impl Run {
    /// Tokens that need not be computed again.
    pub fn saved(&self) -> usize {
        self.shared * (self.sequences.len() - 1)
    }
}

/// The sequences of a row.
pub(crate) fn sequences_of<R: TokenRow>(row: &R) -> impl Iterator<Item = Range<usize>> + use<R> {
    let (cut, length) = (row.cut(), row.input_ids().len());
    let first = (cut > 0).then_some(0..cut);
    first.into_iter().chain(std::iter::once(cut..length))
}

/// The tokens of each sequence of a row that stand before its first label.
pub(crate) fn prompts_of<R: TokenRow>(row: &R) -> impl Iterator<Item = &[u32]> {
    sequences_of(row).map(|it| {
        let length = row.unlabelled(it.start).min(it.len());
        &row.input_ids()[it.start..it.start + length]
    })
}

/// Cuts sequences with these `prompts` into runs, so that what they save together is most; among equals the last run is
/// the shortest.
pub(crate) fn runs(prompts: &[&[u32]]) -> Vec<Run> {
    let in_common: Vec<usize> = prompts.windows(2).map(|it| common(it[0], it[1])).collect();
    // Of the first sequences: what they save at most, and their last run.
    let mut best = vec![(0, Run { sequences: 0..0, shared: 0 })];
    for end in 1..=prompts.len() {
        let (mut most, mut last) = (best[end - 1].0, Run { sequences: end - 1..end, shared: 0 });
        let mut shared = usize::MAX;
        for start in (0..end - 1).rev() {
            shared = shared.min(in_common[start]);
            if shared < MIN_SHARED {
                break;
            }
            let run = Run { sequences: start..end, shared };
            if best[start].0 + run.saved() > most {
                (most, last) = (best[start].0 + run.saved(), run);
            }
        }
        best.push((most, last));
    }
    let (mut found, mut end) = (Vec::new(), prompts.len());
    while end > 0 {
        let run = best.swap_remove(end).1;
        end = run.sequences.start;
        found.push(run);
    }
    found.reverse();
    found
}

/// How many tokens both begin with.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|it| it.0 == it.1).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(prompts: &[&[u32]]) -> Vec<(Range<usize>, usize)> {
        runs(prompts).into_iter().map(|it| (it.sequences, it.shared)).collect()
    }

    #[test]
    fn most_is_saved() {
        let [a, b] = [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 9, 9, 9]];
        // Two pairs save 16 tokens; all four together 15.
        assert_eq!(found(&[&a, &a, &b, &b]), [(0..2, 8), (2..4, 8)]);
        // One shares less with the three than they do among themselves, and costs nothing: 3 x 5 against 2 x 8.
        assert_eq!(found(&[&a, &a, &a, &b]), [(0..3, 8), (3..4, 0)]);
        assert_eq!(found(&[&a, &b, &b[..6], &a]), [(0..4, 5)]);
        assert_eq!(found(&[&a[..3], &a[..3]]), [(0..1, 0), (1..2, 0)], "too few to pay");
        assert_eq!(found(&[]), []);
    }
}
