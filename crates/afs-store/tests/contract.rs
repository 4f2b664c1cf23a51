//! The simulated journal keeps the contract, with and without leaders, and the suite notices journals that break it.
#![allow(clippy::unwrap_used)] // tests

use afs_store::contract::{Subject, cases, run_journal_contract};
use afs_store::{
    Batch, Change, Flusher, GroupOptions, Journal, Position, SimJournal, SimSubject, Space, Visit,
};
use afs_types::{Reason, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn the_simulated_journal_keeps_the_contract() {
    run_journal_contract(SimSubject::default);
}

/// Overrides one option of every opening.
struct With<F>(SimSubject, F);

impl<F: Fn(&mut GroupOptions)> Subject for With<F> {
    fn open(&self, mut options: GroupOptions) -> Result<Arc<dyn Journal>> {
        self.1(&mut options);
        self.0.open(options)
    }
    fn crash(&self, seed: u64, mut options: GroupOptions) -> Result<Arc<dyn Journal>> {
        self.1(&mut options);
        self.0.crash(seed, options)
    }
}

#[test]
fn it_keeps_it_without_leaders() {
    run_journal_contract(|| With(SimSubject::default(), |o: &mut GroupOptions| o.leader = false));
}

#[test]
fn it_keeps_it_when_always_gathering() {
    run_journal_contract(|| With(SimSubject::default(), |o: &mut GroupOptions| o.gather_above = 0));
}

/// What a broken journal does wrong.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Bug {
    WaitLies,
    DropsASubmit,
    SplitsBatches,
    ForgetsFlushers,
    CallsBackEarly,
    ScanIsOpenEnded,
    LastIsFirst,
    RangeIsClosed,
    SyncDoesNothing,
    Unbounded,
}

struct Broken {
    inner: Arc<dyn Journal>,
    bug: Bug,
    count: AtomicU64,
}

impl Journal for Broken {
    fn submit(&self, mut batch: Batch) -> Result<Position> {
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        if self.bug == Bug::DropsASubmit && n % 97 == 7 {
            batch = Batch::new();
        }
        if self.bug == Bug::SplitsBatches && batch.len() == 2 {
            self.inner.submit(batch.changes().take(1).collect())?;
            return self.inner.submit(batch.changes().skip(1).collect());
        }
        if self.bug == Bug::RangeIsClosed {
            let mut wider = Batch::new();
            for change in batch.changes() {
                match change {
                    Change::DeleteRange { space, from, to } => {
                        wider.delete_range(space, from, [to, b"\0"].concat())
                    }
                    other => wider.push(other),
                };
            }
            wider.frees_space = batch.frees_space;
            batch = wider;
        }
        self.inner.submit(batch)
    }
    fn wait(&self, at: Position) -> Result<()> {
        if self.bug == Bug::WaitLies { Ok(()) } else { self.inner.wait(at) }
    }
    fn on_durable(&self, at: Position, then: Box<dyn FnOnce(Result<()>) + Send>) {
        if self.bug == Bug::CallsBackEarly { then(Ok(())) } else { self.inner.on_durable(at, then) }
    }
    fn durable(&self) -> Position {
        self.inner.durable()
    }
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.get(space, key)
    }
    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<()> {
        let to = if self.bug == Bug::ScanIsOpenEnded { None } else { to };
        self.inner.scan(space, from, to, visit)
    }
    fn last_key(&self, space: Space, from: &[u8], to: &[u8]) -> Result<Option<Vec<u8>>> {
        // The first instead of the last.
        let mut first = None;
        if self.bug != Bug::LastIsFirst {
            return self.inner.last_key(space, from, to);
        }
        self.inner.scan(space, from, Some(to), &mut |key, _| {
            first = Some(key.to_vec());
            Ok(std::ops::ControlFlow::Break(()))
        })?;
        Ok(first)
    }
    fn add_flusher(&self, flusher: Arc<dyn Flusher>) {
        if self.bug != Bug::ForgetsFlushers {
            self.inner.add_flusher(flusher);
        }
    }
    fn sync(&self) -> Result<Position> {
        if self.bug == Bug::SyncDoesNothing { Ok(self.inner.durable()) } else { self.inner.sync() }
    }
    fn close(&self) -> Result<()> {
        self.inner.close()
    }
}

