//! The instants and the ends of a session: layers that open and close, forks and checkpoints, restores, archiving, deletion, sealed contents.
//!
//! Guarantees: what is kept of an instant is kept under the session's lock, in one batch with what the caller makes of it, and the layer below it
//! is never appended to again; a session that was ended refuses its holders from that moment on.
//! Deliberately absent: what is made of an instant ([`crate::lifecycle`], [`crate::checkpoints`]).

use super::watch::{Invalidation, tell};
use super::{Cut, CutRef, FoldJob, Life, Opened, Place, Sealed, Session, Stamp, Start, State};
use crate::records::{HeadRec, LayerRec, Stored, head_key, layer_key};
use crate::segments;
use afs_core::op::Op;
use afs_core::tree::Tree;
use afs_store::{Batch, Position, Space};
use afs_types::{Error, Reason, Result, SessionId};

impl Session {
    /// Makes sure the session has a layer of its own to append to, and that it does not grow without end: loading a session costs
    /// the records that nobody has folded.
    pub(super) fn open_layer(&self, state: &mut State, batch: &mut Batch) -> Result<Option<Opened>> {
        let full = state.seq - state.place.start_seq >= self.shared.config.layer_records;
        if state.place.is_owned() && !full && state.start.is_some() {
            return Ok(None);
        }
        state.share_overlay(&self.shared.overlays);
        let seq = state.base_seq();
        let layer = self.shared.new_layer()?;
        let depth = state.place.depth + 1;
        let record = LayerRec { parent: state.place.layer, delta_parent: None, seq, entries: 0, depth };
        batch.put_with(Space::Layer, layer_key(layer), |e| record.encode_to(e));
        let head = HeadRec { layer, owned: true, seq };
        batch.put_with(Space::Session, head_key(&self.id), |e| head.encode_to(e));
        let job = self.fold_job(state, state.last);
        state.segment = segments::NONE;
        let start = Start { tree: state.tree.clone(), _share: state.own.shared().cloned() };
        let start = Some(Box::new(start));
        let next = Place { layer, depth, start, start_seq: seq };
        Ok(Some(Opened { before: std::mem::replace(&mut state.place, next), job }))
    }

    /// The session's own layer as it is now, to be folded once it is closed.
    fn fold_job(&self, state: &State, after: Position) -> Option<Box<FoldJob>> {
        let below = state.place.start.as_deref()?.tree.clone();
        Some(Box::new(FoldJob { below, cut: state.cut().to_cut(), after, session: self.me.clone() }))
    }

