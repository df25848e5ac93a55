//! Where heads lie in storage, and how the work is cut into tasks.

use std::ops::Range;

use super::{AttentionConfig, MAX_ANCESTORS};
use crate::matrix::Matrix;

/// Heads and their width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Sizes {
    /// Query heads that share one key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Values of the queries of a token that share one key head: they lie side by side.
    pub fn group_width(&self) -> usize {
        self.group() * self.head_dim
    }
}

/// Heads in storage: of each, a row a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads<'a> {
    /// From the first value of the first head's first row.
    pub values: &'a [f32],
    /// Values from a row to the next token's.
    pub token_stride: usize,
    /// Values from a row to the next head's.
    pub head_stride: usize,
    /// Values of a row.
    pub width: usize,
}

impl<'a> Heads<'a> {
    /// `heads` heads beside each other in rows of `token_stride` values, the first at `offset`.
    pub fn beside(values: &'a [f32], offset: usize, token_stride: usize, width: usize) -> Self {
        Self { values: values.get(offset..).unwrap_or_default(), token_stride, head_stride: width, width }
    }

    pub fn row(&self, head: usize, token: usize) -> &'a [f32] {
        &self.values[head * self.head_stride + token * self.token_stride..][..self.width]
    }

    /// Rows of tokens `first..last`.
    pub fn rows(&self, head: usize, first: usize, last: usize) -> Matrix<'a> {
        let values = &self.values[head * self.head_stride + first * self.token_stride..];
        Matrix::strided(values, last - first, self.width, self.token_stride)
    }
}

/// The same rows, to be written: `rows[head][token]`.
pub(super) type HeadsMut<'a> = Vec<Vec<&'a mut [f32]>>;

/// Cuts each row of `values`, `row` values long, into heads: as many of each width as `parts` says, in its order.
pub(super) fn cut<'a, const N: usize>(
    values: &'a mut [f32],
    row: usize,
    parts: [(usize, usize); N],
) -> [HeadsMut<'a>; N] {
    let tokens = values.len() / row.max(1);
    let mut cut = parts.map(|(heads, _)| (0..heads).map(|_| Vec::with_capacity(tokens)).collect::<Vec<_>>());
    for mut rest in values.chunks_exact_mut(row.max(1)) {
        for (heads, (_, width)) in cut.iter_mut().zip(parts) {
            for head in heads {
                let (first, others) = rest.split_at_mut(width);
                head.push(first);
                rest = others;
            }
        }
    }
    cut
}

/// Queries of `first..last`, all of one sequence, which begins at `start`.
///
/// Keys are counted as if what a sequence goes on from stood right before its own tokens, wherever it lies: so a sequence
/// with a parent is one that begins at its first ancestor's first token, and nothing but reading and writing keys knows of
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queries {
    pub start: usize,
    pub first: usize,
    pub last: usize,
    /// Those that lie elsewhere than they are counted, from the first on; empty where there are fewer.
    before: [Keys; MAX_ANCESTORS],
    /// The first token that lies where it is counted.
    own: usize,
}

/// Keys `first..last` as they are counted, and how many tokens before that they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keys {
    pub first: usize,
    pub last: usize,
    pub shift: usize,
}

impl Keys {
    /// Their rows in `heads`.
    pub fn rows<'a>(&self, heads: &Heads<'a>, head: usize) -> Matrix<'a> {
        heads.rows(head, self.first - self.shift, self.last - self.shift)
    }
}

impl Queries {
    /// Of a sequence without a parent.
    pub fn whole(start: usize, first: usize, last: usize) -> Self {
        let none = Keys { first: start, last: start, shift: 0 };
        Self { start, first, last, before: [none; MAX_ANCESTORS], own: start }
    }

