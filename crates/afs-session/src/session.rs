//! One session in RAM: its tree, its place in the journal, its handles and watchers.
//!
//! Guarantees: operations on a session are linearizable across surfaces: planning, applying and submitting to the journal
//! happen under one short lock, so the order in RAM and in the journal is the same; no I/O happens under it. Watchers are told after
//! the new state is visible, without a lock held. A batch of operations is all or nothing, in RAM and in the journal.
//! Deliberately absent: waiting for durability (callers decide) and every rule about trees (`afs-core`).

use crate::family::Family;
use crate::records::{HeadRec, LayerRec, Stored, head_key, layer_key, op_key};
use crate::shared::Shared;
use afs_core::op::{Op, Record};
use afs_core::tree::Tree;
use afs_store::{Batch, Position, Space};
use afs_types::{Error, Ino, LayerId, Reason, Result, SessionId};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Who makes a change; a watcher is not told of its own. 0 is nobody in particular.
pub type Who = u64;

/// A session that is in RAM. Obtained from the engine; holding it keeps the session from being evicted.
pub struct Session {
    id: SessionId,
    shared: Arc<Shared>,
    family: Arc<Family>,
    state: RwLock<State>,
    /// Last use, nanoseconds; for eviction only.
    used_ns: AtomicI64,
}

/// How often each inode is open. Boxed: nearly all of a million sessions have none, and a pointer is 40 bytes less each.
#[allow(clippy::box_collection, reason = "bytes of an idle session")]
type Handles = Option<Box<HashMap<Ino, u32>>>;
/// Boxed for the same reason.
#[allow(clippy::box_collection, reason = "bytes of an idle session")]
type Watchers = Option<Box<Vec<Watcher>>>;

pub(crate) struct State {
    tree: Tree,
    seq: u64,
    layer: LayerId,
    /// The layer under an owned one.
    below: LayerId,
    owned: bool,
    depth: u32,
    /// The tree at the start of the owned layer, from which its delta is made.
    layer_base: Tree,
    layer_seq: u64,
    block: Range<Ino>,
    last: Position,
    handles: Handles,
    watchers: Watchers,
}

#[derive(Clone)]
struct Watcher {
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

/// The instant of a session after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Sequence number, called revision in the API.
    pub seq: u64,
    /// Where the journal has it.
    pub at: Position,
}

/// A closed layer that wants folding: trees at its start and end.
pub(crate) struct FoldJob {
    pub(crate) below: Tree,
    pub(crate) cut: Cut,
    pub(crate) after: Position,
}

/// What a session was at one instant, for forks, checkpoints and commits.
#[derive(Clone)]
pub(crate) struct Cut {
    pub(crate) layer: LayerId,
    pub(crate) depth: u32,
    pub(crate) seq: u64,
    pub(crate) tree: Tree,
}

/// What a plan may look at.
pub(crate) struct Ctx<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) now_ns: i64,
    session: &'a Session,
    block: &'a mut Range<Ino>,
    handles: &'a Handles,
}

impl Ctx<'_> {
    /// A fresh inode number.
    pub(crate) fn new_ino(&mut self) -> Result<Ino> {
        if self.block.is_empty() {
            // Small first blocks, so that a million sessions that write a file each do not use up the numbers.
            let had = self.block.end.saturating_sub(self.block.start.min(self.block.end));
            *self.block = self.session.family.lease(&self.session.shared, if had == 0 { 16 } else { 64 })?;
        }
        self.block.next().ok_or_else(|| Reason::NoInodes.into())
    }
    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.handles.as_ref().is_some_and(|h| h.contains_key(&ino))
    }
}

/// Several operations that become visible and durable together.
pub(crate) struct Txn<'a> {
    tree: Tree,
    ops: Vec<Op>,
    seq: u64,
    now_ns: i64,
    session: &'a Session,
    block: &'a mut Range<Ino>,
    handles: &'a Handles,
}

