//! How much memory the mounts' queues take together.
//!
//! Guarantees: each holder has [`Common::own`] bytes for itself, whatever the others do, and beyond them shares [`Common::most`] with
//! all others; so all together hold at most `most` and `own` for each, and what was taken in spite of that ([`Share::take_anyway`]).
//! Nobody waits: who gets no room is told so and decides. Dropping a holder gives back what it had.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all holders share.
#[derive(Debug)]
pub(crate) struct Common {
    used: AtomicUsize,
    most: usize,
    own: usize,
}

/// One holder.
#[derive(Debug)]
pub(crate) struct Share {
    common: Arc<Common>,
    held: usize,
}

impl Common {
    /// `own` bytes for each holder, and `most` for whoever comes first.
    pub(crate) fn new(most: usize, own: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), most, own })
    }

    /// A new holder.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { common: self.clone(), held: 0 }
    }

    fn beyond(&self, held: usize) -> usize {
        held.saturating_sub(self.own)
    }
}

impl Share {
    /// Room for more bytes; false: there is none, and nothing changed.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let held = self.held.saturating_add(bytes);
        let more = self.common.beyond(held) - self.common.beyond(self.held);
        let grown = |used: usize| used.checked_add(more).filter(|sum| *sum <= self.common.most);
        let fits =
            more == 0 || self.common.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok();
        if fits {
            self.held = held;
        }
        fits
    }

    /// Room for more bytes, also beyond what there is: for the few that must go on for others to get room at all.
    pub(crate) fn take_anyway(&mut self, bytes: usize) {
        let held = self.held.saturating_add(bytes);
        let more = self.common.beyond(held) - self.common.beyond(self.held);
        self.common.used.fetch_add(more, Ordering::Relaxed);
        self.held = held;
    }

    /// Gives bytes back.
    pub(crate) fn give(&mut self, bytes: usize) {
        let held = self.held.saturating_sub(bytes);
        let less = self.common.beyond(self.held) - self.common.beyond(held);
        self.common.used.fetch_sub(less, Ordering::Relaxed);
        self.held = held;
    }

    /// Gives all back.
    pub(crate) fn clear(&mut self) {
        self.give(self.held);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_all_share_the_rest() {
        let common = Common::new(100, 10);
        let (mut a, mut b) = (common.share(), common.share());
        assert!(a.take(110) && !a.take(1), "all of the rest, and its own");
        assert!(b.take(10) && !b.take(1), "its own is there whatever others hold");
        a.give(1);
        assert!(b.take(1) && !a.take(1));
        a.give(109);
        assert!(b.take(99) && !b.take(1) && a.take(10) && !a.take(1));
        drop(b);
        assert!(a.take(100));
        let mut c = common.share();
        assert!(c.take(10) && !c.take(1));
        c.take_anyway(5);
        assert!(!c.take(1), "beyond all room");
        a.give(5);
        assert!(!a.take(5) && !c.take(1), "it has to be given back first");
        c.give(5);
        assert!(a.take(5));
        drop(c);
        a.clear();
        assert_eq!(common.used.load(Ordering::Relaxed), 0);
    }
}