    /// The same sequence behind the tokens of `parent`, which lie before all that are counted already.
    fn after(self, parent: Range<usize>) -> Self {
        let (start, shift) = (self.start - parent.len(), self.start - parent.end);
        if shift == 0 && self.own == self.start {
            return Self { own: start, ..Self::whole(start, self.first, self.last) };
        }
        let mut before = self.before;
        before.rotate_right(1);
        before[0] = Keys { first: start, last: self.start, shift };
        Self { start, before, ..self }
    }

    /// The keys that one of them sees, at most `at_a_time`.
    pub fn keys(self, window: Option<usize>, at_a_time: usize) -> impl Iterator<Item = Keys> {
        let first = self.first_key(window);
        let own = Keys { first: self.own, last: self.last, shift: 0 };
        self.before.into_iter().chain([own]).flat_map(move |run| {
            let firsts = (first.max(run.first)..run.last).step_by(at_a_time);
            firsts.map(move |first| Keys { first, last: (first + at_a_time).min(run.last), shift: run.shift })
        })
    }

    /// The count of the key that is `token`, where one of them may see it.
    pub fn count_of(&self, token: usize) -> Option<usize> {
        let own = Keys { first: self.own, last: self.last, shift: 0 };
        let mut runs = self.before.iter().chain([&own]);
        let run = runs.find(|it| (it.first..it.last).contains(&(token + it.shift)))?;
        Some(token + run.shift)
    }

    /// The first key that one of them sees.
    pub fn first_key(&self, window: Option<usize>) -> usize {
        first_seen(self.first, self.start, window)
    }

    /// Blocks of at most `tokens`.
    pub fn blocks(self, tokens: usize) -> impl Iterator<Item = Queries> {
        let ends = (self.first..self.last).step_by(tokens);
        ends.map(move |first| self.part(first, (first + tokens).min(self.last)))
    }

    /// Queries `first..last` of the same sequence.
    fn part(self, first: usize, last: usize) -> Self {
        Self { first, last, ..self }
    }

    /// Scores that are computed for them.
    fn cost(&self, window: Option<usize>) -> usize {
        (self.last - self.first) * (self.last - self.first_key(window))
    }
}

/// The first token that `token` sees, in a sequence that begins at `start`.
pub(super) fn first_seen(token: usize, start: usize, window: Option<usize>) -> usize {
    window.map_or(start, |it| start.max((token + 1).saturating_sub(it)))
}

/// Each sequence that has tokens.
pub(super) fn sequences(config: &AttentionConfig) -> impl Iterator<Item = Queries> {
    (0..config.cu_seqlens.len().saturating_sub(1)).filter_map(|index| {
        let own = config.tokens(index);
        let whole = Queries::whole(own.start, own.start, own.end);
        let queries = config.ancestors(index).fold(whole, |queries, it| queries.after(config.tokens(it)));
        (!own.is_empty()).then_some(queries)
    })
}

/// Parts that all sequences of one head should make together, so that many cores are evenly busy: the number of threads
/// is not looked at, since results depend on where the parts end.
const PARTS: usize = 24;
/// Parts that one sequence may make: each has a gradient of the keys of its own until they are summed.
const PARTS_OF_SEQUENCE: usize = 8;

/// Cuts the sequences into runs of blocks of `tokens` tokens, of about equal cost.
pub(super) fn segments(config: &AttentionConfig, tokens: usize, kv_heads: usize) -> Vec<Queries> {
    let cost = |it: Queries| -> usize { it.blocks(tokens).map(|it| it.cost(config.window)).sum() };
    let total: usize = sequences(config).map(cost).sum();
    let share = total.div_ceil(PARTS.div_ceil(kv_heads)).max(1);
    let mut segments = Vec::new();
    for sequence in sequences(config) {
        let share = share.max(cost(sequence).div_ceil(PARTS_OF_SEQUENCE));
        let (mut open, mut spent) = (sequence.first, 0);
        for block in sequence.blocks(tokens) {
            spent += block.cost(config.window);
            if spent >= share || block.last == sequence.last {
                segments.push(sequence.part(open, block.last));
                (open, spent) = (block.last, 0);
            }
        }
    }
    segments
}
