//! The obvious file system in memory, for tests of the mount only. It follows the contract of [`Vfs`]: kill_priv,
//! set-group-id inheritance, open-unlinked inodes, stable directory cookies, versions.

use afs_fuse::{
    Allocate, AllocateAction, Attr, Caller, Caps, CopyRange, DirEntry, DirSink, Invalidation,
    InvalidationSink, OpenMode, Opened, RenameMode, Seek, SetAttr, SetTime, StatFs, Vfs, WatchGuard,
    WriteMode, Written, XattrMode,
};
use afs_types::{Clock, Ino, NameRef, ROOT_INO, Reason, Result, SystemClock};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const BLOCK: usize = 4096;

pub(crate) struct MemFs {
    state: Mutex<State>,
    sinks: Mutex<Vec<InvalidationSink>>,
    caps: Caps,
    /// Every read waits this long, as for a network.
    pub(crate) read_delay_ms: AtomicU64,
    /// The next getattr panics.
    pub(crate) panic_once: AtomicBool,
    pub(crate) forgotten: AtomicU64,
}

struct State {
    nodes: HashMap<Ino, Node>,
    next_ino: Ino,
    version: u64,
}

struct Node {
    attr: Attr,
    body: Body,
    opens: u32,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

enum Body {
    File(Vec<u8>),
    Dir(Dir),
    Link(Vec<u8>),
    Other,
}

#[derive(Default)]
struct Dir {
    parent: Ino,
    names: HashMap<Vec<u8>, (u64, Ino)>,
    order: BTreeMap<u64, Vec<u8>>,
    next_cookie: u64,
}

impl MemFs {
    pub(crate) fn new(caps: Caps) -> Arc<Self> {
        let mut state = State { nodes: HashMap::new(), next_ino: ROOT_INO, version: 0 };
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        state.add(S_IFDIR | 0o755, 0, owner, Body::Dir(Dir { parent: ROOT_INO, ..Dir::default() }));
        Arc::new(Self {
            state: Mutex::new(state),
            sinks: Mutex::default(),
            caps,
            read_delay_ms: AtomicU64::new(0),
            panic_once: AtomicBool::new(false),
            forgotten: AtomicU64::new(0),
        })
    }

    fn report(&self, change: Invalidation) {
        for sink in self.sinks.lock().iter() {
            sink.report(change.clone());
        }
    }

    pub(crate) fn report_everything(&self) {
        self.report(Invalidation::Everything);
    }

    /// "Anything may have changed" about some numbers.
    pub(crate) fn report_range(&self, first: Ino, last: Ino, names: bool) {
        self.report(Invalidation::Range { first, last, names });
    }

    pub(crate) fn inode_count(&self) -> usize {
        self.state.lock().nodes.len()
    }

    /// Changes "by somebody else": applied, then reported.
    pub(crate) fn remote_write(&self, parent: Ino, name: &[u8], bytes: &[u8]) {
        let (ino, is_new) = self.silent_write(parent, name, bytes);
        match is_new {
            true => self.report(Invalidation::Entry { parent, name: name.into() }),
            false => self.report(Invalidation::Inode { ino, data: true }),
        }
    }

    /// A change whose report got lost.
    pub(crate) fn silent_write(&self, parent: Ino, name: &[u8], bytes: &[u8]) -> (Ino, bool) {
        let mut state = self.state.lock();
        let existing = state.child(parent, name).ok();
        let ino = existing.unwrap_or_else(|| {
            let ino = state.add(S_IFREG | 0o644, 0, (0, 0), Body::File(Vec::new()));
            state.insert(parent, name, ino).unwrap();
            ino
        });
        *state.file(ino).unwrap() = bytes.to_vec();
        state.touched(ino);
        (ino, existing.is_none())
    }

    pub(crate) fn remote_unlink(&self, parent: Ino, name: &[u8]) {
        self.state.lock().unlink(parent, name).unwrap();
        self.report(Invalidation::Entry { parent, name: name.into() });
    }

