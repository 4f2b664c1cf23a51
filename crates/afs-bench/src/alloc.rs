//! An allocator that counts, so that "bytes of memory" is what was really asked for, not an estimate.
//!
//! Guarantees: [`in_use`] is the sum of all live allocations as requested. Deliberately absent: what the allocator adds (headers, rounding);
//! figures that bound memory leave room for it.
#![allow(unsafe_code, reason = "a global allocator is an unsafe trait; see the proofs below")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
pub(crate) struct Counting;

// SAFETY: every call is handed to the system's allocator unchanged, which keeps the contract; counting touches no allocated memory.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promises are exactly those that `System` asks for.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }
    // SAFETY: the caller's promises are exactly those that `System` asks for.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
    // SAFETY: the caller's promises are exactly those that `System` asks for.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        IN_USE.fetch_add(size, Ordering::Relaxed);
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Bytes allocated now.
pub(crate) fn in_use() -> usize {
    IN_USE.load(Ordering::Relaxed)
}

/// Bytes that `make` leaves allocated in what it returns.
pub(crate) fn bytes_of<T>(make: impl FnOnce() -> T) -> (T, usize) {
    let before = in_use();
    let made = make();
    (made, in_use().saturating_sub(before))
}
