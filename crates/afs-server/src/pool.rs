//! Where blocking engine calls run: off the async threads, a bounded number at once.
//!
//! Guarantees: calls, streams, uploads and comparisons of whole trees each have turns of their own, so that slow readers and
//! senders hold up neither the others nor short calls; beyond the queue of each kind callers get `QUEUE_FULL` at once. A stream
//! is at most [`limits::MAX_STREAM_AHEAD_BYTES`] (or one item) ahead of its reader, and a reader that takes nothing for
//! [`limits::MAX_READER_PAUSE_MS`] loses it. Waiting for the journal takes no thread ([`durable`]).

use afs_store::{Journal, Position};
use afs_types::{Error, Reason, Result, limits};
use futures::{Stream, StreamExt as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// Most calls that wait for a turn.
const MAX_WAITING: usize = 8192;
/// Most streams, uploads or comparisons that wait for a turn.
const MAX_WAITING_LONG: usize = 256;
/// Comparisons of whole trees at once: each takes memory for every path that differs.
const COMPARISONS: usize = 4;
const UNIT_BYTES: usize = 1 << 10;
const AHEAD_UNITS: usize = limits::MAX_STREAM_AHEAD_BYTES / UNIT_BYTES;

/// Threads for calls, and others for what takes as long as its caller likes.
pub(crate) struct Pool {
    calls: Turns,
    streams: Turns,
    uploads: Turns,
    comparisons: Turns,
    /// Apart from the calls: their readers may be slow.
    told_comparisons: Turns,
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
    3 * size + 2 * COMPARISONS
}

impl Pool {
    /// A pool that runs `size` calls, as many streams, and as many uploads at once.
    pub(crate) fn new(size: usize) -> Self {
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
            comparisons: turns(COMPARISONS, MAX_WAITING_LONG),
            told_comparisons: turns(COMPARISONS, MAX_WAITING_LONG),
            pause: Duration::from_millis(limits::MAX_READER_PAUSE_MS),
        }
    }

    /// Runs a call that may block for a bounded time.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        Self::run_in(&self.calls, work).await
    }

    /// Runs a call that waits for its caller (an upload) or for another machine (a push).
    pub(crate) async fn run_slow<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        Self::run_in(&self.uploads, work).await
    }

    /// Runs a call that compares whole trees.
    pub(crate) async fn run_comparison<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        Self::run_in(&self.comparisons, work).await
    }

    async fn run_in<T: Send + 'static>(
        turns: &Turns,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = turns.take().await?;
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

    /// The same for a call that compares whole trees.
    pub(crate) async fn stream_comparison<T: Weigh + Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn FnMut(T) -> bool) -> Result<()> + Send + 'static,
    ) -> Result<Items<T>> {
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
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut is_cut = false;
        let outcome = work(&mut |item: T| match ahead(&room, &handle, pause, item.weight()) {
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

/// Room for an item; none if its reader has taken nothing for too long.
fn ahead(
    room: &Arc<Semaphore>,
    handle: &Handle,
    pause: Duration,
    weight: usize,
) -> Option<OwnedSemaphorePermit> {
    let units = weight.div_ceil(UNIT_BYTES).clamp(1, AHEAD_UNITS) as u32;
    if let Ok(permit) = room.clone().try_acquire_many_owned(units) {
        return Some(permit);
    }
    let room = room.clone().acquire_many_owned(units);
    handle.block_on(async { tokio::time::timeout(pause, room).await.ok()?.ok() })
}

fn slow_reader(pause: Duration) -> Error {
    let limit = pause.as_millis();
    Error::new(Reason::TimedOut, format!("the stream was not read for {limit} ms"))
        .with("limit", limit.to_string())
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
    use std::sync::Barrier;

    #[tokio::test]
    async fn calls_are_bounded_and_others_wait() {
        let pool = Arc::new(Pool::new(2));
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
        let pool = Pool { pause: Duration::from_millis(50), ..Pool::new(1) };
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

    #[tokio::test]
    async fn a_stream_stops_when_its_consumer_goes() {
        let pool = Pool::new(1);
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