impl Txn<'_> {
    /// Plans one operation on the tree as it is so far, and applies it. None: nothing to do.
    pub(crate) fn run(&mut self, plan: impl FnOnce(&mut Ctx<'_>) -> Result<Option<Op>>) -> Result<()> {
        let mut ctx = Ctx {
            tree: &self.tree,
            now_ns: self.now_ns,
            session: self.session,
            block: self.block,
            handles: self.handles,
        };
        if let Some(op) = plan(&mut ctx)? {
            self.seq += 1;
            self.tree.apply(&op, self.seq);
            self.ops.push(op);
        }
        Ok(())
    }
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }
    /// The session's revision before this transaction.
    pub(crate) fn revision(&self) -> u64 {
        self.seq - self.ops.len() as u64
    }
}

impl Session {
    pub(crate) fn new(
        id: SessionId,
        shared: Arc<Shared>,
        family: Arc<Family>,
        cut: Cut,
        owned_from: Option<(Tree, u64)>,
        last: Position,
    ) -> Arc<Self> {
        let used_ns = AtomicI64::new(shared.now_ns());
        let owned = owned_from.is_some();
        let (layer_base, layer_seq) = owned_from.unwrap_or_else(|| (cut.tree.clone(), cut.seq));
        let state = State {
            tree: cut.tree,
            seq: cut.seq,
            layer: cut.layer,
            below: cut.layer,
            owned,
            depth: cut.depth,
            layer_base,
            layer_seq,
            block: 0..0,
            last,
            handles: None,
            watchers: None,
        };
        Arc::new(Self { id, shared, family, state: RwLock::new(state), used_ns })
    }

