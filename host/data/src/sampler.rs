//! The order in which rows are seen: a seeded shuffle an epoch, told by position alone.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Row indices in windows of one optimizer step; the last window of an epoch may be partial.
///
/// The order of an epoch depends on seed and epoch only, so a position is enough to go on after a break.
#[derive(Debug, Clone)]
pub struct Windows {
    rows: usize,
    window: usize,
    seed: u64,
    order: Vec<usize>,
    epoch: u64,
    next: usize,
}

impl Windows {
    /// Windows of `window` out of `rows` rows, from the beginning.
    pub fn new(rows: usize, window: usize, seed: u64) -> Self {
        let mut windows = Self { rows, window: window.max(1), seed, order: Vec::new(), epoch: 0, next: 0 };
        windows.shuffle();
        windows
    }

    /// As [`Windows::new`], going on after `row` rows of epoch `epoch` were seen.
    pub fn resume(rows: usize, window: usize, seed: u64, epoch: u64, row: usize) -> Self {
        let mut windows = Self::new(rows, window, seed);
        windows.epoch = epoch;
        windows.next = row.min(rows);
        windows.shuffle();
        windows
    }

    /// Epochs begun before this one.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Rows of this epoch that were seen.
    pub fn row(&self) -> usize {
        self.next
    }

    /// The next rows, `most` of them or those that are left of the epoch; none where there are no rows.
    pub fn next_of(&mut self, most: usize) -> Vec<usize> {
        if self.rows > 0 && self.next == self.rows {
            self.epoch += 1;
            self.next = 0;
            self.shuffle();
        }
        let end = (self.next + most).min(self.rows);
        let window = self.order[self.next..end].to_vec();
        self.next = end;
        window
    }

    fn shuffle(&mut self) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.epoch);
        self.order = (0..self.rows).collect();
        self.order.shuffle(&mut rng);
    }
}

impl Iterator for Windows {
    type Item = Vec<usize>;

    /// The next window; without end while there are rows.
    fn next(&mut self) -> Option<Vec<usize>> {
        (self.rows > 0).then(|| self.next_of(self.window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_in_one_order_however_many_at_a_time() {
        let mut windows = Windows::new(5, 2, 3);
        let mut one_by_one = Windows::new(5, 1, 3).flatten();
        for most in [2, 1, 7, 3, 2, 4] {
            let taken = windows.next_of(most);
            assert!(!taken.is_empty() && taken.len() <= most);
            assert_eq!(taken, one_by_one.by_ref().take(taken.len()).collect::<Vec<_>>());
            let mut resumed = Windows::resume(5, 2, 3, windows.epoch(), windows.row());
            assert_eq!(resumed.next(), windows.clone().next());
        }
        assert_eq!(windows.epoch(), 2);
        assert!(Windows::new(0, 2, 3).next_of(4).is_empty());
    }

    #[test]
    fn an_epoch_sees_every_row_once_and_the_next_in_another_order() {
        let mut windows = Windows::new(10, 4, 7);
        let epoch = |windows: &mut Windows| -> Vec<Vec<usize>> { windows.by_ref().take(3).collect() };
        let (first, second) = (epoch(&mut windows), epoch(&mut windows));
        assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        let mut seen = first.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_ne!(first, second);
        assert_eq!(first, epoch(&mut Windows::new(10, 4, 7)));
        assert_ne!(first, epoch(&mut Windows::new(10, 4, 8)));
    }

    #[test]
    fn windows_go_on_where_they_stopped() {
        let all: Vec<Vec<usize>> = Windows::new(10, 4, 7).take(8).collect();
        for stop in 0..8 {
            let mut windows = Windows::new(10, 4, 7);
            windows.by_ref().take(stop).for_each(drop);
            let resumed = Windows::resume(10, 4, 7, windows.epoch(), windows.row());
            assert_eq!(resumed.take(8 - stop).collect::<Vec<_>>(), all[stop..]);
        }
    }
}
