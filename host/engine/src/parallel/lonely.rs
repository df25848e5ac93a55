//! One of several ranks, of which nobody else is there: what is gathered of the others is zero, and sums are this rank's own. For tests
//! of what is asked and when.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::{Collective, Ranks};
use crate::error::Result;
use crate::models::CausalLm;
use crate::shard::{Mesh, ParallelConfig};

/// A rank, and what it was asked; clones are the same rank.
#[derive(Debug, Clone)]
pub struct Lonely {
    rank: usize,
    size: usize,
    /// Gathers that were asked for.
    gathers: Arc<AtomicUsize>,
    /// Whether sums are held back.
    holds: Arc<(Mutex<bool>, Condvar)>,
}

impl Lonely {
    /// This one of so many.
    pub fn new(rank: usize, size: usize) -> Self {
        Self { rank, size, gathers: Arc::default(), holds: Arc::default() }
    }

    /// Waits until so many gathers were asked for; false where they are not, for ten seconds.
    pub fn has_gathered(&self, count: usize) -> bool {
        let began = Instant::now();
        while self.gathers.load(Ordering::SeqCst) < count && began.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
        self.gathers.load(Ordering::SeqCst) == count
    }

    /// A model in every part of which this rank has a share.
    pub fn share(&self, model: &mut CausalLm) {
        let config = ParallelConfig { data_parallel_shard: self.size as i64, ..ParallelConfig::default() };
        let (shard, replicate) = (Ranks::new(self.clone()), Ranks::default());
        model.share(&Mesh { config, shard, replicate });
    }

    /// Has sums wait, or go on.
    pub fn hold(&self, holds: bool) {
        *self.holds.0.lock().unwrap() = holds;
        self.holds.1.notify_all();
    }
}

impl Collective for Lonely {
    fn name(&self) -> String {
        "nobody".into()
    }

    fn global_rank(&self) -> usize {
        self.rank
    }

    fn local_rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn barrier(&self) -> Result<()> {
        unreachable!("nobody is there")
    }

    fn broadcast(&self, _: &mut [u8], _: usize) -> Result<()> {
        unreachable!("nobody is there")
    }

    fn all_gather(&self, _: &mut [u8]) -> Result<()> {
        self.gathers.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn all_reduce(&self, _: &mut [f32]) -> Result<()> {
        unreachable!("nobody is there")
    }

    fn reduce_scatter(&self, all: &[f32], own: &mut [f32]) -> Result<()> {
        let (holds, changed) = &*self.holds;
        drop(changed.wait_while(holds.lock().unwrap(), |holds| *holds).unwrap());
        own.copy_from_slice(&all[self.rank * own.len()..][..own.len()]);
        Ok(())
    }

    fn split(&self, _: usize) -> Result<Box<dyn Collective>> {
        unreachable!("nobody is there")
    }

    fn abort(&self, _: i32) -> ! {
        unreachable!("nobody is there")
    }
}
