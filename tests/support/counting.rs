//! An allocator that counts, for test programs of their own: the counts are those of the whole process.
//!
//! `unsafe` here: an allocator that counts and calls the system's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

pub struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

fn count(change: isize) {
    let live = LIVE.fetch_add(change, Ordering::Relaxed) + change;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches two integers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes that are allocated now.
pub fn live() -> isize {
    LIVE.load(Ordering::Relaxed)
}

/// Forgets the peak so far.
pub fn restart_peak() {
    PEAK.store(live(), Ordering::Relaxed);
}

/// The most that was allocated since [`restart_peak`].
pub fn peak() -> isize {
    PEAK.load(Ordering::Relaxed)
}
