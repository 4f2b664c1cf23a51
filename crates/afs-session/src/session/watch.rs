//! Who is told of changes: mounts and streams that keep copies.
//!
//! Guarantees: a watch goes on until its guard is dropped, whatever is tried with the session meanwhile: a deletion that is refused has
//! cost nobody a change. Whether a watch counts as use, so that the session is not archived or deleted without force, is the watcher's own
//! matter; the end of a session is told to all. A change of the API returns when everybody else has taken note of it ([`Told`]), so that whoever is
//! told of it, by whatever way, and then looks through a mount sees it; but it waits no longer than [`limits::MAX_TELL_MS`].

use super::{Session, Who};
use afs_core::op::Op;
use afs_core::tree::Tree;
use afs_types::{Ino, limits};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is left for one when others took all of the time: enough for it to be late.
const LEAST_PATIENCE: Duration = Duration::from_millis(1);

/// Boxed: nearly all of a million sessions have none.
#[allow(clippy::box_collection, reason = "bytes of an idle session")]
pub(super) type Watchers = Option<Box<Vec<Watcher>>>;

#[derive(Clone)]
pub(super) struct Watcher {
    who: Who,
    /// It keeps the session from being archived, and from being deleted without force.
    pub(super) is_use: bool,
    sink: Arc<dyn Fn(&Invalidation) + Send + Sync>,
    settle: Settle,
}

/// Waits until what a sink was told has reached whoever it is for: true; false when that took longer than it was given, after which it need not be
/// waited for again until it has. Given no time at all it only asks to be told, and says how it is now. Called without any lock.
pub type Settle = Arc<dyn Fn(Duration) -> bool + Send + Sync>;

/// Whom a change was told, to be waited for once no lock is held.
///
/// Only changes of the API wait. One of a mount holds its directory, or its pages, in its own kernel until it is answered: a server that is killed meanwhile
/// leaves its notifier waiting for those pages in the kernel, its device open for that, and so the caller without an answer for ever (two of four runs
/// of the kills, while such changes waited). The shorter a change of a mount takes the rarer that is.
#[must_use]
#[derive(Default)]
pub(super) struct Told(Vec<Settle>);

impl Told {
    pub(super) fn arrive(self) {
        // All are asked before one is waited for, and they share one time.
        let waited_for: Vec<_> = self.0.into_iter().filter(|settle| !settle(Duration::ZERO)).collect();
        if waited_for.is_empty() {
            return;
        }
        let until = Instant::now() + Duration::from_millis(limits::MAX_TELL_MS);
        for settle in waited_for {
            settle(until.saturating_duration_since(Instant::now()).max(LEAST_PATIENCE));
        }
    }
}

/// What a watcher must forget. `all` means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalidation {
    /// The inode.
    pub ino: Ino,
    /// Its bytes changed.
    pub data: bool,
    /// Its attributes changed.
    pub attr: bool,
    /// A name in directory `ino` changed what it names.
    pub name: Option<Arc<[u8]>>,
    /// Everything changed (a restore, the end of the session).
    pub all: bool,
    /// With `all`: the session has been deleted, and nothing comes after this.
    pub gone: bool,
    /// The sequence number of the change.
    pub seq: u64,
}

impl Session {
    /// Tells everybody who watches that the session has ended: `gone` for good, or archived.
    pub(crate) fn tell_end(&self, gone: bool) {
        let (watchers, seq) = {
            let state = self.state.read();
            (state.watchers.clone(), state.seq)
        };
        let all = Invalidation { all: true, gone, seq, ..Invalidation::default() };
        watchers.iter().flat_map(|w| w.iter()).for_each(|w| (w.sink)(&all));
    }

    /// Calls `sink` for every change by others until the guard is dropped, under the session's lock: it must not block and not
    /// call back. Whoever asks for the state because of it waits for the lock, and so sees the change. Those changes return when `settle` says that
    /// what was told has arrived.
    pub fn watch(
        self: &Arc<Self>,
        who: Who,
        sink: Arc<dyn Fn(&Invalidation) + Send + Sync>,
        settle: Settle,
    ) -> WatchGuard {
        self.add_watcher(who, true, sink, settle)
    }

