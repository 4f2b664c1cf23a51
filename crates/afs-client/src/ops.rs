//! The calls of a mount: reads by inode, and changes that are applied once however often they are sent.
//!
//! The server holds each inode as often as it is open here. Holds belong to an attachment. A new one is given those that are counted at
//! that moment ([`Ops::moved`]); an open that is answered later over the old one is done again, and a release that was counted before is
//! not sent over the new one, which never had that hold.

use crate::api;
use crate::cache::Found;
use crate::mount::{Failure, Link, Mount};
use crate::retry::Backoff;
use crate::way::Way;
use afs_types::{Error, Kind, Reason, Result};
use api::op::Op;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Releases waiting to be sent; more than that and a close waits.
const MAX_RELEASES: usize = 4096;
/// Most releases of one call.
const RELEASE_BATCH: usize = 256;
const ENTRIES_PER_PAGE: u32 = 4096;
/// How long a fence may take from the server's queue to here.
const FENCE_PATIENCE: Duration = Duration::from_secs(2);

/// The answer to one change.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Applied {
    /// Attributes of the inode made or changed.
    pub attributes: Option<api::Attributes>,
    /// Bytes written or copied.
    pub count: u64,
    /// Where a write went.
    pub offset: u64,
    /// Version of the content before a write.
    pub version_before: u64,
}

/// A page of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Directory {
    /// Entries with attributes, without `.` and `..`.
    pub entries: Vec<api::DirectoryEntry>,
    /// Nothing comes after these.
    pub end: bool,
    /// Inode of `..`.
    pub parent: u64,
}

/// What changed since an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// The present, for the next question.
    pub instant: String,
    /// From the root on, without a leading slash; a directory stands for everything below it. None: everything.
    pub paths: Option<Vec<Vec<u8>>>,
}

impl Default for Since {
    /// Nothing is known.
    fn default() -> Self {
        Self { instant: "unknown".into(), paths: None }
    }
}

/// Numbers of operations, and what is open.
pub(crate) struct Ops {
    next: AtomicU64,
    unanswered: Mutex<BTreeSet<u64>>,
    open: Mutex<Opens>,
    releases: mpsc::Sender<Released>,
}

/// The holds that the server must have.
#[derive(Default)]
struct Opens {
    /// Of which attachment.
    of: Arc<str>,
    counts: HashMap<u64, u32>,
}

/// One hold less, of an attachment.
#[derive(Clone)]
pub(crate) struct Released {
    ino: u64,
    of: Arc<str>,
}

/// What came back for several changes.
pub(crate) struct Answers {
    /// The attachment that answered.
    over: String,
    results: Vec<Result<Applied>>,
}

impl Ops {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Released>) {
        let (releases, waiting) = mpsc::channel(MAX_RELEASES);
        let (unanswered, open) = (Mutex::default(), Mutex::default());
        (Self { next: AtomicU64::new(1), unanswered, open, releases }, waiting)
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// From now on holds are of this attachment: returns those that it must be given.
    pub(crate) fn moved(&self, mount_id: &str) -> Vec<(u64, u32)> {
        let mut open = self.open.lock();
        open.of = mount_id.into();
        open.counts.iter().map(|(ino, count)| (*ino, *count)).collect()
    }

    /// Numbers whose answers the server must keep; dropped when the answers are here or not wanted.
    fn begin(&self, count: usize) -> Unanswered<'_> {
        let mut unanswered = self.unanswered.lock();
        let ids: Vec<u64> = (0..count).map(|_| self.next_id()).collect();
        unanswered.extend(&ids);
        Unanswered { ops: self, ids }
    }

    fn answered_below(&self) -> u64 {
        let unanswered = self.unanswered.lock();
        unanswered.first().copied().unwrap_or_else(|| self.next.load(Ordering::Relaxed))
    }

    /// Counts a hold that the server gave over an attachment. False if that is not the one any more: then there is no such hold.
    fn count_open(&self, ino: u64, over: &str) -> bool {
        let mut open = self.open.lock();
        let is_current = *open.of == *over;
        if is_current {
            *open.counts.entry(ino).or_insert(0) += 1;
        }
        is_current
    }

    fn count_closed(&self, ino: u64) -> Released {
        let mut open = self.open.lock();
        if let Some(count) = open.counts.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                open.counts.remove(&ino);
            }
        }
        Released { ino, of: open.of.clone() }
    }
}

