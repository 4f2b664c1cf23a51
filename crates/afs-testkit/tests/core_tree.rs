//! The rules of `afs-core` against the model: a session is a `Tree` and the records that led to it.
//!
//! Evictions rebuild a tree from the base and an encoded delta, restarts from the encoded records: so the codecs and the merge of
//! deltas are compared too. Contents are bytes in one growing log, as in the engine's data log.

#![allow(clippy::unwrap_used, reason = "a test; clippy exempts only what it can see is one")]

use afs_core::base::BaseTable;
use afs_core::delta::Delta;
use afs_core::extent::{Content, LogRef, Piece, Source};
use afs_core::op::{AttrSet, Op, Record};
use afs_core::tree::plan::{NewNode, RenameMode};
use afs_core::tree::{FIRST_COOKIE, Tree};
use afs_testkit::call::{Answer, Attr, Call, RenameHow};
use afs_testkit::history::{CheckpointNo, Features, Origin, SessionNo, Stats, Subject, run};
use afs_testkit::spec::BaseSpec;
use afs_types::{BlobId, Ino, NameRef, Reason, Result, limits};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// One session, or the instant of a checkpoint.
#[derive(Clone)]
struct Session {
    tree: Tree,
    seq: u64,
    opens: BTreeMap<Ino, u32>,
    /// The deltas up to the last eviction, and the encoded records behind them.
    folded: Vec<Vec<u8>>,
    at_fold: Tree,
    records: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Trees {
    base: Option<Arc<BaseTable>>,
    blobs: HashMap<BlobId, Vec<u8>>,
    log: Vec<u8>,
    sessions: BTreeMap<SessionNo, Session>,
    checkpoints: BTreeMap<CheckpointNo, Session>,
    next_ino: Ino,
    now_ns: i64,
}

impl Trees {
    fn session(&self, no: SessionNo) -> &Session {
        &self.sessions[&no]
    }

    fn apply(&mut self, no: SessionNo, op: Op) {
        let session = self.sessions.get_mut(&no).unwrap();
        session.seq += 1;
        let record = Record { epoch: 1, op_id: 0, op }.encode();
        session.tree.apply(&Record::decode(&record).unwrap().op, session.seq);
        session.records.push(record);
    }

    fn node(&self, no: SessionNo, ino: Ino) -> Result<Answer> {
        let a = self.session(no).tree.attr(ino).ok_or(Reason::Stale)?;
        let attr = Attr {
            mode: a.mode,
            nlink: a.nlink,
            uid: a.uid,
            gid: a.gid,
            rdev: a.rdev,
            size: a.size,
            atime_ns: a.atime_ns,
            mtime_ns: a.mtime_ns,
            ctime_ns: a.ctime_ns,
        };
        Ok(Answer::Node(a.ino, attr))
    }

    fn append(&mut self, bytes: &[u8]) -> Source {
        let offset = self.log.len() as u64;
        self.log.extend_from_slice(bytes);
        Source::Log(LogRef { segment: 0, offset })
    }

    fn bytes(&self, content: &Content, size: u64, offset: u64, len: u64) -> Vec<u8> {
        if let Content::Inline(bytes) = content {
            return bytes.iter().skip(offset as usize).take(len as usize).copied().collect();
        }
        let mut out = Vec::new();
        for run in content.runs(size, offset, len) {
            let (from, all) = match run.source {
                None => (0, &vec![0; run.len as usize]),
                Some(Source::Blob(id, at)) => (at as usize, &self.blobs[&id]),
                Some(Source::Log(at)) => (at.offset as usize, &self.log),
            };
            out.extend_from_slice(&all[from..from + run.len as usize]);
        }
        out
    }

    fn create(&mut self, no: SessionNo, dir: Ino, name: &[u8], new: &NewNode<'_>) -> Result<Answer> {
        let ino = self.next_ino;
        let op = self.session(no).tree.plan_create(dir, NameRef::new(name)?, ino, new, self.now_ns)?;
        self.next_ino += 1;
        self.apply(no, op);
        self.node(no, ino)
    }

