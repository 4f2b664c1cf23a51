//! The engine against the reference model: random histories of everything a session can do.

use crate::rig::Rig;
use afs_core::tree::S_IFMT;
use afs_session::paths::{By, WriteAt, WriteOptions, Written};
use afs_session::{
    AttrSet, CreateSession, CreateSource, Fork, ImportSpec, NewFile, RenameMode, Session, SourceState,
};
use afs_testkit::call::{Answer, Attr, Call, Path, RenameHow};
use afs_testkit::history::{CheckpointNo, Features, Origin, SessionNo, Stats, Subject, run};
use afs_testkit::spec::BaseSpec;
use afs_types::{CheckpointId, Ino, Name, Result, SessionId, SessionPath};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The engine as the histories see it. `rig` is none only while it restarts.
struct EngineSubject {
    rig: Option<Rig>,
    checkpoints: BTreeMap<CheckpointNo, CheckpointId>,
}

fn id(no: SessionNo) -> SessionId {
    SessionId::parse(&format!("sess_{no}")).unwrap()
}

fn path(names: &Path) -> Result<SessionPath> {
    names.iter().map(|n| Name::new(n)).collect::<Result<Vec<_>>>().map(SessionPath::from)
}

fn attr(a: &afs_session::Attr) -> Attr {
    let size = if a.is_dir() { 0 } else { a.size };
    Attr {
        mode: a.mode,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev,
        size,
        atime_ns: a.atime_ns,
        mtime_ns: a.mtime_ns,
        ctime_ns: a.ctime_ns,
    }
}

fn made(done: Written) -> Answer {
    node(&done.entry.expect("what was made is there").attr)
}

fn node(a: &afs_session::Attr) -> Answer {
    Answer::Node(a.ino, attr(a))
}

impl EngineSubject {
    fn new() -> Self {
        Self { rig: Some(Rig::new()), checkpoints: BTreeMap::new() }
    }
    fn rig(&self) -> &Rig {
        self.rig.as_ref().expect("the engine is up")
    }
    fn by_path(&self, s: &Arc<Session>, call: &Call) -> Result<Answer> {
        let files = self.rig().engine.files_of(s.clone());
        let by = By::default();
        Ok(match call {
            Call::Resolve { path: p, follow } => node(&s.view().resolve(&path(p)?, *follow)?),
            Call::WriteAt { path: p, bytes, parents } => {
                let options =
                    WriteOptions { at: WriteAt::Whole, create_parents: *parents, ..WriteOptions::default() };
                let done = files.write_file(&path(p)?, &options, &by, &mut &bytes[..])?;
                made(done)
            }
            Call::MakeDirAt { path: p, parents } => made(files.mkdir(&path(p)?, None, *parents, &by)?),
            Call::MoveAt { path: p, to, overwrite } => {
                made(files.move_path(&path(p)?, &path(to)?, *overwrite, &Default::default(), &by)?)
            }
            Call::RemoveAt { path: p, recursive } => {
                files.remove(&path(p)?, *recursive, &Default::default(), &by)?;
                Answer::Done
            }
            other => unreachable!("{other:?} is by inode"),
        })
    }
}

fn list(s: &Session, dir: Ino) -> Result<Answer> {
    let (mut all, mut cookie) = (Vec::new(), 0);
    loop {
        let before = all.len();
        // In pages, as a kernel reads.
        s.readdir(dir, cookie, &mut |e| {
            all.push((e.name.to_vec(), e.attr.ino));
            cookie = e.next_cookie;
            all.len() < before + 3
        })?;
        if all.len() == before {
            all.sort();
            return Ok(Answer::Entries(all));
        }
    }
}

