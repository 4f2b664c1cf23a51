//! Random work on sessions of one base, recorded in a ledger.
//!
//! Guarantees: the same seed gives the same work for one thread (ids and times differ). Every operation is one record, and what takes several
//! (sealing) changes nothing that is seen, so every instant that a crash may leave is in the ledger.

use crate::digest::digest;
use crate::ledger::{Ack, Ledger};
use crate::node::Node;
use afs_session::{AttrSet, CommitRequest, Fork, NewFile, RenameMode, Session};
use afs_types::{CheckpointId, Error, Ino, ROOT_INO, Reason, Result, SessionId};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;

const FILE: NewFile = NewFile { mode: 0o644, uid: 0, gid: 0, rdev: 0 };
/// Few names, so that operations meet.
const NAMES: usize = 12;
const MAX_SESSIONS: usize = 4;
/// Above this size a file is truncated rather than written to: digests read all of it.
const MAX_FILE: u64 = 40_000;
/// Imports of one thread: each is a base of its own.
const MAX_IMPORTS: usize = 2;

/// One thread's work.
pub struct Workload<'a> {
    node: &'a Node,
    ledger: &'a Mutex<Ledger>,
    /// Called with the number of an acknowledgement, right after it was recorded.
    mark: &'a (dyn Fn(u64) + Sync),
    sessions: Vec<SessionId>,
    checkpoints: Vec<(SessionId, CheckpointId)>,
    /// A directory of its own to change and import again.
    imports_from: Option<PathBuf>,
    imports: usize,
    chance: u64,
}

