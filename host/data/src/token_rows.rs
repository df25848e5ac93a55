//! Many tokenised rows in few arrays, on the heap or mapped from a file, read in place.
//!
//! A label is its token or ignored, so a row keeps the spans of what is supervised in place of its labels: four bytes a
//! token and eight a span.
//!
//! `unsafe` here: the tests map files of their own.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytemuck::Pod;
use memmap2::Mmap;

use crate::batch::{IGNORED, Sequence, TokenRow};
use crate::record::Origin;

/// Rows of tokens.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenRows {
    /// Token ids of every row, end to end.
    input_ids: Column<u32>,
    /// First and past the last supervised token of each span, counted in its row, end to end.
    spans: Column<[u32; 2]>,
    /// Where each row's ids and spans begin, and last where all end: `[rows + 1]`.
    bounds: Column<[u64; 2]>,
    /// Position in `sources` and line of each row's origin, and where it is cut in two, below the bits of its judgement:
    /// `[rows]`.
    places: Column<[u64; 3]>,
    sources: Vec<Arc<str>>,
}

/// One of [`TokenRows`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MappedRow<'a> {
    input_ids: &'a [u32],
    spans: &'a [[u32; 2]],
    source: &'a Arc<str>,
    line: u64,
    cut: usize,
    judgement: f32,
}

/// Bytes of each array of [`TokenRows`], in the order of [`TokenRows::bytes`].
pub type Ranges = [Range<usize>; 4];

impl TokenRows {
    /// Adds a row at the end.
    pub fn push(&mut self, row: &Sequence) {
        if self.bounds.is_empty() {
            self.bounds.make_mut().push([0, 0]);
        }
        self.input_ids.make_mut().extend_from_slice(&row.input_ids);
        let spans = self.spans.make_mut();
        let first = spans.len();
        for (index, _) in row.labels.iter().enumerate().filter(|it| *it.1 != IGNORED) {
            let index = index as u32;
            match spans[first..].last_mut() {
                Some(span) if span[1] == index => span[1] += 1,
                _ => spans.push([index, index + 1]),
            }
        }
        let end = [self.input_ids.len() as u64, self.spans.len() as u64];
        self.bounds.make_mut().push(end);
        let source = match self.sources.iter().rposition(|it| *it == row.origin.source) {
            Some(known) => known,
            None => {
                self.sources.push(Arc::clone(&row.origin.source));
                self.sources.len() - 1
            }
        };
        let cut = row.cut as u64 | u64::from(row.judgement.to_bits()) << 32;
        self.places.make_mut().push([source as u64, row.origin.line, cut]);
    }

