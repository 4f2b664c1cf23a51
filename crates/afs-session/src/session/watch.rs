//! Who is told of changes: mounts and streams that keep copies.

use super::{Session, Who};
use afs_core::op::Op;
use afs_types::Ino;
use std::sync::Arc;

/// Boxed: nearly all of a million sessions have none.
#[allow(clippy::box_collection, reason = "bytes of an idle session")]
pub(super) type Watchers = Option<Box<Vec<Watcher>>>;

#[derive(Clone)]
pub(super) struct Watcher {
    who: Who,
    sink: Arc<dyn Fn(&Invalidation) + Send + Sync>,
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
    /// Everything changed (a restore).
    pub all: bool,
    /// The sequence number of the change.
    pub seq: u64,
}

impl Session {
    /// Tells everybody who watches to forget everything.
    pub(crate) fn tell_all(&self) {
        let (watchers, seq) = {
            let state = self.state.read();
            (state.watchers.clone(), state.seq)
        };
        let all = Invalidation { all: true, seq, ..Invalidation::default() };
        watchers.iter().flat_map(|w| w.iter()).for_each(|w| (w.sink)(&all));
    }

    /// Calls `sink` after every change by others until the guard is dropped. The sink must not block and not call back.
    pub fn watch(self: &Arc<Self>, who: Who, sink: Arc<dyn Fn(&Invalidation) + Send + Sync>) -> WatchGuard {
        self.state.write().watchers.get_or_insert_default().push(Watcher { who, sink: sink.clone() });
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

pub(super) fn tell(watchers: Option<&Vec<Watcher>>, who: Who, seq: u64, ops: &[Op]) {
    let Some(watchers) = watchers else { return };
    for op in ops {
        for event in events(op, seq) {
            for w in watchers.iter().filter(|w| w.who != who || who == 0) {
                (w.sink)(&event);
            }
        }
    }
}

/// What an operation makes stale.
fn events(op: &Op, seq: u64) -> Vec<Invalidation> {
    let inode = |ino: Ino, data: bool| Invalidation { ino, data, attr: true, seq, ..Invalidation::default() };
    let entry = |dir: Ino, name: &Arc<[u8]>| Invalidation {
        ino: dir,
        attr: true,
        data: true,
        name: Some(name.clone()),
        seq,
        ..Invalidation::default()
    };
    match op {
        Op::Create { parent, name, .. } => vec![entry(*parent, name)],
        Op::Link { ino, parent, name, .. } => vec![entry(*parent, name), inode(*ino, false)],
        Op::Unlink { parent, name, .. } => vec![entry(*parent, name)],
        Op::Rename { parent, name, new_parent, new_name, .. } => {
            vec![entry(*parent, name), entry(*new_parent, new_name)]
        }
        Op::SetAttr { ino, set, .. } => vec![inode(*ino, set.size.is_some())],
        Op::Write { ino, .. } | Op::Punch { ino, .. } | Op::Replace { ino, .. } => vec![inode(*ino, true)],
        Op::Xattr { ino, .. } => vec![inode(*ino, false)],
        Op::Reap { .. } | Op::Seal { .. } => Vec::new(),
    }
}
