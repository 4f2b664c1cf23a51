//! One effect per op_id: answers are kept until the client says that it has them.
//!
//! Guarantees: two senders of one op_id get the same answer, also when they come at the same time; the number of kept
//! answers is bounded, and all mounts' answers together have the bytes that `share` gives them; at either bound new operations are
//! refused before they are applied, not old answers dropped. `QUEUE_FULL` always means "not applied" and is no answer: the same op_id
//! may be sent again. The oldest operation that a client waits for (`answered_below` names it) finds room always: until it is answered
//! the client cannot acknowledge those behind it, so a mount whose answers fill its room would stand still for as long as others fill
//! theirs.

use super::share::Share;
use afs_proto::v1::OpResult;
use afs_types::{Error, Reason, Result, limits};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;

/// Most answers kept for one mount.
const MAX_KEPT: usize = limits::MAX_KEPT_ANSWERS;

/// The answers of one mount.
pub(crate) struct Replies {
    state: Mutex<State>,
    done: Condvar,
}

/// Memory that an answer without words takes, with its place in the map.
pub(crate) const ANSWER_BYTES: usize = size_of::<OpResult>() + 64;
/// Words of a failure are cut to this many bytes.
const MAX_WORDS: usize = 512;

fn weight(answer: &OpResult) -> usize {
    ANSWER_BYTES + answer.reason.len() + answer.message.len()
}

struct State {
    /// Room for the answers.
    share: Share,
    /// None: being applied.
    kept: BTreeMap<u64, Option<OpResult>>,
    /// Answers below were dropped: the client has them.
    answered_below: u64,
}

impl Replies {
    /// No answers yet.
    pub(crate) fn new(share: Share) -> Self {
        let state = State { share, kept: BTreeMap::new(), answered_below: 0 };
        Self { state: Mutex::new(state), done: Condvar::new() }
    }

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
        let is_oldest = op_id == state.answered_below.max(1);
        if state.kept.len() >= MAX_KEPT && !is_oldest {
            return Err(Error::new(Reason::QueueFull, format!("{MAX_KEPT} answers wait to be acknowledged"))
                .with("limit", MAX_KEPT.to_string())
                .next("send answered_below"));
        }
        // Before it is applied: what it will be is not known, but its words are bounded.
        if is_oldest {
            state.share.take_anyway(ANSWER_BYTES + MAX_WORDS);
        } else if !state.share.take(ANSWER_BYTES + MAX_WORDS) {
            let limit = limits::MAX_KEPT_ANSWERS_BYTES;
            let message = format!("answers of all mounts that hold {limit} bytes wait to be acknowledged");
            return Err(Error::new(Reason::QueueFull, message)
                .with("limit", limit.to_string())
                .next("send answered_below"));
        }
        state.kept.insert(op_id, None);
        drop(state);
        let mut answer = apply();
        cut(&mut answer.message, MAX_WORDS - answer.reason.len().min(MAX_WORDS));
        answer.message.shrink_to_fit();
        let is_answer = answer.reason != Reason::QueueFull.as_str();
        let mut state = self.state.lock();
        if is_answer {
            state.share.give((ANSWER_BYTES + MAX_WORDS).saturating_sub(weight(&answer)));
            state.kept.insert(op_id, Some(answer.clone()));
        } else {
            state.share.give(ANSWER_BYTES + MAX_WORDS);
            state.kept.remove(&op_id);
        }
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
            let (done, open): (Vec<_>, Vec<_>) =
                dropped.into_iter().partition(|(_, answer)| answer.is_some());
            state.kept.extend(open);
            state.share.give(done.iter().filter_map(|(_, answer)| answer.as_ref()).map(weight).sum());
        }
    }
}

/// Cuts a text to at most so many bytes.
fn cut(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
}

#[cfg(test)]
mod tests {
    use super::super::share::Common;
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn unbounded() -> Replies {
        Replies::new(Common::new(usize::MAX >> 1, 0).share())
    }

    #[test]
    fn answers_of_all_mounts_are_bounded_in_bytes() {
        let most = 100 * (ANSWER_BYTES + MAX_WORDS);
        let common = Common::new(most, 0);
        let mounts = [Replies::new(common.share()), Replies::new(common.share())];
        let words = || OpResult { message: "ä".repeat(1 << 20), ..OpResult::default() };
        let fits = |id: &u64| mounts[0].once(*id, words).is_ok();
        let kept = (1..1000).take_while(fits).count();
        assert!((100..120).contains(&kept), "{kept}");
        let refused = mounts[1].once(2, || panic!("applied although its answer cannot be kept"));
        let refused = refused.unwrap_err();
        assert_eq!(refused.reason, Reason::QueueFull);
        assert!(refused.metadata().iter().any(|(key, _)| *key == "limit"), "{refused:?}");
        mounts[0].answered_below(1 << 40);
        mounts[1].once(1, OpResult::default).unwrap();
        drop(mounts);
        assert!(common.share().take(most), "all room is given back");
    }

    #[test]
    fn an_operation_is_applied_once() {
        let (replies, applied) = (unbounded(), AtomicU64::new(0));
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
        let replies = unbounded();
        for id in 1..=MAX_KEPT as u64 {
            replies.once(id, OpResult::default).unwrap();
        }
        assert_eq!(replies.once(1 << 40, OpResult::default).unwrap_err().reason, Reason::QueueFull);
        replies.answered_below(10);
        replies.once(1 << 40, OpResult::default).unwrap();
    }
    #[test]
    fn a_mount_goes_on_from_its_oldest_operation_whatever_others_hold() {
        let room = ANSWER_BYTES + MAX_WORDS;
        let common = Common::new(4 * room, 2 * room);
        let (mut greedy, replies) = (common.share(), Replies::new(common.share()));
        assert!(greedy.take(6 * room), "another mount has all that is shared");
        // The first of five is on its way for longer than the others, and what is behind it cannot be acknowledged.
        let applied = AtomicU64::new(0);
        let send = |id| {
            replies.once(id, || {
                applied.fetch_add(1, Ordering::Relaxed);
                OpResult { message: "x".repeat(MAX_WORDS), ..OpResult::default() }
            })
        };
        send(2).unwrap();
        send(3).unwrap();
        for refused in [4, 5] {
            assert_eq!(send(refused).unwrap_err().reason, Reason::QueueFull);
        }
        assert_eq!(applied.load(Ordering::Relaxed), 2, "what is refused is not applied");
        send(1).unwrap();
        replies.answered_below(4);
        for id in [4, 5] {
            send(id).unwrap();
            replies.answered_below(id + 1);
        }
        assert_eq!(applied.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn a_refusal_from_below_is_no_answer_that_is_kept() {
        let full = OpResult { reason: Reason::QueueFull.as_str().into(), errno: 11, ..OpResult::default() };
        let common = Common::new(1 << 20, 0);
        let replies = Replies::new(common.share());
        assert_eq!(replies.once(7, || full.clone()).unwrap().errno, 11);
        let again = replies.once(7, || OpResult { op_id: 7, ..OpResult::default() }).unwrap();
        assert_eq!((again.errno, again.op_id), (0, 7), "sent again, it is tried again");
        assert_eq!(replies.once(7, || panic!("applied twice")).unwrap(), again);
        replies.answered_below(8);
        assert!(common.share().take(1 << 20), "all room is given back");
    }
}
