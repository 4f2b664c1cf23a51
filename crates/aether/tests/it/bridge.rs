//! A stand-in server: the Bridge protocol over [`MemFs`].

use crate::mem_fs::MemFs;
use afs_fuse::{
    Allocate, AllocateAction, Attr, Caller, Caps, CopyRange, Invalidation, InvalidationSink, OpenMode,
    RenameMode, Seek, SetAttr, SetTime, Vfs, WriteMode, XattrMode,
};
use afs_proto::{to_status, v1};
use afs_types::{Error, NameRef, Reason, Result};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::broadcast;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use v1::bridge_service_server::{BridgeService, BridgeServiceServer};
use v1::op::Op as Kind;

/// What outlives a restart.
pub(crate) struct World {
    pub(crate) fs: Arc<MemFs>,
    /// The session's revision; a "crash" lowers it.
    pub(crate) revision: AtomicU64,
    /// This many answers to changes get lost on the way.
    pub(crate) lose_answers: AtomicU64,
    pub(crate) applied: AtomicU64,
    /// This many times the attachments are forgotten, and the answer with them, right after an open was applied.
    pub(crate) forget_at_open: AtomicU64,
    /// So many operations find no room for their answers, and are not applied.
    pub(crate) refuse_ops: AtomicU64,
    /// The end of a mount is never answered; and whether one was asked for.
    pub(crate) hang_at_detach: AtomicBool,
    pub(crate) detaching: AtomicBool,
    /// How often the newest attachment holds each inode.
    pub(crate) holds: Mutex<HashMap<u64, i64>>,
    /// So far; no two have the same name.
    attachments: AtomicU64,
    changes: broadcast::Sender<v1::Invalidation>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        let fs = MemFs::new(Caps::default());
        let changes = broadcast::Sender::new(1024);
        let sender = changes.clone();
        let report = move |change| drop(sender.send(message(change))); // nobody may be attached
        let guard = fs.watch(InvalidationSink::new(report, |_| true));
        std::mem::forget(guard);
        Arc::new(Self {
            fs,
            revision: AtomicU64::new(1),
            lose_answers: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            forget_at_open: AtomicU64::new(0),
            refuse_ops: AtomicU64::new(0),
            hang_at_detach: AtomicBool::new(false),
            detaching: AtomicBool::new(false),
            holds: Mutex::default(),
            attachments: AtomicU64::new(0),
            changes,
        })
    }

    /// How often the newest attachment holds an inode.
    pub(crate) fn held(&self, ino: u64) -> i64 {
        self.holds.lock().get(&ino).copied().unwrap_or(0)
    }

    fn hold(&self, ino: u64, more: i64) {
        *self.holds.lock().entry(ino).or_insert(0) += more;
    }
}

fn message(change: Invalidation) -> v1::Invalidation {
    match change {
        Invalidation::Inode { ino, data } => {
            v1::Invalidation { inode: ino, data, attributes: true, ..Default::default() }
        }
        Invalidation::Entry { parent, name } => {
            v1::Invalidation { parent, name: name.into_vec().into(), entry: true, ..Default::default() }
        }
        Invalidation::Range { .. } | Invalidation::Everything => {
            v1::Invalidation { all: true, ..Default::default() }
        }
    }
}

/// A running server; dropping it is a kill: connections break.
pub(crate) struct Server {
    runtime: Option<tokio::runtime::Runtime>,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn start(world: &Arc<World>, address: Option<SocketAddr>) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let wanted = address.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let mut listener = None;
        crate::bed::eventually("the port is free", || {
            listener = runtime.block_on(tokio::net::TcpListener::bind(wanted)).ok();
            listener.is_some()
        });
        let listener = listener.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Fake { world: world.clone(), mounts: Mutex::default() };
        let server = tonic::transport::Server::builder()
            .add_service(BridgeServiceServer::new(service).max_decoding_message_size(32 << 20))
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(server);
        Self { runtime: Some(runtime), address }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn kill(mut self) -> SocketAddr {
        self.stop();
        self.address
    }

    fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(std::time::Duration::from_secs(2)); // frees the port
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Fake {
    world: Arc<World>,
    mounts: Mutex<HashMap<String, Arc<Attached>>>,
}

#[derive(Default)]
struct Attached {
    answers: Mutex<HashMap<u64, v1::OpResult>>,
    open: Mutex<HashSet<u64>>,
}

type Reply<T> = std::result::Result<Response<T>, Status>;

fn reply<T>(result: Result<T>) -> Reply<T> {
    result.map(Response::new).map_err(|e| to_status(&e))
}

impl Fake {
    fn mount(&self, id: &str) -> Result<Arc<Attached>> {
        let mount = self.mounts.lock().get(id).cloned();
        mount.ok_or_else(|| Error::new(Reason::MountNotFound, format!("{id} does not exist")))
    }

    fn apply(&self, mount: &Attached, op: v1::Op) -> v1::OpResult {
        if let Some(answer) = mount.answers.lock().get(&op.op_id) {
            return answer.clone();
        }
        let op_id = op.op_id;
        let less = |n: u64| n.checked_sub(1);
        if self.world.refuse_ops.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            let reason = Reason::QueueFull.as_str().into();
            return v1::OpResult { op_id, errno: Reason::QueueFull.errno(), reason, ..done() };
        }
        let answer =
            match op.op.ok_or_else(|| Reason::InvalidArgument.into()).and_then(|k| self.run(mount, k)) {
                Ok(result) => v1::OpResult { op_id, ..result },
                Err(e) => v1::OpResult {
                    op_id,
                    errno: e.errno(),
                    reason: e.reason.as_str().into(),
                    message: e.message().into(),
                    ..Default::default()
                },
            };
        self.world.applied.fetch_add(1, Ordering::SeqCst);
        self.world.revision.fetch_add(1, Ordering::SeqCst);
        mount.answers.lock().insert(op_id, answer.clone());
        answer
    }

