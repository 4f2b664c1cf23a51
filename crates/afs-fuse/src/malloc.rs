//! Keeps fuser's receive buffers out of the heap.
#![allow(unsafe_code)]

/// fuser allocates a zeroed 16 MiB buffer per thread, of which at most 1 MiB is ever touched. From `mmap` that costs
/// nothing; but glibc, on the first free of such a buffer, begins to serve them from the heap and clears them by
/// hand: 5.8 GB for 1,000 mounts instead of 31 MB. A fixed threshold stops it from learning that.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_large_buffers_mapped() {
    const THRESHOLD: libc::c_int = 4 << 20;
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: mallopt takes two integers, touches only the allocator's own state under the allocator's own
        // lock, and accepts this parameter at any time; it has no way to invalidate existing allocations.
        let accepted = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD) };
        if accepted == 0 {
            tracing::debug!("the allocator keeps its own threshold");
        }
    });
}

/// Other allocators do not learn.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_large_buffers_mapped() {}
