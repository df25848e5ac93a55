//! What a process asks of its ranks, in one order.
//!
//! Ranks must ask for the same things in the same order. What nobody waits for yet is done by a thread of its own, one after the
//! other; whoever asks for something that is waited for waits for those first. So the order is that of the asking, on every rank,
//! and whatever ranks are split into shares it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::flat::Flat;
use super::watch::Progress;
use super::{Collective, OnDevice};
use crate::error::Result;

/// Ranks, asked in one order.
#[derive(Debug)]
pub struct Ordered {
    collective: Arc<dyn Collective>,
    worker: Arc<Worker>,
}

/// What was begun, and will be there.
#[derive(Debug)]
#[must_use = "whoever begins something waits for it"]
pub struct Pending(Receiver<Result<Flat>>);

impl Pending {
    /// It, when it is there.
    ///
    /// # Panics
    /// Where ranks can't be reached: nobody can go on without it, and the run ends on all of them.
    pub fn wait(self) -> Flat {
        let done = self.0.recv().expect("the thread answers before it ends");
        done.unwrap_or_else(|error| panic!("{error}"))
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread for what nobody waits for yet. It is started when something is begun.
#[derive(Debug, Default)]
struct Worker {
    thread: Mutex<Option<(Sender<Job>, JoinHandle<()>)>>,
    /// Jobs that are not done.
    left: Arc<(Mutex<usize>, Condvar)>,
    progress: Arc<Progress>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    fn begin(&self, job: impl FnOnce() + Send + 'static) {
        *locked(&self.left.0) += 1;
        let (left, progress) = (Arc::clone(&self.left), Arc::clone(&self.progress));
        let job: Job = Box::new(move || {
            progress.during(job);
            *locked(&left.0) -= 1;
            left.1.notify_all();
        });
        let mut thread = locked(&self.thread);
        let (jobs, _) = thread.get_or_insert_with(|| {
            let (jobs, coming) = channel::<Job>();
            let thread = std::thread::Builder::new().name("ranks".into());
            let thread = thread.spawn(move || coming.into_iter().for_each(|job| job()));
            (jobs, thread.expect("a thread can be started"))
        });
        jobs.send(job).expect("the thread runs until nobody can send");
    }

    /// Waits until everything that was begun is done.
    fn settle(&self) {
        let mut left = locked(&self.left.0);
        while *left > 0 {
            left = self.left.1.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let Some((jobs, thread)) = locked(&self.thread).take() else { return };
        drop(jobs);
        // Of a rank that panics a job may wait for others that will never come.
        if !std::thread::panicking() {
            drop(thread.join());
        }
    }
}

impl Ordered {
    /// Of `collective`, which nobody else asks.
    pub fn new(collective: impl Collective + 'static) -> Self {
        Self { collective: Arc::new(collective), worker: Arc::default() }
    }

    /// Those of the same `group`, in the same order of asking.
    ///
    /// # Errors
    /// As [`Collective::split`].
    pub fn part(&self, group: usize) -> Result<Self> {
        let collective = self.asked(|it| it.split(group))?.into();
        Ok(Self { collective, worker: Arc::clone(&self.worker) })
    }

    /// Begins to gather the words of all ranks. Those in the host's memory are as many as all ranks have, with this one's in their
    /// place; of a device's they are this rank's own.
    pub fn begin_all_gather(&self, words: Flat) -> Pending {
        self.begin(move |collective| words.all_gather(collective))
    }

    /// Begins a [`Collective::reduce_scatter`] of `all`, which comes back with this rank's part of the sums alone.
    pub fn begin_reduce_scatter(&self, all: Flat) -> Pending {
        self.begin(move |collective| all.reduce_scatter(collective))
    }

    /// The sums of all ranks' `words`.
    ///
    /// # Errors
    /// As [`Collective::barrier`].
    pub fn sums(&self, words: Flat) -> Result<Flat> {
        self.asked(|it| words.all_reduce(it))
    }

    fn begin(&self, job: impl FnOnce(&dyn Collective) -> Result<Flat> + Send + 'static) -> Pending {
        let (done, pending) = channel();
        let collective = Arc::clone(&self.collective);
        self.worker.begin(move || {
            let result = job(&*collective);
            // Let go of before it is told: the last one ends MPI, which is the main thread's.
            drop(collective);
            // Nobody may wait any more.
            drop(done.send(result));
        });
        Pending(pending)
    }

    fn asked<T>(&self, call: impl FnOnce(&dyn Collective) -> T) -> T {
        self.worker.settle();
        self.worker.progress.during(|| call(&*self.collective))
    }

    /// How many calls have been begun and ended.
    pub(super) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.worker.progress)
    }
}

impl Drop for Ordered {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.worker.settle();
        }
    }
}

impl Collective for Ordered {
    fn name(&self) -> String {
        self.collective.name()
    }

    fn global_rank(&self) -> usize {
        self.collective.global_rank()
    }

    fn local_rank(&self) -> usize {
        self.collective.local_rank()
    }

    fn size(&self) -> usize {
        self.collective.size()
    }

    fn barrier(&self) -> Result<()> {
        self.asked(|it| it.barrier())
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<()> {
        self.asked(|it| it.broadcast(bytes, root))
    }

    fn all_gather(&self, all: &mut [u8]) -> Result<()> {
        self.asked(|it| it.all_gather(all))
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        self.asked(|it| it.all_reduce(values))
    }

    fn reduce_scatter(&self, all: &[f32], own: &mut [f32]) -> Result<()> {
        self.asked(|it| it.reduce_scatter(all, own))
    }

    fn split(&self, group: usize) -> Result<Box<dyn Collective>> {
        Ok(Box::new(self.part(group)?))
    }

    fn on_device(&self) -> Option<&dyn OnDevice> {
        self.collective.on_device()
    }

    fn abort(&self, code: i32) -> ! {
        // Without waiting for what may never be done.
        self.collective.abort(code)
    }
}
