//! The contract of every [`Journal`], as a suite each implementation's tests run: [`run_journal_contract`].
//!
//! Each case is a function that panics when a promise of the port is broken; its name is the promise. The suite itself is checked
//! by journals that break one promise each (`tests/contract.rs`).
//!
//! Deliberately absent: what only a real disk can show (power cuts, damage); the implementations' own tests do that.

use crate::group::GroupOptions;
use crate::journal::{Batch, Flusher, Journal, Position, Space};
use crate::sim::mix;
use afs_types::{Error, Reason, Result, limits};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A journal under test: durable state that can be opened, and crashed while open.
pub trait Subject {
    /// Opens the state: the first time, or after `close`.
    fn open(&self, options: GroupOptions) -> Result<Arc<dyn Journal>>;
    /// The running journal dies without closing (what was not durable may be lost, as chosen by `seed`) and is opened again.
    fn crash(&self, seed: u64, options: GroupOptions) -> Result<Arc<dyn Journal>>;
}

/// A case of the suite.
pub type Case<S> = (&'static str, fn(&S));

/// All cases, each to be run on a fresh subject.
pub fn cases<S: Subject>() -> Vec<Case<S>> {
    vec![
        ("positions_grow_by_one", positions_grow_by_one),
        ("later_changes_win", later_changes_win),
        ("get_sees_committed_batches_only", get_sees_committed_batches_only),
        ("scan_is_ordered_and_bounded", scan_is_ordered_and_bounded),
        ("delete_range_is_half_open", delete_range_is_half_open),
        ("waiting_means_durable", waiting_means_durable),
        ("unwaited_batches_commit_within_the_lag", unwaited_batches_commit_within_the_lag),
        ("callbacks_come_once_and_only_when_durable", callbacks_come_once_and_only_when_durable),
        ("unknown_positions_are_refused", unknown_positions_are_refused),
        ("reopening_keeps_everything_and_grows_the_epoch", reopening_keeps_everything_and_grows_the_epoch),
        ("a_crash_keeps_a_prefix_and_all_that_was_waited_for", a_crash_keeps_a_prefix),
        ("flushers_run_before_the_group", flushers_run_before_the_group),
        ("flushed_changes_are_atomic_with_the_group", flushed_changes_are_atomic_with_the_group),
        ("a_failing_flusher_is_fatal", a_failing_flusher_is_fatal),
        ("the_queue_is_bounded", the_queue_is_bounded),
        ("a_crowd_of_waiters_is_served", a_crowd_of_waiters_is_served),
        ("order_of_submit_is_order_of_commit", order_of_submit_is_order_of_commit),
        ("closing_drains_and_refuses", closing_drains_and_refuses),
        ("random_histories_match_a_map", random_histories_match_a_map),
    ]
}

/// Runs all cases, each on a subject that `make` makes. Panics at the first broken promise.
pub fn run_journal_contract<S: Subject>(make: impl Fn() -> S) {
    for (_, case) in cases() {
        case(&make());
    }
}

fn one(space: Space, key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(space, key, value);
    batch
}

fn open(subject: &impl Subject) -> Arc<dyn Journal> {
    must(subject.open(GroupOptions::default()))
}

/// Panics with the error: in a suite, any unexpected error is a broken promise.
#[track_caller]
fn must<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("unexpected error: {error:?}"),
    }
}

fn all(journal: &dyn Journal, space: Space) -> Vec<(Vec<u8>, Vec<u8>)> {
    between(journal, space, b"", None)
}

fn between(journal: &dyn Journal, space: Space, from: &[u8], to: Option<&[u8]>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    must(journal.scan(space, from, to, &mut |k, v| {
        found.push((k.to_vec(), v.to_vec()));
        Ok(ControlFlow::Continue(()))
    }));
    found
}

