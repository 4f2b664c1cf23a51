//! One session in RAM: its tree, its place in the journal, its handles and watchers.
//!
//! Guarantees: operations on a session are linearizable across surfaces: planning, applying and submitting to the journal
//! happen under one short lock, so the order in RAM and in the journal is the same; no I/O happens under it. Watchers are told under
//! it too, in order: whoever sees a state knows that its watchers have heard of it. A batch of operations is all or nothing, in RAM and
//! in the journal. Once a session is archived or deleted, whoever still holds it is refused: nothing is appended behind the batch that ended it.
//! An inode that lost its last name while it was open is reaped when nobody has it open any more: by its last release, or, where that
//! cannot come (it was open before a crash, or in the parent of a fork), together with a later change ([`State::due_reaps`]).
//! Deliberately absent: waiting for durability (callers decide) and every rule about trees (`afs-core`).

mod handles;
mod life;
mod room;
mod watch;

use crate::family::Family;
use crate::overlays::{Own, Reserved, Share};
use crate::past::{Before, Past};
use crate::records::{StartRec, Stored, op_key, start_key};
use crate::segments;
use crate::shared::Shared;
use afs_core::extent::Content;
use afs_core::op::{Op, Record};
use afs_core::tree::Tree;
use afs_store::{Batch, Position, Space};
use afs_types::{Error, Ino, LayerId, Reason, Result, SessionId, limits};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

pub(crate) use life::apply_seals;
pub(crate) use room::all_full;
pub use watch::{Invalidation, Settle, WatchGuard};
use watch::{Watchers, news, tell};

/// Who makes a change; a watcher is not told of its own. 0 is nobody in particular.
pub type Who = u64;

/// A session that is in RAM. Obtained from the engine; holding it keeps the session from being evicted.
pub struct Session {
    /// Itself, for work that goes on in the background.
    me: Weak<Session>,
    id: SessionId,
    /// When it was made, nanoseconds; with the id the name of this session among all that have had the id.
    created_ns: i64,
    shared: Arc<Shared>,
    family: Arc<Family>,
    state: RwLock<State>,
    /// Last use, nanoseconds; for eviction only.
    used_ns: AtomicI64,
}

/// How often each inode is open. Boxed: nearly all of a million sessions have none, and a pointer is 40 bytes less each.
#[allow(clippy::box_collection, reason = "bytes of an idle session")]
type Handles = Option<Box<HashMap<Ino, u32>>>;
/// Whether a session takes calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// Registered, so that its id is taken; the batch that makes it is not submitted yet.
    Coming,
    Open,
    Archived,
    Deleted,
}

pub(crate) struct State {
    tree: Tree,
    /// What the tree takes of the RAM for overlays.
    own: Own,
    seq: u64,
    place: Place,
    /// Where this session went on in this start of the server; none before its first change there.
    start: Option<StartRec>,
    block: Range<Ino>,
    /// The segment of the data log that was last noted as named by this layer (`segments`).
    segment: u32,
    last: Position,
    /// When it last changed, nanoseconds.
    changed_ns: i64,
    life: Life,
    handles: Handles,
    watchers: Watchers,
    /// From this time on, in nanoseconds, inodes without a name that nobody has open are nobody's: `i64::MAX` if there is none but those
    /// that their last release reaps.
    reap_after_ns: i64,
    /// What mounts did before this start, as long as they may come back and ask. None: nobody knows.
    past: Option<Box<Past>>,
}

/// Where a session stands in the tree of layers.
#[derive(Clone)]
struct Place {
    layer: LayerId,
    depth: u32,
    /// The tree at the start of an owned layer, from which its delta is made. None if the session has no layer of its own, as nearly all
    /// idle forks: boxed, so that they pay for a pointer.
    start: Option<Box<Start>>,
    start_seq: u64,
}

/// A tree, and what keeps it counted.
#[derive(Clone)]
struct Start {
    tree: Tree,
    _share: Option<Arc<Share>>,
}

impl Place {
    /// Whether the session may append to the layer.
    fn is_owned(&self) -> bool {
        self.start.is_some()
    }
}

