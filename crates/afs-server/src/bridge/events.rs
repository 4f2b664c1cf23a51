//! Changes by others on their way to one mount: a bounded queue that collapses to "everything" rather than lose one.

use afs_proto::v1;
use afs_session::Invalidation;
use afs_types::limits::MAX_WATCH_QUEUE;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Most invalidations of one message.
const MAX_BATCH: usize = 1024;

/// The queue of one mount.
#[derive(Default)]
pub(crate) struct Events {
    state: Mutex<State>,
    pub(crate) arrived: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<v1::Invalidation>,
    /// The newest fence asked for, and the newest that was sent.
    fence: (u64, u64),
}

/// What goes to a client next.
pub(crate) struct Waiting {
    pub(crate) changes: Vec<v1::Invalidation>,
    /// All changes before this fence are with the client when these are; 0: none is due.
    pub(crate) fence: u64,
}

impl Events {
    /// Called by the engine after a change: never blocks.
    pub(crate) fn push(&self, change: &Invalidation) {
        let mut state = self.state.lock();
        let queue = &mut state.queue;
        if change.all || queue.len() >= MAX_WATCH_QUEUE {
            queue.clear();
            queue.push_back(v1::Invalidation { all: true, ..Default::default() });
        } else {
            queue.push_back(message(change));
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// A mark behind everything that was pushed so far.
    pub(crate) fn fence(&self) -> u64 {
        let mut state = self.state.lock();
        state.fence.0 += 1;
        let fence = state.fence.0;
        drop(state);
        self.arrived.notify_one();
        fence
    }

    /// What is waiting, up to one message's worth; none if nothing is.
    pub(crate) fn take(&self) -> Option<Waiting> {
        let mut state = self.state.lock();
        let count = state.queue.len().min(MAX_BATCH);
        let changes: Vec<_> = state.queue.drain(..count).collect();
        let (asked, sent) = state.fence;
        let is_due = state.queue.is_empty() && asked > sent;
        if is_due {
            state.fence.1 = asked;
        }
        let fence = if is_due { asked } else { 0 };
        (is_due || !changes.is_empty()).then_some(Waiting { changes, fence })
    }
}

fn message(change: &Invalidation) -> v1::Invalidation {
    match &change.name {
        Some(name) => v1::Invalidation {
            parent: change.ino,
            inode: change.ino,
            name: name.to_vec().into(),
            entry: true,
            data: change.data,
            attributes: change.attr,
            all: false,
        },
        None => v1::Invalidation {
            inode: change.ino,
            data: change.data,
            attributes: change.attr,
            ..Default::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_mount_is_told_to_forget_everything() {
        let events = Events::default();
        for ino in 0..MAX_WATCH_QUEUE as u64 + 5 {
            events.push(&Invalidation { ino, data: true, ..Invalidation::default() });
        }
        let left = events.take().unwrap().changes;
        assert!(left[0].all && left.len() == 5, "{}", left.len());
        assert!(events.take().is_none());
    }

    #[test]
    fn a_fence_comes_after_everything_before_it() {
        let events = Events::default();
        let change = Invalidation { ino: 1, ..Invalidation::default() };
        for _ in 0..MAX_BATCH + 1 {
            events.push(&change);
        }
        assert_eq!((events.fence(), events.fence()), (1, 2));
        assert_eq!(events.take().map(|w| (w.changes.len(), w.fence)), Some((MAX_BATCH, 0)));
        assert_eq!(events.take().map(|w| (w.changes.len(), w.fence)), Some((1, 2)));
        assert!(events.take().is_none());
        assert_eq!(events.fence(), 3);
        assert_eq!(events.take().map(|w| (w.changes.len(), w.fence)), Some((0, 3)));
    }
}
