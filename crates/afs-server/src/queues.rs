//! Queues by key: a few callers of the same key at once, the others wait in order without a thread.
//!
//! Guarantees: who waits for its key holds no thread and no turn of the pool, so one key's callers keep nobody else waiting; a key takes
//! memory only while somebody is in its queue; beyond the most that may be in one queue callers get `QUEUE_FULL` at once. A caller that
//! gives up leaves its queue.
//!
//! Whose queues there are is said here, since it is together that they decide how many turns one session or repository can have: two of
//! the comparisons (one that changes it and one search, see [`of_commit`]), two of those whose answers are streams, two of the pushes.

use afs_session::Engine;
use afs_types::{Error, Reason, RequestId, Result, SessionId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most callers in the queue of one key, those that run included.
pub(crate) const MAX_OF_KEY: usize = afs_types::limits::MAX_WAITING_OF_KEY;

/// Where a commit waits. Several queues are named in the order in which the engine takes its own locks, so that nobody waits for its
/// turn behind somebody who waits for it: retries for the first of their request id; commits and restores of one session for each other;
/// then commits of the sessions that the engine keeps apart from each other no further.
pub(crate) fn of_commit(engine: &Engine, request: Option<&RequestId>, session: &SessionId) -> Vec<String> {
    let mut queues = of_restore(engine, request, session);
    queues.push(format!("commit {}", engine.commit_stripe(session)));
    queues
}

/// Where a restore waits.
pub(crate) fn of_restore(engine: &Engine, request: Option<&RequestId>, session: &SessionId) -> Vec<String> {
    let of_request = request.map(|id| format!("request {}", engine.request_stripe(id)));
    of_request.into_iter().chain([format!("session {session}")]).collect()
}

/// Where a search of what a session has changed waits.
pub(crate) fn of_search(session: &SessionId) -> Vec<String> {
    vec![format!("search {session}")]
}

/// Where a comparison that is told as a stream waits.
pub(crate) fn of_told(session: &SessionId) -> String {
    format!("told {session}")
}

/// Where a push waits: sources of one repository can be many.
pub(crate) fn of_push(location: &str) -> String {
    format!("push {location}")
}

/// All queues.
#[derive(Default)]
pub(crate) struct Queues {
    by_key: Mutex<HashMap<String, Queue>>,
}

struct Queue {
    turns: Arc<Semaphore>,
    callers: usize,
}

/// A place in a queue: the front of it, once [`Queues::enter`] has returned.
pub(crate) struct Place {
    queues: Arc<Queues>,
    key: String,
    turn: Option<OwnedSemaphorePermit>,
}

impl Queues {
    /// Waits until at most `at_once` callers of this key, this one included, are in front.
    pub(crate) async fn enter(self: &Arc<Self>, key: String, at_once: usize) -> Result<Place> {
        let (mut place, turns) = self.line_up(key, at_once)?;
        let turn = turns.acquire_owned().await;
        place.turn = Some(turn.map_err(|_| Error::new(Reason::Unavailable, "the server shuts down"))?);
        Ok(place)
    }

    fn line_up(self: &Arc<Self>, key: String, at_once: usize) -> Result<(Place, Arc<Semaphore>)> {
        let mut by_key = self.by_key.lock();
        let new = || Queue { turns: Arc::new(Semaphore::new(at_once)), callers: 0 };
        let queue = by_key.entry(key.clone()).or_insert_with(new);
        if queue.callers >= MAX_OF_KEY {
            let message = format!(
                "{MAX_OF_KEY} calls of this kind wait for the same session, repository or request_id"
            );
            return Err(Error::new(Reason::QueueFull, message).with("limit", MAX_OF_KEY.to_string()));
        }
        queue.callers += 1;
        let turns = queue.turns.clone();
        Ok((Place { queues: self.clone(), key, turn: None }, turns))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // First, so that the next one goes before the queue can be forgotten.
        drop(self.turn.take());
        let mut by_key = self.queues.by_key.lock();
        if let Some(queue) = by_key.get_mut(&self.key) {
            queue.callers -= 1;
            if queue.callers == 0 {
                by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn one_key_waits_and_others_do_not() {
        let queues = Arc::new(Queues::default());
        let first = queues.enter("a".into(), 1).await.unwrap();
        assert!(queues.enter("a".into(), 1).now_or_never().is_none());
        let mut second = Box::pin(queues.enter("a".into(), 1));
        assert!((&mut second).now_or_never().is_none());
        queues.enter("b".into(), 1).now_or_never().unwrap().unwrap();
        drop(first);
        drop(second.now_or_never().unwrap().unwrap());
        assert!(queues.by_key.lock().is_empty(), "a queue that nobody is in is forgotten");
    }

    #[tokio::test]
    async fn a_queue_is_bounded() {
        let queues = Arc::new(Queues::default());
        let mut all: Vec<_> = (0..MAX_OF_KEY).map(|_| Box::pin(queues.enter("a".into(), 2))).collect();
        let ready = all.iter_mut().filter_map(|one| one.now_or_never()).collect::<Vec<_>>();
        assert_eq!(ready.len(), 2);
        let refused = queues.enter("a".into(), 2).await.err().unwrap();
        assert_eq!((refused.reason, refused.metadata().len()), (Reason::QueueFull, 1));
        drop(all);
        drop(ready);
        assert!(queues.by_key.lock().is_empty());
    }
}