    /// Freezes this instant, so that others can stand on it. `batch` adds what the caller makes of it, and takes of it what the caller keeps;
    /// all is one batch. The layer is not appended to any more; the next change opens a new one.
    pub(crate) fn cut<R>(
        &self,
        batch: impl FnOnce(&CutRef<'_>, &mut Batch) -> Result<R>,
    ) -> Result<(R, Position, Option<Box<FoldJob>>)> {
        self.prepare()?;
        let mut guard = self.state.write();
        guard.check(&self.id)?;
        self.freeze(&mut guard, batch)
    }

    fn freeze<R>(
        &self,
        state: &mut State,
        batch: impl FnOnce(&CutRef<'_>, &mut Batch) -> Result<R>,
    ) -> Result<(R, Position, Option<Box<FoldJob>>)> {
        state.share_overlay(&self.shared.overlays);
        let mut changes = Batch::new();
        if state.place.is_owned() {
            let head = HeadRec { layer: state.place.layer, owned: false, seq: state.seq };
            changes.put_with(Space::Session, head_key(&self.id), |e| head.encode_to(e));
        }
        let kept = batch(&state.cut(), &mut changes)?;
        let at = if changes.is_empty() { state.last } else { self.shared.submit(changes)? };
        state.last = state.last.max(at);
        let job = self.fold_job(state, at);
        // Nothing is appended to this layer any more: let go of the nodes that only its start needs.
        state.place.start = None;
        Ok((kept, at, job))
    }

    /// Ends the session's life in RAM together with a batch, unless somebody uses it. From here on its holders are refused.
    pub(crate) fn archive(&self, batch: impl FnOnce(&mut Batch)) -> Result<(Position, Option<Box<FoldJob>>)> {
        self.prepare()?;
        let mut guard = self.state.write();
        guard.check(&self.id)?;
        if guard.in_use() {
            return Err(in_use(&self.id, &guard, ""));
        }
        let ((), at, job) = self.freeze(&mut guard, |_, changes| {
            batch(changes);
            Ok(())
        })?;
        guard.life = Life::Archived;
        Ok((at, job))
    }

    /// Refuses every call from now on, unless somebody uses the session and `force` is not given. Returns what was submitted last.
    pub(crate) fn end(&self, force: bool) -> Result<Position> {
        let mut state = self.state.write();
        state.check(&self.id)?;
        if state.in_use() && !force {
            return Err(in_use(&self.id, &state, "; or delete with force"));
        }
        state.life = Life::Deleted;
        Ok(state.last)
    }

    /// Takes [`Session::end`] back: the journal did not take the deletion.
    pub(crate) fn revive(&self) {
        self.state.write().life = Life::Open;
    }

    /// Puts the session on another instant of its family (a restore), if it still is at `if_revision`. The sequence number
    /// grows by one. `batch` sees the instant before, to keep it; if it fails nothing has changed.
    pub(crate) fn jump(
        &self,
        to: &Cut,
        if_revision: Option<u64>,
        batch: impl FnOnce(&CutRef<'_>, u64, &mut Batch) -> Result<()>,
    ) -> Result<(Stamp, Option<Box<FoldJob>>)> {
        self.prepare()?;
        let mut guard = self.state.write();
        let state = &mut *guard;
        state.check(&self.id)?;
        if if_revision.is_some_and(|want| want != state.seq) {
            let message = format!("{} is at revision {}, not the one given", self.id, state.seq);
            return Err(Error::new(Reason::RevisionMismatch, message).with("revision", state.seq.to_string()));
        }
        let seq = state.base_seq() + 1;
        let mut changes = Batch::new();
        state.share_overlay(&self.shared.overlays);
        let head = HeadRec { layer: to.layer, owned: false, seq };
        changes.put_with(Space::Session, head_key(&self.id), |e| head.encode_to(e));
        let went_on = self.note_start(state, &mut changes);
        batch(&state.cut(), seq, &mut changes)?;
        let at = self.shared.submit(changes)?;
        state.start = Some(went_on);
        let job = self.fold_job(state, at);
        state.tree = to.tree.clone();
        state.own.moved(to.share.clone(), &state.tree, &self.shared.overlays);
        state.place = Place { layer: to.layer, depth: to.depth, start: None, start_seq: seq };
        (state.seq, state.last, state.changed_ns) = (seq, at, self.shared.now_ns());
        if state.tree.unnamed().next().is_some() && state.reap_after_ns == i64::MAX {
            // They were open when that instant was kept; who has them open now is known.
            state.reap_after_ns = i64::MIN;
        }
        let all = Invalidation { all: true, seq, ..Invalidation::default() };
        let told = tell(state.watchers.as_deref(), 0, std::slice::from_ref(&all));
        drop(guard);
        told.arrive();
        Ok((Stamp { seq, at }, job))
    }

    /// Replaces bytes of the data log by the blobs they were sealed to: another form of the same content, so it has no sequence number,
    /// no record and nobody is told. What has changed since the instant of `was` is left alone.
    pub(crate) fn adopt(&self, sealed: &[Sealed], was: &Tree, now: &Cut) {
        {
            let mut guard = self.state.write();
            let state = &mut *guard;
            if state.tree.same_as(was) && !state.place.is_owned() {
                state.tree = now.tree.clone();
                state.own.moved(now.share.clone(), &state.tree, &self.shared.overlays);
                return;
            }
        }
        // In pieces, so that no writer waits for thousands of files.
        for some in sealed.chunks(ADOPT_FILES) {
            let mut guard = self.state.write();
            let state = &mut *guard;
            apply_seals(&mut state.tree, some);
            state.counted(some.len(), &self.shared.overlays);
        }
    }

    /// Records in the session's own layer that a fold would replace.
    pub(crate) fn unfolded(&self) -> u64 {
        let state = self.state.read();
        if state.place.is_owned() { state.seq - state.place.start_seq } else { 0 }
    }
    /// When it last changed, if it has records that nobody folded.
    pub(crate) fn unfolded_since(&self) -> Option<i64> {
        let state = self.state.read();
        (state.life == Life::Open && state.place.is_owned()).then_some(state.changed_ns)
    }
}

/// Files that take over their sealed content in one go.
const ADOPT_FILES: usize = 256;

/// The same bytes under other names, for files that are still at the version that was sealed.
pub(crate) fn apply_seals(tree: &mut Tree, sealed: &[Sealed]) {
    for (ino, version, content) in sealed {
        if tree.attr(*ino).is_some_and(|a| a.version == *version) {
            let op = Op::Seal { ino: *ino, version: *version, content: content.clone() };
            tree.apply(&op, 0);
        }
    }
}

/// Says who uses the session, and how to end that. What a mount of its own has open goes with the mount; without one it is open in the server's
/// mount of all sessions.
fn in_use(id: &SessionId, state: &State, or: &str) -> Error {
    let (mounts, open) = (state.mounts(), state.handles.as_ref().map_or(0, |handles| handles.len()));
    let (what, next) = match mounts {
        0 => (
            format!("files open in the server's own mount: {open}"),
            format!(
                "close them (on the server's machine `lsof +D` with {id} in that mount names who has them open)"
            ),
        ),
        _ => (
            format!("attached mounts: {mounts}"),
            format!(
                "where it is mounted: aether unmount DIR (`aether status` there names the directory of {id})"
            ),
        ),
    };
    Error::new(Reason::InUse, format!("{id} is in use: {what}"))
        .with("mounts", mounts.to_string())
        .with("open_files", open.to_string())
        .next(next + or)
}
