//! The allocator of the program and of the benches: mimalloc, told to keep its pages and to touch no others.
//!
//! A training step frees hundreds of megabytes and asks for the same ones in the next. With mimalloc's defaults they go
//! back to the kernel in between, which zeroes every page again: a fifth to a third of a step's time here.
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: fthost_engine::allocator::KeepPages = fthost_engine::allocator::KeepPages;
//! # fn main() { assert_eq!(vec![1; 1 << 20].len(), 1 << 20); }
//! ```
//!
//! `unsafe` here: the allocator's interface, passed on as it stands, and mimalloc's options, which its crate leaves out.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicBool, Ordering};

use mimalloc::MiMalloc;

/// mimalloc that gives no page back before the program ends, and takes each only when it is needed.
///
/// The options are set before the first allocation, so nothing has to be called. `MIMALLOC_*` variables of the
/// environment still override them.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeepPages;

unsafe extern "C" {
    /// Sets an option that neither the environment nor the program has set.
    fn mi_option_set_default(option: c_int, value: c_long);
}

/// Positions in mimalloc's `mi_option_t` and what they are set to.
const OPTIONS: [(c_int, c_long); 2] = [(PURGE_DELAY, -1), (ARENA_EAGER_COMMIT, 0)];
/// Milliseconds until a free page goes back to the kernel; -1 is never.
const PURGE_DELAY: c_int = 15;
/// Commits a segment's slices one by one, not the whole arena: SmolLM2-135M's steps peak at 60 to 110 MB less, at no
/// measured cost. (Pages of 2 MiB by advice were as fast, and 20 to 50 MB larger.)
const ARENA_EAGER_COMMIT: c_int = 4;

static IS_SET: AtomicBool = AtomicBool::new(false);

#[inline]
fn set_options() {
    if !IS_SET.load(Ordering::Relaxed) {
        set_each();
    }
}

/// Threads that meet here set the same values.
#[cold]
fn set_each() {
    for (option, value) in OPTIONS {
        // SAFETY: stores into a table of mimalloc's own, at a position that it checks; needs no allocation before.
        unsafe { mi_option_set_default(option, value) };
    }
    IS_SET.store(true, Ordering::Relaxed);
}

// SAFETY: every call is MiMalloc's own, whose implementation keeps the contract.
unsafe impl GlobalAlloc for KeepPages {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        set_options();
        // SAFETY: the caller's promises are passed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        set_options();
        // SAFETY: the caller's promises are passed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        unsafe { MiMalloc.realloc(pointer, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn mi_option_get(option: c_int) -> c_long;
    }

    /// mimalloc's defaults (1000 ms and "where the system overcommits") show that the positions are still those of its `mi_option_t`.
    #[test]
    fn the_first_allocation_sets_the_options_that_are_meant() {
        // SAFETY: reads mimalloc's table.
        let options = || OPTIONS.map(|it| unsafe { mi_option_get(it.0) });
        assert_eq!(options(), [1000, 2]);
        let layout = Layout::new::<u64>();
        // SAFETY: a layout that is not empty; freed by the same allocator.
        unsafe {
            let pointer = KeepPages.alloc(layout);
            assert!(!pointer.is_null());
            KeepPages.dealloc(pointer, layout);
        }
        assert_eq!(options(), [-1, 0]);
    }
}