    /// The same, by somebody who does not mind when the session is archived or deleted, and then lets go.
    pub fn watch_aside(
        self: &Arc<Self>,
        who: Who,
        sink: Arc<dyn Fn(&Invalidation) + Send + Sync>,
        settle: Settle,
    ) -> WatchGuard {
        self.add_watcher(who, false, sink, settle)
    }

    fn add_watcher(
        self: &Arc<Self>,
        who: Who,
        is_use: bool,
        sink: Arc<dyn Fn(&Invalidation) + Send + Sync>,
        settle: Settle,
    ) -> WatchGuard {
        let watcher = Watcher { who, is_use, sink: sink.clone(), settle };
        self.state.write().watchers.get_or_insert_default().push(watcher);
        WatchGuard { session: self.clone(), sink }
    }
}

/// Ends a watch when dropped. Holds its session in RAM.
pub struct WatchGuard {
    session: Arc<Session>,
    sink: Arc<dyn Fn(&Invalidation) + Send + Sync>,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        let mut state = self.session.state.write();
        if let Some(watchers) = state.watchers.as_mut() {
            watchers.retain(|w| !Arc::ptr_eq(&w.sink, &self.sink));
            if watchers.is_empty() {
                state.watchers = None;
            }
        }
    }
}

pub(super) fn tell(watchers: Option<&Vec<Watcher>>, who: Who, news: &[Invalidation]) -> Told {
    let mut told = Told::default();
    if news.is_empty() {
        return told;
    }
    for watcher in watchers.into_iter().flatten().filter(|w| w.who != who || who == 0) {
        news.iter().for_each(|event| (watcher.sink)(event));
        if who == 0 {
            told.0.push(watcher.settle.clone());
        }
    }
    told
}

/// What operations make stale, if anybody wants to know. `before` is the tree that they change.
pub(super) fn news(
    watchers: Option<&Vec<Watcher>>,
    before: &Tree,
    seq: u64,
    ops: &[Op],
) -> Vec<Invalidation> {
    match watchers {
        Some(_) => ops.iter().flat_map(|op| events(op, before, seq)).collect(),
        None => Vec::new(),
    }
}

/// What an operation makes stale. Of an inode that loses or changes a name, the attributes (links, time of change) that others may
/// know under another name.
fn events(op: &Op, before: &Tree, seq: u64) -> Vec<Invalidation> {
    let inode = |ino: Ino, data: bool| Invalidation { ino, data, attr: true, seq, ..Invalidation::default() };
    let entry = |dir: Ino, name: &Arc<[u8]>| Invalidation {
        ino: dir,
        attr: true,
        data: true,
        name: Some(name.clone()),
        seq,
        ..Invalidation::default()
    };
    let named = |dir: Ino, name: &[u8]| before.lookup(dir, name).map(|ino| inode(ino, false));
    match op {
        Op::Create { parent, name, .. } => vec![entry(*parent, name)],
        Op::Link { ino, parent, name, .. } => vec![entry(*parent, name), inode(*ino, false)],
        Op::Unlink { parent, name, .. } => {
            [Some(entry(*parent, name)), named(*parent, name)].into_iter().flatten().collect()
        }
        Op::Rename { parent, name, new_parent, new_name, .. } => {
            let entries = [Some(entry(*parent, name)), Some(entry(*new_parent, new_name))];
            let inodes = [named(*parent, name), named(*new_parent, new_name)];
            entries.into_iter().chain(inodes).flatten().collect()
        }
        Op::SetAttr { ino, set, .. } => vec![inode(*ino, set.size.is_some())],
        Op::Write { ino, .. } | Op::Punch { ino, .. } | Op::Replace { ino, .. } => vec![inode(*ino, true)],
        Op::Xattr { ino, .. } => vec![inode(*ino, false)],
        Op::Reap { .. } | Op::Seal { .. } => Vec::new(),
    }
}