impl State {
    fn check(&self, id: &SessionId) -> Result<()> {
        match self.life {
            Life::Open => Ok(()),
            Life::Archived => Err(archived(id)),
            Life::Coming | Life::Deleted => Err(id.not_found()),
        }
    }
    fn cut(&self) -> CutRef<'_> {
        let Place { layer, depth, .. } = self.place;
        CutRef { layer, depth, seq: self.seq, tree: &self.tree, share: self.own.shared() }
    }
    /// The number after which the next change is numbered. In each start of the server a session's numbers begin anew, above all that a
    /// crash can have taken back, so that no number, and nothing made of one (a revision, an etag), ever means two changes.
    fn base_seq(&self) -> u64 {
        if self.start.is_some() { self.seq } else { self.seq + limits::SEQ_STEP_PER_START }
    }
    fn stamp(&self) -> Stamp {
        Stamp { seq: self.seq, at: self.last }
    }
    /// Notes, with the record, which segments of the data log its layer names.
    fn note_segments(&mut self, op: &Op, batch: &mut Batch) {
        op.for_segments(&mut |segment| {
            if segment != self.segment {
                segments::note(self.place.layer, segment, batch);
                self.segment = segment;
            }
        });
    }
    /// What is to be reaped together with a change that leads to `tree`.
    fn due_reaps(&self, tree: &Tree, now_ns: i64) -> Vec<Op> {
        if self.reap_after_ns > now_ns {
            return Vec::new();
        }
        let is_open = |ino: &Ino| self.handles.as_ref().is_some_and(|h| h.contains_key(ino));
        let nobodys = tree.unnamed().filter(|ino| !is_open(ino)).take(limits::MAX_REAPS);
        nobodys.map(|ino| Op::Reap { ino }).collect()
    }
    /// Those are reaped. What is left is open now, and goes with its last release.
    fn reaped(&mut self, now_ns: i64, count: usize) {
        if self.reap_after_ns <= now_ns && count < limits::MAX_REAPS {
            self.reap_after_ns = i64::MAX;
        }
        if self.past.as_ref().is_some_and(|past| past.until_ns <= now_ns) {
            self.past = None;
        }
    }
    /// Whether it may be neither archived nor deleted without force.
    fn in_use(&self) -> bool {
        self.handles.is_some() || self.mounts() > 0
    }
    /// Mounts of this session alone.
    fn mounts(&self) -> usize {
        self.watchers.iter().flat_map(|all| all.iter()).filter(|w| w.is_use).count()
    }
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
    /// The session that made the layer, which lets go of the data log when its bytes are sealed.
    pub(crate) session: Weak<Session>,
}

/// A file whose bytes are in blobs now: its number, the version they are of, and the content that names them.
pub(crate) type Sealed = (Ino, u64, Content);

/// What a change that ended a layer leaves behind: how to undo it, and the layer to fold.
struct Opened {
    before: Place,
    job: Option<Box<FoldJob>>,
}

/// What ended with the end of a hold.
pub(crate) enum Unheld {
    /// It was not held.
    Nothing,
    /// One of several, or the inode has a name.
    Hold,
    /// The inode's last link to the world.
    Inode,
}

/// What a session was at one instant, for forks, checkpoints and commits.
#[derive(Clone)]
pub(crate) struct Cut {
    pub(crate) layer: LayerId,
    pub(crate) depth: u32,
    pub(crate) seq: u64,
    pub(crate) tree: Tree,
    /// What the tree takes of the RAM for overlays, all but what is its session's own.
    pub(crate) share: Option<Arc<Share>>,
}

/// The same while the session's lock is held: the tree is still the session's, and only who keeps it copies it.
pub(crate) struct CutRef<'a> {
    pub(crate) layer: LayerId,
    pub(crate) depth: u32,
    pub(crate) seq: u64,
    pub(crate) tree: &'a Tree,
    pub(crate) share: Option<&'a Arc<Share>>,
}

impl Cut {
    pub(crate) fn view(&self) -> CutRef<'_> {
        let Self { layer, depth, seq, ref tree, ref share } = *self;
        CutRef { layer, depth, seq, tree, share: share.as_ref() }
    }
}

impl CutRef<'_> {
    pub(crate) fn to_cut(&self) -> Cut {
        let Self { layer, depth, seq, tree, share } = *self;
        Cut { layer, depth, seq, tree: tree.clone(), share: share.cloned() }
    }
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
    /// The session's revision before, and what its overlay took.
    before: u64,
    before_bytes: u64,
    reserved: Reserved,
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
            let most = self.session.shared.config.max_operations;
            if self.ops.len() >= most {
                return Err(too_many(most));
            }
            self.session.check_room(&self.tree, &op)?;
            self.seq += 1;
            self.tree.apply(&op, self.seq);
            self.reserved.set(self.tree.overlay_bytes().saturating_sub(self.before_bytes));
            self.ops.push(op);
        }
        Ok(())
    }
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }
    /// The session's revision before this transaction.
    pub(crate) fn revision(&self) -> u64 {
        self.before
    }
}

