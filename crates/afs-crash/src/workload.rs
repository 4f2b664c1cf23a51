//! Random work on sessions of one base, recorded in a ledger.
//!
//! Guarantees: the same seed gives the same work for one thread (ids and times differ). Every operation is one record, so every instant
//! that a crash may leave is in the ledger.

use crate::digest::digest;
use crate::ledger::{Ack, Ledger};
use crate::node::Node;
use afs_session::{AttrSet, Fork, NewFile, RenameMode, Session};
use afs_types::{CheckpointId, Ino, ROOT_INO, Reason, Result, SessionId};
use parking_lot::Mutex;
use std::sync::Arc;

const FILE: NewFile = NewFile { mode: 0o644, uid: 0, gid: 0, rdev: 0 };
/// Few names, so that operations meet.
const NAMES: usize = 12;
const MAX_SESSIONS: usize = 4;
/// Above this size a file is truncated rather than written to: digests read all of it.
const MAX_FILE: u64 = 40_000;

/// One thread's work.
pub struct Workload<'a> {
    node: &'a Node,
    ledger: &'a Mutex<Ledger>,
    /// Called with the number of an acknowledgement, right after it was recorded.
    mark: &'a (dyn Fn(u64) + Sync),
    sessions: Vec<(SessionId, Arc<Session>)>,
    checkpoints: Vec<(usize, CheckpointId)>,
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
        let live = node.engine.session(&session)?;
        let mut work =
            Self { node, ledger, mark, sessions: Vec::new(), checkpoints: Vec::new(), chance: seed };
        work.adopt(session, live)?;
        Ok(work)
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
            match self.below(40) {
                0 => self.fork(which)?,
                1 => self.checkpoint(which)?,
                2 => self.restore()?,
                _ => self.operate(which)?,
            }
            if self.below(3) == 0 {
                self.sync(which)?;
            }
        }
        Ok(())
    }

    /// Notes where a session is now.
    fn note(&self, which: usize) -> Result<u64> {
        let (id, session) = &self.sessions[which];
        let (tree, stamp) = session.snapshot();
        let digest = digest(&tree, &self.node.blobs)?;
        self.ledger.lock().at(id, stamp.seq, digest);
        Ok(stamp.seq)
    }

    fn acknowledge(&self, ack: Ack) {
        let number = self.ledger.lock().acknowledged(ack);
        (self.mark)(number);
    }

    fn adopt(&mut self, id: SessionId, session: Arc<Session>) -> Result<()> {
        self.sessions.push((id.clone(), session));
        let seq = self.note(self.sessions.len() - 1)?;
        self.acknowledge(Ack::Session(id.clone()));
        self.acknowledge(Ack::Durable(id, seq));
        Ok(())
    }

    fn sync(&mut self, which: usize) -> Result<()> {
        let (id, session) = &self.sessions[which];
        let seq = session.stamp().seq;
        session.fsync()?;
        self.acknowledge(Ack::Durable(id.clone(), seq));
        Ok(())
    }

    fn fork(&mut self, which: usize) -> Result<()> {
        if self.sessions.len() >= MAX_SESSIONS {
            return Ok(());
        }
        let made = self.node.engine.fork(&Fork::of(self.sessions[which].0.clone()))?;
        for info in made {
            let session = self.node.engine.session(&info.id)?;
            self.adopt(info.id, session)?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, which: usize) -> Result<()> {
        let id = self.sessions[which].0.clone();
        // Nobody else works on this session, so the checkpoint is of this instant.
        let seq = self.note(which)?;
        let checkpoint = self.node.engine.checkpoint(&id, "", "", None)?.id;
        self.acknowledge(Ack::Checkpoint(id, checkpoint.clone(), seq));
        self.checkpoints.push((which, checkpoint));
        Ok(())
    }

    fn restore(&mut self) -> Result<()> {
        if self.checkpoints.is_empty() {
            return Ok(());
        }
        let chosen = self.below(self.checkpoints.len());
        let (which, checkpoint) = self.checkpoints[chosen].clone();
        let id = self.sessions[which].0.clone();
        let restored = self.node.engine.restore(&id, &checkpoint, None, None)?;
        self.note(which)?;
        self.acknowledge(Ack::Durable(id, restored.revision));
        Ok(())
    }

    fn operate(&mut self, which: usize) -> Result<()> {
        let session = Arc::clone(&self.sessions[which].1);
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
