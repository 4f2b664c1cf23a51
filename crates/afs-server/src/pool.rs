//! Where blocking engine calls run: off the async threads, a bounded number at once.
//!
//! Guarantees: calls, streams, uploads, pushes and comparisons of whole trees each have turns of their own, so that slow readers,
//! senders and remotes hold up neither the others nor short calls; beyond the queue of each kind callers get `QUEUE_FULL` at once.
//! Comparisons wait for others of their session before they take a turn, and pushes for others to their repository (`queues`): one of
//! these never has more than half of the turns. A stream is at most [`limits::MAX_STREAM_AHEAD_BYTES`] (or one item) ahead of its reader, and a reader that takes nothing
//! for [`limits::MAX_READER_PAUSE_MS`], or lags that much behind the least rate, loses it (`pace`). Waiting for the journal takes no
//! thread ([`durable`]).

use crate::outgo::{self, Answers};
use crate::pace::Pace;
use crate::queues::{Place, Queues};
use afs_store::{Journal, Position};
use afs_types::{Error, Reason, Result, limits};
use futures::{Stream, StreamExt as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// Most calls that wait for a turn.
const MAX_WAITING: usize = limits::MAX_WAITING_CALLS;
/// Most streams, uploads, pushes or comparisons that wait for a turn.
const MAX_WAITING_LONG: usize = limits::MAX_WAITING_LONG_CALLS;
/// Comparisons of whole trees at once: each takes memory for every path that differs.
const COMPARISONS: usize = limits::MAX_COMPARISONS;
/// Comparisons told as streams that one session has at once.
const TOLD_OF_SESSION: usize = COMPARISONS / 2;
/// Pushes at once: each waits for another machine as long as that takes.
const PUSHES: usize = limits::MAX_PUSHES;
const PUSHES_OF_REPOSITORY: usize = limits::MAX_PUSHES_OF_REPOSITORY;
const UNIT_BYTES: usize = 1 << 10;
/// About what a result takes that nobody weighs.
const ANSWER_BYTES: usize = 4 << 10;
const AHEAD_UNITS: usize = limits::MAX_STREAM_AHEAD_BYTES / UNIT_BYTES;

/// Threads for calls, and others for what takes as long as its caller likes.
pub(crate) struct Pool {
    calls: Turns,
    streams: Turns,
    uploads: Turns,
    pushes: Turns,
    comparisons: Turns,
    /// Apart from the calls: their readers may be slow.
    told_comparisons: Turns,
    /// Where those that must come one after the other wait before they take a turn.
    queues: Arc<Queues>,
    /// What has been answered and not been read: a call that has its turn makes more of it.
    answers: Arc<Answers>,
    /// How long a reader may take nothing.
    pause: Duration,
}

struct Turns {
    permits: Arc<Semaphore>,
    size: usize,
    waiting: AtomicUsize,
    most_waiting: usize,
}

/// The items of a stream.
pub(crate) type Items<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;

/// An item of a stream that says how much memory it takes.
pub(crate) trait Weigh {
    /// About so many bytes.
    fn weight(&self) -> usize;
}

impl Weigh for bytes::Bytes {
    fn weight(&self) -> usize {
        self.len()
    }
}

/// Most threads of a pool of this size, for the runtime's limit.
pub(crate) const fn threads(size: usize) -> usize {
    3 * size + PUSHES + 2 * COMPARISONS
}

impl Pool {
    /// A pool that runs `size` calls, as many streams, and as many uploads at once.
    pub(crate) fn new(size: usize, answers: Arc<Answers>) -> Self {
        let turns = |size, most_waiting| Turns {
            permits: Arc::new(Semaphore::new(size)),
            size,
            waiting: AtomicUsize::new(0),
            most_waiting,
        };
        Self {
            calls: turns(size, MAX_WAITING),
            streams: turns(size, MAX_WAITING_LONG),
            uploads: turns(size, MAX_WAITING_LONG),
            pushes: turns(PUSHES, MAX_WAITING_LONG),
            comparisons: turns(COMPARISONS, MAX_WAITING_LONG),
            told_comparisons: turns(COMPARISONS, MAX_WAITING_LONG),
            queues: Arc::default(),
            answers,
            pause: Duration::from_millis(limits::MAX_READER_PAUSE_MS),
        }
    }

    /// Runs a call that may block for a bounded time.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run_weighed(work, |_| ANSWER_BYTES).await
    }

    /// The same for a call whose result can be large: `weigh` tells its bytes, which count from when it is there.
    pub(crate) async fn run_weighed<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
        weigh: fn(&T) -> usize,
    ) -> Result<T> {
        self.answered(&self.calls, work, weigh).await
    }

    /// Runs work whose answer is small, or that nobody asked for: it is never refused for answers that wait.
    pub(crate) async fn run_unasked<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        Self::run_in(&self.calls, work).await
    }

    /// Runs a call that waits for the bytes of its caller.
    pub(crate) async fn run_upload<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        Self::run_in(&self.uploads, work).await
    }

    /// Runs a call that waits for another machine, when few others of its queue run. It waits for them without a thread and before its
    /// turn.
    pub(crate) async fn run_push<T: Send + 'static>(
        &self,
        queue: String,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = self.queues.enter(queue, PUSHES_OF_REPOSITORY).await?;
        let work = move || {
            let _place = place;
            work()
        };
        Self::run_in(&self.pushes, work).await
    }

    /// Runs a call that compares whole trees, when no other of its queues runs. It waits for them without a thread and before its turn.
    pub(crate) async fn run_comparison_of<T: Send + 'static>(
        &self,
        queues: Vec<String>,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut places: Vec<Place> = Vec::with_capacity(queues.len());
        for queue in queues {
            places.push(self.queues.enter(queue, 1).await?);
        }
        // Goes with the work, which runs to its end also when its caller has left.
        let work = move || {
            let _places = places;
            work()
        };
        self.answered(&self.comparisons, work, |_| ANSWER_BYTES).await
    }

    /// Runs a call whose answer is held until it is read: not if too many are.
    async fn answered<T: Send + 'static>(
        &self,
        turns: &Turns,
        work: impl FnOnce() -> Result<T> + Send + 'static,
        weigh: fn(&T) -> usize,
    ) -> Result<T> {
        let turn = turns.take().await?;
        outgo::admit(&self.answers)?;
        let call = outgo::Call::current();
        let weighed = move || {
            // Counted before the turn is given to the next one: results are made faster than they are encoded.
            work().inspect(|value| call.iter().for_each(|call| call.made(weigh(value))))
        };
        Self::run_with(turn, weighed).await
    }

    async fn run_in<T: Send + 'static>(
        turns: &Turns,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        Self::run_with(turns.take().await?, work).await
    }

    async fn run_with<T: Send + 'static>(
        turn: OwnedSemaphorePermit,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|e| Error::new(Reason::Internal, format!("a call ended early: {e}")))?
    }

    /// Runs a call that hands over many items; the sink returns false when nobody wants more.
    pub(crate) async fn stream<T: Weigh + Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn FnMut(T) -> bool) -> Result<()> + Send + 'static,
    ) -> Result<Items<T>> {
        Ok(stream_in(self.streams.take().await?, self.pause, work))
    }

    /// The same for a call that compares whole trees, when few others of its queue run.
    pub(crate) async fn stream_comparison<T: Weigh + Send + 'static>(
        &self,
        queue: String,
        work: impl FnOnce(&mut dyn FnMut(T) -> bool) -> Result<()> + Send + 'static,
    ) -> Result<Items<T>> {
        let place = self.queues.enter(queue, TOLD_OF_SESSION).await?;
        let work = move |sink: &mut dyn FnMut(T) -> bool| {
            let _place = place;
            work(sink)
        };
        Ok(stream_in(self.told_comparisons.take().await?, self.pause, work))
    }
}

