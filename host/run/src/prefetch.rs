//! Micro-batches made ahead of the optimizer step that takes them.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fthost_data::TokenRows;
use fthost_data::sampler::Windows;
use fthost_engine::checkpoint::training::DataPosition;

use crate::reference::ReferenceLogps;
use crate::rows::{Laid, Laying};

/// Optimizer steps whose micro-batches wait to be taken.
const AHEAD: usize = 2;

/// What an optimizer step takes.
pub struct Window {
    /// Its micro-batches.
    pub laid: Laid,
    /// Where the run is once they are learned.
    pub position: DataPosition,
    /// How long the step had to wait for them.
    pub waited: Duration,
}

/// A thread that lays out rows; it ends when this is dropped.
pub struct Prefetch {
    windows: Option<Receiver<(Laid, DataPosition)>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Begins to lay out `rows` in the order of `windows`, with what is `known` of the reference.
    pub fn start(
        rows: Arc<TokenRows>,
        known: Option<Arc<ReferenceLogps>>,
        laying: Laying,
        mut windows: Windows,
    ) -> Self {
        let (sender, receiver) = sync_channel(AHEAD);
        let thread = std::thread::spawn(move || {
            while let Some(window) = windows.next() {
                let laid = laying.lay(&rows, &window, known.as_deref());
                let position = DataPosition { epoch: windows.epoch(), rows: windows.row() as u64 };
                if sender.send((laid, position)).is_err() {
                    break;
                }
            }
        });
        Self { windows: Some(receiver), thread: Some(thread) }
    }

    /// The next step's micro-batches; without end while there are rows.
    ///
    /// # Panics
    /// Where the thread did.
    pub fn next_window(&mut self) -> Option<Window> {
        let began = Instant::now();
        match self.windows.as_ref()?.recv() {
            Ok((laid, position)) => Some(Window { laid, position, waited: began.elapsed() }),
            Err(_) => {
                if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
                    resume_unwind(panic);
                }
                None
            }
        }
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        // Without a receiver the thread ends at its next window.
        self.windows = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use fthost_data::{Batch, Layout, Origin, Sequence};

    use super::*;

    fn rows() -> Arc<TokenRows> {
        let origin = Arc::new(Origin { source: "rows".into(), line: 1 });
        let row = |it: u32| Sequence {
            input_ids: vec![it; it as usize % 5 + 2],
            labels: vec![i64::from(it); it as usize % 5 + 2],
            cut: 0,
            judgement: 0.0,
            origin: Arc::clone(&origin),
        };
        Arc::new((0..10).map(row).collect())
    }

    #[test]
    fn windows_made_ahead_are_those_made_when_needed() {
        let (rows, laying) = (rows(), Laying { layout: Layout::Packed(8), mismatched: Some(5) });
        let mut windows = Windows::new(10, 4, 7);
        let mut known = ReferenceLogps::default();
        (0..10_u8).for_each(|it| known.push(&vec![-f32::from(it); usize::from(it) % 5 + 1]));
        let known = Arc::new(known);
        let mut prefetch =
            Prefetch::start(Arc::clone(&rows), Some(Arc::clone(&known)), laying, windows.clone());
        for _ in 0..7 {
            let window = prefetch.next_window().unwrap();
            let expected = windows.next().unwrap();
            assert_eq!(window.laid, laying.lay(&rows, &expected, Some(&known)));
            // Row by row as the micro-batches have them: ids, labels and log-probabilities are of the same row here.
            let of_batch = |batch: &Batch| -> Vec<f32> {
                batch.targets().token_ids.iter().map(|it| -(*it as f32)).collect()
            };
            let of_batches: Vec<Vec<f32>> = window.laid.batches.iter().map(of_batch).collect();
            assert_eq!(window.laid.references, Some(of_batches));
            assert!(!window.laid.mismatched.is_empty());
            let position = DataPosition { epoch: windows.epoch(), rows: windows.row() as u64 };
            assert_eq!(window.position, position);
        }
    }

    #[test]
    fn a_panic_of_the_thread_is_not_the_end_of_the_data() {
        let missing = Windows::new(20, 4, 7);
        let mut prefetch =
            Prefetch::start(rows(), None, Laying { layout: Layout::Rows(2), mismatched: None }, missing);
        let taken =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(
                || {
                    while prefetch.next_window().is_some() {}
                },
            ));
        assert!(taken.is_err());
    }
}