    fn change(
        &mut self,
        no: SessionNo,
        ino: Ino,
        plan: impl FnOnce(&Tree, i64) -> Result<Op>,
    ) -> Result<Answer> {
        let op = plan(&self.session(no).tree, self.now_ns)?;
        self.apply(no, op);
        self.node(no, ino)
    }

    fn look(&self, no: SessionNo, call: &Call) -> Result<Answer> {
        let tree = &self.session(no).tree;
        match call {
            Call::Lookup { dir, name } => {
                let up = tree.attr(*dir).ok_or(Reason::Stale)?;
                if !up.is_dir() {
                    return Err(Reason::NotADirectory.into());
                }
                if name.len() > limits::MAX_NAME_BYTES {
                    return Err(Reason::NameTooLong.into());
                }
                self.node(no, tree.lookup(*dir, name).filter(|_| up.nlink > 0).ok_or(Reason::NotFound)?)
            }
            Call::GetAttr { node } => self.node(no, *node),
            Call::ReadDir { dir } => {
                if !tree.attr(*dir).ok_or(Reason::Stale)?.is_dir() {
                    return Err(Reason::NotADirectory.into());
                }
                let mut entries = Vec::new();
                tree.readdir(*dir, FIRST_COOKIE, &mut |item| {
                    entries.push((item.name.to_vec(), item.ino));
                    true
                });
                entries.sort();
                Ok(Answer::Entries(entries))
            }
            Call::ReadLink { node } | Call::Read { node, .. } => {
                let attr = tree.attr(*node).ok_or(Reason::Stale)?;
                let (content, size) = tree.content(*node).ok_or(Reason::Stale)?;
                let is_link = matches!(call, Call::ReadLink { .. });
                if attr.is_dir() && !is_link {
                    return Err(Reason::IsADirectory.into());
                }
                if is_link != attr.is_symlink() || !(is_link || attr.is_file()) {
                    return Err(Reason::WrongType.into());
                }
                let (offset, len) = match call {
                    Call::Read { offset, len, .. } => (*offset, *len as u64),
                    _ => (0, size),
                };
                Ok(Answer::Bytes(self.bytes(&content, size, offset, len)))
            }
            Call::GetXattr { node, name } => {
                tree.attr(*node).ok_or(Reason::Stale)?;
                Ok(Answer::Bytes(tree.xattr(*node, name).ok_or(Reason::NoAttribute)?.to_vec()))
            }
            Call::ListXattr { node } => {
                tree.attr(*node).ok_or(Reason::Stale)?;
                let all = tree.xattrs(*node);
                Ok(Answer::Names(all.iter().flat_map(|x| x.keys()).map(|name| name.to_vec()).collect()))
            }
            other => panic!("{other:?}"),
        }
    }