fn number(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

fn positions_grow_by_one(subject: &impl Subject) {
    let journal = open(subject);
    let first = must(journal.submit(one(Space::Record, b"a", b"1")));
    for i in 1..100 {
        let at = must(journal.submit(Batch::new()));
        assert_eq!(at, Position { epoch: first.epoch, idx: first.idx + i });
    }
    assert!(must(journal.sync()).idx >= first.idx + 99);
    must(journal.close());
}

fn later_changes_win(subject: &impl Subject) {
    let journal = open(subject);
    let mut batch = Batch::new();
    batch.put(Space::Name, b"k", b"1").delete(Space::Name, b"k").put(Space::Name, b"k", b"2");
    batch.put(Space::Name, b"gone", b"1").delete(Space::Name, b"gone");
    batch.put(Space::Name, b"r5", b"1").delete_range(Space::Name, b"r", b"s").put(Space::Name, b"r6", b"2");
    batch.put(Space::Name, b"empty", b"");
    let at = must(journal.submit(batch));
    must(journal.wait(at));
    let want = [(&b"empty"[..], &b""[..]), (b"k", b"2"), (b"r6", b"2")];
    let found = all(&*journal, Space::Name);
    assert_eq!(found.iter().map(|(k, v)| (&k[..], &v[..])).collect::<Vec<_>>(), want);
    assert_eq!(must(journal.get(Space::Name, b"gone")), None);
    assert_eq!(must(journal.get(Space::Name, b"empty")), Some(Vec::new()));
    must(journal.close());
}

fn get_sees_committed_batches_only(subject: &impl Subject) {
    // With an hour of lag nothing is committed unless somebody waits.
    let options = GroupOptions { lag: Duration::from_secs(3600), ..GroupOptions::default() };
    let journal = must(subject.open(options));
    let at = must(journal.submit(one(Space::Record, b"a", b"1")));
    assert_eq!(must(journal.get(Space::Record, b"a")), None);
    assert!(journal.durable() < at);
    must(journal.wait(at));
    assert_eq!(must(journal.get(Space::Record, b"a")), Some(b"1".to_vec()));
    assert_eq!(must(journal.get(Space::Layer, b"a")), None);
    assert!(journal.durable() >= at);
    must(journal.close());
}

fn scan_is_ordered_and_bounded(subject: &impl Subject) {
    let journal = open(subject);
    let mut batch = Batch::new();
    for space in Space::ALL.into_iter().filter(|s| *s != Space::Meta) {
        for i in (0..300u64).rev() {
            batch.put(space, number(i), [space as u8]);
        }
        batch.put(space, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff", [space as u8]);
    }
    let at = must(journal.submit(batch));
    must(journal.wait(at));
    for space in Space::ALL.into_iter().filter(|s| *s != Space::Meta) {
        let found = all(&*journal, space);
        assert_eq!(found.len(), 301, "{space:?}");
        assert!(found.is_sorted() && found.iter().all(|(_, v)| v == &[space as u8]));
        let found = between(&*journal, space, &number(10), Some(&number(20)));
        assert_eq!(
            found.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>(),
            (10..20).map(number).collect::<Vec<_>>()
        );
        assert!(between(&*journal, space, &number(20), Some(&number(10))).is_empty());
        assert!(between(&*journal, space, &number(20), Some(&number(20))).is_empty());
        assert_eq!(between(&*journal, space, &number(299), None).len(), 2);
        let last = |from: u64, to: &[u8]| must(journal.last_key(space, &number(from), to));
        assert_eq!(last(10, &number(20)), Some(number(19).to_vec()));
        assert_eq!(last(0, b"\xff"), Some(number(299).to_vec()));
        // The end is not in it, an empty or inverted range has nothing, and a neighbour's keys are never found.
        assert_eq!((last(20, &number(20)), last(20, &number(10))), (None, None));
        assert_eq!(last(300, b"\xff"), None);
    }
    scan_stops(&*journal);
    must(journal.close());
}

fn scan_stops(journal: &dyn Journal) {
    let mut seen = 0;
    must(journal.scan(Space::Record, b"", None, &mut |_, _| {
        seen += 1;
        Ok(if seen == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }));
    assert_eq!(seen, 7);
    let refused = journal.scan(Space::Record, b"", None, &mut |_, _| Err(Error::bare(Reason::TimedOut)));
    assert_eq!(refused.map_err(|e| e.reason), Err(Reason::TimedOut));
}

fn delete_range_is_half_open(subject: &impl Subject) {
    let journal = open(subject);
    let mut batch = Batch::new();
    for i in 0..10 {
        batch.put(Space::Record, number(i), b"r").put(Space::Layer, number(i), b"l");
    }
    must(journal.submit(batch));
    let mut batch = Batch::new();
    batch.delete_range(Space::Record, number(3), number(6));
    batch.delete_range(Space::Record, number(9), number(2)); // inverted: nothing
    batch.delete_range(Space::Layer, b"", b"\xff");
    let at = must(journal.submit(batch));
    must(journal.wait(at));
    let left: Vec<_> = all(&*journal, Space::Record).into_iter().map(|(k, _)| k).collect();
    assert_eq!(left, [0, 1, 2, 6, 7, 8, 9].map(number));
    assert!(all(&*journal, Space::Layer).is_empty());
    must(journal.close());
}

fn waiting_means_durable(subject: &impl Subject) {
    let mut journal = open(subject);
    for i in 0..20 {
        let at = must(journal.submit(one(Space::Record, &number(i), b"x")));
        must(journal.wait(at));
        must(journal.wait(at)); // waiting again returns at once
        assert!(journal.durable() >= at);
        journal = must(subject.crash(i, GroupOptions::default()));
        assert_eq!(all(&*journal, Space::Record).len() as u64, i + 1, "a batch was waited for and is gone");
        assert!(journal.durable().epoch > at.epoch);
        must(journal.wait(at)); // positions of earlier epochs that survived are durable
    }
    must(journal.close());
}

fn unwaited_batches_commit_within_the_lag(subject: &impl Subject) {
    let journal = open(subject);
    for round in 0..3 {
        let at = must(journal.submit(one(Space::Record, &number(round), b"x")));
        let start = Instant::now();
        while journal.durable() < at {
            // 100 ms is the promise; the rest allows for a loaded machine.
            assert!(start.elapsed() < Duration::from_secs(5), "nobody committed the batch");
            std::thread::yield_now();
        }
        assert!(must(journal.get(Space::Record, &number(round))).is_some());
    }
    must(journal.close());
}

fn callbacks_come_once_and_only_when_durable(subject: &impl Subject) {
    let journal = open(subject);
    let (send, receive) = mpsc::channel();
    let mut last = Position::default();
    for i in 0..200u64 {
        last = must(journal.submit(one(Space::Record, &number(i), b"x")));
        let (send, weak, at) = (send.clone(), Arc::downgrade(&journal), last);
        let then = move |result: Result<()>| {
            let durable = weak.upgrade().is_some_and(|j| j.durable() >= at);
            let _ = send.send((i, result.is_ok() && durable));
        };
        journal.on_durable(at, Box::new(then));
    }
    must(journal.wait(last));
    let mut seen = vec![0; 201];
    for _ in 0..200 {
        let Ok((i, ok)) = receive.recv_timeout(Duration::from_secs(10)) else {
            panic!("a callback is missing")
        };
        assert!(ok, "the callback of batch {i} came before its batch was durable");
        seen[i as usize] += 1;
    }
    // Already durable: called at once.
    let late = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&late);
    journal.on_durable(last, Box::new(move |r| flag.store(r.is_ok(), Ordering::SeqCst)));
    assert!(late.load(Ordering::SeqCst));
    must(journal.close());
    assert!(seen[..200].iter().all(|n| *n == 1) && receive.try_recv().is_err());
}

fn unknown_positions_are_refused(subject: &impl Subject) {
    let journal = open(subject);
    let at = must(journal.submit(one(Space::Record, b"a", b"1")));
    for bad in [Position { idx: at.idx + 1, ..at }, Position { epoch: at.epoch + 1, ..at }] {
        assert_eq!(journal.wait(bad).map_err(|e| e.reason), Err(Reason::InvalidArgument));
        let (send, receive) = mpsc::channel();
        journal.on_durable(bad, Box::new(move |r| send.send(r.is_err()).unwrap_or_default()));
        assert_eq!(receive.recv_timeout(Duration::from_secs(5)), Ok(true));
    }
    must(journal.wait(at));
    must(journal.close());
}

fn reopening_keeps_everything_and_grows_the_epoch(subject: &impl Subject) {
    let mut last = Position::default();
    for round in 0..4u64 {
        let journal = open(subject);
        assert_eq!(all(&*journal, Space::Record).len() as u64, round * 50);
        for i in 0..50 {
            let at = must(journal.submit(one(Space::Record, &number(round * 50 + i), b"x")));
            assert!(at.idx == last.idx + 1 && (at.epoch > last.epoch || i > 0), "{at:?} follows {last:?}");
            last = at;
        }
        must(journal.close());
    }
}

fn a_crash_keeps_a_prefix(subject: &impl Subject) {
    let mut journal = open(subject);
    let mut next = 0u64;
    for seed in 0..30 {
        let mut waited = next;
        for i in 0..40 {
            let mut batch = Batch::new();
            batch.put(Space::Record, number(next), b"x").put(Space::Layer, number(next), b"y");
            let at = must(journal.submit(batch));
            next += 1;
            if i == mix(seed) % 40 {
                must(journal.wait(at));
                waited = next;
            }
        }
        journal = must(subject.crash(seed, GroupOptions::default()));
        let records = all(&*journal, Space::Record);
        let kept = records.len() as u64;
        assert!(kept >= waited, "{waited} batches were durable, {kept} are left (seed {seed})");
        assert!(records.iter().map(|(k, _)| k.clone()).eq((0..kept).map(|i| number(i).to_vec())), "a hole");
        assert_eq!(all(&*journal, Space::Layer).len() as u64, kept, "half a batch");
        next = kept;
    }
    must(journal.close());
}

/// Counts what was handed out and hands over an index entry for it.
#[derive(Default)]
struct Bytes {
    written: AtomicU64,
    flushed: AtomicU64,
    committed: AtomicU64,
    fail: AtomicBool,
}

impl Flusher for Bytes {
    fn flush(&self) -> Result<Batch> {
        if self.fail.load(Ordering::SeqCst) {
            return Err(Error::io("sync a pack", std::io::Error::other("injected")));
        }
        let (from, to) = (self.flushed.load(Ordering::SeqCst), self.written.load(Ordering::SeqCst));
        self.flushed.store(to, Ordering::SeqCst);
        let mut batch = Batch::new();
        for i in from..to {
            batch.put(Space::Blob, number(i), b"where");
        }
        Ok(batch)
    }
    fn committed(&self) {
        self.committed.store(self.flushed.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

fn flushers_run_before_the_group(subject: &impl Subject) {
    let journal = open(subject);
    let (first, second) = (Arc::new(Bytes::default()), Arc::new(Bytes::default()));
    journal.add_flusher(Arc::clone(&first) as Arc<dyn Flusher>);
    journal.add_flusher(Arc::clone(&second) as Arc<dyn Flusher>);
    for i in 1..=50 {
        first.written.store(i, Ordering::SeqCst);
        second.written.store(i / 2, Ordering::SeqCst);
        let at = must(journal.submit(one(Space::Record, &number(i - 1), b"names blob i - 1")));
        must(journal.wait(at));
        assert!(first.flushed.load(Ordering::SeqCst) >= i, "a record is durable before its bytes");
        assert!(first.committed.load(Ordering::SeqCst) >= i, "the flusher was not told of the commit");
        assert!(second.committed.load(Ordering::SeqCst) >= i / 2);
        assert!(must(journal.get(Space::Blob, &number(i - 1))).is_some());
    }
    first.written.store(51, Ordering::SeqCst);
    must(journal.sync()); // without any batch
    assert!(must(journal.get(Space::Blob, &number(50))).is_some(), "sync leaves bytes behind");
    must(journal.close());
}

fn flushed_changes_are_atomic_with_the_group(subject: &impl Subject) {
    let mut journal = open(subject);
    let mut next = 0;
    for seed in 0..20 {
        let bytes = Arc::new(Bytes::default());
        bytes.written.store(next, Ordering::SeqCst);
        bytes.flushed.store(next, Ordering::SeqCst);
        journal.add_flusher(Arc::clone(&bytes) as Arc<dyn Flusher>);
        for i in 0..20 {
            next += 1;
            bytes.written.store(next, Ordering::SeqCst);
            let at = must(journal.submit(one(Space::Record, &number(next - 1), b"x")));
            if i == 5 {
                must(journal.wait(at));
            }
        }
        journal = must(subject.crash(seed, GroupOptions::default()));
        let records = all(&*journal, Space::Record).len() as u64;
        let blobs = all(&*journal, Space::Blob).len() as u64;
        assert!(blobs >= records, "{records} records name blobs, {blobs} are there (seed {seed})");
        next = blobs;
        let mut batch = Batch::new();
        for i in records..blobs {
            batch.put(Space::Record, number(i), b"x");
        }
        let at = must(journal.submit(batch));
        must(journal.wait(at));
    }
    must(journal.close());
}

fn a_failing_flusher_is_fatal(subject: &impl Subject) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let on_fatal = Arc::new(move |_: &Error| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let journal = must(subject.open(GroupOptions { on_fatal, ..GroupOptions::default() }));
    let before = must(journal.submit(one(Space::Record, b"before", b"x")));
    must(journal.wait(before));
    let bytes = Arc::new(Bytes::default());
    journal.add_flusher(Arc::clone(&bytes) as Arc<dyn Flusher>);
    bytes.fail.store(true, Ordering::SeqCst);
    let (send, receive) = mpsc::channel();
    let at = must(journal.submit(one(Space::Record, b"after", b"x")));
    journal.on_durable(at, Box::new(move |r| send.send(r.is_err()).unwrap_or_default()));
    assert!(journal.wait(at).is_err(), "a false success");
    assert_eq!(receive.recv_timeout(Duration::from_secs(5)), Ok(true));
    assert!(journal.submit(one(Space::Record, b"later", b"x")).is_err());
    assert!(journal.wait(at).is_err() && journal.sync().is_err());
    must(journal.wait(before)); // what was durable stays so
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(must(journal.get(Space::Record, b"after")), None);
    let _ = journal.close();
}

fn the_queue_is_bounded(subject: &impl Subject) {
    /// Holds up the committer until told to go on.
    struct Gate(AtomicBool);
    impl Flusher for Gate {
        fn flush(&self) -> Result<Batch> {
            while !self.0.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            Ok(Batch::new())
        }
    }
    let options = GroupOptions {
        queue_bytes: 64 << 10,
        submit_timeout: Duration::from_millis(100),
        lag: Duration::from_millis(2),
        ..GroupOptions::default()
    };
    /// Also when the case fails, or closing the journal would wait for ever.
    struct Opens(Arc<Gate>);
    impl Drop for Opens {
        fn drop(&mut self) {
            self.0.0.store(true, Ordering::SeqCst);
        }
    }
    let journal = must(subject.open(options));
    let gate = Arc::new(Gate(AtomicBool::new(false)));
    let opens = Opens(Arc::clone(&gate));
    journal.add_flusher(gate);
    let mut accepted = 0;
    let refused = loop {
        match journal.submit(one(Space::Record, &number(accepted), &[7; 1000])) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 128, "128 KiB fit into a queue of 64 KiB");
    };
    assert_eq!(refused.reason, Reason::QueueFull);
    assert!(accepted > 32, "the bound is far below what was asked for");
    drop(opens);
    must(journal.sync());
    // A batch larger than the bound goes alone instead of never.
    let at = must(journal.submit(one(Space::Record, b"large", &[7; 200_000])));
    must(journal.wait(at));
    // A value beyond the limit is refused with its whole batch, which would be torn otherwise.
    let mut torn = one(Space::Record, b"beside", b"x");
    torn.put(Space::Record, b"huge", vec![0; limits::MAX_JOURNAL_VALUE_BYTES + 1]);
    let error = journal.submit(torn).map(drop).expect_err("a value of any length");
    assert!(error.message().contains(&limits::MAX_JOURNAL_VALUE_BYTES.to_string()));
    assert_eq!(all(&*journal, Space::Record).len() as u64, accepted + 1);
    must(journal.close());
}

fn a_crowd_of_waiters_is_served(subject: &impl Subject) {
    let journal = open(subject);
    std::thread::scope(|scope| {
        for thread in 0..256u64 {
            let journal = &journal;
            scope.spawn(move || {
                for i in 0..8 {
                    let at = must(journal.submit(one(Space::Record, &number(thread * 8 + i), b"x")));
                    must(journal.wait(at));
                    assert!(journal.durable() >= at);
                    assert!(must(journal.get(Space::Record, &number(thread * 8 + i))).is_some());
                }
            });
        }
    });
    assert_eq!(all(&*journal, Space::Record).len(), 2048);
    must(journal.close());
}

fn order_of_submit_is_order_of_commit(subject: &impl Subject) {
    let journal = open(subject);
    let turn = parking_lot::Mutex::new(0u64);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (journal, turn) = (&journal, &turn);
            scope.spawn(move || {
                for i in 0..100 {
                    // The engine submits under its session's lock: order in memory = order on disk.
                    let at = {
                        let mut turn = turn.lock();
                        *turn += 1;
                        must(journal.submit(one(Space::Session, b"newest", &number(*turn))))
                    };
                    if (i + thread) % 7 == 0 {
                        must(journal.wait(at));
                    }
                }
            });
        }
    });
    must(journal.sync());
    assert_eq!(must(journal.get(Space::Session, b"newest")), Some(number(800).to_vec()));
    must(journal.close());
}

fn closing_drains_and_refuses(subject: &impl Subject) {
    let journal = open(subject);
    for i in 0..100 {
        must(journal.submit(one(Space::Record, &number(i), b"x")));
    }
    must(journal.close());
    must(journal.close());
    let refused = journal.submit(Batch::new()).map_err(|e| e.reason);
    assert_eq!(refused, Err(Reason::Unavailable));
    drop(journal);
    let journal = open(subject);
    assert_eq!(all(&*journal, Space::Record).len(), 100);
    must(journal.close());
}

fn random_histories_match_a_map(subject: &impl Subject) {
    let mut journal = open(subject);
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut chance = 42;
    let mut random = |below: u64| {
        chance = mix(chance);
        chance % below
    };
    for round in 0..600 {
        let mut batch = Batch::new();
        for _ in 0..random(5) {
            let key = number(random(64)).to_vec();
            match random(6) {
                0 => {
                    model.remove(&key);
                    batch.delete(Space::Delta, key);
                }
                1 => {
                    let to = number(random(64)).to_vec();
                    model.retain(|k, _| *k < key || *k >= to);
                    batch.delete_range(Space::Delta, key, to);
                }
                _ => {
                    let value = vec![round as u8; random(300) as usize];
                    model.insert(key.clone(), value.clone());
                    batch.put(Space::Delta, key, value);
                }
            }
        }
        must(journal.submit(batch));
        if random(4) == 0 {
            must(journal.sync());
            assert!(all(&*journal, Space::Delta).into_iter().eq(model.clone()), "round {round}");
        }
        if random(60) == 0 {
            must(journal.sync());
            journal = must(subject.crash(round, GroupOptions::default()));
        }
    }
    must(journal.close());
}