impl Session {
    /// One that is in the journal and takes calls: its id and when it was made. `owned_from`: the tree and sequence number at the start of
    /// its own layer.
    pub(crate) fn loaded(
        id: (SessionId, i64),
        shared: &Arc<Shared>,
        family: &Arc<Family>,
        cut: Cut,
        owned_from: Option<(Tree, u64)>,
        start: Option<StartRec>,
        last: Position,
    ) -> Arc<Self> {
        let start_seq = owned_from.as_ref().map_or(cut.seq, |(_, seq)| *seq);
        let below = owned_from.map(|(tree, _)| {
            let _share = Share::of_new(&tree, &shared.overlays);
            Box::new(Start { tree, _share })
        });
        let now_ns = shared.now_ns();
        let life = (Life::Open, last, start);
        let session = Self::build(id, shared, family, &cut.view(), (below, start_seq), life, now_ns);
        session.state.write().counted(0, &shared.overlays);
        session
    }

    /// One that is about to be made; it takes calls after [`Session::begin`].
    pub(crate) fn coming(
        id: SessionId,
        shared: &Arc<Shared>,
        family: &Arc<Family>,
        cut: &CutRef<'_>,
        created_ns: i64,
    ) -> Arc<Self> {
        let made = StartRec::of_new(cut.seq);
        let life = (Life::Coming, Position::default(), Some(made));
        Self::build((id, created_ns), shared, family, cut, (None, cut.seq), life, created_ns)
    }