impl<'a> Workload<'a> {
    /// Work on `session`, which exists and is durable.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn new(
        node: &'a Node,
        ledger: &'a Mutex<Ledger>,
        mark: &'a (dyn Fn(u64) + Sync),
        session: SessionId,
        seed: u64,
    ) -> Result<Self> {
        let mut work = Self {
            node,
            ledger,
            mark,
            sessions: Vec::new(),
            checkpoints: Vec::new(),
            imports_from: None,
            imports: 0,
            chance: seed,
        };
        work.adopt(session)?;
        Ok(work)
    }

    /// Also imports this directory, changed a little each time.
    #[must_use]
    pub fn importing(mut self, dir: PathBuf) -> Self {
        self.imports_from = Some(dir);
        self
    }

    fn below(&mut self, bound: usize) -> usize {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) as usize % bound.max(1)
    }

    /// Does `steps` operations; about every third is followed by an fsync.
    ///
    /// # Errors
    /// Those of the engine, except the ones that random work must meet.
    pub fn run(&mut self, steps: usize) -> Result<()> {
        for _ in 0..steps {
            let which = self.below(self.sessions.len());
            match self.below(60) {
                0 | 1 => self.fork(which)?,
                2 | 3 => self.checkpoint(which)?,
                4 => self.restore()?,
                5 | 6 => self.commit(which)?,
                7 => self.archive(which)?,
                8 => drop(self.node.engine.evict(&self.sessions[which])?),
                9 => self.seal(which)?,
                10 => self.import()?,
                _ => self.operate(which)?,
            }
            if self.below(3) == 0 {
                self.sync(which)?;
            }
        }
        Ok(())
    }

    fn session(&self, which: usize) -> Result<Arc<Session>> {
        self.node.engine.session(&self.sessions[which])
    }

    /// Notes where a session is now.
    fn note(&self, which: usize) -> Result<u64> {
        let (tree, stamp) = self.session(which)?.snapshot();
        let digest = digest(&tree, &self.node.blobs)?;
        self.ledger.lock().at(&self.sessions[which], stamp.seq, digest);
        Ok(stamp.seq)
    }

    /// Notes that the session has shown the same from `first` on until now.
    fn note_since(&self, which: usize, first: u64) -> Result<u64> {
        let (tree, stamp) = self.session(which)?.snapshot();
        let digest = digest(&tree, &self.node.blobs)?;
        let mut ledger = self.ledger.lock();
        (first..=stamp.seq).for_each(|seq| ledger.at(&self.sessions[which], seq, digest.clone()));
        Ok(stamp.seq)
    }

    fn acknowledge(&self, ack: Ack) {
        let number = self.ledger.lock().acknowledged(ack);
        (self.mark)(number);
    }

    fn adopt(&mut self, id: SessionId) -> Result<()> {
        self.sessions.push(id.clone());
        let seq = self.note(self.sessions.len() - 1)?;
        self.acknowledge(Ack::Session(id.clone()));
        self.acknowledge(Ack::Durable(id, seq));
        Ok(())
    }

    fn sync(&mut self, which: usize) -> Result<()> {
        let session = self.session(which)?;
        let seq = session.stamp().seq;
        session.fsync()?;
        self.acknowledge(Ack::Durable(session.id().clone(), seq));
        Ok(())
    }

    fn fork(&mut self, which: usize) -> Result<()> {
        if self.sessions.len() >= MAX_SESSIONS {
            return Ok(());
        }
        let made = self.node.engine.fork(&Fork::of(self.sessions[which].clone()))?;
        made.into_iter().try_for_each(|info| self.adopt(info.id))
    }

    fn checkpoint(&mut self, which: usize) -> Result<()> {
        let id = self.sessions[which].clone();
        // Nobody else works on this session, so the checkpoint is of this instant.
        let seq = self.note(which)?;
        let checkpoint = self.node.engine.checkpoint(&id, "", "", None)?.id;
        self.acknowledge(Ack::Checkpoint(id.clone(), checkpoint.clone(), seq));
        self.checkpoints.push((id, checkpoint));
        Ok(())
    }

    fn restore(&mut self) -> Result<()> {
        if self.checkpoints.is_empty() {
            return Ok(());
        }
        let chosen = self.below(self.checkpoints.len());
        let (id, checkpoint) = self.checkpoints[chosen].clone();
        let Some(which) = self.sessions.iter().position(|session| *session == id) else { return Ok(()) };
        let restored = self.node.engine.restore(&id, &checkpoint, None, None)?;
        self.note(which)?;
        self.acknowledge(Ack::Durable(id, restored.revision));
        Ok(())
    }

    fn commit(&mut self, which: usize) -> Result<()> {
        let id = self.sessions[which].clone();
        let seq = self.note(which)?;
        let want = CommitRequest {
            session: id.clone(),
            message: format!("at {seq}"),
            author_name: String::new(),
            author_email: String::new(),
            if_revision: None,
            allow_empty: true,
            request_id: None,
        };
        let commit = match self.node.engine.commit(&want) {
            Ok(commit) => commit,
            // A session of an imported directory.
            Err(error) if error.reason == Reason::NotGit => return Ok(()),
            Err(error) => return Err(error),
        };
        self.note_since(which, seq)?;
        self.acknowledge(Ack::Commit(id, commit.id, seq, commit.record.oid));
        Ok(())
    }

    /// Out of RAM and back. Sealed on the way, so there are instants that show the same.
    fn archive(&mut self, which: usize) -> Result<()> {
        let id = self.sessions[which].clone();
        let before = self.note(which)?;
        let archived = self.node.engine.archive_session(&id)?;
        self.acknowledge(Ack::Durable(id.clone(), archived.revision));
        self.node.engine.resume_session(&id)?;
        self.note_since(which, before).map(drop)
    }

    fn seal(&mut self, which: usize) -> Result<()> {
        let before = self.note(which)?;
        let session = self.session(which)?;
        self.node.engine.seal(&session)?;
        self.note_since(which, before).map(drop)
    }

    /// Changes a file, imports the directory, and goes on with a session of it in the place of another one.
    fn import(&mut self) -> Result<()> {
        let Some(dir) = self.imports_from.clone().filter(|_| self.imports < MAX_IMPORTS) else {
            return Ok(());
        };
        self.imports += 1;
        let text = format!("import {}\n", self.imports).repeat(1000);
        std::fs::write(dir.join("changed"), text).map_err(|e| Error::io("change a file to import", e))?;
        let source = self.node.import(&dir)?;
        let id = self.node.session(&source)?;
        if self.sessions.len() >= MAX_SESSIONS {
            self.sessions.remove(0);
        }
        self.adopt(id)
    }

    fn operate(&mut self, which: usize) -> Result<()> {
        let session = self.session(which)?;
        let name = format!("file-{}", self.below(NAMES)).into_bytes();
        let other = format!("file-{}", self.below(NAMES)).into_bytes();
        let (kind, offset, len) = (self.below(8), self.below(20_000) as u64, self.below(6_000));
        let byte = self.below(256) as u8;
        let done = match (kind, session.lookup(ROOT_INO, &name)) {
            (0, _) => {
                session.rename((ROOT_INO, &name), (ROOT_INO, &other), RenameMode::Replace, 0, 0).map(drop)
            }
            (1, _) => session.unlink(ROOT_INO, &name, 0, 0).map(drop),
            (2, Ok(file)) => session.link(file.ino, ROOT_INO, &other, 0, 0).map(drop),
            (3, _) => session.symlink(ROOT_INO, &name, &other, FILE, 0, 0).map(drop),
            (_, Err(_)) => session.create(ROOT_INO, &name, FILE, 0, 0).map(drop),
            (_, Ok(file)) if file.size > MAX_FILE => truncate(&session, file.ino),
            (4, Ok(file)) => session.append(file.ino, &vec![byte; len], 0, 0).map(drop),
            (_, Ok(file)) => session.write(file.ino, offset, &vec![byte; len], 0, 0).map(drop),
        };
        match done {
            Ok(()) => {}
            // What random names must run into.
            Err(error) if is_expected(error.reason) => {}
            Err(error) => return Err(error),
        }
        self.note(which).map(drop)
    }
}

fn truncate(session: &Session, ino: Ino) -> Result<()> {
    let set = AttrSet { size: Some(100), ..AttrSet::default() };
    session.setattr(ino, set, 0, 0).map(drop)
}

fn is_expected(reason: Reason) -> bool {
    use Reason::{
        AlreadyExists, InvalidArgument, IsADirectory, NotADirectory, NotFound, NotPermitted, WrongType,
    };
    matches!(
        reason,
        AlreadyExists | InvalidArgument | IsADirectory | NotADirectory | NotFound | NotPermitted | WrongType
    )
}