struct Unanswered<'a> {
    ops: &'a Ops,
    ids: Vec<u64>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let mut unanswered = self.ops.unanswered.lock();
        for id in &self.ids {
            unanswered.remove(id);
        }
    }
}

/// Whether a second effect is the same as the first, also under another attachment.
pub(crate) fn is_repeatable(op: &Op) -> bool {
    match op {
        Op::Setattr(_) | Op::Fallocate(_) | Op::CopyRange(_) | Op::Open(_) => true,
        Op::Write(write) => !write.append,
        Op::Create(create) => !create.exclusive,
        Op::Xattr(xattr) => !xattr.remove && xattr.flags == 0,
        Op::Unlink(_) | Op::Rename(_) | Op::Link(_) | Op::Mkdir(_) | Op::Symlink(_) | Op::Mknod(_) => false,
        // Another attachment was given only the holds that are left.
        Op::Release(_) => false,
    }
}

impl Mount {
    /// The inode behind a name; none if there is no such name.
    pub async fn lookup(&self, parent: u64, name: Bytes) -> Result<Option<api::Attributes>> {
        match self.cache.lookup(parent, &name) {
            Found::Attributes(attributes) => return Ok(Some(attributes)),
            Found::Absent => return Ok(None),
            Found::Inode(ino) => match self.getattr(ino).await {
                Err(error) if error.reason.kind() == Kind::NotFound => {} // gone: ask for the name
                other => return other.map(Some),
            },
            Found::Unknown => {
                if let Some(limit) = self.cache.wants_listing(parent) {
                    self.list(parent, limit).await;
                    match self.cache.lookup(parent, &name) {
                        Found::Attributes(attributes) => return Ok(Some(attributes)),
                        Found::Absent => return Ok(None),
                        Found::Inode(_) | Found::Unknown => {}
                    }
                }
            }
        }
        self.lookup_there(parent, name).await
    }

    async fn lookup_there(&self, parent: u64, name: Bytes) -> Result<Option<api::Attributes>> {
        let ticket = self.cache.ticket();
        let answer = self.call("lookup", |link| {
            let (mut bridge, name) = (self.bridge(), name.clone());
            async move {
                bridge.lookup(api::LookupRequest { mount_id: link.mount_id.clone(), parent, name }).await
            }
        });
        let found = answer.await?.attributes;
        if let Some(attributes) = found {
            self.cache.store(attributes, ticket);
        }
        self.cache.store_name(parent, name, found.map(|a| a.inode), ticket);
        Ok(found)
    }

    /// Fills the cache with a whole directory, and with those below it: more each time, since whoever looks into many directories
    /// looks into more. A failure is none of the look-up that follows.
    async fn list(&self, dir: u64, limit: usize) {
        let ticket = self.cache.ticket();
        let max_entries = limit.max(self.cache.look_ahead()) as u32;
        let answer = self.call("read tree", |link| {
            let mut bridge = self.bridge();
            let request = api::ReadTreeRequest { mount_id: link.mount_id.clone(), inode: dir, max_entries };
            async move { bridge.read_tree(request).await }
        });
        let directories = answer.await.map(|a| a.directories).unwrap_or_default();
        if directories.first().is_none_or(|first| first.inode != dir) {
            self.cache.refuse_listing(dir);
        }
        for listing in directories {
            self.cache.store_listing(listing.inode, listing.parent, listing.entries, ticket);
        }
    }

