//! Sessions that were made for a time, and go when it is over.
//!
//! Guarantees: a session whose time is over is deleted, as by hand and without force, by the next [`Engine::delete_expired`]; one that is in
//! use stays until it is not, and the log says so once. Looking costs nothing while nothing is due: the records are only read when
//! something is. Whoever gives a session an end notes it after the record is in the journal: a look that came before did not see it.
//! Deliberately absent: a timer (the server calls) and refusing a session whose time is over but that is still there.

use crate::engine::Engine;
use crate::records::{SessionRec, Stored};
use afs_store::Space;
use afs_types::{Error, Reason, Result, SessionId};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

/// When to look again at a session that was in use.
const AGAIN_NS: i64 = 10_000_000_000;

/// Sessions whose time is over and that somebody uses, as of the last look.
#[derive(Default)]
pub(crate) struct Overdue(HashSet<SessionId>);

impl Overdue {
    /// Takes what a look has found; returns those that the look before did not find.
    fn replace(&mut self, now: HashSet<SessionId>) -> Vec<SessionId> {
        let before = std::mem::replace(&mut self.0, now);
        self.0.difference(&before).cloned().collect()
    }
}

impl Engine {
    /// A session goes at this time.
    pub(crate) fn note_expiry(&self, at_ns: Option<i64>) {
        if let Some(at) = at_ns {
            self.next_expiry.fetch_min(at, Ordering::Relaxed);
        }
    }

    /// Deletes the sessions whose time is over; returns which.
    pub fn delete_expired(&self) -> Result<Vec<SessionId>> {
        let now = self.shared.now_ns();
        if now < self.next_expiry.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        // Before the scan: what is made meanwhile notes itself.
        self.next_expiry.store(i64::MAX, Ordering::Relaxed);
        // What was queued before is in the journal when the scan begins.
        let due = self.sync().and_then(|()| self.due(now)).inspect_err(|_| self.note_expiry(Some(now)))?;
        let (mut gone, mut in_use) = (Vec::new(), HashSet::new());
        for (id, generation) in due {
            // Not if its record has changed since: it may have been given more time.
            match self.delete_session(&id, false, Some(generation)) {
                Ok(()) => gone.push(id),
                Err(error) if error.reason == Reason::SessionNotFound => {}
                Err(error) => {
                    self.note_expiry(Some(now.saturating_add(AGAIN_NS)));
                    match error.reason {
                        Reason::InUse => {
                            in_use.insert(id);
                        }
                        Reason::RevisionMismatch => {
                            tracing::debug!(%id, "a session whose time is over has changed: looking again");
                        }
                        _ => tracing::warn!(%id, ?error, "delete a session whose time is over"),
                    }
                }
            }
        }
        for id in self.overdue.lock().replace(in_use) {
            tracing::warn!(%id, "the time of a session is over, but it is in use: it goes when it is not any more");
        }
        Ok(gone)
    }

    /// Sessions whose time is over; notes the next of the others.
    fn due(&self, now: i64) -> Result<Vec<(SessionId, u64)>> {
        let mut due = Vec::new();
        self.shared.ports.journal.scan(Space::Session, b"s", Some(b"t"), &mut |key, value| {
            let record = SessionRec::decode(value)?;
            match record.expires_ns {
                Some(at) if at <= now => {
                    let id = std::str::from_utf8(&key[1..]).map_err(|_| Error::bare(Reason::Corrupt))?;
                    due.push((SessionId::parse(id)?, record.generation));
                }
                at => self.note_expiry(at),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(due)
    }
}