    pub(crate) fn remote_rename(&self, parent: Ino, from: &[u8], to: &[u8]) {
        self.state.lock().rename((parent, from), (parent, to), RenameMode::Replace).unwrap();
        self.report(Invalidation::Entry { parent, name: from.into() });
        self.report(Invalidation::Entry { parent, name: to.into() });
    }
}

impl State {
    fn node(&mut self, ino: Ino) -> Result<&mut Node> {
        self.nodes.get_mut(&ino).ok_or_else(|| Reason::Stale.into())
    }
    fn file(&mut self, ino: Ino) -> Result<&mut Vec<u8>> {
        match &mut self.node(ino)?.body {
            Body::File(bytes) => Ok(bytes),
            _ => Err(Reason::WrongType.into()),
        }
    }
    fn dir(&mut self, ino: Ino) -> Result<&mut Dir> {
        match &mut self.node(ino)?.body {
            Body::Dir(dir) => Ok(dir),
            _ => Err(Reason::NotADirectory.into()),
        }
    }
    fn child(&mut self, parent: Ino, name: &[u8]) -> Result<Ino> {
        self.dir(parent)?.names.get(name).map(|(_, ino)| *ino).ok_or_else(|| Reason::NotFound.into())
    }
    fn is_dir(&mut self, ino: Ino) -> Result<bool> {
        Ok(self.node(ino)?.attr.mode & S_IFMT == S_IFDIR)
    }

    fn add(&mut self, mode: u32, rdev: u32, (uid, gid): (u32, u32), body: Body) -> Ino {
        let ino = self.next_ino;
        self.next_ino += 1;
        self.version += 1;
        let now = SystemClock.now_ns();
        let size = if let Body::Link(target) = &body { target.len() as u64 } else { 0 };
        let attr = Attr {
            ino,
            mode,
            nlink: if mode & S_IFMT == S_IFDIR { 2 } else { 1 },
            uid,
            gid,
            size,
            blocks: 0,
            atime_ns: now,
            mtime_ns: now,
            ctime_ns: now,
            rdev,
            version: self.version,
        };
        self.nodes.insert(ino, Node { attr, body, opens: 0, xattrs: BTreeMap::new() });
        ino
    }

    /// New content: size, times, version.
    fn touched(&mut self, ino: Ino) -> Attr {
        self.version += 1;
        let version = self.version;
        let now = SystemClock.now_ns();
        let node = self.nodes.get_mut(&ino).unwrap();
        if let Body::File(bytes) = &node.body {
            node.attr.size = bytes.len() as u64;
            node.attr.blocks = bytes.len().div_ceil(BLOCK) as u64 * 8;
        }
        node.attr.mtime_ns = now;
        node.attr.ctime_ns = now;
        node.attr.version = version;
        node.attr
    }

    fn changed(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.attr.ctime_ns = SystemClock.now_ns();
        }
    }

    fn insert(&mut self, parent: Ino, name: &[u8], ino: Ino) -> Result<()> {
        let is_dir = self.is_dir(ino)?;
        let dir = self.dir(parent)?;
        if dir.names.contains_key(name) {
            return Err(Reason::AlreadyExists.into());
        }
        dir.next_cookie += 1;
        let cookie = dir.next_cookie;
        dir.names.insert(name.to_vec(), (cookie, ino));
        dir.order.insert(cookie, name.to_vec());
        if is_dir {
            self.dir(ino)?.parent = parent;
            self.node(parent)?.attr.nlink += 1;
        }
        self.touched(parent);
        Ok(())
    }

    fn take(&mut self, parent: Ino, name: &[u8]) -> Result<Ino> {
        let dir = self.dir(parent)?;
        let (cookie, ino) = dir.names.remove(name).ok_or(Reason::NotFound)?;
        dir.order.remove(&cookie);
        if self.is_dir(ino)? {
            self.node(parent)?.attr.nlink -= 1;
        }
        self.touched(parent);
        Ok(ino)
    }

    fn drop_link(&mut self, ino: Ino) {
        self.changed(ino);
        let node = self.nodes.get_mut(&ino).unwrap();
        node.attr.nlink = if node.attr.mode & S_IFMT == S_IFDIR { 0 } else { node.attr.nlink - 1 };
        self.bury(ino);
    }

    fn bury(&mut self, ino: Ino) {
        if self.nodes.get(&ino).is_some_and(|n| n.attr.nlink == 0 && n.opens == 0) {
            self.nodes.remove(&ino);
        }
    }

