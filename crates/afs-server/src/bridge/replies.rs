//! One effect per op_id: answers are kept until the client says that it has them.
//!
//! Guarantees: two senders of one op_id get the same answer, also when they come at the same time; the number of kept
//! answers is bounded, and at the bound new operations are refused, not old answers dropped.

use afs_proto::v1::OpResult;
use afs_types::{Error, Reason, Result};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;

/// Most answers kept for one mount.
const MAX_KEPT: usize = 4_096;

/// The answers of one mount.
#[derive(Default)]
pub(crate) struct Replies {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Default)]
struct State {
    /// None: being applied.
    kept: BTreeMap<u64, Option<OpResult>>,
    /// Answers below were dropped: the client has them.
    answered_below: u64,
}

impl Replies {
    /// The answer of an operation, which is applied unless it was before.
    pub(crate) fn once(&self, op_id: u64, apply: impl FnOnce() -> OpResult) -> Result<OpResult> {
        let mut state = self.state.lock();
        if op_id < state.answered_below.max(1) {
            return Err(Error::new(
                Reason::InvalidArgument,
                format!("op_id: {op_id} was answered and forgotten"),
            )
            .with("field", "op_id"));
        }
        loop {
            match state.kept.get(&op_id) {
                Some(Some(answer)) => return Ok(answer.clone()),
                Some(None) => self.done.wait(&mut state),
                None => break,
            }
        }
        if state.kept.len() >= MAX_KEPT {
            return Err(Error::new(Reason::QueueFull, format!("{MAX_KEPT} answers wait to be acknowledged"))
                .with("limit", MAX_KEPT.to_string())
                .next("send answered_below"));
        }
        state.kept.insert(op_id, None);
        drop(state);
        let answer = apply();
        self.state.lock().kept.insert(op_id, Some(answer.clone()));
        self.done.notify_all();
        Ok(answer)
    }

    /// Drops the answers that the client has.
    pub(crate) fn answered_below(&self, op_id: u64) {
        let mut state = self.state.lock();
        if op_id > state.answered_below {
            state.answered_below = op_id;
            let rest = state.kept.split_off(&op_id);
            // What is still being applied stays until it is done.
            let dropped = std::mem::replace(&mut state.kept, rest);
            state.kept.extend(dropped.into_iter().filter(|(_, answer)| answer.is_none()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn an_operation_is_applied_once() {
        let (replies, applied) = (Replies::default(), AtomicU64::new(0));
        let send = |op_id| {
            replies.once(op_id, || {
                std::thread::yield_now();
                OpResult { op_id, count: applied.fetch_add(1, Ordering::Relaxed), ..OpResult::default() }
            })
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (1..100).for_each(|id| assert_eq!(send(id).unwrap().op_id, id)));
            }
        });
        assert_eq!(applied.load(Ordering::Relaxed), 99);
        replies.answered_below(50);
        assert_eq!(send(49).unwrap_err().reason, Reason::InvalidArgument);
        assert!(send(0).is_err());
        send(50).unwrap();
        assert_eq!(applied.load(Ordering::Relaxed), 99);
    }

    #[test]
    fn answers_are_bounded() {
        let replies = Replies::default();
        for id in 1..=MAX_KEPT as u64 {
            replies.once(id, OpResult::default).unwrap();
        }
        assert_eq!(replies.once(1 << 40, OpResult::default).unwrap_err().reason, Reason::QueueFull);
        replies.answered_below(10);
        replies.once(1 << 40, OpResult::default).unwrap();
    }
}
