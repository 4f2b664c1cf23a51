//! Every session as a directory of one mount. The session is in the high 32 bits of the inode number, since git compares
//! the low ones.
//!
//! Guarantees: every session of which the kernel knows something is watched until the kernel has forgotten it or it has ended, whatever
//! is tried with it meanwhile; the watch alone does not keep it from being archived or deleted, an open file does. What is left open of a
//! deleted session answers `ESTALE`, also when its id is used again.

use super::one::{OneSession, invalidation};
use super::slots::{Live, Slots, join, root, split};
use crate::disk::space;
use afs_fuse::{
    Allocate, Attr, Caller, Caps, Changes, CopyRange, DirEntry, DirSink, Invalidation, InvalidationSink,
    OpenMode, Opened, RenameMode, Seek, SetAttr, StatFs, Vfs, WatchGuard, WriteMode, Written, XattrMode,
};
use afs_session::{Engine, ListSessions, Session};
use afs_types::{Clock, Error, Ino, NameRef, ROOT_INO, Reason, Result, SessionId, SessionPath};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The directory of sessions.
pub struct AllSessions {
    engine: Arc<Engine>,
    data_dir: PathBuf,
    clock: Arc<dyn Clock>,
    next_who: Arc<AtomicU64>,
    slots: Slots,
    sink: Mutex<Option<InvalidationSink>>,
    /// Grows when a session comes or goes.
    version: AtomicU64,
    started_ns: i64,
}

impl AllSessions {
    /// Shows the engine's sessions once mounted.
    pub fn new(
        engine: Arc<Engine>,
        data_dir: PathBuf,
        clock: Arc<dyn Clock>,
        next_who: Arc<AtomicU64>,
    ) -> Self {
        let started_ns = clock.now_ns();
        Self {
            engine,
            data_dir,
            clock,
            next_who,
            slots: Slots::default(),
            sink: Mutex::default(),
            version: AtomicU64::new(1),
            started_ns,
        }
    }

    /// Sessions were made, archived, resumed or deleted: the kernel must look again. Not at names that still lead where they did:
    /// taking one back would take the working directory from whoever is in it.
    pub fn sessions_changed(&self, ids: &[SessionId]) {
        self.version.fetch_add(1, Ordering::Relaxed);
        self.tell(Invalidation::Inode { ino: ROOT_INO, data: true });
        for id in ids {
            let was_absent = self.slots.was_absent(id);
            let leads_elsewhere = self.slots.known(id).is_some_and(|(slot, created_ns)| {
                self.slots.drop_if(slot, |live| self.is_over(live));
                let now = self.engine.get_session(id).ok().filter(|info| !info.record.archived);
                let is_other = now.is_none_or(|info| info.record.created_ns != created_ns);
                // Of a name that the kernel had and gave up, it may have heard since that it leads nowhere.
                is_other || self.slots.live(slot).is_none()
            });
            if was_absent || leads_elsewhere {
                self.tell_name(id);
            }
        }
    }

    fn tell(&self, change: Invalidation) {
        let sink = self.sink.lock().clone();
        sink.iter().for_each(|sink| sink.report(change.clone()));
    }

    /// The name of a session leads elsewhere, or nowhere.
    fn tell_name(&self, id: &SessionId) {
        self.tell(Invalidation::Entry { parent: ROOT_INO, name: id.as_str().as_bytes().into() });
    }

    /// Whether a session that was shown takes no calls any more and never will. Not while it is only being tried to end it: the engine has
    /// it until that has come off.
    fn is_over(&self, live: &Live) -> bool {
        let shown = live.fs.session();
        self.engine.resident(shown.id()).is_none_or(|now| !Arc::ptr_eq(&now, shown))
    }

    /// The session of a slot, loaded if it has to be.
    fn live(&self, slot: u32) -> Result<Arc<Live>> {
        if let Some(live) = self.slots.live(slot) {
            return Ok(live);
        }
        let want = self.slots.get(slot)?;
        let session = self.engine.session(&want.id).map_err(nothing_left)?;
        if session.created_ns() != want.created_ns {
            return Err(Reason::Stale.into());
        }
        Ok(self.show(slot, session))
    }

