//! Changes by others on their way to one mount: a queue that collapses to "everything" rather than lose one.
//!
//! Guarantees: at most [`MAX_WATCH_QUEUE`] wait for one mount, and all mounts' queues together have the bytes that `share` gives them;
//! a change that finds no room makes its mount's queue one "everything", which takes next to nothing. A message has at most
//! [`MAX_BATCH`] changes and [`MAX_BATCH_BYTES`], so that one on its way to a client that does not read is small, too. Whoever waits until a mount has taken
//! note ([`Events::settle`]) waits for its word on a fence; one that is late is not waited for again until it gives it.

use super::share::Share;
use afs_proto::v1;
use afs_session::Invalidation;
use afs_types::limits::MAX_WATCH_QUEUE;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Most invalidations of one message.
const MAX_BATCH: usize = 1024;
/// Most bytes of one message.
const MAX_BATCH_BYTES: usize = 16 << 10;

/// The queue of one mount.
pub(crate) struct Events {
    state: Mutex<State>,
    pub(crate) arrived: Notify,
    /// The client has said how far it is.
    acknowledged: Condvar,
}

struct State {
    queue: VecDeque<v1::Invalidation>,
    /// Room for what is in the queue.
    share: Share,
    /// The newest fence asked for, and the newest that was sent.
    fence: (u64, u64),
    /// The newest fence up to which the client has taken note of everything, its kernel too.
    noted: u64,
    /// Something was pushed since a fence was asked for.
    is_news: bool,
    /// The client took too long, and has not said since how far it is.
    is_late: bool,
}

/// What goes to a client next.
pub(crate) struct Waiting {
    pub(crate) changes: Vec<v1::Invalidation>,
    /// All changes before this fence are with the client when these are; 0: none is due.
    pub(crate) fence: u64,
}

/// Memory that a change takes while it waits. Twice its size: a queue that grows has room for as many again.
fn weight(change: &v1::Invalidation) -> usize {
    2 * size_of::<v1::Invalidation>() + change.name.len()
}

impl State {
    /// A mark behind everything so far.
    fn mark(&mut self) -> u64 {
        self.is_news = false;
        self.fence.0 += 1;
        self.fence.0
    }

    fn push(&mut self, change: v1::Invalidation) {
        self.is_news = true;
        if change.all || self.queue.len() >= MAX_WATCH_QUEUE || !self.share.take(weight(&change)) {
            // Not cleared: that would keep its memory.
            self.queue = VecDeque::from([v1::Invalidation { all: true, ..Default::default() }]);
            self.share.clear();
        } else {
            self.queue.push_back(change);
        }
    }

    /// The next message's worth.
    fn drain(&mut self) -> Vec<v1::Invalidation> {
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.queue.front().map(weight).filter(|_| changes.len() < MAX_BATCH) {
            if bytes + next > MAX_BATCH_BYTES && !changes.is_empty() {
                break;
            }
            bytes += next;
            changes.extend(self.queue.pop_front());
        }
        self.share.give(bytes);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
            self.share.clear();
        }
        changes
    }
}

impl Events {
    /// An empty queue.
    pub(crate) fn new(share: Share) -> Self {
        let (noted, is_news, is_late) = (0, false, false);
        let state = State { queue: VecDeque::new(), share, fence: (0, 0), noted, is_news, is_late };
        Self { state: Mutex::new(state), arrived: Notify::new(), acknowledged: Condvar::new() }
    }

    /// Called by the engine after a change: never blocks.
    pub(crate) fn push(&self, change: &Invalidation) {
        self.state.lock().push(message(change));
        self.arrived.notify_one();
    }

    /// A mark behind everything that was pushed so far.
    pub(crate) fn fence(&self) -> u64 {
        let fence = self.state.lock().mark();
        self.arrived.notify_one();
        fence
    }

    /// Waits until the client has taken note of everything that was pushed so far; false when it takes longer than `patience`.
    pub(crate) fn settle(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        if state.is_news {
            state.mark();
            self.arrived.notify_one();
        }
        let fence = state.fence.0;
        while state.noted < fence && !state.is_late && !patience.is_zero() {
            if self.acknowledged.wait_until(&mut state, until).timed_out() {
                state.is_late = state.noted < fence;
            }
        }
        state.noted >= fence
    }

    /// The client has taken note of everything before a fence. One that was never sent says nothing.
    pub(crate) fn acknowledge(&self, fence: u64) {
        let mut state = self.state.lock();
        if fence <= state.fence.1 {
            state.noted = state.noted.max(fence);
            state.is_late = false;
        }
        drop(state);
        self.acknowledged.notify_all();
    }