    /// Its id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }
    /// Its base, shared with its family.
    pub fn family(&self) -> &Arc<Family> {
        &self.family
    }
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
    /// The tree at this instant. O(1).
    pub fn tree(&self) -> Tree {
        self.state.read().tree.clone()
    }
    /// The tree and the newest change at this instant. O(1).
    pub fn snapshot(&self) -> (Tree, Stamp) {
        let state = self.state.read();
        (state.tree.clone(), Stamp { seq: state.seq, at: state.last })
    }
    /// Runs on the current tree under the session's read lock: short, no I/O.
    pub(crate) fn with_tree<R>(&self, look: impl FnOnce(&Tree) -> R) -> R {
        look(&self.state.read().tree)
    }
    /// The newest change.
    pub fn stamp(&self) -> Stamp {
        let state = self.state.read();
        Stamp { seq: state.seq, at: state.last }
    }
    pub(crate) fn touch(&self) {
        self.used_ns.store(self.shared.now_ns(), Ordering::Relaxed);
    }
    pub(crate) fn used_ns(&self) -> i64 {
        self.used_ns.load(Ordering::Relaxed)
    }
    /// True when nobody has files open or watches.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.read();
        state.handles.is_none() && state.watchers.is_none()
    }
    /// Mounts and streams that watch.
    pub fn watcher_count(&self) -> usize {
        self.state.read().watchers.as_ref().map_or(0, |w| w.len())
    }

    /// One operation, planned and applied under the lock. None: nothing to do.
    pub(crate) fn one<R>(
        &self,
        who: Who,
        op_id: u64,
        plan: impl FnOnce(&mut Ctx<'_>) -> Result<Option<Op>>,
        result: impl FnOnce(&Tree, &Op) -> R,
    ) -> Result<(Option<R>, Stamp)> {
        let now_ns = self.shared.now_ns();
        let mut guard = self.state.write();
        let state = &mut *guard;
        let mut ctx = Ctx {
            tree: &state.tree,
            now_ns,
            session: self,
            block: &mut state.block,
            handles: &state.handles,
        };
        let Some(op) = plan(&mut ctx)? else {
            return Ok((None, Stamp { seq: state.seq, at: state.last }));
        };
        let mut batch = Batch::new();
        self.open_layer(state, &mut batch)?;
        let seq = state.seq + 1;
        batch.put(Space::Record, op_key(state.layer, seq), self.record(op_id, &op));
        // Submitted first: if the journal refuses (full disk, shutdown) nothing has changed.
        state.last = self.submit(state, batch)?;
        state.tree.apply(&op, seq);
        state.seq = seq;
        let stamp = Stamp { seq, at: state.last };
        let answer = result(&state.tree, &op);
        let watchers = state.watchers.clone();
        drop(guard);
        tell(watchers.as_deref(), who, seq, std::slice::from_ref(&op));
        Ok((Some(answer), stamp))
    }

    /// Several operations, all or nothing. `extra` adds records to the same batch (a remembered request).
    pub(crate) fn many<R>(
        &self,
        who: Who,
        change: impl FnOnce(&mut Txn<'_>) -> Result<R>,
        extra: impl FnOnce(&R, u64, &mut Batch),
    ) -> Result<(R, Stamp)> {
        let now_ns = self.shared.now_ns();
        let mut guard = self.state.write();
        let state = &mut *guard;
        let mut txn = Txn {
            tree: state.tree.clone(),
            ops: Vec::new(),
            seq: state.seq,
            now_ns,
            session: self,
            block: &mut state.block,
            handles: &state.handles,
        };
        let answer = change(&mut txn)?;
        let Txn { tree, ops, seq: last_seq, .. } = txn;
        let mut batch = Batch::new();
        extra(&answer, last_seq, &mut batch);
        if ops.is_empty() && batch.is_empty() {
            return Ok((answer, Stamp { seq: state.seq, at: state.last }));
        }
        if !ops.is_empty() {
            self.open_layer(state, &mut batch)?;
        }
        for (seq, op) in (state.seq + 1..).zip(&ops) {
            batch.put(Space::Record, op_key(state.layer, seq), self.record(0, op));
        }
        state.last = self.submit(state, batch)?;
        state.tree = tree;
        state.seq = last_seq;
        let stamp = Stamp { seq: last_seq, at: state.last };
        let watchers = state.watchers.clone();
        drop(guard);
        tell(watchers.as_deref(), who, last_seq, &ops);
        Ok((answer, stamp))
    }

    /// Like [`Session::many`] on a copy: no lock, no effect, inode numbers that mean nothing.
    pub(crate) fn dry<R>(&self, change: impl FnOnce(&mut Txn<'_>) -> Result<R>) -> Result<R> {
        let (tree, stamp) = self.snapshot();
        let now_ns = self.shared.now_ns();
        let mut block = afs_types::limits::MAX_INO + 1..Ino::MAX;
        change(&mut Txn {
            tree,
            ops: Vec::new(),
            seq: stamp.seq,
            now_ns,
            session: self,
            block: &mut block,
            handles: &None,
        })
    }

    fn record(&self, op_id: u64, op: &Op) -> Vec<u8> {
        Record { epoch: self.shared.epoch, op_id, op: op.clone() }.encode()
    }

    /// A journal that refuses leaves the head of a layer that was just opened unwritten: give it back.
    fn submit(&self, state: &mut State, batch: Batch) -> Result<Position> {
        let opened = state.owned && state.seq == state.layer_seq;
        self.shared.submit(batch).inspect_err(|_| {
            if opened {
                state.owned = false;
                state.layer = state.below;
                state.depth -= 1;
            }
        })
    }

    /// Makes sure the session has a layer of its own to append to.
    fn open_layer(&self, state: &mut State, batch: &mut Batch) -> Result<()> {
        if state.owned {
            return Ok(());
        }
        let layer = self.shared.new_layer()?;
        let record = LayerRec {
            parent: state.layer,
            delta_parent: None,
            seq: state.seq,
            entries: 0,
            depth: state.depth + 1,
        };
        batch.put(Space::Layer, layer_key(layer), record.encode());
        let head = HeadRec { layer, owned: true, seq: state.seq };
        batch.put(Space::Session, head_key(&self.id), head.encode());
        state.layer_base = state.tree.clone();
        state.layer_seq = state.seq;
        state.below = state.layer;
        state.layer = layer;
        state.depth += 1;
        state.owned = true;
        Ok(())
    }

    /// Freezes this instant, so that others can stand on it. `batch` adds what the caller makes of it; all is one batch.
    /// The layer is not appended to any more; the next change opens a new one.
    pub(crate) fn cut(
        &self,
        batch: impl FnOnce(&Cut, &mut Batch) -> Result<()>,
    ) -> Result<(Cut, Position, Option<FoldJob>)> {
        let mut guard = self.state.write();
        let state = &mut *guard;
        let cut = Cut { layer: state.layer, depth: state.depth, seq: state.seq, tree: state.tree.clone() };
        let mut changes = Batch::new();
        if state.owned {
            let head = HeadRec { layer: state.layer, owned: false, seq: state.seq };
            changes.put(Space::Session, head_key(&self.id), head.encode());
        }
        batch(&cut, &mut changes)?;
        let at = if changes.is_empty() { state.last } else { self.shared.submit(changes)? };
        state.last = state.last.max(at);
        let job =
            state.owned.then(|| FoldJob { below: state.layer_base.clone(), cut: cut.clone(), after: at });
        state.owned = false;
        // Nothing is appended to this layer any more: let go of the nodes that only its start needs.
        state.layer_base = state.tree.clone();
        Ok((cut, at, job))
    }

    /// Puts the session on another instant of its family (a restore), if it still is at `if_revision`. The sequence number
    /// grows by one. `batch` sees the instant before, to keep it.
    pub(crate) fn jump(
        &self,
        to: &Cut,
        if_revision: Option<u64>,
        batch: impl FnOnce(&Cut, u64, &mut Batch),
    ) -> Result<(Stamp, Cut, Option<FoldJob>)> {
        let mut guard = self.state.write();
        let state = &mut *guard;
        if if_revision.is_some_and(|want| want != state.seq) {
            let message = format!("{} is at revision {}, not the one given", self.id, state.seq);
            return Err(Error::new(Reason::RevisionMismatch, message).with("revision", state.seq.to_string()));
        }
        let before = Cut { layer: state.layer, depth: state.depth, seq: state.seq, tree: state.tree.clone() };
        let seq = state.seq + 1;
        let mut changes = Batch::new();
        let head = HeadRec { layer: to.layer, owned: false, seq };
        changes.put(Space::Session, head_key(&self.id), head.encode());
        batch(&before, seq, &mut changes);
        let at = self.shared.submit(changes)?;
        let job =
            state.owned.then(|| FoldJob { below: state.layer_base.clone(), cut: before.clone(), after: at });
        state.tree = to.tree.clone();
        state.layer_base = to.tree.clone();
        (state.layer, state.depth, state.owned) = (to.layer, to.depth, false);
        (state.seq, state.last) = (seq, at);
        let watchers = state.watchers.clone();
        drop(guard);
        let all = Invalidation { all: true, seq, ..Invalidation::default() };
        watchers.iter().flat_map(|w| w.iter()).for_each(|w| (w.sink)(&all));
        Ok((Stamp { seq, at }, before, job))
    }

    /// Records in the session's own layer that a fold would replace.
    pub(crate) fn unfolded(&self) -> u64 {
        let state = self.state.read();
        if state.owned { state.seq - state.layer_seq } else { 0 }
    }

    /// Keeps an inode alive while it has no name.
    pub(crate) fn hold(&self, ino: Ino) -> Result<()> {
        let mut state = self.state.write();
        state.tree.attr(ino).ok_or(Reason::Stale)?;
        *state.handles.get_or_insert_default().entry(ino).or_insert(0) += 1;
        Ok(())
    }

    /// Ends a hold. True when it was the last and the inode has no name any more.
    pub(crate) fn unhold(&self, ino: Ino) -> bool {
        let mut guard = self.state.write();
        let state = &mut *guard;
        let Some(handles) = state.handles.as_mut() else { return false };
        let Some(count) = handles.get_mut(&ino) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        handles.remove(&ino);
        if handles.is_empty() {
            state.handles = None;
        }
        state.tree.attr(ino).is_some_and(|a| a.nlink == 0)
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

fn tell(watchers: Option<&Vec<Watcher>>, who: Who, seq: u64, ops: &[Op]) {
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
