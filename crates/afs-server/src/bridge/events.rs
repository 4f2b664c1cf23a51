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
    queue: Mutex<VecDeque<v1::Invalidation>>,
    pub(crate) arrived: Notify,
}

impl Events {
    /// Called by the engine after a change: never blocks.
    pub(crate) fn push(&self, change: &Invalidation) {
        let mut queue = self.queue.lock();
        if change.all || queue.len() >= MAX_WATCH_QUEUE {
            queue.clear();
            queue.push_back(v1::Invalidation { all: true, ..Default::default() });
        } else {
            queue.push_back(message(change));
        }
        drop(queue);
        self.arrived.notify_one();
    }

    /// What is waiting, up to one message's worth.
    pub(crate) fn take(&self) -> Vec<v1::Invalidation> {
        let mut queue = self.queue.lock();
        let count = queue.len().min(MAX_BATCH);
        queue.drain(..count).collect()
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
        let left = events.take();
        assert!(left[0].all && left.len() == 5, "{}", left.len());
        assert!(events.take().is_empty());
    }
}