    /// Attributes.
    pub async fn getattr(&self, inode: u64) -> Result<api::Attributes> {
        if let Some(attributes) = self.cache.attributes(inode) {
            return Ok(attributes);
        }
        let ticket = self.cache.ticket();
        let answer = self.call("getattr", |link| {
            let mut bridge = self.bridge();
            let request = api::GetAttributesRequest { mount_id: link.mount_id.clone(), inode };
            async move { bridge.get_attributes(request).await }
        });
        let attributes = present(answer.await?.attributes, "getattr")?;
        self.cache.store(attributes, ticket);
        Ok(attributes)
    }

    /// A page of a directory, after a cookie.
    pub async fn readdir(&self, inode: u64, cookie: u64) -> Result<Directory> {
        if let Some(page) = self.cache.listing(inode, cookie) {
            return Ok(page);
        }
        if cookie == 0
            && let Some(limit) = self.cache.wants_listing(inode)
        {
            self.list(inode, limit).await;
            if let Some(page) = self.cache.listing(inode, cookie) {
                return Ok(page);
            }
        }
        let ticket = self.cache.ticket();
        let page = self.readdir_there(inode, cookie).await?;
        if cookie == 0 && page.end {
            self.cache.store_listing(inode, page.parent, page.entries.clone(), ticket);
        }
        Ok(page)
    }

    async fn readdir_there(&self, inode: u64, cookie: u64) -> Result<Directory> {
        let answer = self.call("readdir", |link| {
            let mut bridge = self.bridge();
            let mount_id = link.mount_id.clone();
            let max_entries = ENTRIES_PER_PAGE;
            let request = api::ReadDirectoryRequest { mount_id, inode, cookie, max_entries };
            async move { bridge.read_directory(request).await }
        });
        let answer = answer.await?;
        Ok(Directory { entries: answer.entries, end: answer.end, parent: answer.parent })
    }

    /// Bytes of a file; fewer than asked for only at its end. One call per piece that the server allows.
    pub async fn read(&self, inode: u64, offset: u64, length: u32) -> Result<Vec<Bytes>> {
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < length {
            let (piece, asked) = self.read_piece(inode, offset + u64::from(done), length - done).await?;
            let got = piece.len() as u32;
            if got > 0 {
                pieces.push(piece);
            }
            done += got;
            if got < asked {
                break;
            }
        }
        Ok(pieces)
    }

    async fn read_piece(&self, inode: u64, offset: u64, length: u32) -> Result<(Bytes, u32)> {
        let mut asked = length;
        let answer = self.call("read", |link: Arc<Link>| {
            let mut bridge = self.bridge();
            asked = length.min(link.max_read);
            let request = api::ReadRequest { mount_id: link.mount_id.clone(), inode, offset, length: asked };
            async move { bridge.read(request).await }
        });
        let data = answer.await?.data;
        Ok((data, asked))
    }

    /// Target of a symbolic link.
    pub async fn readlink(&self, inode: u64) -> Result<Bytes> {
        let answer = self.call("readlink", |link| {
            let mut bridge = self.bridge();
            let request = api::ReadLinkRequest { mount_id: link.mount_id.clone(), inode };
            async move { bridge.read_link(request).await }
        });
        Ok(answer.await?.target)
    }

    /// An extended attribute.
    pub async fn getxattr(&self, inode: u64, name: Bytes) -> Result<Bytes> {
        let is_capability = &name[..] == b"security.capability";
        if is_capability && self.cache.has_no_capability(inode) {
            return Err(Reason::NoAttribute.into());
        }
        let ticket = self.cache.ticket();
        let answer = self.call("getxattr", |link| {
            let (mut bridge, name) = (self.bridge(), name.clone());
            async move {
                bridge.get_xattr(api::GetXattrRequest { mount_id: link.mount_id.clone(), inode, name }).await
            }
        });
        let answer = answer.await.map(|a| a.value);
        if is_capability && answer.as_ref().is_err_and(|e| e.reason == Reason::NoAttribute) {
            self.cache.store_no_capability(inode, ticket);
        }
        answer
    }