    fn change_names(&mut self, no: SessionNo, call: &Call) -> Result<Answer> {
        let now = self.now_ns;
        let (tree, opens) = (self.session(no).tree.clone(), self.session(no).opens.clone());
        let is_open = |ino: Ino| opens.contains_key(&ino);
        match call {
            Call::Create { dir, name, mode, uid, gid, rdev } => {
                let new = NewNode { mode: *mode, uid: *uid, gid: *gid, rdev: *rdev, target: None };
                self.create(no, *dir, name, &new)
            }
            Call::MakeDir { dir, name, mode, uid, gid } => {
                let mode = 0o040_000 | (mode & 0o7777);
                self.create(no, *dir, name, &NewNode { mode, uid: *uid, gid: *gid, rdev: 0, target: None })
            }
            Call::Symlink { dir, name, target, uid, gid } => {
                let new = NewNode { mode: 0o120_777, uid: *uid, gid: *gid, rdev: 0, target: Some(target) };
                self.create(no, *dir, name, &new)
            }
            Call::Link { node, dir, name } => {
                let name = NameRef::new(name)?;
                self.change(no, *node, |tree, now| tree.plan_link(*node, *dir, name, now))
            }
            Call::Unlink { dir, name } => {
                let op = tree.plan_unlink(*dir, NameRef::new(name)?, is_open, now)?;
                self.apply(no, op);
                Ok(Answer::Done)
            }
            Call::RemoveDir { dir, name } => {
                let op = tree.plan_rmdir(*dir, NameRef::new(name)?, is_open, now)?;
                self.apply(no, op);
                Ok(Answer::Done)
            }
            Call::Rename { dir, name, to_dir, to_name, how } => {
                let mode = match how {
                    RenameHow::Replace => RenameMode::Replace,
                    RenameHow::NoReplace => RenameMode::NoReplace,
                    RenameHow::Exchange => RenameMode::Exchange,
                };
                let (name, to_name) = (NameRef::new(name)?, NameRef::new(to_name)?);
                if let Some(op) = tree.plan_rename(*dir, name, *to_dir, to_name, mode, is_open, now)? {
                    self.apply(no, op);
                }
                Ok(Answer::Done)
            }
            other => panic!("{other:?}"),
        }
    }

    fn punch(&mut self, no: SessionNo, ino: Ino, offset: u64, len: u64) -> Result<Answer> {
        self.change(no, ino, |tree, now| tree.plan_punch(ino, offset, len, now))
    }

    /// As the engine does it: extents are shared, holes stay holes.
    fn copy_range(&mut self, no: SessionNo, from: (Ino, u64), to: (Ino, u64), len: u64) -> Result<Answer> {
        let tree = self.session(no).tree.clone();
        let (content, size) = tree.content(from.0).ok_or(Reason::Stale)?;
        tree.plan_punch(from.0, 0, 1, 0)?;
        tree.plan_punch(to.0, 0, 1, 0)?;
        let mut copied = 0;
        for run in content.runs(size, from.1, len) {
            let at = to.1 + (run.start - from.1);
            copied += run.len;
            let Some(source) = run.source else {
                if self.session(no).tree.attr(to.0).is_some_and(|a| a.size < at + run.len) {
                    let set = AttrSet { size: Some(at + run.len), ..AttrSet::default() };
                    self.change(no, to.0, |tree, now| tree.plan_setattr(to.0, set, now))?;
                }
                self.punch(no, to.0, at, run.len)?;
                continue;
            };
            self.change(no, to.0, |tree, now| tree.plan_write(to.0, at, run.len, source, now))?;
        }
        Ok(Answer::Count(copied))
    }