fn stream_in<T: Weigh + Send + 'static>(
    turn: OwnedSemaphorePermit,
    pause: Duration,
    work: impl FnOnce(&mut dyn FnMut(T) -> bool) -> Result<()> + Send + 'static,
) -> Items<T> {
    // Not bounded by itself: every item holds room until it is taken.
    let (items, taken) = mpsc::unbounded_channel();
    let (room, handle) = (Arc::new(Semaphore::new(AHEAD_UNITS)), Handle::current());
    let mut pace = Pace::new(pause);
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut is_cut = false;
        let outcome = work(&mut |item: T| match ahead(&room, &handle, &mut pace, item.weight()) {
            Some(permit) => items.send((Ok(item), Some(permit))).is_ok(),
            None => {
                is_cut = true;
                false
            }
        });
        let outcome = if is_cut { Err(slow_reader(pause)) } else { outcome };
        if let Err(error) = outcome {
            let _ = items.send((Err(error), None)); // nobody listens any more: fine
        }
    });
    Box::pin(UnboundedReceiverStream::new(taken).map(|(item, _)| item))
}

/// Room for an item; none if its reader was too slow.
fn ahead(
    room: &Arc<Semaphore>,
    handle: &Handle,
    pace: &mut Pace,
    weight: usize,
) -> Option<OwnedSemaphorePermit> {
    let units = weight.div_ceil(UNIT_BYTES).clamp(1, AHEAD_UNITS) as u32;
    if let Ok(permit) = room.clone().try_acquire_many_owned(units) {
        pace.moved(weight);
        return Some(permit);
    }
    let room = room.clone().acquire_many_owned(units);
    let (began, patience) = (Instant::now(), pace.patience());
    let permit = handle.block_on(async { tokio::time::timeout(patience, room).await.ok()?.ok() })?;
    pace.waited(began.elapsed());
    pace.moved(weight);
    Some(permit)
}

