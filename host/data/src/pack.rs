//! Packing: several sequences share a row of `max_length` tokens.
//!
//! A packed row stays a list of sequences: [`crate::Batch`] keeps their bounds, so attention and positions restart
//! at each and nothing crosses over. A beginning that sequences have in common is there once, and counts once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::batch::{Batch, TokenRow};
use crate::prefix::{MIN_SHARED, Run, prompts_of, runs};

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
        let of = |it: Vec<usize>| Batch::shared(it.into_iter().map(|index| &rows[index]));
        self.groups(rows).into_iter().map(of).collect()
    }

    /// Which of the `rows` make each micro-batch, in their order.
    pub fn groups<R: TokenRow>(self, rows: &[R]) -> Vec<Vec<usize>> {
        match self {
            Self::Rows(count) => {
                let all: Vec<usize> = (0..rows.len()).collect();
                all.chunks(count.max(1)).map(<[usize]>::to_vec).collect()
            }
            Self::Packed(tokens) => {
                let units = units(rows, tokens);
                let lengths: Vec<usize> = units.iter().map(|it| it.tokens).collect();
                let mut packed = best_fit_decreasing(&lengths, tokens);
                packed.iter_mut().for_each(|it| it.sort_unstable());
                let rows =
                    |it: Vec<usize>| it.into_iter().flat_map(|unit| units[unit].rows.clone()).collect();
                packed.into_iter().map(rows).collect()
            }
        }
    }

    /// How many micro-batches `rows` make.
    pub fn count<R: TokenRow>(self, rows: &[R]) -> usize {
        match self {
            Self::Rows(count) => rows.len().div_ceil(count.max(1)),
            Self::Packed(_) => self.groups(rows).len(),
        }
    }
}

/// Rows that are packed as one, and the tokens that are computed for them.
struct Unit {
    rows: Range<usize>,
    tokens: usize,
}

/// A row each, the completions of one prompt together as long as they have `most` tokens at most: apart, each would
/// bring its prompt along.
fn units<R: TokenRow>(rows: &[R], most: usize) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let prompts: Vec<&[u32]> = prompts_of(row).collect();
        let saved: usize = runs(&prompts).iter().map(Run::saved).sum();
        let tokens = row.input_ids().len() - saved;
        let asks_the_same = |unit: &&mut Unit| {
            let before: Vec<&[u32]> = prompts_of(&rows[unit.rows.end - 1]).collect();
            let same = prompts.len() == 1 && prompts == before && prompts[0].len() >= MIN_SHARED;
            same && unit.tokens + tokens - prompts[0].len() <= most
        };
        match units.last_mut().filter(asks_the_same) {
            Some(unit) => {
                unit.rows.end += 1;
                unit.tokens += tokens - prompts[0].len();
            }
            None => units.push(Unit { rows: index..index + 1, tokens }),
        }
    }
    units
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
    use std::sync::Arc;

    use super::*;
    use crate::batch::{IGNORED, Sequence};
    use crate::record::Origin;

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

    /// Three prompts of 20 tokens, four completions of 10 each: 60 tokens a prompt, in place of 120.
    #[test]
    fn completions_of_one_prompt_are_packed_together() {
        let row = |prompt: u32| Sequence {
            input_ids: [vec![prompt; 20], vec![9; 10]].concat(),
            labels: [[IGNORED; 20].as_slice(), &[9; 10]].concat(),
            cut: 0,
            judgement: 0.0,
            origin: Arc::new(Origin { source: "rows.jsonl".into(), line: 1 }),
        };
        let rows: Vec<Sequence> = (0..12).map(|it| row(it / 4)).collect();
        let groups = |tokens: usize| Layout::Packed(tokens).groups(&rows);
        assert_eq!(groups(60), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]);
        assert_eq!(groups(120).len(), 2);
        for tokens in [1, 30, 40, 50, 60, 70, 100, 130, 1000] {
            let batches = Layout::Packed(tokens).micro_batches(&rows);
            assert!(batches.iter().all(|it| it.len() <= tokens.max(30)), "{tokens}");
            assert_eq!(batches.iter().map(Batch::sequence_tokens).sum::<usize>(), 360, "{tokens}");
            assert_eq!(Layout::Packed(tokens).count(&rows), batches.len());
        }
        // A pair counts its prompt once.
        let pair = Sequence {
            input_ids: [&rows[0].input_ids[..], &rows[1].input_ids].concat(),
            labels: [&rows[0].labels[..], &rows[1].labels].concat(),
            cut: 30,
            judgement: 0.0,
            origin: rows[0].origin.clone(),
        };
        assert_eq!(Layout::Packed(80).groups(&[&pair, &pair]), [[0, 1]]);
        assert_eq!(Layout::Packed(79).groups(&[&pair, &pair]), [[0], [1]]);
    }

    #[test]
    fn the_tightest_row_is_chosen() {
        assert_eq!(best_fit_decreasing(&[4, 6, 3, 7], 10), [vec![3, 2], vec![1, 0]]);
        assert_eq!(best_fit_decreasing(&[12, 1], 10), [vec![0], vec![1]]);
    }
}