fn by_inode(s: &Session, call: &Call) -> Result<Answer> {
    let new = |mode, uid, gid, rdev| NewFile { mode, uid, gid, rdev };
    Ok(match call {
        Call::Lookup { dir, name } => node(&s.lookup(*dir, name)?),
        Call::GetAttr { node: n } => node(&s.getattr(*n)?),
        Call::ReadLink { node: n } => Answer::Bytes(s.readlink(*n)?.to_vec()),
        Call::ReadDir { dir } => list(s, *dir)?,
        Call::Create { dir, name, mode, uid, gid, rdev } => {
            node(&s.create(*dir, name, new(*mode, *uid, *gid, *rdev), 0, 0)?.0)
        }
        Call::MakeDir { dir, name, mode, uid, gid } => {
            node(&s.mkdir(*dir, name, new(*mode & !S_IFMT, *uid, *gid, 0), 0, 0)?.0)
        }
        Call::Symlink { dir, name, target, uid, gid } => {
            node(&s.symlink(*dir, name, target, new(0, *uid, *gid, 0), 0, 0)?.0)
        }
        Call::Link { node: n, dir, name } => node(&s.link(*n, *dir, name, 0, 0)?.0),
        Call::Unlink { dir, name } => s.unlink(*dir, name, 0, 0).map(|_| Answer::Done)?,
        Call::RemoveDir { dir, name } => s.rmdir(*dir, name, 0, 0).map(|_| Answer::Done)?,
        Call::Rename { dir, name, to_dir, to_name, how } => {
            let how = match how {
                RenameHow::Replace => RenameMode::Replace,
                RenameHow::NoReplace => RenameMode::NoReplace,
                RenameHow::Exchange => RenameMode::Exchange,
            };
            s.rename((*dir, name), (*to_dir, to_name), how, 0, 0).map(|_| Answer::Done)?
        }
        Call::SetAttr { node: n, set } => {
            let set = AttrSet {
                mode: set.mode,
                uid: set.uid,
                gid: set.gid,
                size: set.size,
                atime_ns: set.atime_ns,
                mtime_ns: set.mtime_ns,
            };
            node(&s.setattr(*n, set, 0, 0)?.0)
        }
        Call::Write { node: n, offset, bytes } => node(&s.write(*n, *offset, bytes, 0, 0)?.0),
        Call::Append { node: n, bytes } => node(&s.append(*n, bytes, 0, 0)?.0),
        Call::Read { node: n, offset, len } => Answer::Bytes(s.read(*n, *offset, *len)?.to_vec()),
        Call::Punch { node: n, offset, len } => {
            s.fallocate(*n, *offset, *len, true, true, 0, 0).map(|(a, _)| node(&a))?
        }
        Call::CopyRange { node: n, offset, to, to_offset, len } => {
            Answer::Count(s.copy_range((*n, *offset), (*to, *to_offset), *len, 0)?.0)
        }
        Call::SetXattr { node: n, name, value, must } => {
            s.setxattr(*n, name, value, *must, 0, 0).map(|_| Answer::Done)?
        }
        Call::GetXattr { node: n, name } => Answer::Bytes(s.getxattr(*n, name)?.to_vec()),
        Call::ListXattr { node: n } => {
            let mut names: Vec<_> = s.listxattr(*n)?.iter().map(|n| n.to_vec()).collect();
            names.sort();
            Answer::Names(names)
        }
        Call::RemoveXattr { node: n, name } => s.removexattr(*n, name, 0, 0).map(|_| Answer::Done)?,
        Call::Open { node: n } => s.open(*n).map(|()| Answer::Done)?,
        Call::Release { node: n } => s.release(*n).map(|()| Answer::Done)?,
        other => unreachable!("{other:?} is by path"),
    })
}

