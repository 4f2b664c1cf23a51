//! Who has been told of changes that a crash of the server took back.
//!
//! Guarantees, as Linux gives them for files of a disk (`errseq_t`): whoever had something open when changes were lost is told once, at its
//! next fsync, whatever others were told before; so is whoever opens something afterwards as long as nobody was told, since a program may
//! write, close, open again and fsync; a loss that somebody was told of concerns no later handle. The mount itself never forgets, so
//! that its end can say it too. A handle counts from before its open is sent: what is lost while the answer is on its way concerns it.
//!
//! Deliberately absent: which files were lost. The server knows only that there is no more than a prefix of what was answered.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// The losses of a mount, and what each of its handles knows of them.
#[derive(Default)]
pub(crate) struct Losses {
    /// Crashes that took something back.
    count: AtomicU64,
    handles: Mutex<Handles>,
    last: AtomicU64,
}

#[derive(Default)]
struct Handles {
    /// Of each open handle: how many losses it was told of, or need not be.
    open: HashMap<u64, u64>,
    /// Losses that somebody was told of.
    seen: u64,
}

impl Losses {
    /// Another crash has taken something back.
    pub(crate) fn add(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// How many there were so far.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether anything was ever lost.
    pub(crate) fn any(&self) -> bool {
        self.count() > 0
    }

    /// A new handle, to which only losses matter that nobody was told of. Never 0.
    pub(crate) fn open(&self) -> u64 {
        let handle = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut handles = self.handles.lock();
        let seen = handles.seen;
        handles.open.insert(handle, seen);
        handle
    }

    /// A handle goes.
    pub(crate) fn close(&self, handle: u64) {
        self.handles.lock().open.remove(&handle);
    }

    /// Whether a handle must be told of a loss; asked again, it was. One that is not known is told always, rather than never.
    pub(crate) fn tell(&self, handle: u64) -> bool {
        let mut handles = self.handles.lock();
        let count = self.count.load(Ordering::SeqCst);
        let must = match handles.open.get_mut(&handle) {
            Some(told) => std::mem::replace(told, count) < count,
            None => count > 0,
        };
        handles.seen = count;
        must
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_handle_is_told_once_of_what_nobody_was_told_before_it_came() {
        let losses = Losses::default();
        let [a, b] = [losses.open(), losses.open()];
        assert!(a != b && a != 0 && b != 0);
        assert!(!losses.any() && !losses.tell(a) && !losses.tell(b));
        losses.add();
        let early = losses.open();
        assert!(losses.tell(a), "told");
        let late = losses.open();
        assert!(!losses.tell(a), "once");
        assert!(losses.tell(b), "whatever others were told");
        assert!(losses.tell(early) && !losses.tell(early), "it came when nobody had been told");
        assert!(!losses.tell(late), "it came when somebody had been");
        losses.add();
        losses.add();
        assert!(losses.tell(late) && !losses.tell(late), "two losses are told in one go");
        assert!(losses.tell(a) && losses.tell(b));
        losses.close(a);
        assert!(losses.tell(a) && losses.tell(a), "who is not known is never told a success");
        assert!(losses.any());
    }
}
