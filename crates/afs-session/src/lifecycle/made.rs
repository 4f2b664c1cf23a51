//! New sessions, from their ids to their records: what creating one and forking many have in common.
//!
//! Guarantees: an id is given to one session, whoever asks for it at the same time; sessions are registered before their records are queued, all
//! of a batch or none, and take calls only once the journal has accepted them. Deliberately absent: what they start from, and waiting for the disk.

use crate::engine::Engine;
use crate::family::Family;
use crate::records::{HeadRec, SessionView, Stored, head_parts, session_key, session_parts};
use crate::requests::Attempt;
use crate::session::{CutRef, Session};
use afs_store::{Batch, Position, Space};
use afs_types::{Error, Reason, Result, SessionId};
use std::sync::Arc;

/// Forks that are in RAM and queued, not yet durable.
pub struct Forked {
    /// The new sessions.
    pub sessions: Vec<Arc<Session>>,
    /// Durable when the journal has reached this.
    pub at: Position,
}

/// Ids of new sessions that a caller chose: reserved until this goes.
pub(super) struct Wanted<'a> {
    engine: &'a Engine,
    ids: &'a [SessionId],
    /// The field of the request that has the id of this index.
    field: fn(usize) -> String,
}

impl<'a> Wanted<'a> {
    pub(super) fn none(engine: &'a Engine, field: fn(usize) -> String) -> Self {
        Self { engine, ids: &[], field }
    }

    /// The error for one that is not free.
    fn taken(&self, n: usize, id: &SessionId) -> Error {
        let field = (self.field)(n);
        Error::new(Reason::AlreadyExists, format!("{field}: {id} exists already"))
            .with("id", id.as_str())
            .with("field", field)
            .next("choose another id, or leave it out and the server makes one")
    }

    /// Reserves ids, if they are free.
    pub(super) fn reserve(&mut self, want: &'a [SessionId]) -> Result<()> {
        for (n, id) in want.iter().enumerate() {
            // Ids that the server makes are not looked up before they are used: nobody else may have one.
            if id.looks_made() {
                let field = (self.field)(n);
                return Err(Error::new(
                    Reason::InvalidId,
                    format!("{field}: {id} has the form of ids that the server makes"),
                )
                .with("id", id.as_str())
                .with("field", field)
                .next("choose another id, for example a longer or shorter one, or none"));
            }
            if !self.engine.wanted.lock().insert(id.clone()) {
                return Err(self.taken(n, id));
            }
            self.ids = &want[..=n];
            // Only now: whoever had it reserved until a moment ago has made it, and it is seen, or has given it up.
            if self.engine.resident(id).is_some() || self.engine.is_known(id)? {
                return Err(self.taken(n, id));
            }
        }
        Ok(())
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        if !self.ids.is_empty() {
            let mut wanted = self.engine.wanted.lock();
            for id in self.ids {
                wanted.remove(id);
            }
        }
    }
}

/// Sessions that are about to be made.
pub(super) struct Made<'a> {
    /// The first ones have these ids, the server makes those of the others.
    pub(super) wanted: &'a Wanted<'a>,
    pub(super) count: usize,
    pub(super) record: &'a SessionView<'a>,
    pub(super) attempt: Option<&'a Attempt<'a>>,
    pub(super) family: &'a Arc<Family>,
    pub(super) now_ns: i64,
}

impl Made<'_> {
    /// Their records, and the answer to a request that may be repeated.
    fn write(&self, sessions: &[Arc<Session>], cut: &CutRef<'_>, batch: &mut Batch) {
        let head = HeadRec { layer: cut.layer, owned: false, seq: cut.seq };
        for session in sessions {
            let id = session.id();
            batch.put_parts(Space::Session, session_parts(id), |e| self.record.encode_to(e));
            batch.put_parts(Space::Session, head_parts(id), |e| head.encode_to(e));
        }
        if let Some(attempt) = self.attempt {
            let ids: Vec<String> = sessions.iter().map(|s| s.id().to_string()).collect();
            attempt.remember(&ids, batch);
        }
    }
}

impl Engine {
    /// New sessions on an instant that is in the journal.
    pub(super) fn make_sessions(&self, made: &Made<'_>, cut: &CutRef<'_>) -> Result<Forked> {
        let mut sessions = Vec::with_capacity(made.count);
        self.announce(made, cut, &mut sessions)?;
        let mut batch = Batch::new();
        made.write(&sessions, cut, &mut batch);
        let submitted = self.shared.submit(batch);
        self.started(&sessions, submitted).map(|at| Forked { sessions, at })
    }

    /// New sessions on the present instant of another one.
    pub(super) fn fork_live(&self, parent: &Session, made: &Made<'_>) -> Result<Forked> {
        let mut sessions = Vec::with_capacity(made.count);
        let cut = parent.cut(|cut, batch| {
            self.announce(made, cut, &mut sessions)?;
            made.write(&sessions, cut, batch);
            Ok(())
        });
        let submitted = cut.map(|((), at, job)| {
            self.shared.queue_fold(job);
            at
        });
        self.started(&sessions, submitted).map(|at| Forked { sessions, at })
    }

    /// Registers sessions that are about to be made, so that their ids are taken and nobody else loads or makes them meanwhile. All or none.
    fn announce(&self, made: &Made<'_>, cut: &CutRef<'_>, sessions: &mut Vec<Arc<Session>>) -> Result<()> {
        for n in 0..made.count {
            let id = match made.wanted.ids.get(n) {
                Some(id) => id.clone(),
                None => SessionId::from_ulid(self.shared.ports.ids.next_ulid(made.now_ns)),
            };
            let session = Session::coming(id, &self.shared, made.family, cut, made.record.created_ns);
            if !self.register(session.clone()) {
                self.withdraw(sessions);
                sessions.clear();
                let id = session.id();
                return Err(match made.wanted.ids.get(n) {
                    Some(_) => made.wanted.taken(n, id),
                    None => Error::new(Reason::AlreadyExists, format!("{id} exists already"))
                        .with("id", id.as_str()),
                });
            }
            sessions.push(session);
        }
        Ok(())
    }

    /// Lets sessions that were announced take calls, or takes them back if the journal refused them.
    fn started(&self, sessions: &[Arc<Session>], submitted: Result<Position>) -> Result<Position> {
        match &submitted {
            Ok(at) => sessions.iter().for_each(|s| s.begin(*at)),
            Err(_) => self.withdraw(sessions),
        }
        submitted
    }

    fn withdraw(&self, sessions: &[Arc<Session>]) {
        sessions.iter().for_each(|s| self.unregister(s.id()));
    }

    fn is_known(&self, id: &SessionId) -> Result<bool> {
        Ok(self.shared.ports.journal.get(Space::Session, &session_key(id))?.is_some())
    }
}