    fn change_node(&mut self, no: SessionNo, call: &Call) -> Result<Answer> {
        match call {
            Call::SetAttr { node, set } => {
                let (mode, uid, gid, size) = (set.mode, set.uid, set.gid, set.size);
                let set = AttrSet { mode, uid, gid, size, atime_ns: set.atime_ns, mtime_ns: set.mtime_ns };
                self.change(no, *node, |tree, now| tree.plan_setattr(*node, set, now))
            }
            Call::Write { bytes, node, .. } if bytes.is_empty() => self.node(no, *node),
            Call::Write { node, offset, bytes } => {
                let source = self.append(bytes);
                let len = bytes.len() as u64;
                self.change(no, *node, |tree, now| tree.plan_write(*node, *offset, len, source, now))
            }
            Call::Append { node, bytes } => {
                let (source, len) = (self.append(bytes), bytes.len() as u64);
                self.change(no, *node, |tree, now| {
                    let end = tree.attr(*node).ok_or(Reason::Stale)?.size;
                    tree.plan_write(*node, end, len, source, now)
                })
            }
            Call::Punch { node, offset, len } => self.punch(no, *node, *offset, *len),
            Call::CopyRange { node, offset, to, to_offset, len } => {
                self.copy_range(no, (*node, *offset), (*to, *to_offset), *len)
            }
            Call::SetXattr { node, name, value, must } => {
                let there = self.session(no).tree.xattr(*node, name).is_some();
                self.change(no, *node, |tree, now| {
                    let op = tree.plan_xattr(*node, name, Some(value), now);
                    let too_large = op.as_ref().is_err_and(|e| e.reason != Reason::NoSpace);
                    match must {
                        _ if too_large => op,
                        Some(true) if !there => Err(Reason::NoAttribute.into()),
                        Some(false) if there => Err(Reason::AlreadyExists.into()),
                        _ => op,
                    }
                })?;
                Ok(Answer::Done)
            }
            Call::RemoveXattr { node, name } => {
                self.change(no, *node, |tree, now| tree.plan_xattr(*node, name, None, now))?;
                Ok(Answer::Done)
            }
            Call::Open { node } => {
                self.session(no).tree.attr(*node).ok_or(Reason::Stale)?;
                *self.sessions.get_mut(&no).unwrap().opens.entry(*node).or_insert(0) += 1;
                Ok(Answer::Done)
            }
            Call::Release { node } => {
                let session = self.sessions.get_mut(&no).unwrap();
                let count = session.opens.get_mut(node).unwrap();
                *count -= 1;
                if *count == 0 {
                    session.opens.remove(node);
                    self.apply(no, Op::Reap { ino: *node });
                }
                Ok(Answer::Done)
            }
            other => panic!("{other:?}"),
        }
    }

    fn copy(&self, from: &Session) -> Session {
        Session { opens: BTreeMap::new(), ..from.clone() }
    }