fn slow_reader(pause: Duration) -> Error {
    let (limit, rate) = (pause.as_millis(), limits::MIN_TRANSFER_BYTES_PER_S);
    let message = format!("the stream was not read for {limit} ms, or not at {rate} bytes a second");
    Error::new(Reason::TimedOut, message)
        .with("limit", limit.to_string())
        .with("rate", rate.to_string())
        .next("read it steadily, or ask for less")
}

impl Turns {
    async fn take(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(turn) = self.permits.clone().try_acquire_owned() {
            return Ok(turn);
        }
        let waiting = Waiting::enter(&self.waiting, self.most_waiting).ok_or_else(|| {
            Error::new(
                Reason::QueueFull,
                format!("{} calls of this kind run and {} wait", self.size, self.most_waiting),
            )
            .with("limit", self.most_waiting.to_string())
        })?;
        let turn = self.permits.clone().acquire_owned().await;
        drop(waiting);
        turn.map_err(|_| Error::new(Reason::Unavailable, "the server shuts down"))
    }
}

/// Counts one waiting caller, also when the caller gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let entered = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(entered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns when the journal has reached a position, without holding a thread.
pub(crate) async fn durable(journal: &dyn Journal, at: Position) -> Result<()> {
    if journal.durable() >= at {
        return Ok(());
    }
    let (tell, told) = oneshot::channel();
    journal.on_durable(
        at,
        Box::new(move |outcome| {
            let _ = tell.send(outcome); // the caller may have gone
        }),
    );
    told.await.unwrap_or_else(|_| Err(Error::new(Reason::Unavailable, "the server shuts down")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queues;
    use futures::FutureExt as _;
    use std::sync::Barrier;

    #[tokio::test]
    async fn calls_are_bounded_and_others_wait() {
        let pool = Arc::new(Pool::new(2, Arc::default()));
        let gate = Arc::new(Barrier::new(3));
        let tasks: Vec<_> = (0..2)
            .map(|_| {
                let (pool, gate) = (pool.clone(), gate.clone());
                tokio::spawn(async move { pool.run(move || Ok(gate.wait().is_leader())).await })
            })
            .collect();
        while pool.calls.permits.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let third = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(|| Ok(7)).await }
        });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
        assert_eq!(third.await.unwrap().unwrap(), 7);
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    }

    impl Weigh for usize {
        fn weight(&self) -> usize {
            1 << 20
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reader_that_sleeps_loses_its_stream_and_holds_no_more_than_its_share() {
        let pool = Pool { pause: Duration::from_millis(50), ..Pool::new(1, Arc::default()) };
        let handed = Arc::new(AtomicUsize::new(0));
        let count = handed.clone();
        let stream = pool.stream(move |sink| {
            (0usize..).take_while(|n| sink(*n)).for_each(|n| count.store(n + 1, Ordering::Relaxed));
            Ok(())
        });
        let mut stream = stream.await.unwrap();
        // Another stream gets its turn although nobody reads this one.
        let other = pool.stream(|sink| {
            sink(7usize);
            Ok(())
        });
        let other = other.await.unwrap();
        let most = limits::MAX_STREAM_AHEAD_BYTES >> 20;
        assert_eq!(handed.load(Ordering::Relaxed), most);
        assert_eq!(other.count().await, 1);
        let (mut items, mut last) = (0, None);
        while let Some(item) = stream.next().await {
            match item {
                Ok(_) => items += 1,
                Err(error) => last = Some(error.reason),
            }
        }
        assert_eq!((items, last), (most, Some(Reason::TimedOut)));
    }

    impl Weigh for u8 {
        fn weight(&self) -> usize {
            1
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reader_that_takes_an_item_before_every_pause_ends_loses_its_stream_too() {
        let pool = Pool { pause: Duration::from_millis(100), ..Pool::new(1, Arc::default()) };
        let (done, mut ended) = oneshot::channel();
        let stream = pool.stream(move |sink| {
            while sink(0u8) {}
            let _ = done.send(());
            Ok(())
        });
        let mut stream = stream.await.unwrap();
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            let _ = stream.next().await;
        }
        assert_eq!(ended.try_recv(), Ok(()), "it was handed items for longer than its pause in all");
        let last = stream.fold(None, |_, item| async move { item.err() }).await;
        assert_eq!(last.map(|e| e.reason), Some(Reason::TimedOut));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pushes_and_uploads_have_turns_of_their_own() {
        let pool = Arc::new(Pool::new(1, Arc::default()));
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let upload = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run_upload(move || Ok(gate.recv().is_ok())).await }
        });
        while pool.uploads.permits.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let pushed =
            tokio::time::timeout(Duration::from_secs(20), pool.run_push("push x".into(), || Ok(7))).await;
        assert_eq!(pushed.expect("it waits for an upload").unwrap(), 7);
        open.send(()).unwrap();
        assert!(upload.await.unwrap().unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn comparisons_of_one_key_leave_turns_to_others() {
        let pool = Arc::new(Pool::new(1, Arc::default()));
        let (closed, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let stuck: Vec<_> = (0..COMPARISONS + 2)
            .map(|n| {
                let (pool, gate) = (pool.clone(), gate.clone());
                tokio::spawn(async move {
                    // Until the gate opens, when the other end goes.
                    let work = move || Ok(gate.lock().unwrap().recv().map_or(n, |()| usize::MAX));
                    pool.run_comparison_of(vec!["session a".into()], work).await
                })
            })
            .collect();
        while pool.comparisons.permits.available_permits() == COMPARISONS {
            tokio::task::yield_now().await;
        }
        let others = (0..COMPARISONS - 1).map(|n| pool.run_comparison_of(vec![format!("b {n}")], || Ok(7)));
        let done = tokio::time::timeout(Duration::from_secs(20), futures::future::join_all(others)).await;
        let done = done.expect("others wait for the commits of one session");
        assert!(done.into_iter().all(|one| one.is_ok_and(|n| n == 7)));
        assert_eq!(pool.comparisons.permits.available_permits(), COMPARISONS - 1);
        drop(closed);
        for (n, one) in stuck.into_iter().enumerate() {
            assert_eq!(one.await.unwrap().unwrap(), n);
        }
    }

    /// Work that goes on until the other end goes.
    fn stuck(
        gate: &Arc<std::sync::Mutex<std::sync::mpsc::Receiver<()>>>,
    ) -> impl FnOnce() -> Result<usize> + use<> {
        let gate = gate.clone();
        // Poisoned by nobody: the only panics are the test's own.
        move || Ok(gate.lock().map_or(0, |gate| usize::from(gate.recv().is_ok())))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn all_calls_of_one_session_together_leave_turns_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            crate::Settings { data_dir: Some(dir.path().join("data")), ..crate::Settings::default() };
        let app = crate::App::open(&settings.resolve().unwrap()).unwrap();
        let (pool, engine) = (Pool::new(1, Arc::default()), &app.engine);
        let of = |session: &str| {
            let request = afs_types::RequestId::parse(session).unwrap();
            let session = afs_types::SessionId::parse(session).unwrap();
            [
                queues::of_commit(engine, None, &session),
                queues::of_commit(engine, request.as_ref(), &session),
                queues::of_restore(engine, None, &session),
                queues::of_search(&session),
            ]
        };
        let (closed, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let twice = of("sess_a").into_iter().chain(of("sess_a"));
        let mut calls: Vec<_> =
            twice.map(|queues| Box::pin(pool.run_comparison_of(queues, stuck(&gate)))).collect();
        // Each enters its queues, and takes its turn if it may.
        for call in &mut calls {
            assert!(call.now_or_never().is_none());
        }
        assert_eq!(pool.comparisons.permits.available_permits(), COMPARISONS / 2);
        // Another one that shares none of the engine's stripes with it by chance.
        let taken = of("sess_a").concat();
        let is_apart =
            |queues: &[Vec<String>; 4]| !queues.iter().flatten().any(|queue| taken.contains(queue));
        let other = (0..).map(|n| of(&format!("sess_b{n}"))).find(is_apart).unwrap();
        for queues in other {
            let other =
                tokio::time::timeout(Duration::from_secs(20), pool.run_comparison_of(queues, || Ok(7)));
            assert_eq!(other.await.expect("others wait for one session").unwrap(), 7);
        }
        drop(closed);
        let done = futures::future::join_all(calls).await;
        assert!(done.into_iter().all(|one| one.is_ok_and(|n| n == 0)), "all of them run in the end");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn streams_of_one_session_leave_turns_to_others() {
        let pool = Pool::new(1, Arc::default());
        let of = |id: &str| queues::of_told(&afs_types::SessionId::parse(id).unwrap());
        let endless = |sink: &mut dyn FnMut(usize) -> bool| {
            while sink(7) {}
            Ok(())
        };
        let mut open = Vec::new();
        for _ in 0..COMPARISONS {
            let mut stream = Box::pin(pool.stream_comparison(of("sess_a"), endless));
            match (&mut stream).now_or_never() {
                Some(items) => open.push(items.unwrap()),
                None => drop(stream), // it gives up, and leaves its queue
            }
        }
        assert_eq!(open.len(), TOLD_OF_SESSION);
        let other = pool.stream_comparison(of("sess_b"), endless).now_or_never();
        assert!(other.expect("it waits for another session").is_ok());
        open.clear();
        let again =
            tokio::time::timeout(Duration::from_secs(20), pool.stream_comparison(of("sess_a"), endless));
        assert!(again.await.expect("the places are not given back").is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_repository_that_hangs_leaves_pushes_to_others() {
        let pool = Pool::new(1, Arc::default());
        let (closed, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let mut calls: Vec<_> =
            (0..PUSHES).map(|_| Box::pin(pool.run_push(queues::of_push("/hangs"), stuck(&gate)))).collect();
        for call in &mut calls {
            assert!(call.now_or_never().is_none());
        }
        assert_eq!(pool.pushes.permits.available_permits(), PUSHES - PUSHES_OF_REPOSITORY);
        let other = pool.run_push(queues::of_push("/other"), || Ok(7));
        let other = tokio::time::timeout(Duration::from_secs(20), other).await;
        assert_eq!(other.expect("others wait for one repository").unwrap(), 7);
        drop(closed);
        let done = futures::future::join_all(calls).await;
        assert!(done.into_iter().all(|one| one.is_ok_and(|n| n == 0)), "all of them run in the end");
    }

    #[tokio::test]
    async fn a_stream_stops_when_its_consumer_goes() {
        let pool = Pool::new(1, Arc::default());
        let (done, ended) = oneshot::channel();
        let mut stream = pool
            .stream(move |sink| {
                let taken = (0usize..).take_while(|n| sink(*n)).count();
                let _ = done.send(taken);
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), 0);
        drop(stream);
        assert!(ended.await.unwrap() < 100);
    }
}