    /// Shows a session in its slot, and watches it.
    fn show(&self, slot: u32, session: Arc<Session>) -> Arc<Live> {
        let who = self.next_who.fetch_add(1, Ordering::Relaxed);
        let fs = OneSession::new(session.clone(), self.clock.clone(), who);
        let sink = self.sink.lock().clone();
        let arrivals = sink.clone();
        let watch = session.watch_aside(
            who,
            Arc::new(move |change| {
                if let Some(sink) = &sink {
                    sink.report(shifted(slot, change.gone, invalidation(change)));
                }
            }),
            Arc::new(move |patience| arrivals.as_ref().is_none_or(|sink| sink.settle(patience))),
        );
        let new = Live { fs, _watch: WatchGuard::new(watch) };
        let (live, was_dropped) = self.slots.keep(slot, new, |live| self.is_over(live));
        if was_dropped {
            // A look-up that overlapped with the kernel's forgetting may have left it with what nobody has watched since.
            self.tell(Invalidation::Inode { ino: root(slot), data: true });
        }
        live
    }

    /// Runs a call on the session that an inode belongs to.
    fn on<T>(&self, ino: Ino, call: impl FnOnce(&OneSession, Ino) -> Result<T>) -> Result<T> {
        match split(ino) {
            (0, _) => Err(Reason::NotPermitted.into()),
            (slot, inner) => {
                let live = self.live(slot)?;
                call(&live.fs, inner).map_err(|error| {
                    if matches!(error.reason, Reason::SessionNotFound | Reason::SessionArchived) {
                        self.slots.drop_if(slot, |live| self.is_over(live));
                    }
                    nothing_left(error)
                })
            }
        }
    }

    /// The same, for calls that answer with attributes.
    fn attr(&self, ino: Ino, call: impl FnOnce(&OneSession, Ino) -> Result<Attr>) -> Result<Attr> {
        let attr = self.on(ino, call)?;
        Ok(outer(split(ino).0, attr))
    }

    /// Two inodes of one session.
    fn pair(a: Ino, b: Ino) -> Result<Ino> {
        let ((slot_a, _), (slot_b, inner)) = (split(a), split(b));
        if slot_a == slot_b { Ok(inner) } else { Err(Reason::CrossSession.into()) }
    }

    fn top(&self) -> Attr {
        Attr {
            ino: ROOT_INO,
            mode: 0o040_755,
            nlink: 2,
            uid: 0,
            gid: 0,
            size: 0,
            blocks: 0,
            atime_ns: self.started_ns,
            mtime_ns: self.started_ns,
            ctime_ns: self.started_ns,
            rdev: 0,
            version: self.version.load(Ordering::Relaxed),
        }
    }

    fn session_root(&self, name: &[u8]) -> Result<Attr> {
        let text = std::str::from_utf8(name).map_err(|_| Error::bare(Reason::NotFound))?;
        let id = SessionId::parse(text).map_err(|_| Error::bare(Reason::NotFound))?;
        let shown = self.slots.known(&id).and_then(|(slot, _)| self.slots.live(slot));
        let is_live = shown.is_some_and(|live| !self.is_over(&live));
        if !is_live {
            // Before it is known: a session that is made right now must find the note.
            self.slots.note_absent(&id);
        }
        let loaded = self.engine.session(&id).map_err(|e| match e.reason {
            Reason::SessionNotFound | Reason::SessionArchived => Error::bare(Reason::NotFound),
            _ => e,
        });
        let session = loaded?;
        if !is_live {
            self.slots.was_absent(&id);
        }
        // If another session had the name, the kernel learns from this answer that it leads elsewhere.
        let (slot, _) = self.slots.of(&id, session.created_ns())?;
        let live = match self.slots.live(slot).filter(|live| Arc::ptr_eq(live.fs.session(), &session)) {
            Some(live) => live,
            None => self.show(slot, session),
        };
        Ok(outer(slot, live.fs.getattr(ROOT_INO)?))
    }

    /// Sessions in order of id. The cookie is the slot of the last one shown.
    fn list(&self, cookie: u64, sink: &mut DirSink<'_>) -> Result<()> {
        let after = match u32::try_from(cookie) {
            Ok(0) => None,
            Ok(slot) => Some(self.slots.get(slot)?.id.to_string()),
            Err(_) => return Err(Reason::InvalidArgument.into()),
        };
        let mut query =
            ListSessions { page_size: 1000, after, archived: Some(false), ..ListSessions::default() };
        loop {
            let page = self.engine.list_sessions(&query)?;
            for info in &page.items {
                let slot = match self.slots.of(&info.id, info.record.created_ns) {
                    Ok((slot, had_another)) => {
                        if had_another {
                            self.tell_name(&info.id);
                        }
                        slot
                    }
                    // Deleted since it was read.
                    Err(error) if error.reason == Reason::Stale => continue,
                    Err(error) => return Err(error),
                };
                let entry = DirEntry {
                    ino: root(slot),
                    mode: 0o040_000,
                    name: info.id.as_str().as_bytes(),
                    next: slot.into(),
                    attr: None,
                };
                if !sink(entry) {
                    return Ok(());
                }
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(()),
            }
        }
    }
}