    fn unlink(&mut self, parent: Ino, name: &[u8]) -> Result<()> {
        let ino = self.child(parent, name)?;
        if self.is_dir(ino)? {
            return Err(Reason::IsADirectory.into());
        }
        self.take(parent, name)?;
        self.drop_link(ino);
        Ok(())
    }

    fn rmdir(&mut self, parent: Ino, name: &[u8]) -> Result<()> {
        let ino = self.child(parent, name)?;
        if !self.dir(ino)?.names.is_empty() {
            return Err(Reason::NotEmpty.into());
        }
        self.take(parent, name)?;
        self.drop_link(ino);
        Ok(())
    }

    fn rename(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> Result<()> {
        let ino = self.child(from.0, from.1)?;
        let target = self.child(to.0, to.1).ok();
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Reason::AlreadyExists.into()),
            (RenameMode::Exchange, None) => return Err(Reason::NotFound.into()),
            (RenameMode::Exchange, Some(other)) => {
                self.take(from.0, from.1)?;
                self.take(to.0, to.1)?;
                self.insert(to.0, to.1, ino)?;
                self.insert(from.0, from.1, other)?;
                self.changed(ino);
                self.changed(other);
                return Ok(());
            }
            (_, Some(other)) if other == ino => return Ok(()),
            (_, Some(other)) if self.is_dir(other)? => self.rmdir(to.0, to.1)?,
            (_, Some(_)) => self.unlink(to.0, to.1)?,
            (_, None) => {}
        }
        self.take(from.0, from.1)?;
        self.insert(to.0, to.1, ino)?;
        self.changed(ino);
        Ok(())
    }

    fn make(
        &mut self,
        parent: Ino,
        name: &[u8],
        mode: u32,
        rdev: u32,
        caller: Caller,
        body: Body,
    ) -> Result<Attr> {
        if self.child(parent, name).is_ok() {
            return Err(Reason::AlreadyExists.into());
        }
        let above = self.node(parent)?.attr;
        let inherits = above.mode & 0o2000 != 0;
        let gid = if inherits { above.gid } else { caller.gid };
        let mode = if inherits && mode & S_IFMT == S_IFDIR { mode | 0o2000 } else { mode };
        let ino = self.add(mode, rdev, (caller.uid, gid), body);
        self.insert(parent, name, ino)?;
        Ok(self.node(ino)?.attr)
    }

    fn kill_priv(&mut self, ino: Ino) {
        let node = self.nodes.get_mut(&ino).unwrap();
        if node.attr.mode & S_IFMT == S_IFREG {
            node.attr.mode &= !0o4000;
            if node.attr.mode & 0o010 != 0 {
                node.attr.mode &= !0o2000;
            }
            node.xattrs.remove(&b"security.capability"[..]);
        }
    }

    fn open(&mut self, ino: Ino, mode: OpenMode) -> Result<Opened> {
        self.file(ino)?;
        if mode.truncate {
            self.file(ino)?.clear();
            self.touched(ino);
        }
        if mode.kill_priv {
            self.kill_priv(ino);
        }
        let node = self.node(ino)?;
        node.opens += 1;
        Ok(Opened { fh: ino, version: node.attr.version })
    }

    fn put(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Result<Attr> {
        let file = self.file(ino)?;
        let end = offset as usize + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[offset as usize..end].copy_from_slice(bytes);
        Ok(self.touched(ino))
    }
}