impl Subject for EngineSubject {
    fn features(&self) -> Features {
        Features { clock: true, paths: true, ranges: true, gitlinks: false }
    }
    fn begin(&mut self, base: &BaseSpec) -> Result<BaseSpec> {
        let rig = self.rig();
        let dir = rig.dir.path().join("import");
        std::fs::create_dir(&dir).unwrap();
        let made = base.write_to(&dir)?;
        let want = CreateSource {
            source_id: None,
            display_name: String::new(),
            spec: ImportSpec::Local { path: dir },
            labels: BTreeMap::new(),
            request_id: None,
        };
        let source = rig.engine.create_source(want)?.id;
        let info = rig.engine.wait_source(&source, Duration::from_secs(60))?;
        assert_eq!(info.state, SourceState::Ready, "{:?}", info.record.failure);
        let want =
            CreateSession { session_id: Some(id(0)), source: Some(source), ..CreateSession::default() };
        rig.engine.create_session(want)?;
        Ok(made)
    }
    fn set_clock(&mut self, now_ns: i64) {
        self.rig().clock.stop_at(now_ns);
    }
    fn call(&mut self, session: SessionNo, call: &Call) -> Result<Answer> {
        let s = self.rig().engine.session(&id(session))?;
        match call {
            Call::Resolve { .. }
            | Call::WriteAt { .. }
            | Call::MakeDirAt { .. }
            | Call::MoveAt { .. }
            | Call::RemoveAt { .. } => self.by_path(&s, call),
            _ => by_inode(&s, call),
        }
    }
    fn fork(&mut self, from: Origin, new: SessionNo) -> Result<()> {
        let (session, checkpoint) = match from {
            Origin::Session(s) => (s, None),
            Origin::Checkpoint(s, c) => (s, Some(self.checkpoints[&c].clone())),
        };
        let want = Fork { checkpoint, new_ids: vec![id(new)], ..Fork::of(id(session)) };
        self.rig().engine.fork(&want).map(drop)
    }
    fn checkpoint(&mut self, session: SessionNo, new: CheckpointNo) -> Result<()> {
        let made = self.rig().engine.checkpoint(&id(session), "", "", None)?;
        self.checkpoints.insert(new, made.id);
        Ok(())
    }
    fn restore(&mut self, session: SessionNo, checkpoint: CheckpointNo) -> Result<()> {
        self.rig().engine.restore(&id(session), &self.checkpoints[&checkpoint], None, None).map(drop)
    }
    fn delete(&mut self, session: SessionNo) -> Result<()> {
        self.rig().engine.delete_session(&id(session), true, None)
    }
    fn evict(&mut self, session: SessionNo) -> Result<()> {
        self.rig().engine.evict(&id(session)).map(drop)
    }
    fn seal(&mut self, session: SessionNo) -> Result<()> {
        let engine = &self.rig().engine;
        let s = engine.session(&id(session))?;
        engine.seal(&s)?;
        // Layers that a fork or checkpoint closed before are sealed by the background thread.
        engine.settle();
        Ok(())
    }
    fn restart(&mut self, crash: bool) -> Result<()> {
        let rig = self.rig.take().expect("the engine is up");
        let now = rig.clock.stopped();
        let rig = if crash {
            rig.engine.sync()?;
            rig.crash(1)
        } else {
            rig.restart()
        };
        rig.clock.stop_at(now);
        self.rig = Some(rig);
        Ok(())
    }
}

/// Operations of one history: long enough for deep trees, short enough to be run again.
const STEPS: u64 = 2_500;

fn history(seed: u64, steps: u64) -> Result<Stats, String> {
    let run = || run(seed, steps, &mut EngineSubject::new()).map_err(|difference| difference.to_string());
    // A panic is a difference too, and must not end a long run.
    std::panic::catch_unwind(run).unwrap_or_else(|_| Err(format!("seed {seed}: a panic, see above")))
}

/// 100,000 operations in CI. `cargo xtask model` runs more of them, by `AFS_MODEL_OPERATIONS` and `AFS_MODEL_SEED`: then it says where it is,
/// and goes on behind a difference to find others.
#[test]
fn the_engine_agrees_with_the_model() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let asked = number("AFS_MODEL_OPERATIONS");
    let first = number("AFS_MODEL_SEED").unwrap_or(0);
    let seeds = first..first + asked.unwrap_or(100_000).div_ceil(STEPS);
    let (mut all, mut differences) = (Stats::default(), Vec::new());
    for seed in seeds.clone() {
        match history(seed, STEPS) {
            Ok(stats) => all.add(&stats),
            Err(difference) => {
                eprintln!("{difference}");
                differences.push(difference);
            }
        }
        let done = seed + 1 - first;
        if asked.is_some() && (done % 40 == 0 || seed + 1 == seeds.end) {
            eprintln!(
                "seeds {first} to {seed}: {} operations, {} differences",
                done * STEPS,
                differences.len()
            );
        }
    }
    for (kind, (good, bad)) in &all.calls {
        println!("{kind:12} {good:8} ok {bad:8} refused");
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    assert!(all.calls.len() > 25 && all.reasons.len() > 12, "a history that tries little shows little");
}

/// A symbolic link was moved to a path that led through it: the answer had no entry, as if nothing had been moved.
#[test]
fn seed_100108_moves_a_link_to_a_path_through_itself() {
    history(100_108, STEPS).unwrap();
}
