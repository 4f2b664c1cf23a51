//! Takes back what the kernel was told, when others change it.
//!
//! The file system reports changes into a bounded queue and goes on; threads that hold no lock send them to the
//! kernel. Measured: an invalidation sent from inside a request handler deadlocks with any number of
//! threads (page lock, directory lock); one sent from here waits at worst for the request that holds that lock.
//! A full queue is not an error: everything the kernel knows is then invalidated, which is always right.
//!
//! The one race the kernel leaves open: a look-up is answered with attributes, the change is reported, and
//! its invalidation arrives before the kernel has made the inode. Two things close it: an answer during which
//! anything was reported gets attributes that expire at once ([`Queue::epoch`]), and an invalidation of
//! an inode that the kernel does not have is repeated a little later.

use crate::counters::Counting;
use crate::known::Known;
use crate::vfs::Invalidation;
use afs_types::{Ino, limits};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One thread may wait for a directory whose look-up waits for a network; the other goes on.
const THREADS: usize = 2;
/// How long after an answer the kernel has surely made the inode of it.
const REPEAT_AFTER: Duration = Duration::from_millis(50);

/// Changes waiting to be told to the kernel.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    epoch: AtomicU64,
}

#[derive(Default)]
struct State {
    /// With their numbers, which grow.
    items: VecDeque<(u64, Item)>,
    /// Inodes in `items`, and whether their data is to go too: a file written 1,000 times is one item.
    inodes: HashMap<Ino, bool>,
    repeats: VecDeque<Repeat>,
    everything: bool,
    /// Numbers of what is being sent; 0 for everything.
    sending: Vec<u64>,
    /// The number of the newest change.
    newest: u64,
    /// Telling took too long, and is not over before this number is told.
    late: Option<u64>,
    closed: bool,
}

struct Repeat {
    due: Instant,
    ino: Ino,
    data: bool,
    number: u64,
}

enum Item {
    Inode(Ino),
    Entry(Ino, Box<[u8]>),
    Range(Ino, Ino, bool),
}