impl Vfs for MemFs {
    fn caps(&self) -> Caps {
        self.caps
    }
    fn watch(&self, sink: InvalidationSink) -> WatchGuard {
        self.sinks.lock().push(sink);
        WatchGuard::none()
    }
    fn lookup(&self, parent: Ino, name: NameRef<'_>) -> Result<Attr> {
        let mut state = self.state.lock();
        let ino = state.child(parent, name.as_bytes())?;
        Ok(state.node(ino)?.attr)
    }
    fn forget(&self, _: Ino) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }
    fn getattr(&self, ino: Ino) -> Result<Attr> {
        assert!(!self.panic_once.swap(false, Ordering::SeqCst), "asked to panic");
        Ok(self.state.lock().node(ino)?.attr)
    }
    fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        let mut state = self.state.lock();
        if let Some(size) = set.size {
            state.file(ino)?.resize(size as usize, 0);
            state.touched(ino);
        }
        if set.kill_priv {
            state.kill_priv(ino);
        }
        let now = SystemClock.now_ns();
        let time = |t: SetTime| match t {
            SetTime::Now => now,
            SetTime::At(ns) => ns,
        };
        let attr = &mut state.node(ino)?.attr;
        attr.mode = set.mode.map_or(attr.mode, |m| attr.mode & S_IFMT | m);
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        attr.atime_ns = set.atime.map_or(attr.atime_ns, time);
        attr.mtime_ns = set.mtime.map_or(attr.mtime_ns, time);
        attr.ctime_ns = now;
        Ok(*attr)
    }
    fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        match &self.state.lock().node(ino)?.body {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(Reason::WrongType.into()),
        }
    }
    fn mknod(&self, parent: Ino, name: NameRef<'_>, mode: u32, rdev: u32, caller: Caller) -> Result<Attr> {
        let body = if mode & S_IFMT == S_IFREG { Body::File(Vec::new()) } else { Body::Other };
        self.state.lock().make(parent, name.as_bytes(), mode, rdev, caller, body)
    }
    fn mkdir(&self, parent: Ino, name: NameRef<'_>, mode: u32, caller: Caller) -> Result<Attr> {
        let body = Body::Dir(Dir::default());
        self.state.lock().make(parent, name.as_bytes(), S_IFDIR | mode & 0o7777, 0, caller, body)
    }
    fn symlink(&self, parent: Ino, name: NameRef<'_>, target: &[u8], caller: Caller) -> Result<Attr> {
        let body = Body::Link(target.to_vec());
        self.state.lock().make(parent, name.as_bytes(), S_IFLNK | 0o777, 0, caller, body)
    }
    fn link(&self, ino: Ino, parent: Ino, name: NameRef<'_>) -> Result<Attr> {
        let mut state = self.state.lock();
        state.insert(parent, name.as_bytes(), ino)?;
        state.changed(ino);
        let attr = &mut state.node(ino)?.attr;
        attr.nlink += 1;
        Ok(*attr)
    }
    fn unlink(&self, parent: Ino, name: NameRef<'_>) -> Result<()> {
        self.state.lock().unlink(parent, name.as_bytes())
    }
    fn rmdir(&self, parent: Ino, name: NameRef<'_>) -> Result<()> {
        self.state.lock().rmdir(parent, name.as_bytes())
    }
    fn rename(&self, from: (Ino, NameRef<'_>), to: (Ino, NameRef<'_>), mode: RenameMode) -> Result<()> {
        self.state.lock().rename((from.0, from.1.as_bytes()), (to.0, to.1.as_bytes()), mode)
    }
    fn open(&self, ino: Ino, mode: OpenMode) -> Result<Opened> {
        self.state.lock().open(ino, mode)
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
        let mut state = self.state.lock();
        let ino = match state.child(parent, name.as_bytes()) {
            Ok(_) if exclusive => return Err(Reason::AlreadyExists.into()),
            Ok(ino) => ino,
            Err(_) => {
                let body = Body::File(Vec::new());
                state.make(parent, name.as_bytes(), S_IFREG | permissions, 0, caller, body)?.ino
            }
        };
        let opened = state.open(ino, open)?;
        Ok((state.node(ino)?.attr, opened))
    }
    fn read(&self, ino: Ino, fh: u64, offset: u64, length: usize, out: &mut dyn FnMut(&[u8])) -> Result<()> {
        assert_eq!(fh, ino, "the handle of the open file comes back");
        crate::bed::pause(Duration::from_millis(self.read_delay_ms.load(Ordering::Relaxed)));
        let mut state = self.state.lock();
        let file = state.file(ino)?;
        let start = (offset as usize).min(file.len());
        let end = (start + length).min(file.len());
        out(&file[start..end]);
        Ok(())
    }
    fn write(&self, ino: Ino, _: u64, offset: u64, bytes: &[u8], mode: WriteMode) -> Result<Written> {
        let mut state = self.state.lock();
        let before = state.node(ino)?.attr;
        let offset = if mode.append { before.size } else { offset };
        if mode.kill_priv {
            state.kill_priv(ino);
        }
        let after = state.put(ino, offset, bytes)?;
        Ok(Written { bytes: bytes.len(), offset, before: before.version, after: after.version })
    }
    fn release(&self, ino: Ino, _: u64) {
        let mut state = self.state.lock();
        if let Ok(node) = state.node(ino) {
            node.opens -= 1;
        }
        state.bury(ino);
    }
    fn fsync(&self, _: Ino, _: u64, _: bool) -> Result<()> {
        Ok(())
    }
    fn readdir(&self, ino: Ino, _: u64, cookie: u64, plus: bool, sink: &mut DirSink<'_>) -> Result<()> {
        let mut state = self.state.lock();
        let dir = state.dir(ino)?;
        let entries: Vec<(u64, Vec<u8>)> =
            dir.order.range(cookie + 1..).take(512).map(|(c, n)| (*c, n.clone())).collect();
        for (cookie, name) in entries {
            let child = state.child(ino, &name)?;
            let attr = state.node(child)?.attr;
            let entry = DirEntry {
                ino: child,
                mode: attr.mode,
                name: &name,
                next: cookie,
                attr: plus.then_some(attr),
            };
            if !sink(entry) {
                break;
            }
        }
        Ok(())
    }
    fn parent(&self, ino: Ino) -> Ino {
        self.state.lock().dir(ino).map_or(ROOT_INO, |d| d.parent)
    }
    fn statfs(&self, _: Ino) -> Result<StatFs> {
        let blocks = 1 << 20;
        Ok(StatFs {
            block_size: BLOCK as u32,
            blocks,
            blocks_free: blocks,
            blocks_available: blocks,
            files: 1 << 20,
            files_free: 1 << 20,
        })
    }
    fn fallocate(&self, ino: Ino, _: u64, what: Allocate) -> Result<()> {
        let mut state = self.state.lock();
        let file = state.file(ino)?;
        let (start, end) = (what.offset as usize, (what.offset + what.length) as usize);
        if !what.keep_size && file.len() < end {
            file.resize(end, 0);
        }
        if what.action != AllocateAction::Reserve {
            let end = end.min(file.len());
            file[start.min(end)..end].fill(0);
        }
        state.touched(ino);
        Ok(())
    }
    fn seek(&self, ino: Ino, _: u64, offset: u64, what: Seek) -> Result<Option<u64>> {
        let mut state = self.state.lock();
        let file = state.file(ino)?;
        if offset >= file.len() as u64 {
            return Ok(None);
        }
        let mut at = offset as usize;
        while at < file.len() {
            let end = (at / BLOCK * BLOCK + BLOCK).min(file.len());
            let is_hole = file[at / BLOCK * BLOCK..end].iter().all(|b| *b == 0);
            if is_hole == (what == Seek::Hole) {
                return Ok(Some(at as u64));
            }
            at = end;
        }
        Ok((what == Seek::Hole).then_some(file.len() as u64))
    }
    fn copy_range(&self, r: CopyRange) -> Result<u64> {
        let mut state = self.state.lock();
        let file = state.file(r.from)?;
        let start = (r.from_offset as usize).min(file.len());
        let end = (start + r.length as usize).min(file.len());
        let bytes = file[start..end].to_vec();
        if !bytes.is_empty() {
            state.put(r.to, r.to_offset, &bytes)?;
        }
        Ok(bytes.len() as u64)
    }
    fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let mut state = self.state.lock();
        let xattrs = &mut state.node(ino)?.xattrs;
        match (mode, xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(Reason::AlreadyExists.into()),
            (XattrMode::Replace, false) => return Err(Reason::NoAttribute.into()),
            _ => xattrs.insert(name.to_vec(), value.to_vec()),
        };
        Ok(())
    }
    fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.state.lock().node(ino)?.xattrs.get(name).cloned().ok_or_else(|| Reason::NoAttribute.into())
    }
    fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        Ok(self.state.lock().node(ino)?.xattrs.keys().flat_map(|n| [n.as_slice(), b"\0"].concat()).collect())
    }
    fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.state.lock().node(ino)?.xattrs.remove(name).map(drop).ok_or_else(|| Reason::NoAttribute.into())
    }
}