    #[inline]
    fn build(
        (id, created_ns): (SessionId, i64),
        shared: &Arc<Shared>,
        family: &Arc<Family>,
        cut: &CutRef<'_>,
        (below, start_seq): (Option<Box<Start>>, u64),
        (life, last, start): (Life, Position, Option<StartRec>),
        now_ns: i64,
    ) -> Arc<Self> {
        let has_unnamed = cut.tree.unnamed().next().is_some();
        let reap_after_ns = match (has_unnamed, life) {
            (false, _) => i64::MAX,
            // Nobody can have opened anything in it.
            (true, Life::Coming) => i64::MIN,
            // It may have been open when the server stopped, and its mount may come back for it.
            (true, _) => now_ns.saturating_add(REOPEN_NS),
        };
        // Where it stays, not built and moved there.
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            id,
            created_ns,
            shared: shared.clone(),
            family: family.clone(),
            state: RwLock::new(State {
                tree: cut.tree.clone(),
                own: Own::on(cut.share.cloned(), cut.tree),
                seq: cut.seq,
                place: Place { layer: cut.layer, depth: cut.depth, start: below, start_seq },
                start,
                block: 0..0,
                segment: segments::NONE,
                last,
                changed_ns: now_ns,
                life,
                handles: None,
                watchers: None,
                reap_after_ns,
                past: None,
            }),
            used_ns: AtomicI64::new(now_ns),
        })
    }

    /// The batch that makes it is queued: from now on it takes calls.
    pub(crate) fn begin(&self, at: Position) {
        let mut state = self.state.write();
        state.last = at;
        state.life = Life::Open;
    }

    /// Keeps what mounts did before this start until they had the time to come back; who has not by then finds nothing.
    pub(crate) fn remember(&self, mut past: Past) {
        past.until_ns = self.shared.started_ns.saturating_add(REOPEN_NS);
        if self.shared.now_ns() > past.until_ns {
            return;
        }
        self.state.write().past = Some(Box::new(past));
    }

    /// What became of a change that a mount named `op_id` and sent to an earlier start of the server, when it had seen revision `since`.
    pub fn before_start(&self, op_id: u64, since: u64) -> Before {
        self.state.read().past.as_ref().map_or(Before::Unknown, |past| past.of(op_id, since))
    }

    /// Its id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }
    /// When it was made, nanoseconds. An id that is used again gets a later time, so that both together are one session for ever.
    pub fn created_ns(&self) -> i64 {
        self.created_ns
    }
    /// Its base, shared with its family.
    pub fn family(&self) -> &Arc<Family> {
        &self.family
    }
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
    /// The tree at this instant; of a session that is gone, the last one. O(1).
    pub fn tree(&self) -> Tree {
        self.state.read().tree.clone()
    }
    /// The tree and the newest change at this instant. O(1).
    pub fn snapshot(&self) -> (Tree, Stamp) {
        let state = self.state.read();
        (state.tree.clone(), state.stamp())
    }
    /// Runs on the current tree under the session's read lock: short, no I/O.
    pub(crate) fn with_tree<R>(&self, look: impl FnOnce(&Tree) -> R) -> Result<R> {
        let state = self.state.read();
        state.check(&self.id)?;
        Ok(look(&state.tree))
    }
    /// The newest change.
    pub fn stamp(&self) -> Stamp {
        self.state.read().stamp()
    }
    /// The same of a session that takes calls. Only of such a one may it be said that its changes are on disk: of a deleted one the
    /// journal has them, too, and the deletion behind them.
    pub fn live_stamp(&self) -> Result<Stamp> {
        let state = self.state.read();
        state.check(&self.id)?;
        Ok(state.stamp())
    }
    pub(crate) fn touch_at(&self, now_ns: i64) {
        self.used_ns.store(now_ns, Ordering::Relaxed);
    }
    pub(crate) fn used_ns(&self) -> i64 {
        self.used_ns.load(Ordering::Relaxed)
    }
    /// Whether its leaving RAM can free any of what overlays take.
    pub(crate) fn has_overlay(&self) -> bool {
        self.state.read().own.has_any()
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
        self.prepare()?;
        let now_ns = self.shared.now_ns();
        let mut guard = self.state.write();
        let state = &mut *guard;
        state.check(&self.id)?;
        let mut ctx = Ctx {
            tree: &state.tree,
            now_ns,
            session: self,
            block: &mut state.block,
            handles: &state.handles,
        };
        let Some(op) = plan(&mut ctx)? else {
            return Ok((None, state.stamp()));
        };
        self.check_room(&state.tree, &op)?;
        let mut batch = Batch::new();
        let base = state.base_seq();
        let opened = self.open_layer(state, &mut batch)?;
        let seq = base + 1;
        self.record(&state.place, seq, op_id, &op, &mut batch);
        state.note_segments(&op, &mut batch);
        let reaps = state.due_reaps(&state.tree, now_ns);
        for (seq, reap) in (seq + 1..).zip(&reaps) {
            self.record(&state.place, seq, 0, reap, &mut batch);
        }
        let start = self.note_start(state, &mut batch);
        // Submitted first: if the journal refuses (full disk, shutdown) nothing has changed.
        let job = self.submit(state, batch, opened)?;
        state.start = Some(start);
        let news = news(state.watchers.as_deref(), &state.tree, seq, std::slice::from_ref(&op));
        state.tree.apply(&op, seq);
        let answer = result(&state.tree, &op);
        for (seq, reap) in (seq + 1..).zip(&reaps) {
            state.tree.apply(reap, seq);
        }
        state.counted(1 + reaps.len(), &self.shared.overlays);
        state.reaped(now_ns, reaps.len());
        (state.seq, state.changed_ns) = (seq + reaps.len() as u64, now_ns);
        let stamp = state.stamp();
        let told = tell(state.watchers.as_deref(), who, &news);
        drop(guard);
        self.shared.queue_fold(job);
        told.arrive();
        Ok((Some(answer), stamp))
    }

    /// Several operations, all or nothing. `extra` adds records to the same batch (a remembered request).
    pub(crate) fn many<R>(
        &self,
        who: Who,
        change: impl FnOnce(&mut Txn<'_>) -> Result<R>,
        extra: impl FnOnce(&R, u64, &mut Batch),
    ) -> Result<(R, Stamp)> {
        self.prepare()?;
        let now_ns = self.shared.now_ns();
        let mut guard = self.state.write();
        let state = &mut *guard;
        state.check(&self.id)?;
        let mut txn = Txn {
            tree: state.tree.clone(),
            ops: Vec::new(),
            before: state.seq,
            before_bytes: state.tree.overlay_bytes(),
            reserved: Reserved::new(&self.shared.overlays),
            seq: state.base_seq(),
            now_ns,
            session: self,
            block: &mut state.block,
            handles: &state.handles,
        };
        let answer = change(&mut txn)?;
        let Txn { mut tree, mut ops, mut seq, .. } = txn;
        let reaps = if ops.is_empty() { Vec::new() } else { state.due_reaps(&tree, now_ns) };
        let reap_count = reaps.len();
        for reap in reaps {
            seq += 1;
            tree.apply(&reap, seq);
            ops.push(reap);
        }
        let last_seq = if ops.is_empty() { state.seq } else { seq };
        let base = state.base_seq();
        let mut batch = Batch::new();
        extra(&answer, last_seq, &mut batch);
        if ops.is_empty() && batch.is_empty() {
            return Ok((answer, state.stamp()));
        }
        let opened = if ops.is_empty() { None } else { self.open_layer(state, &mut batch)? };
        for (seq, op) in (base + 1..).zip(&ops) {
            self.record(&state.place, seq, 0, op, &mut batch);
            state.note_segments(op, &mut batch);
        }
        let start = if ops.is_empty() { state.start } else { Some(self.note_start(state, &mut batch)) };
        let job = self.submit(state, batch, opened)?;
        state.start = start;
        let news = news(state.watchers.as_deref(), &state.tree, last_seq, &ops);
        state.tree = tree;
        if !ops.is_empty() {
            state.counted(ops.len(), &self.shared.overlays);
            state.reaped(now_ns, reap_count);
        }
        (state.seq, state.changed_ns) = (last_seq, now_ns);
        let stamp = state.stamp();
        let told = tell(state.watchers.as_deref(), who, &news);
        drop(guard);
        self.shared.queue_fold(job);
        told.arrive();
        Ok((answer, stamp))
    }

    /// Like [`Session::many`] on a copy: no lock, no effect, inode numbers that mean nothing.
    pub(crate) fn dry<R>(&self, change: impl FnOnce(&mut Txn<'_>) -> Result<R>) -> Result<R> {
        let (tree, stamp) = self.snapshot();
        let now_ns = self.shared.now_ns();
        let mut block = limits::MAX_INO + 1..Ino::MAX;
        change(&mut Txn {
            before_bytes: tree.overlay_bytes(),
            reserved: Reserved::new(&self.shared.overlays),
            tree,
            ops: Vec::new(),
            before: stamp.seq,
            seq: stamp.seq,
            now_ns,
            session: self,
            block: &mut block,
            handles: &None,
        })
    }

    /// With the first change after a start of the server: see [`StartRec`].
    fn note_start(&self, state: &State, batch: &mut Batch) -> StartRec {
        state.start.unwrap_or_else(|| {
            let start = StartRec { after: state.seq, base: state.base_seq() };
            batch.put_with(Space::Session, start_key(&self.id, self.shared.epoch), |e| start.encode_to(e));
            start
        })
    }

    /// What may wait for the disk, before the session's lock is taken: inode numbers, and room in the journal's queue.
    fn prepare(&self) -> Result<()> {
        self.family.prepare(&self.shared);
        self.shared.ports.journal.wait_for_room()
    }

    /// Where it went on in this start of the server, also if the journal does not have that yet.
    pub(crate) fn start(&self) -> Option<StartRec> {
        self.state.read().start
    }

    fn record(&self, place: &Place, seq: u64, op_id: u64, op: &Op, batch: &mut Batch) {
        batch.put_with(Space::Record, op_key(place.layer, seq), |e| {
            Record::encode_to(self.shared.epoch, op_id, op, e);
        });
    }

    /// Queues a batch. A journal that refuses leaves a layer that was just opened unwritten: the session stays where it was.
    fn submit(
        &self,
        state: &mut State,
        batch: Batch,
        opened: Option<Opened>,
    ) -> Result<Option<Box<FoldJob>>> {
        match self.shared.submit(batch) {
            Ok(at) => {
                state.last = at;
                let mut job = opened.and_then(|o| o.job);
                job.iter_mut().for_each(|job| job.after = at);
                Ok(job)
            }
            Err(error) => {
                state.segment = segments::NONE;
                if let Some(opened) = opened {
                    state.place = opened.before;
                }
                Err(error)
            }
        }
    }
}

/// How long mounts from before a restart have to come back.
const REOPEN_NS: i64 = limits::MOUNT_LEASE_MS as i64 * 1_000_000;

/// The error for a session that was put away.
pub(crate) fn archived(id: &SessionId) -> Error {
    Error::new(Reason::SessionArchived, format!("{id} is archived"))
        .with("id", id.as_str())
        .next(format!("resume it: aether session resume {id}"))
}

fn too_many(most: usize) -> Error {
    Error::new(Reason::MessageTooLarge, format!("one call changes at most {most} inodes and names"))
        .with("limit", most.to_string())
        .next("do it in parts, for example directory by directory")
}
