//! Packing: several sequences share a row of `max_length` tokens.
//!
//! A packed row stays a list of sequences: [`crate::Batch`] keeps their bounds, so attention and positions restart
//! at each and nothing crosses over.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::batch::{Batch, TokenRow};

/// How the rows of an optimizer step are laid into micro-batches. Which rows those are is decided elsewhere: loss and
/// gradient of the step are the same for every layout, up to the order of additions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// So many rows a micro-batch, in their order.
    Rows(usize),
    /// As few micro-batches of so many tokens at most as [`best_fit_decreasing`] finds.
    Packed(usize),
}

impl Layout {
    /// The micro-batches of `rows`; each keeps their order.
    pub fn micro_batches<R: TokenRow>(self, rows: &[R]) -> Vec<Batch> {
        let lengths: Vec<usize> = rows.iter().map(|it| it.input_ids().len()).collect();
        self.groups(&lengths).iter().map(|it| Batch::new(it.iter().map(|&index| &rows[index]))).collect()
    }

    /// Which of the rows of these `lengths` make each micro-batch, in their order.
    pub fn groups(self, lengths: &[usize]) -> Vec<Vec<usize>> {
        match self {
            Self::Rows(count) => {
                let all: Vec<usize> = (0..lengths.len()).collect();
                all.chunks(count.max(1)).map(<[usize]>::to_vec).collect()
            }
            Self::Packed(tokens) => {
                let mut packed = best_fit_decreasing(lengths, tokens);
                packed.iter_mut().for_each(|it| it.sort_unstable());
                packed
            }
        }
    }

    /// How many micro-batches rows of these `lengths` make.
    pub fn count(self, lengths: &[usize]) -> usize {
        match self {
            Self::Rows(count) => lengths.len().div_ceil(count.max(1)),
            Self::Packed(tokens) => best_fit_decreasing(lengths, tokens).len(),
        }
    }
}

/// Packs sequences of the given `lengths` into rows of at most `max_length` tokens, best fit decreasing (TRL's
/// `bfd`): the longest first, each into the row with the least room that still holds it. Gives the indices in each
/// row. A sequence longer than `max_length` has a row of its own. The result depends on nothing but the arguments.
pub fn best_fit_decreasing(lengths: &[usize], max_length: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&it| (Reverse(lengths[it]), it));
    let mut rows: Vec<Vec<usize>> = Vec::new();
    let mut by_room: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for index in order {
        let length = lengths[index];
        let best = by_room.range(length..).next().and_then(|(&room, rows)| Some((room, *rows.first()?)));
        let (row, room) = match best {
            Some((room, row)) => {
                if let Some(rows) = by_room.get_mut(&room) {
                    rows.remove(&row);
                    if rows.is_empty() {
                        by_room.remove(&room);
                    }
                }
                (row, room)
            }
            None => {
                rows.push(Vec::new());
                (rows.len() - 1, max_length)
            }
        };
        rows[row].push(index);
        let left = room.saturating_sub(length);
        if left > 0 {
            by_room.entry(left).or_default().insert(row);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_is_packed_once_and_no_row_is_too_long() {
        let lengths: Vec<usize> = (0..500).map(|it| 1 + (it * 7919) % 97).collect();
        let rows = best_fit_decreasing(&lengths, 128);
        let mut seen: Vec<usize> = rows.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
        assert!(rows.iter().all(|row| row.iter().map(|&it| lengths[it]).sum::<usize>() <= 128));
        let total: usize = lengths.iter().sum();
        assert!(rows.len() * 128 < total * 105 / 100 + 128, "{} rows for {total} tokens", rows.len());
        assert_eq!(rows, best_fit_decreasing(&lengths, 128));
    }

    #[test]
    fn the_tightest_row_is_chosen() {
        assert_eq!(best_fit_decreasing(&[4, 6, 3, 7], 10), [vec![3, 2], vec![1, 0]]);
        assert_eq!(best_fit_decreasing(&[12, 1], 10), [vec![0], vec![1]]);
    }
}