    fn run(&self, mount: &Attached, kind: Kind) -> Result<v1::OpResult> {
        let fs = &self.world.fs;
        let caller = |uid, gid| Caller { uid, gid, pid: 0 };
        match kind {
            Kind::Create(op) => {
                let open = OpenMode { truncate: op.truncate, kill_priv: op.kill_priv, ..OpenMode::default() };
                let by = caller(op.uid, op.gid);
                let (attr, opened) =
                    fs.create(op.parent, name(&op.name)?, op.mode & 0o7777, open, op.exclusive, by)?;
                match op.open {
                    true => {
                        mount.open.lock().insert(attr.ino);
                        self.world.hold(attr.ino, 1);
                    }
                    false => fs.release(attr.ino, opened.fh),
                }
                Ok(made(attr))
            }
            Kind::Open(op) => {
                let open = OpenMode { truncate: op.truncate, kill_priv: op.kill_priv, ..OpenMode::default() };
                fs.open(op.inode, open)?;
                mount.open.lock().insert(op.inode);
                self.world.hold(op.inode, 1);
                Ok(made(fs.getattr(op.inode)?))
            }
            Kind::Release(op) => {
                self.world.hold(op.inode, -1);
                fs.release(op.inode, op.inode);
                Ok(v1::OpResult::default())
            }
            Kind::Setattr(op) => {
                let time =
                    |now: bool, at: Option<i64>| if now { Some(SetTime::Now) } else { at.map(SetTime::At) };
                let set = SetAttr {
                    mode: op.mode,
                    uid: op.uid,
                    gid: op.gid,
                    size: op.size,
                    atime: time(op.atime_now, op.atime_ns),
                    mtime: time(op.mtime_now, op.mtime_ns),
                    kill_priv: op.kill_priv,
                };
                Ok(made(fs.setattr(op.inode, set)?))
            }
            Kind::Unlink(op) if op.directory => fs.rmdir(op.parent, name(&op.name)?).map(|()| done()),
            Kind::Unlink(op) => fs.unlink(op.parent, name(&op.name)?).map(|()| done()),
            Kind::Rename(op) => {
                let mode =
                    [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange][op.flags as usize];
                let (from, to) = ((op.from_parent, name(&op.from_name)?), (op.to_parent, name(&op.to_name)?));
                fs.rename(from, to, mode).map(|()| done())
            }
            Kind::Link(op) => Ok(made(fs.link(op.inode, op.parent, name(&op.name)?)?)),
            Kind::Xattr(op) if op.remove => fs.removexattr(op.inode, &op.name).map(|()| done()),
            Kind::Xattr(op) => {
                let mode = [XattrMode::Any, XattrMode::Create, XattrMode::Replace][op.flags as usize];
                fs.setxattr(op.inode, &op.name, &op.value, mode).map(|()| done())
            }
            Kind::Write(op) => {
                let mode = WriteMode { append: op.append, kill_priv: op.kill_priv };
                let w = fs.write(op.inode, op.inode, op.offset, &op.data, mode)?;
                let attributes = Some(attributes(&fs.getattr(op.inode)?));
                let (count, offset) = (w.bytes as u64, w.offset);
                Ok(v1::OpResult { attributes, count, offset, version_before: w.before, ..done() })
            }
            Kind::Mkdir(op) => {
                Ok(made(fs.mkdir(op.parent, name(&op.name)?, op.mode, caller(op.uid, op.gid))?))
            }
            Kind::Symlink(op) => {
                Ok(made(fs.symlink(op.parent, name(&op.name)?, &op.target, caller(op.uid, op.gid))?))
            }
            Kind::Mknod(op) => {
                let by = caller(op.uid, op.gid);
                Ok(made(fs.mknod(op.parent, name(&op.name)?, op.mode, op.rdev as u32, by)?))
            }
            Kind::Fallocate(op) => {
                let action = match op.mode & !1 {
                    0 => AllocateAction::Reserve,
                    2 => AllocateAction::PunchHole,
                    _ => AllocateAction::ZeroRange,
                };
                let keep_size = op.mode & 1 != 0;
                let what = Allocate { offset: op.offset, length: op.length, keep_size, action };
                fs.fallocate(op.inode, op.inode, what).map(|()| done())
            }
            Kind::CopyRange(op) => {
                let count = fs.copy_range(CopyRange {
                    from: op.from_inode,
                    from_fh: op.from_inode,
                    from_offset: op.from_offset,
                    to: op.to_inode,
                    to_fh: op.to_inode,
                    to_offset: op.to_offset,
                    length: op.length,
                })?;
                Ok(v1::OpResult { count, ..done() })
            }
        }
    }
}

fn name(bytes: &[u8]) -> Result<NameRef<'_>> {
    NameRef::new(bytes)
}

fn done() -> v1::OpResult {
    v1::OpResult::default()
}

fn made(attr: Attr) -> v1::OpResult {
    v1::OpResult { attributes: Some(attributes(&attr)), ..done() }
}

fn attributes(a: &Attr) -> v1::Attributes {
    v1::Attributes {
        inode: a.ino,
        size: a.size,
        mode: a.mode,
        uid: a.uid,
        gid: a.gid,
        nlink: a.nlink,
        mtime_ns: a.mtime_ns,
        ctime_ns: a.ctime_ns,
        rdev: a.rdev.into(),
        atime_ns: a.atime_ns,
        blocks: a.blocks,
        version: a.version,
    }
}

#[tonic::async_trait]
impl BridgeService for Fake {
    type SyncStream = ReceiverStream<std::result::Result<v1::SyncResponse, Status>>;

