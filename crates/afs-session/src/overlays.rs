//! RAM for what sessions changed: how much all overlays of a server take together, and how much they may.
//!
//! Guarantees: what forks have in common is counted once, for as long as one of them, or a kept instant, has it ([`Share`]); a session that
//! shares nothing is counted as what its overlay takes; everything counted is taken off again. A session that writes over what it shares is counted
//! with an estimate of the nodes it copies ([`COPIED_BYTES`] for each operation), and never with more than its whole overlay. The sum is for limits; it is no measurement. Less than [`GRAIN`] of a parent is not counted for its forks: they would cost more to keep count of.
//!
//! Deliberately absent: what goes with the call that made it (snapshots of readers, the queue of the folding thread), base tables, which
//! are mapped files, and every decision about who leaves RAM ([`crate::engine::Engine::make_room`]).

use afs_core::tree::Tree;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is newer than a parent's last share, in bytes, and is worth a share of its own.
const GRAIN: u64 = 4 << 10;
/// Bytes of nodes that an operation copies when others have them, too: leaves of both maps and a part of what leads to them. The first operations after a fork copy
/// more, those next to earlier ones less.
pub(crate) const COPIED_BYTES: u64 = 2 << 10;

/// The sum over a server, and its bound.
pub(crate) struct Overlays {
    bytes: AtomicU64,
    most: u64,
}

impl Overlays {
    pub(crate) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), most })
    }
    pub(crate) fn used(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
    pub(crate) fn most(&self) -> u64 {
        self.most
    }
    /// Idle sessions should leave RAM from here on, until [`Overlays::has_room`].
    pub(crate) fn is_tight(&self) -> bool {
        self.used() >= self.most / 4 * 3
    }
    pub(crate) fn has_room(&self) -> bool {
        self.used() < self.most / 2
    }
    pub(crate) fn is_full(&self) -> bool {
        self.used() >= self.most
    }
    pub(crate) fn set(&self, was: u64, is: u64) {
        if is >= was {
            self.bytes.fetch_add(is - was, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(was - is, Ordering::Relaxed);
        }
    }
}

/// What several trees have in common; counted until the last of them lets go of it.
pub(crate) struct Share {
    bytes: u64,
    below: Option<Arc<Share>>,
    all: Arc<Overlays>,
}

impl Share {
    /// Of a tree that shares all of another one's but for so many bytes.
    pub(crate) fn on(below: Option<Arc<Self>>, bytes: u64, all: &Arc<Overlays>) -> Arc<Self> {
        all.set(0, bytes);
        Arc::new(Self { bytes, below, all: all.clone() })
    }

    /// Of a tree that nobody has yet and that shares nothing. None if it takes nothing.
    pub(crate) fn of_new(tree: &Tree, all: &Arc<Overlays>) -> Option<Arc<Self>> {
        let bytes = tree.overlay_bytes();
        (bytes > 0).then(|| Self::on(None, bytes, all))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.set(self.bytes, 0);
        // Not one within the other: a session that is forked after each of its changes has a long line of them.
        let mut below = self.below.take();
        while let Some(mut last) = below.and_then(Arc::into_inner) {
            below = last.below.take();
        }
    }
}

/// Bytes that are on their way into an overlay, until this is dropped.
pub(crate) struct Reserved {
    all: Arc<Overlays>,
    bytes: u64,
}

impl Reserved {
    pub(crate) fn new(all: &Arc<Overlays>) -> Self {
        Self { all: all.clone(), bytes: 0 }
    }
    pub(crate) fn set(&mut self, bytes: u64) {
        self.all.set(self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What one session takes beside what it shares. Whoever holds it calls [`Own::end`] in the end.
#[derive(Default)]
pub(crate) struct Own {
    bytes: u64,
    /// Bytes of the overlay when it was last looked at.
    seen: u64,
    below: Option<Arc<Share>>,
}

impl Own {
    /// Of a session whose tree is all shared.
    pub(crate) fn on(below: Option<Arc<Share>>, tree: &Tree) -> Self {
        Self { bytes: 0, seen: tree.overlay_bytes(), below }
    }

    /// After `ops` operations led to this tree.
    pub(crate) fn changed(&mut self, tree: &Tree, ops: usize, all: &Overlays) {
        self.take_back();
        let bytes = tree.overlay_bytes();
        let own = match self.below {
            None => bytes,
            Some(_) => {
                let copied = COPIED_BYTES.saturating_mul(ops as u64);
                (self.bytes + copied + bytes).saturating_sub(self.seen).min(bytes)
            }
        };
        self.seen = bytes;
        self.set(own, all);
    }

    /// After it went to another tree, of which it shares all.
    pub(crate) fn moved(&mut self, below: Option<Arc<Share>>, tree: &Tree, all: &Overlays) {
        self.set(0, all);
        (self.below, self.seen) = (below, tree.overlay_bytes());
    }

    /// What it shares with others, all but what is newer than their making.
    pub(crate) fn shared(&self) -> Option<&Arc<Share>> {
        self.below.as_ref()
    }

    /// What others will have, too, from now on.
    pub(crate) fn share(&mut self, tree: &Tree, all: &Arc<Overlays>) {
        // What is only its own, though it was shared once, may be gone from its tree.
        self.changed(tree, 0, all);
        if self.bytes > GRAIN {
            let (bytes, below) = (std::mem::take(&mut self.bytes), self.below.take());
            // Counted already, as its own.
            self.below = Some(Arc::new(Share { bytes, below, all: all.clone() }));
        }
    }

    /// Whether anything would be free if this and all that share with it were gone.
    pub(crate) fn has_any(&self) -> bool {
        self.bytes > 0 || self.below.is_some()
    }

    /// What nobody else has any more is its own again.
    fn take_back(&mut self) {
        // Looked at before it is asked for: `get_mut` locks the count, which every fork of a shared overlay would pay for.
        while let Some(share) = self.below.as_mut().filter(|share| Arc::strong_count(share) == 1) {
            let Some(share) = Arc::get_mut(share) else { break };
            let (bytes, below) = (std::mem::take(&mut share.bytes), share.below.take());
            // Counted with this one from here on; the sum stays.
            self.bytes += bytes;
            self.below = below;
        }
    }

    pub(crate) fn end(&mut self, all: &Overlays) {
        self.set(0, all);
        self.below = None;
    }

    fn set(&mut self, own: u64, all: &Overlays) {
        all.set(self.bytes, own);
        self.bytes = own;
    }
}

#[cfg(test)]
#[path = "overlays_tests.rs"]
mod tests;