    /// What is waiting, up to one message's worth; none if nothing is.
    pub(crate) fn take(&self) -> Option<Waiting> {
        let mut state = self.state.lock();
        let changes = state.drain();
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
            all: change.all,
            inode: change.ino,
            data: change.data,
            attributes: change.attr,
            ..Default::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::share::Common;
    use super::*;

    fn unbounded() -> Events {
        Events::new(Common::new(usize::MAX >> 1, 0).share())
    }

    #[test]
    fn all_queues_together_are_bounded_in_bytes() {
        let most = 1 << 20;
        let common = Common::new(most, 0);
        let mounts: Vec<_> = (0..64).map(|_| Events::new(common.share())).collect();
        let name: std::sync::Arc<[u8]> = vec![b'x'; 255].into();
        let change = Invalidation { ino: 1, name: Some(name), ..Invalidation::default() };
        for mount in mounts.iter().cycle().take(64 * 1000) {
            mount.push(&change);
        }
        let held = |events: &Events| {
            let state = events.state.lock();
            let spare = state.queue.capacity() * size_of::<v1::Invalidation>();
            spare + state.queue.iter().map(|change| change.name.len()).sum::<usize>()
        };
        // What makes it go on: a queue that collapsed begins anew, with the one "everything".
        let own = 64 * 8 * size_of::<v1::Invalidation>();
        let held: usize = mounts.iter().map(held).sum();
        assert!(held <= most + own, "{held}");
        let mut collapsed = 0;
        for mount in &mounts {
            let mut told = Vec::new();
            while let Some(waiting) = mount.take() {
                let bytes: usize = waiting.changes.iter().map(weight).sum();
                assert!(bytes <= MAX_BATCH_BYTES, "{bytes} bytes in one message");
                told.extend(waiting.changes);
            }
            assert!(told[0].all || told.len() == 1000, "nothing is lost without a word");
            collapsed += usize::from(told[0].all);
            assert_eq!(mount.state.lock().queue.capacity(), 0);
        }
        assert!(collapsed > mounts.len() / 2, "{collapsed}");
        assert!(common.share().take(most), "all room is given back");
    }

    #[test]
    fn a_slow_mount_is_told_to_forget_everything() {
        let events = unbounded();
        for ino in 0..MAX_WATCH_QUEUE as u64 + 5 {
            events.push(&Invalidation { ino, data: true, ..Invalidation::default() });
        }
        let left = events.take().unwrap().changes;
        // Four came after the one that found the queue full.
        assert!(left[0].all && left.len() == 5, "{}", left.len());
        assert!(events.take().is_none());
    }

    #[test]
    fn who_is_late_is_waited_for_again_when_it_says_how_far_it_is() {
        let events = unbounded();
        let change = Invalidation { ino: 1, ..Invalidation::default() };
        assert!(events.settle(Duration::ZERO), "there is nothing to take note of");
        events.push(&change);
        assert!(!events.settle(Duration::ZERO) && !events.state.lock().is_late, "only asked");
        assert!(!events.settle(Duration::from_millis(1)));
        // Would wait for ever.
        assert!(!events.settle(Duration::from_secs(3600)));
        events.acknowledge(7);
        assert!(!events.settle(Duration::from_secs(3600)), "what was never sent is not noted");
        assert_eq!(events.take().map(|w| (w.changes.len(), w.fence)), Some((1, 1)));
        events.acknowledge(1);
        assert!(events.settle(Duration::ZERO));
        events.push(&change);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| events.settle(Duration::from_secs(3600)));
            let fence = loop {
                match events.take() {
                    Some(waiting) if waiting.fence > 0 => break waiting.fence,
                    _ => std::thread::yield_now(),
                }
            };
            assert!(!waiting.is_finished());
            events.acknowledge(fence);
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn a_fence_comes_after_everything_before_it() {
        let events = unbounded();
        let change = Invalidation { ino: 1, ..Invalidation::default() };
        let one = MAX_BATCH.min(MAX_BATCH_BYTES / weight(&message(&change)));
        for _ in 0..one + 1 {
            events.push(&change);
        }
        assert_eq!((events.fence(), events.fence()), (1, 2));
        assert_eq!(events.take().map(|w| (w.changes.len(), w.fence)), Some((one, 0)));
        assert_eq!(events.take().map(|w| (w.changes.len(), w.fence)), Some((1, 2)));
        assert!(events.take().is_none());
        assert_eq!(events.fence(), 3);
        assert_eq!(events.take().map(|w| (w.changes.len(), w.fence)), Some((0, 3)));
    }
}
