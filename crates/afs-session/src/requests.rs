//! Idempotent requests: the same `request_id` has one effect and gets the same answer for 24 hours.
//!
//! The answer (ids of what was made) is written in the same journal batch as the effect, so there is no moment at which
//! one is there without the other. A retry waits for a first attempt that is under way. Answers older than
//! `limits::REQUEST_ID_TTL_NS` are ignored and overwritten.

use crate::engine::Engine;
use crate::records::{RequestRec, Stored};
use afs_store::{Batch, Space};
use afs_types::{Error, Reason, RequestId, Result, limits};
use parking_lot::MutexGuard;

/// Methods that may take minutes. Callers wait for these by [`Engine::request_stripe`] before they take a thread.
const LONG: [&str; 2] = ["CreateCommit", "RestoreCheckpoint"];
/// Methods that may wait for memory, up to [`limits::MAX_MEMORY_WAIT_MS`]. No other waits for one of these, however its id hashes.
const TEXTS: [&str; 3] = ["EditFile", "ApplyPatch", "SubmitChanges"];

/// A request under way; keeps retries of it waiting.
pub(crate) struct Attempt<'a> {
    key: Vec<u8>,
    fingerprint: [u8; 32],
    now_ns: i64,
    _turn: MutexGuard<'a, ()>,
}

/// Whether to do the work.
pub(crate) enum Begin<'a> {
    /// It was done: the ids of what was made.
    Done(Vec<String>),
    /// Do it, and remember the answer in the same batch (when there is a request id).
    Go(Option<Attempt<'a>>),
}

impl Engine {
    /// Looks a request up. `method` is the name of the call, `parts` everything that makes it what it is.
    pub(crate) fn begin(&self, method: &str, id: Option<&RequestId>, parts: &[&[u8]]) -> Result<Begin<'_>> {
        let Some(id) = id else { return Ok(Begin::Go(None)) };
        let stripes = match method {
            long if LONG.contains(&long) => &self.long_requests,
            text if TEXTS.contains(&text) => &self.text_requests,
            _ => &self.requests,
        };
        let turn = stripes[self.request_stripe(id)].lock();
        let key = [method.as_bytes(), b"\0", id.as_str().as_bytes()].concat();
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let fingerprint = *hasher.finalize().as_bytes();
        let now_ns = self.shared.now_ns();
        if let Some(done) = self.shared.read::<RequestRec>(Space::Request, &key)?
            && now_ns - done.created_ns < limits::REQUEST_ID_TTL_NS
        {
            if done.fingerprint != fingerprint {
                return Err(Error::new(
                    Reason::RequestIdReused,
                    format!("request_id {:?} was used for another {method}", id.as_str()),
                )
                .with("field", "request_id"));
            }
            return Ok(Begin::Done(done.answer));
        }
        Ok(Begin::Go(Some(Attempt { key, fingerprint, now_ns, _turn: turn })))
    }
}

impl Attempt<'_> {
    /// Adds the answer to the batch that has the effect.
    pub(crate) fn remember(&self, answer: &[String], batch: &mut Batch) {
        let record =
            RequestRec { fingerprint: self.fingerprint, answer: answer.to_vec(), created_ns: self.now_ns };
        batch.put_with(Space::Request, &self.key, |e| record.encode_to(e));
    }
}
