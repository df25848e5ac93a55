//! Signs of life: a rank that is killed, hangs or can't be reached ends the others within a bounded time, and is named.
//!
//! Every rank writes a line into a folder that all see, some times in a timeout: how often it has done so, and how many calls of
//! its ranks it has begun and ended. Each watches the next one. One whose line does not change has stopped, or its machine has. One
//! that waits in a call for longer than it may looks at all lines: whoever has not come to that call hangs somewhere else.
//!
//! A thread of its own does it, because a rank that waits for others does nothing else. No clock of another machine is read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Collective, Ranks};
use crate::error::{EngineError, Result};

/// Lines in a timeout.
const LINES: u32 = 8;
/// Between two lines at most.
const LONGEST: Duration = Duration::from_secs(5);
/// What a rank writes that is done.
const DONE: &str = "done";

/// How long ranks wait for each other.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the result of a call that another rank has not come to.
    pub call: Duration,
    /// For a sign of life.
    pub sign: Duration,
}

/// Calls of its ranks that a process has begun and ended. All ranks make the same calls in the same order.
#[derive(Debug, Default)]
pub struct Progress {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Progress {
    /// Counts a call.
    pub(super) fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let found = call();
        self.ended.fetch_add(1, Ordering::Relaxed);
        found
    }
}

/// The signs of life of a run. Dropped before this rank is [`Vigil::done`], there are none any more, and others miss it.
#[derive(Debug)]
pub struct Vigil {
    thread: Option<(Sender<()>, JoinHandle<()>)>,
    /// What is written last.
    done: PathBuf,
}

impl Vigil {
    /// Begins to write this rank's line into `folder`, which all ranks see, and to watch the next rank; `on_silence` is told once of
    /// what is wrong, and ends the ranks. Nobody watches a process that is alone.
    ///
    /// # Errors
    /// A folder that can't be written.
    pub fn start(
        ranks: &Ranks,
        folder: &Path,
        patience: Patience,
        on_silence: impl FnOnce(EngineError) + Send + 'static,
    ) -> Result<Self> {
        if !ranks.are_many() {
            return Ok(Self { thread: None, done: PathBuf::new() });
        }
        std::fs::create_dir_all(folder).map_err(EngineError::io("write", folder))?;
        let mut watcher = Watcher {
            folder: folder.to_path_buf(),
            progress: ranks.progress(),
            rank: ranks.global_rank(),
            size: ranks.size(),
            patience,
            lines: 0,
            next: (String::new(), Instant::now()),
            waiting: (0, Instant::now()),
            looked: Instant::now(),
        };
        let done = watcher.file_of(watcher.rank);
        // Before anybody looks for it: what an earlier run has left is none of this one's.
        watcher.write()?;
        ranks.barrier()?;
        let (stop, stopped) = channel();
        let every = (patience.sign / LINES).min(patience.call / LINES).min(LONGEST);
        let watch = move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                // Who can't write gives no sign: others see to it.
                drop(watcher.write());
                if let Some(error) = watcher.look() {
                    on_silence(error);
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("watch".into()).spawn(watch);
        let thread = thread.map_err(EngineError::io("watch ranks from", folder))?;
        Ok(Self { thread: Some((stop, thread)), done })
    }

    /// This rank has come to its end, and is not missed.
    pub fn done(mut self) {
        if self.thread.is_some() {
            self.stop();
            // Who can't say so is missed.
            drop(std::fs::write(&self.done, DONE));
        }
    }

    fn stop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            drop(thread.join());
        }
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Watcher {
    folder: PathBuf,
    progress: Arc<Progress>,
    rank: usize,
    size: usize,
    patience: Patience,
    lines: u64,
    /// The next rank's line, and since when it has been that.
    next: (String, Instant),
    /// Calls begun, and since when it has been as many.
    waiting: (u64, Instant),
    /// When it was looked last.
    looked: Instant,
}

/// A rank's line.
struct Sign {
    begun: u64,
    /// Process and machine.
    who: String,
}

impl Watcher {
    fn file_of(&self, rank: usize) -> PathBuf {
        self.folder.join(rank.to_string())
    }

    fn counts(&self) -> [u64; 2] {
        [&self.progress.begun, &self.progress.ended].map(|it| it.load(Ordering::Relaxed))
    }

    fn write(&mut self) -> Result<()> {
        self.lines += 1;
        let [begun, ended] = self.counts();
        let host = hostname();
        let line = format!("{} {begun} {ended} process {} on {host}", self.lines, std::process::id());
        let path = self.file_of(self.rank);
        // Whole or not at all: it is read at any time.
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, line)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(EngineError::io("write", &path))
    }

    fn line_of(&self, rank: usize) -> String {
        std::fs::read_to_string(self.file_of(rank)).unwrap_or_default()
    }

    fn sign_of(&self, rank: usize) -> Option<Sign> {
        let line = self.line_of(rank);
        let mut words = line.splitn(4, ' ');
        let begun = words.nth(1)?.parse().ok()?;
        Some(Sign { begun, who: words.nth(1)?.to_string() })
    }

    /// What is wrong, if anything is.
    fn look(&mut self) -> Option<EngineError> {
        // Who was stopped itself, or waited for the file system, has seen nothing meanwhile: time begins again.
        if self.looked.elapsed() > self.patience.sign.min(self.patience.call) / 2 {
            (self.next.1, self.waiting.1) = (Instant::now(), Instant::now());
        }
        self.looked = Instant::now();
        let next = (self.rank + 1) % self.size;
        let line = self.line_of(next);
        if line != self.next.0 {
            self.next = (line, Instant::now());
        }
        let silent = self.next.1.elapsed();
        if silent > self.patience.sign && self.next.0 != DONE {
            let who = self.sign_of(next).map(|it| it.who).unwrap_or_default();
            return Some(EngineError::SilentRank { rank: next, who, seconds: silent.as_secs() });
        }
        let [begun, ended] = self.counts();
        if begun != self.waiting.0 {
            self.waiting = (begun, Instant::now());
        }
        let waited = self.waiting.1.elapsed();
        if begun > ended && waited > self.patience.call {
            return Some(self.missing(begun, waited));
        }
        None
    }

    /// Who has not come to a call, if that is known.
    fn missing(&self, call: u64, waited: Duration) -> EngineError {
        let mut missing = String::new();
        for rank in (0..self.size).filter(|it| *it != self.rank) {
            let Some(sign) = self.sign_of(rank).filter(|it| it.begun < call) else { continue };
            let comma = if missing.is_empty() { "" } else { ", " };
            // Writing to a text does not fail.
            let _ = write!(missing, "{comma}rank {rank} ({})", sign.who);
        }
        EngineError::WaitedTooLong { rank: self.rank, seconds: waited.as_secs(), missing }
    }
}

/// What this machine is called.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "an unknown machine".to_string() } else { name.trim().to_string() }
}
