//! Where values lie that are gathered together: one flat buffer, which ranks have a stretch each of.
//!
//! Everything is counted in words of 4 bytes, an f32. A parameter begins at a multiple of [`ALIGN`] words and so does a rank's
//! stretch, whatever the number of ranks: moments in blocks of 8 bits are then the same blocks on any of them.

use std::ops::Range;

use burn::tensor::DType;
use fthost_kernels::adamw::BLOCK;

/// Words that a block of 8-bit moments belongs to.
pub const ALIGN: usize = BLOCK;
/// Bytes of a word.
pub(super) const WORD: usize = size_of::<f32>();

/// What a parameter's words are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Values of a tensor.
    Float(DType),
    /// What a packed weight stores.
    Packed,
}

/// A parameter's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub dims: Vec<usize>,
    /// What its words are.
    pub stored: Stored,
    /// Its first word.
    pub offset: usize,
    /// Bytes that it has; its last word may be filled up.
    pub bytes: usize,
}

impl Entry {
    /// Words that it has.
    pub fn words(&self) -> usize {
        self.bytes.div_ceil(WORD)
    }
}

/// A stretch of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Whose, by its place among the entries.
    pub entry: usize,
    /// Its words, counted from the parameter's first.
    pub words: Range<usize>,
    /// Where it begins in what the rank has.
    pub offset: usize,
}

/// The places of parameters that are gathered together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlatLayout {
    /// In the order of their visitor.
    pub entries: Vec<Entry>,
    /// Words of a rank.
    pub own: usize,
    /// Whether any of them is packed.
    pub has_packed: bool,
    ranks: usize,
}

impl FlatLayout {
    /// Of parameters with name, shape, what their words are and their bytes, on so many ranks.
    pub fn new(
        parameters: impl IntoIterator<Item = (String, Vec<usize>, Stored, usize)>,
        ranks: usize,
    ) -> Self {
        let (mut entries, mut end) = (Vec::new(), 0usize);
        for (name, dims, stored, bytes) in parameters {
            let entry = Entry { name, dims, stored, offset: end.next_multiple_of(ALIGN), bytes };
            end = entry.offset + entry.words();
            entries.push(entry);
        }
        let has_packed = entries.iter().any(|it: &Entry| it.stored == Stored::Packed);
        Self { entries, own: end.div_ceil(ranks).next_multiple_of(ALIGN), has_packed, ranks }
    }

    /// Words of all ranks.
    pub fn words(&self) -> usize {
        self.own * self.ranks
    }

    /// What a rank has of each parameter, in their order.
    pub fn stretches(&self, rank: usize) -> impl Iterator<Item = Stretch> {
        let own = rank * self.own..(rank + 1) * self.own;
        self.entries.iter().enumerate().filter_map(move |(entry, it)| {
            let begin = own.start.max(it.offset);
            let end = own.end.min(it.offset + it.words());
            (begin < end).then(|| Stretch {
                entry,
                words: begin - it.offset..end - it.offset,
                offset: begin - own.start,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(lengths: &[usize], ranks: usize) -> FlatLayout {
        let float = Stored::Float(DType::F32);
        let of = |(index, it): (usize, &usize)| (index.to_string(), vec![*it], float, it * WORD);
        FlatLayout::new(lengths.iter().enumerate().map(of), ranks)
    }

    #[test]
    fn every_word_is_one_ranks_and_blocks_of_moments_are_never_cut() {
        for lengths in [&[1usize][..], &[5, 1000, 256, 3], &[100_000], &[]] {
            for ranks in [1, 2, 3, 4, 7] {
                let layout = layout(lengths, ranks);
                let mut met = vec![0; lengths.len()];
                for rank in 0..ranks {
                    for Stretch { entry, words, offset } in layout.stretches(rank) {
                        assert_eq!(words.start, met[entry], "in order, without a gap");
                        assert_eq!((words.start % ALIGN, offset % ALIGN), (0, 0));
                        assert!(offset + words.len() <= layout.own);
                        met[entry] = words.end;
                    }
                }
                assert_eq!(met, lengths);
                assert!(layout.words() < lengths.iter().sum::<usize>() + ALIGN * (lengths.len() + ranks));
            }
        }
    }
}