    async fn attach(&self, r: Request<v1::AttachRequest>) -> Reply<v1::AttachResponse> {
        let r = r.into_inner();
        if r.session_id != "sess_test" {
            let error = Error::new(Reason::SessionNotFound, format!("{} does not exist", r.session_id));
            return Err(to_status(&error));
        }
        let mut mounts = self.mounts.lock();
        let mount_id = format!("mnt_{}", self.world.attachments.fetch_add(1, Ordering::SeqCst));
        mounts.insert(mount_id.clone(), Arc::default());
        self.world.holds.lock().clear();
        Ok(Response::new(v1::AttachResponse {
            mount_id,
            root_inode: 1,
            revision: self.world.revision.load(Ordering::SeqCst),
            lease: Some(afs_proto::to_duration(60_000_000_000)),
            max_read_bytes: 64 << 10, // small, so that reads and writes go in pieces
            max_write_bytes: 64 << 10,
            instance_id: String::new(),
            epoch: 1,
            session_created_ns: 1,
            knows_sent_before: false,
            lost_changes: r.seen_epoch != 0 && r.seen_revision > self.world.revision.load(Ordering::SeqCst),
        }))
    }

    async fn detach(&self, r: Request<v1::DetachRequest>) -> Reply<v1::DetachResponse> {
        if self.world.hang_at_detach.load(Ordering::SeqCst) {
            self.world.detaching.store(true, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        self.mounts.lock().remove(&r.into_inner().mount_id);
        Ok(Response::new(v1::DetachResponse { revision: self.world.revision.load(Ordering::SeqCst) }))
    }

    async fn sync(&self, r: Request<Streaming<v1::SyncRequest>>) -> Reply<Self::SyncStream> {
        let mut requests = r.into_inner();
        let first = requests.message().await?.unwrap_or_default();
        reply(self.mount(&first.mount_id).map(drop))?;
        let (out, responses) = tokio::sync::mpsc::channel(16);
        let mut changes = self.world.changes.subscribe();
        tokio::spawn(async move {
            loop {
                let invalidations = tokio::select! {
                    change = changes.recv() => match change {
                        Ok(change) => vec![change],
                        Err(_) => vec![v1::Invalidation { all: true, ..Default::default() }],
                    },
                    beat = requests.message() => match beat {
                        Ok(Some(_)) => vec![],
                        _ => return,
                    },
                };
                let message = v1::SyncResponse { invalidations, ..Default::default() };
                if out.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn lookup(&self, r: Request<v1::LookupRequest>) -> Reply<v1::LookupResponse> {
        let r = r.into_inner();
        reply(self.mount(&r.mount_id).map(drop))?;
        match name(&r.name).and_then(|name| self.world.fs.lookup(r.parent, name)) {
            Ok(a) => {
                Ok(Response::new(v1::LookupResponse { attributes: Some(attributes(&a)), negative: false }))
            }
            Err(e) if e.reason == Reason::NotFound => {
                Ok(Response::new(v1::LookupResponse { attributes: None, negative: true }))
            }
            Err(e) => Err(to_status(&e)),
        }
    }

    async fn get_attributes(&self, r: Request<v1::GetAttributesRequest>) -> Reply<v1::GetAttributesResponse> {
        let r = r.into_inner();
        reply(self.mount(&r.mount_id).and_then(|_| {
            let attributes = Some(attributes(&self.world.fs.getattr(r.inode)?));
            Ok(v1::GetAttributesResponse { attributes })
        }))
    }

    async fn read_directory(&self, r: Request<v1::ReadDirectoryRequest>) -> Reply<v1::ReadDirectoryResponse> {
        let r = r.into_inner();
        reply(self.mount(&r.mount_id).and_then(|_| {
            let mut entries = Vec::new();
            self.world.fs.readdir(r.inode, 0, r.cookie, true, &mut |e| {
                entries.push(v1::DirectoryEntry {
                    name: e.name.to_vec().into(),
                    next_cookie: e.next,
                    attributes: e.attr.as_ref().map(attributes),
                });
                entries.len() < 100
            })?;
            Ok(v1::ReadDirectoryResponse { end: entries.is_empty(), entries, parent: 1 })
        }))
    }

    async fn read_tree(&self, r: Request<v1::ReadTreeRequest>) -> Reply<v1::ReadTreeResponse> {
        let r = r.into_inner();
        reply(self.mount(&r.mount_id).and_then(|_| {
            let mut entries = Vec::new();
            self.world.fs.readdir(r.inode, 0, 0, true, &mut |e| {
                entries.push(v1::DirectoryEntry {
                    name: e.name.to_vec().into(),
                    next_cookie: e.next,
                    attributes: e.attr.as_ref().map(attributes),
                });
                true
            })?;
            let one = v1::DirectoryListing { inode: r.inode, parent: 1, entries };
            Ok(v1::ReadTreeResponse { directories: vec![one] })
        }))
    }

    async fn read(&self, r: Request<v1::ReadRequest>) -> Reply<v1::ReadResponse> {
        let r = r.into_inner();
        assert!(r.length <= 64 << 10);
        reply(self.mount(&r.mount_id).and_then(|_| {
            let mut data = Vec::new();
            let mut out = |bytes: &[u8]| data = bytes.to_vec();
            self.world.fs.read(r.inode, r.inode, r.offset, r.length as usize, &mut out)?;
            Ok(v1::ReadResponse { data: data.into() })
        }))
    }

    async fn read_link(&self, r: Request<v1::ReadLinkRequest>) -> Reply<v1::ReadLinkResponse> {
        let target = self.world.fs.readlink(r.into_inner().inode);
        reply(target.map(|t| v1::ReadLinkResponse { target: t.into() }))
    }

    async fn get_xattr(&self, r: Request<v1::GetXattrRequest>) -> Reply<v1::GetXattrResponse> {
        let r = r.into_inner();
        reply(self.world.fs.getxattr(r.inode, &r.name).map(|v| v1::GetXattrResponse { value: v.into() }))
    }

    async fn list_xattrs(&self, r: Request<v1::ListXattrsRequest>) -> Reply<v1::ListXattrsResponse> {
        let list = self.world.fs.listxattr(r.into_inner().inode).map_err(|e| to_status(&e))?;
        let names = list.split(|b| *b == 0).filter(|n| !n.is_empty()).map(|n| n.to_vec().into()).collect();
        Ok(Response::new(v1::ListXattrsResponse { names }))
    }

    async fn seek(&self, r: Request<v1::SeekRequest>) -> Reply<v1::SeekResponse> {
        let r = r.into_inner();
        let what = if r.whence() == v1::SeekWhence::Data { Seek::Data } else { Seek::Hole };
        reply(match self.world.fs.seek(r.inode, r.inode, r.offset, what) {
            Ok(Some(offset)) => Ok(v1::SeekResponse { offset }),
            Ok(None) => Err(Reason::NoData.into()),
            Err(e) => Err(e),
        })
    }

    async fn stat_file_system(
        &self,
        _: Request<v1::StatFileSystemRequest>,
    ) -> Reply<v1::StatFileSystemResponse> {
        Ok(Response::new(v1::StatFileSystemResponse {
            total_bytes: 1 << 30,
            free_bytes: 1 << 29,
            files: 1000,
            free_files: 900,
            block_size: 4096,
        }))
    }

    async fn changed_since(&self, _: Request<v1::ChangedSinceRequest>) -> Reply<v1::ChangedSinceResponse> {
        Err(Status::unimplemented("this server keeps no instants"))
    }

    async fn apply_ops(&self, r: Request<v1::ApplyOpsRequest>) -> Reply<v1::ApplyOpsResponse> {
        let r = r.into_inner();
        let mount = self.mount(&r.mount_id).map_err(|e| to_status(&e))?;
        mount.answers.lock().retain(|id, _| *id >= r.answered_below);
        let has_open = r.ops.iter().any(|op| matches!(op.op, Some(Kind::Open(_))));
        let results: Vec<_> = r.ops.into_iter().map(|op| self.apply(&mount, op)).collect();
        let lose = |n: u64| n.checked_sub(1);
        if has_open
            && self.world.forget_at_open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok()
        {
            self.mounts.lock().clear();
            return Err(Status::unavailable("the mount is forgotten"));
        }
        if self.world.lose_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
            return Err(Status::unavailable("the answer got lost"));
        }
        let revision = self.world.revision.load(Ordering::SeqCst);
        Ok(Response::new(v1::ApplyOpsResponse { revision, results, durable: r.durable }))
    }
}