    /// Rows there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Tokens of all rows.
    pub fn tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// Tokens of all rows that carry loss; the first of a row never does.
    pub fn supervised_tokens(&self) -> usize {
        let of_row = |row: MappedRow<'_>| {
            let begins = |it: u32| it == 0 || it as usize == row.cut;
            let of_span = |it: &[u32; 2]| (it[1] - it[0]) as usize - usize::from(begins(it[0]));
            row.spans.iter().map(of_span).sum::<usize>()
        };
        (0..self.len()).map(|it| of_row(self.row(it))).sum()
    }

    /// Tokens of the row at `index`.
    pub fn row_len(&self, index: usize) -> usize {
        (self.bounds[index + 1][0] - self.bounds[index][0]) as usize
    }

    /// The row at `index`.
    pub fn row(&self, index: usize) -> MappedRow<'_> {
        let ([ids, spans], [ids_end, spans_end]) = (self.bounds[index], self.bounds[index + 1]);
        let [source, line, cut] = self.places[index];
        MappedRow {
            input_ids: &self.input_ids[ids as usize..ids_end as usize],
            spans: &self.spans[spans as usize..spans_end as usize],
            source: &self.sources[source as usize],
            line,
            cut: cut as u32 as usize,
            judgement: f32::from_bits((cut >> 32) as u32),
        }
    }

    /// The row at `index` as a sequence of its own.
    pub fn sequence(&self, index: usize) -> Sequence {
        let row = self.row(index);
        let mut labels = Vec::with_capacity(row.input_ids.len());
        row.extend_labels(&mut labels);
        let (cut, judgement, origin) = (row.cut, row.judgement, row.origin());
        Sequence { input_ids: row.input_ids.to_vec(), labels, cut, judgement, origin }
    }

    /// Files that rows come from.
    pub fn sources(&self) -> &[Arc<str>] {
        &self.sources
    }

    /// The arrays as they lie in memory: bounds, places, spans, ids. Those with wider numbers come first, so that they
    /// are aligned when they are written end to end.
    pub fn bytes(&self) -> [&[u8]; 4] {
        [
            bytemuck::cast_slice(&self.bounds),
            bytemuck::cast_slice(&self.places),
            bytemuck::cast_slice(&self.spans),
            bytemuck::cast_slice(&self.input_ids),
        ]
    }

    /// Rows whose arrays lie in `map` at `ranges`; nothing is copied.
    ///
    /// # Errors
    /// What is wrong with arrays that don't fit each other or the map.
    pub fn mapped(map: &Arc<Mmap>, ranges: Ranges, sources: Vec<Arc<str>>) -> Result<Self, String> {
        let [bounds, places, spans, input_ids] = ranges;
        let rows = Self {
            input_ids: Column::mapped(map, input_ids)?,
            spans: Column::mapped(map, spans)?,
            bounds: Column::mapped(map, bounds)?,
            places: Column::mapped(map, places)?,
            sources,
        };
        let expected = if rows.places.is_empty() { 0 } else { rows.places.len() + 1 };
        if rows.bounds.len() != expected {
            return Err(format!("{} bounds of {} rows", rows.bounds.len(), rows.places.len()));
        }
        if rows.places.iter().any(|it| it[0] >= rows.sources.len() as u64) {
            return Err("a row of an unknown file".into());
        }
        let rising = rows.bounds.windows(2).all(|it| it[0][0] <= it[1][0] && it[0][1] <= it[1][1]);
        let ends = [rows.input_ids.len() as u64, rows.spans.len() as u64];
        let whole = rows.bounds.first().is_none_or(|it| *it == [0, 0])
            && rows.bounds.last().copied().unwrap_or([0, 0]) == ends;
        if !(rising && whole) {
            return Err("bounds that are not those of the rows".into());
        }
        let sound = |row: MappedRow<'_>| {
            let end = row.input_ids.len() as u32;
            row.cut <= row.input_ids.len()
                && row.spans.iter().all(|it| it[0] < it[1] && it[1] <= end)
                && row.spans.is_sorted_by(|a, b| a[1] <= b[0])
        };
        match (0..rows.len()).find(|&it| !sound(rows.row(it))) {
            Some(row) => Err(format!("spans or a cut that are not those of row {row}")),
            None => Ok(rows),
        }
    }
}

impl FromIterator<Sequence> for TokenRows {
    fn from_iter<I: IntoIterator<Item = Sequence>>(rows: I) -> Self {
        let mut all = Self::default();
        rows.into_iter().for_each(|it| all.push(&it));
        all
    }
}

impl TokenRow for MappedRow<'_> {
    fn input_ids(&self) -> &[u32] {
        self.input_ids
    }

    fn extend_labels(&self, labels: &mut Vec<i64>) {
        let begin = labels.len();
        labels.resize(begin + self.input_ids.len(), IGNORED);
        for span in self.spans {
            let span = span[0] as usize..span[1] as usize;
            let ids = &self.input_ids[span.clone()];
            let places = &mut labels[begin + span.start..begin + span.end];
            places.iter_mut().zip(ids).for_each(|(label, id)| *label = i64::from(*id));
        }
    }

    fn unlabelled(&self, from: usize) -> usize {
        let first = self.spans.iter().find(|it| it[1] as usize > from);
        first.map_or(self.input_ids.len(), |it| from.max(it[0] as usize)) - from
    }

    fn cut(&self) -> usize {
        self.cut
    }

    fn judgement(&self) -> f32 {
        self.judgement
    }

    fn origin(&self) -> Arc<Origin> {
        Arc::new(Origin { source: Arc::clone(self.source), line: self.line })
    }
}

/// An array on the heap, or in a file that is mapped.
#[derive(Clone)]
enum Column<T> {
    Owned(Vec<T>),
    Mapped { map: Arc<Mmap>, range: Range<usize> },
}

impl<T: Pod> Column<T> {
    /// Checks place and alignment once, so that reading can't fail.
    fn mapped(map: &Arc<Mmap>, range: Range<usize>) -> Result<Self, String> {
        let bytes = map.get(range.clone()).ok_or_else(|| format!("no bytes {range:?}"))?;
        bytemuck::try_cast_slice::<u8, T>(bytes).map_err(|error| format!("bytes {range:?}: {error}"))?;
        Ok(Self::Mapped { map: Arc::clone(map), range })
    }

    /// A mapped array is copied first.
    fn make_mut(&mut self) -> &mut Vec<T> {
        if let Self::Mapped { .. } = self {
            *self = Self::Owned(self.to_vec());
        }
        match self {
            Self::Owned(values) => values,
            Self::Mapped { .. } => unreachable!("it was copied"),
        }
    }
}

impl<T: Pod> Deref for Column<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Owned(values) => values,
            Self::Mapped { map, range } => bytemuck::cast_slice(&map[range.clone()]),
        }
    }
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self::Owned(Vec::new())
    }
}

