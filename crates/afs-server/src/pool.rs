//! Where blocking engine calls run: off the async threads, a bounded number at once.
//!
//! Guarantees: at most `size` calls run and at most [`MAX_WAITING`] wait; beyond that callers get `QUEUE_FULL` at once.
//! Waiting for the journal takes no thread ([`durable`]).

use afs_store::{Journal, Position};
use afs_types::{Error, Reason, Result};
use futures::Stream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

/// Most calls that wait for a turn.
const MAX_WAITING: usize = 8192;
/// Items of a stream that are ready before its consumer takes them.
const STREAM_BUFFER: usize = 32;

/// Threads for calls, and others for streams, whose consumers may be slow.
pub(crate) struct Pool {
    calls: Turns,
    streams: Turns,
}

struct Turns {
    permits: Arc<Semaphore>,
    size: usize,
    waiting: AtomicUsize,
}

impl Pool {
    /// A pool that runs `size` calls and as many streams at once.
    pub(crate) fn new(size: usize) -> Self {
        let turns = || Turns { permits: Arc::new(Semaphore::new(size)), size, waiting: AtomicUsize::new(0) };
        Self { calls: turns(), streams: turns() }
    }

    /// Runs a call that may block for a bounded time.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        Self::run_in(&self.calls, work).await
    }

    /// Runs a call that waits for its caller (an upload).
    pub(crate) async fn run_slow<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        Self::run_in(&self.streams, work).await
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
    pub(crate) async fn stream<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn FnMut(T) -> bool) -> Result<()> + Send + 'static,
    ) -> Result<impl Stream<Item = Result<T>> + Send + 'static> {
        let turn = self.streams.take().await?;
        let (items, taken) = mpsc::channel(STREAM_BUFFER);
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let mut sink = |item| items.blocking_send(Ok(item)).is_ok();
            if let Err(error) = work(&mut sink) {
                let _ = items.blocking_send(Err(error)); // nobody listens any more: fine
            }
        });
        Ok(ReceiverStream::new(taken))
    }
}

impl Turns {
    async fn take(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(turn) = self.permits.clone().try_acquire_owned() {
            return Ok(turn);
        }
        let waiting = Waiting::enter(&self.waiting).ok_or_else(|| {
            Error::new(Reason::QueueFull, format!("{} calls run and {MAX_WAITING} wait", self.size))
                .with("limit", MAX_WAITING.to_string())
        })?;
        let turn = self.permits.clone().acquire_owned().await;
        drop(waiting);
        turn.map_err(|_| Error::new(Reason::Unavailable, "the server shuts down"))
    }
}

/// Counts one waiting caller, also when the caller gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let entered = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(entered)
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
    use futures::StreamExt as _;
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

    #[tokio::test]
    async fn a_stream_stops_when_its_consumer_goes() {
        let pool = Pool::new(1);
        let (done, ended) = oneshot::channel();
        let mut stream = pool
            .stream(move |sink| {
                let taken = (0..).take_while(|n| sink(*n)).count();
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