/// Paths as seen from the root.
pub(crate) fn relative(paths: Vec<SessionPath>) -> Vec<Vec<u8>> {
    paths.iter().map(|path| path.to_bytes()[1..].to_vec()).collect()
}

fn outer(slot: u32, attr: Attr) -> Attr {
    Attr { ino: join(slot, attr.ino), ..attr }
}

/// What is left of a session that is gone has nothing behind it any more; that no such session is there is no answer about a file.
fn nothing_left(error: Error) -> Error {
    match error.reason {
        Reason::SessionNotFound => Reason::Stale.into(),
        _ => error,
    }
}

/// A change of a session as one of the mount: all of it, when a session is restored or archived, is its slot. When it is `gone` its
/// names need not be taken back one by one, since none leads to it any more.
fn shifted(slot: u32, gone: bool, change: Invalidation) -> Invalidation {
    match change {
        Invalidation::Inode { ino, data } => Invalidation::Inode { ino: join(slot, ino), data },
        Invalidation::Entry { parent, name } => Invalidation::Entry { parent: join(slot, parent), name },
        Invalidation::Range { first, last, names } => {
            Invalidation::Range { first: join(slot, first), last: join(slot, last), names }
        }
        Invalidation::Everything => {
            Invalidation::Range { first: join(slot, 0), last: join(slot, u32::MAX.into()), names: !gone }
        }
    }
}

impl Vfs for AllSessions {
    fn caps(&self) -> Caps {
        Caps { changes: true, ..Caps::default() }
    }

    fn watch(&self, sink: InvalidationSink) -> WatchGuard {
        *self.sink.lock() = Some(sink);
        WatchGuard::none()
    }

    fn lookup(&self, parent: Ino, name: NameRef<'_>) -> Result<Attr> {
        match split(parent) {
            (0, _) => self.session_root(name.as_bytes()),
            _ => self.attr(parent, |fs, dir| fs.lookup(dir, name)),
        }
    }

    fn forget(&self, ino: Ino) {
        // The kernel drops a directory after everything in it.
        if let (slot, ROOT_INO) = split(ino)
            && slot != 0
        {
            self.slots.drop_live(slot);
        }
    }

    fn getattr(&self, ino: Ino) -> Result<Attr> {
        match split(ino) {
            (0, _) => Ok(self.top()),
            _ => self.attr(ino, Vfs::getattr),
        }
    }

    fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        self.attr(ino, |fs, ino| fs.setattr(ino, set))
    }

    fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.on(ino, Vfs::readlink)
    }

    fn mknod(&self, parent: Ino, name: NameRef<'_>, mode: u32, rdev: u32, caller: Caller) -> Result<Attr> {
        self.attr(parent, |fs, dir| fs.mknod(dir, name, mode, rdev, caller))
    }

    fn mkdir(&self, parent: Ino, name: NameRef<'_>, mode: u32, caller: Caller) -> Result<Attr> {
        self.attr(parent, |fs, dir| fs.mkdir(dir, name, mode, caller))
    }

    fn symlink(&self, parent: Ino, name: NameRef<'_>, target: &[u8], caller: Caller) -> Result<Attr> {
        self.attr(parent, |fs, dir| fs.symlink(dir, name, target, caller))
    }

    fn link(&self, ino: Ino, parent: Ino, name: NameRef<'_>) -> Result<Attr> {
        let dir = Self::pair(ino, parent)?;
        self.attr(ino, |fs, ino| fs.link(ino, dir, name))
    }

    fn unlink(&self, parent: Ino, name: NameRef<'_>) -> Result<()> {
        self.on(parent, |fs, dir| fs.unlink(dir, name))
    }

    fn rmdir(&self, parent: Ino, name: NameRef<'_>) -> Result<()> {
        self.on(parent, |fs, dir| fs.rmdir(dir, name))
    }

    fn rename(&self, from: (Ino, NameRef<'_>), to: (Ino, NameRef<'_>), mode: RenameMode) -> Result<()> {
        let new_dir = Self::pair(from.0, to.0)?;
        self.on(from.0, |fs, dir| fs.rename((dir, from.1), (new_dir, to.1), mode))
    }

    fn open(&self, ino: Ino, mode: OpenMode) -> Result<Opened> {
        self.on(ino, |fs, ino| fs.open(ino, mode))
    }

    fn create(
        &self,
        parent: Ino,
        name: NameRef<'_>,
        permissions: u32,
        open: OpenMode,
        exclusive: bool,
        caller: Caller,
    ) -> Result<(Attr, Opened)> {
        let (attr, opened) =
            self.on(parent, |fs, dir| fs.create(dir, name, permissions, open, exclusive, caller))?;
        Ok((outer(split(parent).0, attr), opened))
    }

    fn read(&self, ino: Ino, fh: u64, offset: u64, length: usize, out: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.on(ino, |fs, ino| fs.read(ino, fh, offset, length, out))
    }

    fn write(&self, ino: Ino, fh: u64, offset: u64, bytes: &[u8], mode: WriteMode) -> Result<Written> {
        self.on(ino, |fs, ino| fs.write(ino, fh, offset, bytes, mode))
    }

    fn release(&self, ino: Ino, fh: u64) {
        let closed = self.on(ino, |fs, ino| {
            fs.release(ino, fh);
            Ok(())
        });
        if let Err(error) = closed {
            tracing::debug!(ino, ?error, "close a file of a session that is gone");
        }
    }

    fn fsync(&self, ino: Ino, fh: u64, data_only: bool) -> Result<()> {
        match split(ino) {
            (0, _) => self.engine.sync(),
            _ => self.on(ino, |fs, ino| fs.fsync(ino, fh, data_only)),
        }
    }

    fn readdir(&self, ino: Ino, fh: u64, cookie: u64, plus: bool, sink: &mut DirSink<'_>) -> Result<()> {
        let (slot, _) = split(ino);
        if slot == 0 {
            return self.list(cookie, sink);
        }
        self.on(ino, |fs, dir| {
            fs.readdir(dir, fh, cookie, plus, &mut |entry| {
                sink(DirEntry {
                    ino: join(slot, entry.ino),
                    attr: entry.attr.map(|attr| outer(slot, attr)),
                    ..entry
                })
            })
        })
    }

    fn is_tree_root(&self, ino: Ino) -> bool {
        matches!(split(ino), (1.., ROOT_INO))
    }

    fn tree_of(&self, ino: Ino) -> Option<(Ino, Vec<u8>)> {
        let slot = split(ino).0;
        let shown = self.slots.get(slot).ok()?;
        Some((root(slot), shown.id.as_str().as_bytes().to_vec()))
    }

    fn changed_since(&self, root: Ino, instant: &str) -> Result<Changes> {
        let since = self.on(root, |fs, _| self.engine.changed_since(fs.session(), instant))?;
        Ok(Changes { instant: since.instant, paths: since.paths.map(relative) })
    }

    fn parent(&self, ino: Ino) -> Ino {
        match split(ino) {
            (0, _) | (_, ROOT_INO) => ROOT_INO,
            (slot, _) => self.on(ino, |fs, ino| Ok(fs.parent(ino))).map_or(ROOT_INO, |ino| join(slot, ino)),
        }
    }

    fn statfs(&self, ino: Ino) -> Result<StatFs> {
        match split(ino) {
            (0, _) => {
                let disk = space(&self.data_dir)?;
                Ok(StatFs {
                    block_size: 4096,
                    blocks: disk.total_bytes / 4096,
                    blocks_free: disk.free_bytes / 4096,
                    blocks_available: disk.free_bytes / 4096,
                    files: 0,
                    files_free: 0,
                })
            }
            _ => self.on(ino, Vfs::statfs),
        }
    }

    fn fallocate(&self, ino: Ino, fh: u64, what: Allocate) -> Result<()> {
        self.on(ino, |fs, ino| fs.fallocate(ino, fh, what))
    }

    fn seek(&self, ino: Ino, fh: u64, offset: u64, what: Seek) -> Result<Option<u64>> {
        self.on(ino, |fs, ino| fs.seek(ino, fh, offset, what))
    }

    fn copy_range(&self, range: CopyRange) -> Result<u64> {
        let to = Self::pair(range.from, range.to)?;
        self.on(range.from, |fs, from| fs.copy_range(CopyRange { from, to, ..range }))
    }

    fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        self.on(ino, |fs, ino| fs.setxattr(ino, name, value, mode))
    }

    fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        match split(ino) {
            (0, _) => Err(Reason::NoAttribute.into()),
            _ => self.on(ino, |fs, ino| fs.getxattr(ino, name)),
        }
    }

    fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        match split(ino) {
            (0, _) => Ok(Vec::new()),
            _ => self.on(ino, |fs, ino| fs.listxattr(ino)),
        }
    }

    fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.on(ino, |fs, ino| fs.removexattr(ino, name))
    }
}