impl<T: Pod + PartialEq> PartialEq for Column<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::batch::Batch;
    use crate::pack::Layout;

    fn sequences() -> Vec<Sequence> {
        let labels = [vec![1, 2, IGNORED, 4], vec![IGNORED, 6], vec![IGNORED, 8, 9, IGNORED, IGNORED, 12]];
        let sequence = |(row, labels): (usize, &Vec<i64>)| Sequence {
            input_ids: (0..labels.len()).map(|it| labels[it].max(100) as u32).collect(),
            labels: labels.iter().map(|it| if *it == IGNORED { IGNORED } else { (*it).max(100) }).collect(),
            cut: [0, 0, 3][row],
            judgement: [0.0, 0.0, -1.5][row],
            origin: Arc::new(Origin { source: ["a", "b", "a"][row].into(), line: row as u64 + 5 }),
        };
        labels.iter().enumerate().map(sequence).collect()
    }

    fn mapped(rows: &TokenRows) -> (Arc<Mmap>, Ranges) {
        let mut file = tempfile::tempfile().unwrap();
        let mut end = 0;
        let ranges = rows.bytes().map(|bytes| {
            file.write_all(bytes).unwrap();
            end += bytes.len();
            end - bytes.len()..end
        });
        // SAFETY: a file of this test alone, written before.
        (Arc::new(unsafe { Mmap::map(&file) }.unwrap()), ranges)
    }

    #[test]
    fn rows_give_back_the_sequences_they_were_made_of() {
        let sequences = sequences();
        let rows: TokenRows = sequences.iter().cloned().collect();
        let (map, ranges) = mapped(&rows);
        let mapped = TokenRows::mapped(&map, ranges, rows.sources().to_vec()).unwrap();
        assert_eq!(mapped, rows);
        for rows in [rows, mapped] {
            assert_eq!((0..3).map(|it| rows.sequence(it)).collect::<Vec<_>>(), sequences);
            let supervised: usize = sequences.iter().map(Sequence::supervised_tokens).sum();
            assert_eq!((rows.len(), rows.tokens(), rows.supervised_tokens()), (3, 12, supervised));
            let of_rows: Vec<MappedRow<'_>> = (0..3).map(|it| rows.row(it)).collect();
            assert_eq!(Batch::new(&of_rows), Batch::new(&sequences));
            for (row, sequence) in of_rows.iter().zip(&sequences) {
                let all = 0..=sequence.input_ids.len();
                all.for_each(|from| assert_eq!(row.unlabelled(from), sequence.unlabelled(from), "{from}"));
            }
            let whole: Vec<&Sequence> = sequences.iter().collect();
            assert_eq!(Layout::Packed(8).micro_batches(&of_rows), Layout::Packed(8).micro_batches(&whole));
        }
    }

    #[test]
    fn mapped_rows_lie_in_the_map() {
        let rows: TokenRows = sequences().into_iter().collect();
        let (map, ranges) = mapped(&rows);
        let mapped = TokenRows::mapped(&map, ranges, rows.sources().to_vec()).unwrap();
        let ids = mapped.row(2).input_ids.as_ptr_range();
        assert!(map.as_ptr_range().contains(&ids.start.cast()));
    }

    #[test]
    fn arrays_that_do_not_fit_are_refused() {
        let rows: TokenRows = sequences().into_iter().collect();
        let (map, ranges) = mapped(&rows);
        let sources = rows.sources().to_vec();
        let refused = |ranges: Ranges, sources: &[Arc<str>]| {
            TokenRows::mapped(&map, ranges, sources.to_vec()).unwrap_err()
        };
        let [bounds, places, spans, ids] = ranges;
        let shorter = |it: &Range<usize>, by: usize| it.start..it.end - by;
        insta::assert_snapshot!([
            refused([bounds.clone(), places.clone(), spans.clone(), ids.start..map.len() + 4], &sources),
            refused([bounds.clone(), places.clone(), spans.clone(), shorter(&ids, 1)], &sources),
            refused([shorter(&bounds, 16), places.clone(), spans.clone(), ids.clone()], &sources),
            refused([bounds.clone(), places.clone(), spans.clone(), shorter(&ids, 4)], &sources),
            refused([bounds.clone(), places.clone(), spans.start + 8..spans.end + 8, ids.clone()], &sources),
            refused([bounds, places, spans, ids], &sources[..1]),
        ].join("\n"), @r"
        no bytes 176..228
        bytes 176..223: OutputSliceWouldHaveSlop
        3 bounds of 3 rows
        bounds that are not those of the rows
        spans or a cut that are not those of row 0
        a row of an unknown file
        ");
    }
}