/// What a thread does next.
enum Step {
    Everything,
    Inode { ino: Ino, data: bool, repeat: bool },
    Entry(Ino, Box<[u8]>),
    Range { inodes: RangeInclusive<Ino>, names: bool },
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), epoch: AtomicU64::new(0) }
    }

    /// Grows with every reported change.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Reports a change. Never blocks on the kernel, so it may be called under locks and from handlers.
    pub(crate) fn push(&self, change: Invalidation) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let mut state = self.state.lock();
        state.newest += 1;
        if state.everything || state.closed {
            return; // what is about to be done covers it
        }
        match change {
            Invalidation::Inode { ino, data } => state.add_inode(ino, data),
            Invalidation::Entry { parent, name } => {
                let number = state.newest;
                state.items.push_back((number, Item::Entry(parent, name)));
                // The kernel drops a cached listing only if it also held the name: say it separately.
                state.add_inode(parent, true);
            }
            Invalidation::Range { first, last, names } => {
                let number = state.newest;
                state.items.push_back((number, Item::Range(first, last, names)));
            }
            Invalidation::Everything => state.overflow(),
        }
        if state.items.len() >= limits::MAX_WATCH_QUEUE {
            tracing::warn!(
                limit = limits::MAX_WATCH_QUEUE,
                "too many changes by others: dropping all kernel caches"
            );
            state.overflow();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until everything reported so far has reached the kernel; false if that took too long.
    pub(crate) fn settle(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        while !state.is_idle() {
            if state.closed || self.changed.wait_until(&mut state, until).timed_out() {
                return state.is_idle();
            }
        }
        true
    }

    /// The same, and also everything that was reported while the kernel was about to learn of the inode: afterwards no answer
    /// of the kernel is older than what was reported before the call.
    pub(crate) fn settle_all(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        // Not until nothing is left: others may change something all the time.
        let newest = state.newest;
        while state.is_pending(newest) {
            if state.closed || self.changed.wait_until(&mut state, until).timed_out() {
                return !state.is_pending(newest);
            }
        }
        true
    }

    /// Waits until what was reported so far has been told to the kernel. After it took too long once, nobody waits again before all has been told.
    pub(crate) fn told(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        // What is repeated has been told; an answer of that time expires at once.
        let newest = state.newest;
        while state.is_untold(newest) {
            if state.closed {
                return true; // nobody asks this kernel any more
            }
            if patience.is_zero() || state.is_late() {
                return false;
            }
            if self.changed.wait_until(&mut state, until).timed_out() {
                state.late = Some(newest).filter(|newest| state.is_untold(*newest));
                return state.late.is_none();
            }
        }
        true
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// The next thing to send; none when closed. The caller says [`Queue::sent`] afterwards.
    fn next(&self) -> Option<(u64, Step)> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some((number, step)) = state.take() {
                state.sending.push(number);
                return Some((number, step));
            }
            match state.repeats.front().map(|repeat| repeat.due) {
                Some(due) => {
                    self.changed.wait_until(&mut state, due);
                }
                None => self.changed.wait(&mut state),
            }
        }
    }

    fn sent(&self, number: u64, repeat: Option<(Ino, bool)>) {
        let mut state = self.state.lock();
        if let Some(at) = state.sending.iter().position(|n| *n == number) {
            state.sending.swap_remove(at);
        }
        if let Some((ino, data)) = repeat {
            state.repeats.push_back(Repeat { due: Instant::now() + REPEAT_AFTER, ino, data, number });
            if state.repeats.len() > limits::MAX_WATCH_QUEUE {
                state.overflow();
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    fn add_inode(&mut self, ino: Ino, data: bool) {
        match self.inodes.get_mut(&ino) {
            Some(pending) => *pending |= data,
            None => {
                self.inodes.insert(ino, data);
                self.items.push_back((self.newest, Item::Inode(ino)));
            }
        }
    }

    fn overflow(&mut self) {
        self.everything = true;
        self.items.clear();
        self.inodes.clear();
        self.repeats.clear();
    }

    fn take(&mut self) -> Option<(u64, Step)> {
        if std::mem::take(&mut self.everything) {
            return Some((0, Step::Everything));
        }
        match self.items.pop_front() {
            Some((number, Item::Inode(ino))) => {
                let data = self.inodes.remove(&ino).unwrap_or(true);
                return Some((number, Step::Inode { ino, data, repeat: true }));
            }
            Some((number, Item::Entry(parent, name))) => return Some((number, Step::Entry(parent, name))),
            Some((number, Item::Range(first, last, names))) => {
                return Some((number, Step::Range { inodes: first..=last, names }));
            }
            None => {}
        }
        let due = self.repeats.front().is_some_and(|repeat| repeat.due <= Instant::now());
        let Repeat { ino, data, number, .. } = self.repeats.pop_front_if(|_| due)?;
        Some((number, Step::Inode { ino, data, repeat: false }))
    }

    /// Whether anything up to this number is still to be told, repeats included.
    fn is_pending(&self, number: u64) -> bool {
        self.is_untold(number) || self.repeats.iter().any(|repeat| repeat.number <= number)
    }

    /// Until that is told, also if there is more by then.
    fn is_late(&mut self) -> bool {
        self.late = self.late.filter(|number| self.is_untold(*number));
        self.late.is_some()
    }

    /// The same without repeats.
    fn is_untold(&self, number: u64) -> bool {
        self.items.front().is_some_and(|(n, _)| *n <= number)
            || self.everything
            || self.sending.iter().any(|n| *n <= number)
    }

    /// Repeats do not count: the change itself has been told.
    fn is_idle(&self) -> bool {
        self.items.is_empty() && !self.everything && self.sending.is_empty()
    }
}

/// The threads that send, and the device they send to.
pub(crate) struct Notifier {
    queue: Arc<Queue>,
    known: Arc<Known>,
    counting: Arc<Counting>,
    device: Mutex<Option<Arc<File>>>,
    /// Whether the kernel can drop all names in one call (protocol 7.44, Linux 6.16).
    epochs: AtomicBool,
}

impl Notifier {
    pub(crate) fn new(
        queue: Arc<Queue>,
        known: Arc<Known>,
        counting: Arc<Counting>,
        device: File,
    ) -> Arc<Self> {
        let device = Mutex::new(Some(Arc::new(device)));
        Arc::new(Self { queue, known, counting, device, epochs: AtomicBool::new(false) })
    }

    pub(crate) fn use_epochs(&self) {
        self.epochs.store(true, Ordering::Relaxed);
    }

    pub(crate) fn start(self: &Arc<Self>) -> io::Result<()> {
        for number in 0..THREADS {
            let this = self.clone();
            std::thread::Builder::new().name(format!("afs-notify-{number}")).spawn(move || this.run())?;
        }
        Ok(())
    }

    /// Ends the threads and lets go of the device: the kernel ends a connection only when nobody holds it open.
    pub(crate) fn close(&self) {
        self.queue.close();
        *self.device.lock() = None;
    }

    /// Whether the kernel still has a mount for this connection. Numbers of connections are used again
    /// by the next mount, so a number alone says nothing once this one has ended.
    pub(crate) fn is_connected(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let Some(device) = self.device.lock().clone() else { return false };
        let mut fds = [PollFd::new(&*device, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(_) => !fds[0].revents().contains(PollFlags::ERR),
            Err(_) => true, // interrupted: the mount table decides
        }
    }

    fn run(&self) {
        while let Some((number, step)) = self.queue.next() {
            let Some(device) = self.device.lock().clone() else { return };
            let repeat = match step {
                Step::Everything => {
                    self.counting.full_invalidations.one();
                    self.range(&device, &(0..=Ino::MAX), true);
                    None
                }
                Step::Range { inodes, names } => {
                    self.range(&device, &inodes, names);
                    None
                }
                Step::Inode { ino, data, repeat } => {
                    let absent = self.inode(&device, ino, data).is_err_and(|e| is_absent(&e));
                    (absent && repeat).then_some((ino, data))
                }
                Step::Entry(parent, name) => {
                    self.entry(&device, parent, &name);
                    None
                }
            };
            drop(device);
            self.queue.sent(number, repeat);
        }
    }

    /// Everything that the kernel knows of these inodes. Dropping all names at once is always right: those that still lead where they did
    /// cost a look-up each.
    fn range(&self, device: &File, inodes: &RangeInclusive<Ino>, names: bool) {
        let dropped = !names
            || (self.epochs.load(Ordering::Relaxed) && log_failure(send(device, INC_EPOCH, &[])).is_ok());
        if !dropped {
            for (parent, name) in self.known.names(inodes) {
                self.entry(device, parent, &name);
            }
        }
        for ino in self.known.inodes(inodes) {
            let _ = self.inode(device, ino, true); // failures are logged; an unknown inode is what we want
        }
    }

    fn inode(&self, device: &File, ino: Ino, data: bool) -> io::Result<()> {
        self.counting.inode_invalidations.one();
        let offset: i64 = if data { 0 } else { -1 }; // negative: attributes only
        let length: i64 = 0; // to the end
        let body = [&ino.to_ne_bytes()[..], &offset.to_ne_bytes(), &length.to_ne_bytes()].concat();
        log_failure(send(device, INVAL_INODE, &body))
    }

    fn entry(&self, device: &File, parent: Ino, name: &[u8]) {
        self.counting.entry_invalidations.one();
        let length = name.len() as u32; // a name has at most 255 bytes
        let body =
            [&parent.to_ne_bytes()[..], &length.to_ne_bytes(), &0u32.to_ne_bytes(), name, b"\0"].concat();
        let _ = log_failure(send(device, INVAL_ENTRY, &body)); // an unknown name is what we want
    }
}

// Numbers of `enum fuse_notify_code` in linux/fuse.h.
const INVAL_INODE: i32 = 2;
const INVAL_ENTRY: i32 = 3;
const INC_EPOCH: i32 = 8;

/// One notification = one write: length, code in the place of an error, 0 in the place of a request's number.
fn send(mut device: &File, code: i32, body: &[u8]) -> io::Result<()> {
    let length = (16 + body.len()) as u32;
    let message = [&length.to_ne_bytes()[..], &code.to_ne_bytes(), &0u64.to_ne_bytes(), body].concat();
    device.write(&message).map(drop)
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

/// "Not there" is no failure, and neither is a mount that ends.
fn log_failure(sent: io::Result<()>) -> io::Result<()> {
    if let Err(error) = &sent
        && !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EPERM | libc::ENOTCONN))
    {
        tracing::warn!(%error, "the kernel refused an invalidation");
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(queue: &Queue) -> Vec<String> {
        let mut out = Vec::new();
        let mut state = queue.state.lock();
        while let Some((_, step)) = state.take() {
            out.push(match step {
                Step::Everything => "all".into(),
                Step::Inode { ino, data, .. } => format!("{ino}{}", if data { "+data" } else { "" }),
                Step::Entry(parent, name) => format!("{parent}/{}", String::from_utf8_lossy(&name)),
                Step::Range { inodes, names } => format!("{inodes:?}{}", if names { "+names" } else { "" }),
            });
        }
        out
    }

    #[test]
    fn many_changes_of_one_inode_are_one_notification() {
        let queue = Queue::new();
        for i in 0..100_000 {
            queue.push(Invalidation::Inode { ino: 5, data: i == 77 });
        }
        queue.push(Invalidation::Inode { ino: 6, data: false });
        assert_eq!(steps(&queue), ["5+data", "6"]);
        assert_eq!(queue.epoch(), 100_001);
    }

    #[test]
    fn a_name_takes_its_directory_along() {
        let queue = Queue::new();
        queue.push(Invalidation::Entry { parent: 1, name: b"x"[..].into() });
        queue.push(Invalidation::Entry { parent: 1, name: b"y"[..].into() });
        assert_eq!(steps(&queue), ["1/x", "1+data", "1/y"]);
    }

    #[test]
    fn a_range_keeps_its_place_and_everything_covers_it() {
        let queue = Queue::new();
        let range = |names| Invalidation::Range { first: 16, last: 31, names };
        queue.push(Invalidation::Inode { ino: 5, data: false });
        queue.push(range(true));
        queue.push(range(false));
        let newest = queue.state.lock().newest;
        assert!(queue.state.lock().is_pending(newest) && !queue.settle(Duration::ZERO));
        assert_eq!(steps(&queue), ["5", "16..=31+names", "16..=31"]);
        queue.push(range(true));
        queue.push(Invalidation::Everything);
        assert_eq!(steps(&queue), ["all"]);
    }

    #[test]
    fn who_waits_does_not_wait_for_what_comes_later() {
        let queue = Queue::new();
        queue.push(Invalidation::Inode { ino: 1, data: true });
        let newest = queue.state.lock().newest;
        let (first, _) = queue.next().unwrap();
        queue.push(Invalidation::Inode { ino: 2, data: true });
        assert!(queue.state.lock().is_pending(newest), "it is being sent");
        queue.sent(first, Some((1, true)));
        assert!(queue.state.lock().is_pending(newest), "it is to be repeated");
        queue.state.lock().repeats.clear();
        assert!(!queue.state.lock().is_pending(newest), "the other came later");
        assert!(!queue.settle(Duration::ZERO), "and waits");
        queue.push(Invalidation::Everything);
        assert!(queue.state.lock().is_pending(newest), "what it stands for is not known");
    }

    #[test]
    fn who_is_late_is_not_waited_for_until_all_is_told() {
        let queue = Queue::new();
        assert!(queue.told(Duration::ZERO));
        queue.push(Invalidation::Inode { ino: 1, data: true });
        assert!(!queue.told(Duration::ZERO) && !queue.state.lock().is_late(), "only asked");
        assert!(!queue.told(Duration::from_millis(1)));
        let (first, _) = queue.next().unwrap();
        queue.push(Invalidation::Inode { ino: 2, data: true });
        // Would wait for ever.
        assert!(!queue.told(Duration::from_secs(3600)));
        queue.sent(first, Some((1, true)));
        // What it was late with is told: the next is waited for, also if the queue is never empty.
        assert!(!queue.state.lock().is_late());
        assert!(!queue.told(Duration::from_millis(1)) && queue.state.lock().is_late());
        let (second, _) = queue.next().unwrap();
        queue.sent(second, None);
        assert!(queue.told(Duration::ZERO), "a repeat is told already");
        queue.push(Invalidation::Everything);
        assert!(!queue.told(Duration::ZERO));
        queue.close();
        assert!(queue.told(Duration::from_secs(3600)));
    }

    #[test]
    fn overflow_is_everything_and_memory_is_bounded() {
        let queue = Queue::new();
        for ino in 0..3 * limits::MAX_WATCH_QUEUE as u64 {
            queue.push(Invalidation::Inode { ino, data: true });
            assert!(queue.state.lock().items.len() < limits::MAX_WATCH_QUEUE);
        }
        assert_eq!(steps(&queue), ["all"]);
        queue.push(Invalidation::Inode { ino: 9, data: true });
        assert_eq!(steps(&queue), ["9+data"]);
    }
}