    /// The tree again, from what would be on disk.
    fn rebuilt(&self, session: &Session) -> Tree {
        let mut tree = Tree::new(self.base.clone().unwrap());
        let deltas = session.folded.iter().map(|bytes| Delta::decode(bytes).unwrap());
        if let Some(all) = deltas.reduce(Delta::then) {
            Delta::decode(&all.encode()).unwrap().apply(&mut tree);
        }
        let first = session.seq - session.records.len() as u64 + 1;
        for (seq, record) in (first..).zip(&session.records) {
            tree.apply(&Record::decode(record).unwrap().op, seq);
        }
        let without_a_name = tree.overlay_inodes().filter(|(_, inode)| inode.nlink == 0);
        let unnamed: Vec<Ino> = without_a_name.map(|(ino, _)| ino).collect();
        for known in [&tree, &session.tree] {
            assert_eq!(known.unnamed().collect::<Vec<_>>(), unnamed, "what a tree knows without looking");
        }
        tree
    }
}

impl Subject for Trees {
    fn features(&self) -> Features {
        Features { clock: true, paths: false, ranges: true, gitlinks: true }
    }
    fn begin(&mut self, base: &BaseSpec) -> Result<BaseSpec> {
        let mut blobs = HashMap::new();
        let table = base.table(&mut |bytes| {
            let id = BlobId(std::array::from_fn(|i| (blobs.len() as u64 + 1).to_le_bytes()[i % 8]));
            blobs.insert(id, bytes.to_vec());
            Ok(id)
        })?;
        let table = Arc::new(BaseTable::open(table.into())?);
        table.verify_index()?;
        self.next_ino = table.max_ino() + 1;
        let tree = Tree::new(table.clone());
        let at_fold = tree.clone();
        let session = Session {
            tree,
            seq: 0,
            opens: BTreeMap::new(),
            folded: Vec::new(),
            at_fold,
            records: Vec::new(),
        };
        self.sessions.insert(0, session);
        (self.base, self.blobs) = (Some(table), blobs);
        Ok(base.clone())
    }
    fn set_clock(&mut self, now_ns: i64) {
        self.now_ns = now_ns;
    }
    fn call(&mut self, no: SessionNo, call: &Call) -> Result<Answer> {
        match call {
            Call::Lookup { .. }
            | Call::GetAttr { .. }
            | Call::ReadLink { .. }
            | Call::ReadDir { .. }
            | Call::Read { .. }
            | Call::GetXattr { .. }
            | Call::ListXattr { .. } => self.look(no, call),
            Call::Create { .. }
            | Call::MakeDir { .. }
            | Call::Symlink { .. }
            | Call::Link { .. }
            | Call::Unlink { .. }
            | Call::RemoveDir { .. }
            | Call::Rename { .. } => self.change_names(no, call),
            _ => self.change_node(no, call),
        }
    }
    fn fork(&mut self, from: Origin, new: SessionNo) -> Result<()> {
        let origin = match from {
            Origin::Session(no) => self.session(no),
            Origin::Checkpoint(_, no) => &self.checkpoints[&no],
        };
        let copy = self.copy(origin);
        self.sessions.insert(new, copy);
        Ok(())
    }
    fn checkpoint(&mut self, no: SessionNo, new: CheckpointNo) -> Result<()> {
        let copy = self.copy(self.session(no));
        self.checkpoints.insert(new, copy);
        Ok(())
    }
    fn restore(&mut self, no: SessionNo, checkpoint: CheckpointNo) -> Result<()> {
        let copy = self.copy(&self.checkpoints[&checkpoint]);
        self.sessions.insert(no, copy);
        Ok(())
    }
    fn delete(&mut self, no: SessionNo) -> Result<()> {
        self.sessions.remove(&no);
        Ok(())
    }
    fn evict(&mut self, no: SessionNo) -> Result<()> {
        let mut session = self.session(no).clone();
        if session.opens.is_empty() {
            let delta = Delta::between(&session.at_fold, &session.tree).encode();
            session.folded.push(delta);
            session.records.clear();
            session.tree = self.rebuilt(&session);
            session.at_fold = session.tree.clone();
            self.sessions.insert(no, session);
        }
        Ok(())
    }
    /// Every file's bytes become blobs of 100 bytes at most, holes stay holes.
    fn seal(&mut self, no: SessionNo) -> Result<()> {
        let tree = self.session(no).tree.clone();
        for (ino, inode) in tree.overlay_inodes().filter(|(_, i)| i.content.is_unsealed()) {
            let runs = inode.content.runs(inode.size, 0, inode.size);
            let mut pieces = Vec::new();
            for run in runs.iter().filter(|run| run.source.is_some()) {
                for start in (run.start..run.start + run.len).step_by(100) {
                    let len = (run.start + run.len - start).min(100);
                    let bytes = self.bytes(&inode.content, inode.size, start, len);
                    let id =
                        BlobId(std::array::from_fn(|i| (self.blobs.len() as u64 + 1).to_le_bytes()[i % 8]));
                    self.blobs.insert(id, bytes);
                    pieces.push((start, Piece { len, source: Source::Blob(id, 0) }));
                }
            }
            let content = Content::of_pieces(pieces);
            self.apply(no, Op::Seal { ino, version: inode.version, content });
        }
        Ok(())
    }
    fn restart(&mut self, _crash: bool) -> Result<()> {
        for no in self.sessions.keys().copied().collect::<Vec<_>>() {
            let mut session = self.copy(self.session(no));
            session.tree = self.rebuilt(&session);
            self.sessions.insert(no, session);
        }
        Ok(())
    }
}

/// `AFS_HISTORY=<first seed>:<seeds>:<steps>` runs more than the usual.
#[test]
fn the_rules_agree_with_the_model() {
    let asked = std::env::var("AFS_HISTORY").unwrap_or_default();
    let mut asked = asked.split(':').map(|number| number.parse::<u64>().ok());
    let mut number = |usual| asked.next().flatten().unwrap_or(usual);
    let (first, seeds, steps) = (number(0), number(40), number(2_500));
    let mut stats = Stats::default();
    for seed in first..first + seeds {
        match run(seed, steps, &mut Trees::default()) {
            Ok(more) => stats.add(&more),
            Err(difference) => panic!("{difference}"),
        }
    }
    println!("{stats:#?}");
}
