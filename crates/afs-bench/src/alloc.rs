//! The server's allocator, with a counter, so that "bytes of memory" is what was really asked for, not an estimate.
//!
//! Guarantees: [`bytes_of`] is the sum of the allocations that are left, as requested. What is timed is not counted: counting costs as much as a small
//! allocation. Deliberately absent: what the allocator adds (headers, rounding); figures that bound memory leave room for it.
#![allow(unsafe_code, reason = "a global allocator is an unsafe trait; see the proofs below")]

use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

static COUNTS: AtomicBool = AtomicBool::new(false);
static IN_USE: AtomicI64 = AtomicI64::new(0);

/// The server's allocator, counted.
pub(crate) struct Counting;

fn count(more: usize, less: usize) {
    if COUNTS.load(Ordering::Relaxed) {
        IN_USE.fetch_add(more as i64 - less as i64, Ordering::Relaxed);
    }
}

// SAFETY: every call is handed to the other allocator unchanged, which keeps the contract; counting touches no allocated memory.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promises are exactly those that `MiMalloc` asks for.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { MiMalloc.alloc(layout) }
    }
    // SAFETY: the caller's promises are exactly those that `MiMalloc` asks for.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }
    // SAFETY: the caller's promises are exactly those that `MiMalloc` asks for.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
    // SAFETY: the caller's promises are exactly those that `MiMalloc` asks for.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as above.
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }
}

/// Bytes that `make` leaves allocated, by all threads. What it frees of before counts, too.
pub(crate) fn bytes_of<T>(make: impl FnOnce() -> T) -> (T, usize) {
    IN_USE.store(0, Ordering::Relaxed);
    COUNTS.store(true, Ordering::Relaxed);
    let made = make();
    COUNTS.store(false, Ordering::Relaxed);
    (made, usize::try_from(IN_USE.load(Ordering::Relaxed)).unwrap_or(0))
}