    /// Names of the extended attributes.
    pub async fn listxattr(&self, inode: u64) -> Result<Vec<Bytes>> {
        let answer = self.call("listxattr", |link| {
            let mut bridge = self.bridge();
            let request = api::ListXattrsRequest { mount_id: link.mount_id.clone(), inode };
            async move { bridge.list_xattrs(request).await }
        });
        Ok(answer.await?.names)
    }

    /// The next data or hole at or after an offset; none at or behind the end.
    pub async fn seek(&self, inode: u64, offset: u64, whence: api::SeekWhence) -> Result<Option<u64>> {
        let answer = self.call("seek", |link| {
            let mut bridge = self.bridge();
            let whence = whence.into();
            let request = api::SeekRequest { mount_id: link.mount_id.clone(), inode, offset, whence };
            async move { bridge.seek(request).await }
        });
        match answer.await {
            Ok(answer) => Ok(Some(answer.offset)),
            Err(error) if error.reason == Reason::NoData => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Size and use.
    pub async fn statfs(&self) -> Result<api::StatFileSystemResponse> {
        let answer = self.call("statfs", |link| {
            let mut bridge = self.bridge();
            let request = api::StatFileSystemRequest { mount_id: link.mount_id.clone() };
            async move { bridge.stat_file_system(request).await }
        });
        answer.await
    }

    /// What may look different from what it was at an instant that an earlier answer named. When this returns, nothing that is
    /// older than the answer's own instant is cached here, and the listener has heard of everything that it includes.
    pub async fn changed_since(&self, instant: &str) -> Result<Since> {
        let mut asked = String::new();
        let answer = self.call("changed since", |link| {
            let mut bridge = self.bridge();
            asked.clone_from(&link.mount_id);
            let request =
                api::ChangedSinceRequest { mount_id: link.mount_id.clone(), instant: instant.into() };
            async move { bridge.changed_since(request).await }
        });
        let answer = answer.await?;
        let mut fences = self.fences.subscribe();
        let come = fences.wait_for(|(mount, fence)| *mount == asked && *fence >= answer.fence);
        // A stream that broke meanwhile: nobody knows what is cached, so no name may be given to it.
        let Ok(Ok(_)) = tokio::time::timeout(FENCE_PATIENCE, come).await else { return Ok(Since::default()) };
        let paths = answer.paths.into_iter().map(|path| path.to_vec()).collect();
        Ok(Since { instant: answer.instant, paths: (!answer.everything).then_some(paths) })
    }

    /// Applies one change.
    pub async fn apply(&self, op: Op) -> Result<Applied> {
        self.apply_one(op).await.map(|(applied, _)| applied)
    }

    /// Applies one change, and says which attachment answered.
    async fn apply_one(&self, op: Op) -> Result<(Applied, String)> {
        let begun = self.cache.begin(&op);
        let answer = self.apply_all(std::slice::from_ref(&op), false, None).await;
        let missing = || Error::new(Reason::Internal, "apply: no answer to the change");
        let (outcome, over) = match answer {
            Ok(mut answers) => (answers.results.pop().ok_or_else(missing).flatten(), answers.over),
            Err(error) => (Err(error), String::new()),
        };
        self.cache.finish(begun, &op, &outcome);
        outcome.map(|applied| (applied, over))
    }

    /// Writes, in pieces that the server allows, and stops at the first that falls short.
    pub async fn write(&self, write: api::WriteDataOp) -> Result<Applied> {
        let most = self.max_write().await?;
        if write.data.len() <= most {
            return self.apply(Op::Write(write)).await;
        }
        let mut all: Option<Applied> = None;
        for piece in (0..write.data.len()).step_by(most) {
            let end = (piece + most).min(write.data.len());
            let offset = write.offset + piece as u64;
            let data = write.data.slice(piece..end);
            let done = self.apply(Op::Write(api::WriteDataOp { offset, data, ..write.clone() })).await?;
            all = Some(match all {
                None => done,
                Some(before) => {
                    Applied { count: before.count + done.count, ..done.clone() }.starting_like(&before)
                }
            });
        }
        present(all, "write")
    }

    async fn max_write(&self) -> Result<usize> {
        let patience = Instant::now() + self.client().timeout();
        Ok(self.link_until(patience).await?.max_write as usize)
    }

    /// Opens an inode (see [`api::OpenOp`]); it lives until [`Mount::release`].
    pub async fn open(&self, open: api::OpenOp) -> Result<Applied> {
        let inode = open.inode;
        let mut op = open;
        loop {
            let (opened, over) = self.apply_one(Op::Open(op)).await?;
            if self.ops.count_open(inode, &over) {
                return Ok(opened);
            }
            // The attachment ended with the answer on its way, and the hold with it. What was to be truncated is.
            op = api::OpenOp { inode, ..api::OpenOp::default() };
        }
    }

    /// Makes, and with `open` also opens, a file.
    pub async fn create(&self, create: api::CreateOp) -> Result<Applied> {
        let is_open = create.open;
        let (created, over) = self.apply_one(Op::Create(create)).await?;
        if let (true, Some(attributes)) = (is_open, &created.attributes)
            && !self.ops.count_open(attributes.inode, &over)
        {
            self.open(api::OpenOp { inode: attributes.inode, ..api::OpenOp::default() }).await?;
        }
        Ok(created)
    }

    /// Ends one open. Sent soon, together with others; waits only when very many are waiting.
    pub async fn release(&self, ino: u64) {
        let released = self.ops.count_closed(ino);
        // Fails only when the mount has ended, and with it everything that was open.
        let _ = self.ops.releases.send(released).await;
    }

    pub(crate) async fn send_releases(self: Arc<Self>, mut waiting: mpsc::Receiver<Released>) {
        let (mut released, mut backoff) = (Vec::new(), Backoff::new());
        // Those that the server had no room for come first.
        while !released.is_empty() || waiting.recv_many(&mut released, RELEASE_BATCH).await > 0 {
            let mut refused = Vec::new();
            for some in released.chunk_by(|a, b| a.of == b.of) {
                refused.extend(self.send_some_releases(some).await);
            }
            match refused.is_empty() {
                true => backoff = Backoff::new(),
                false => backoff.pause().await,
            }
            released = refused;
        }
    }

    /// Sends releases of one attachment; returns those that are still to be sent.
    async fn send_some_releases(&self, some: &[Released]) -> Vec<Released> {
        let ops: Vec<Op> = some.iter().map(|r| Op::Release(api::ReleaseOp { inode: r.ino })).collect();
        let of = some.first().map(|r| r.of.to_string());
        match self.apply_all(&ops, false, of).await {
            Ok(answers) => {
                let is_refused = |r: &Result<Applied>| matches!(r, Err(e) if e.reason == Reason::QueueFull);
                let refused = some.iter().zip(&answers.results).filter(|(_, result)| is_refused(result));
                refused.map(|(released, _)| released.clone()).collect()
            }
            Err(error) if error.reason == Reason::QueueFull => some.to_vec(),
            Err(error) => {
                tracing::debug!(?error, "releases were not sent; they end with the attachment");
                Vec::new()
            }
        }
    }

    /// Applies changes in order. The outer result is about the call, the inner ones about each change. With `of`, what cannot be
    /// repeated is sent over that attachment only. What the server had no room for was not applied: it is sent again, under the number
    /// that it has, for as long as any call waits.
    pub(crate) async fn apply_all(&self, ops: &[Op], durable: bool, of: Option<String>) -> Result<Answers> {
        let numbers = self.ops.begin(ops.len());
        let mut todo: Vec<api::Op> = numbers
            .ids
            .iter()
            .zip(ops)
            .map(|(id, op)| api::Op { op_id: *id, op: Some(op.clone()) })
            .collect();
        let mut results: HashMap<u64, api::OpResult> = HashMap::new();
        let deadline = Instant::now() + self.patience();
        let mut way = self.way(of);
        let mut backoff = Backoff::new();
        loop {
            let answer = self.send_ops(&todo, durable, deadline, &mut way).await?;
            self.saw(answer.revision);
            results.extend(answer.results.into_iter().map(|result| (result.op_id, result)));
            todo.retain(|op| results.get(&op.op_id).is_some_and(is_refused));
            if todo.is_empty() {
                break;
            }
            tracing::debug!(refused = todo.len(), "the server has no room for answers; trying again");
            backoff.pause().await;
            if Instant::now() >= deadline {
                break;
            }
        }
        if let (false, true, Some(mount_id)) = (todo.is_empty(), way.is_unsure, way.over()) {
            self.spoil(mount_id);
            return Err(outcome_unknown());
        }
        let results = numbers.ids.iter().filter_map(|id| results.remove(id)).map(outcome).collect();
        Ok(Answers { over: way.over().unwrap_or_default().to_owned(), results })
    }

    /// Sends changes until they are answered, if with a refusal.
    async fn send_ops(
        &self,
        ops: &[api::Op],
        durable: bool,
        deadline: Instant,
        way: &mut Way,
    ) -> Result<api::ApplyOpsResponse> {
        if !way.is_unsure {
            way.begin_anew();
        }
        let patience = deadline.saturating_duration_since(Instant::now());
        // Attempts of which nobody knows what became.
        let unanswered = &AtomicU64::new(0);
        let answer = self.call_within("apply", patience, patience, |link: Arc<Link>| {
            let mut changes = ops.iter().filter_map(|op| op.op.as_ref());
            let may = changes.try_for_each(|op| Self::may_send(way, &link, op));
            if may.is_ok() {
                way.go(&link);
                unanswered.fetch_add(1, Ordering::Relaxed);
            }
            let (mount_id, answered_below) = (link.mount_id.clone(), self.ops.answered_below());
            let (ops, sent_before) = (ops.to_vec(), way.sent_before(&link));
            let request = api::ApplyOpsRequest { mount_id, ops, durable, answered_below, sent_before };
            let mut bridge = self.bridge();
            async move {
                may.map_err(Failure::Error)?;
                let answer = bridge.apply_ops(request).await;
                let is_settled = match &answer {
                    Ok(_) => true,
                    // A call that found no turn was not begun.
                    Err(status) => self.client().error(status).reason == Reason::QueueFull,
                };
                if is_settled {
                    unanswered.fetch_sub(1, Ordering::Relaxed);
                }
                answer.map_err(Failure::from)
            }
        });
        let answer = answer.await;
        way.is_unsure |= unanswered.load(Ordering::Relaxed) > 0;
        if let (Err(error), true, Some(mount_id)) = (&answer, way.is_unsure, way.over())
            && matches!(error.reason, Reason::Unavailable | Reason::TimedOut | Reason::QueueFull)
        {
            self.spoil(mount_id);
        }
        answer
    }
}

/// Whether a change was refused before it was applied, for want of room: the same one may be sent again.
pub(crate) fn is_refused(result: &api::OpResult) -> bool {
    result.errno != 0 && result.reason == Reason::QueueFull.as_str()
}

impl Applied {
    fn starting_like(mut self, before: &Self) -> Self {
        (self.offset, self.version_before) = (before.offset, before.version_before);
        self
    }
}

pub(crate) fn outcome_unknown() -> Error {
    Error::new(
        Reason::TimedOut,
        "the connection broke while a change was under way; it may or may not have happened",
    )
    .next("look at the result before doing it again")
}

fn outcome(result: api::OpResult) -> Result<Applied> {
    if result.errno == 0 {
        let api::OpResult { attributes, count, offset, version_before, .. } = result;
        return Ok(Applied { attributes, count, offset, version_before });
    }
    let reason = Reason::from_wire(&result.reason).unwrap_or(Reason::Io);
    Err(if result.message.is_empty() { reason.into() } else { Error::new(reason, result.message) })
}

fn present<T>(value: Option<T>, operation: &str) -> Result<T> {
    value.ok_or_else(|| Error::new(Reason::Internal, format!("{operation}: the answer is incomplete")))
}