struct BrokenSubject(SimSubject, Bug);

impl BrokenSubject {
    fn wrap(&self, inner: Arc<dyn Journal>) -> Arc<dyn Journal> {
        Arc::new(Broken { inner, bug: self.1, count: AtomicU64::new(0) })
    }
    fn spoil(&self, options: &mut GroupOptions) {
        if self.1 == Bug::Unbounded {
            options.queue_bytes = usize::MAX;
        }
    }
}

impl Subject for BrokenSubject {
    fn open(&self, mut options: GroupOptions) -> Result<Arc<dyn Journal>> {
        self.spoil(&mut options);
        Ok(self.wrap(self.0.open(options)?))
    }
    fn crash(&self, seed: u64, mut options: GroupOptions) -> Result<Arc<dyn Journal>> {
        self.spoil(&mut options);
        Ok(self.wrap(self.0.crash(seed, options)?))
    }
}

#[test]
fn the_suite_catches_broken_journals() {
    use Bug::*;
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let bugs = [
        WaitLies,
        DropsASubmit,
        SplitsBatches,
        ForgetsFlushers,
        CallsBackEarly,
        ScanIsOpenEnded,
        LastIsFirst,
        RangeIsClosed,
        SyncDoesNothing,
        Unbounded,
    ];
    let missed: Vec<_> = bugs
        .into_iter()
        .filter(|bug| {
            // The first case that fails is enough; the panic of a case is its verdict.
            let caught = cases::<BrokenSubject>().into_iter().any(|(_, case)| {
                let subject = BrokenSubject(SimSubject::default(), *bug);
                catch_unwind(AssertUnwindSafe(|| case(&subject))).is_err()
            });
            !caught
        })
        .collect();
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn without_a_thread_only_waiting_and_ticking_commit() {
    let journal = SimJournal::manual().unwrap();
    let put = |key: &[u8]| {
        let mut batch = Batch::new();
        batch.put(Space::Record, key, b"x");
        journal.submit(batch).unwrap()
    };
    let a = put(b"a");
    assert!(journal.durable() < a);
    journal.tick().unwrap();
    assert_eq!(journal.durable(), a);
    let b = put(b"b");
    let c = put(b"c");
    journal.wait(b).unwrap();
    assert_eq!(journal.durable(), c, "one group");
    let called = Arc::new(AtomicU64::new(0));
    let d = put(b"d");
    let counter = Arc::clone(&called);
    let then = move |result: Result<()>| {
        result.unwrap();
        counter.fetch_add(1, Ordering::SeqCst);
    };
    journal.on_durable(d, Box::new(then));
    assert_eq!(called.load(Ordering::SeqCst), 0);
    journal.tick().unwrap();
    assert_eq!(called.load(Ordering::SeqCst), 1);
}

#[test]
fn a_simulated_crash_loses_by_seed_and_repeats_itself() {
    let kept = |seed| {
        let journal = SimJournal::manual().unwrap();
        for i in 0..20u8 {
            let mut batch = Batch::new();
            batch.put(Space::Record, [i], b"x");
            journal.submit(batch).unwrap();
        }
        let next = journal.crash(seed).unwrap();
        assert_eq!(journal.submit(Batch::new()).unwrap_err().reason, Reason::Unavailable);
        (0..20u8).take_while(|i| next.get(Space::Record, &[*i]).unwrap().is_some()).count()
    };
    let runs: Vec<_> = (0..50).map(kept).collect();
    assert_eq!(runs, (0..50).map(kept).collect::<Vec<_>>());
    assert!(runs.contains(&0) && runs.contains(&20) && runs.iter().any(|k| (1..20).contains(k)), "{runs:?}");
}
