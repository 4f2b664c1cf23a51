//! Answers on their way out: how much of them waits for callers who do not read, and for how long.
//!
//! Guarantees: an answer of one message is encoded when its call ends, and counted until the transport has handed its last byte to the kernel, for its connection and
//! for the server. A connection that has [`limits::MAX_ANSWERS_OF_CONNECTION_BYTES`] of them is refused more calls (`QUEUE_FULL`), and so is everybody when all have
//! [`limits::MAX_ANSWERS_BYTES`]: before the call begins, and again when it has waited for its turn, so that no more than the calls that run come on top. Nothing that a
//! call has done is taken back for want of room. A connection with something to read that takes less than [`limits::MIN_TRANSFER_BYTES_PER_S`] for [`limits::MAX_READER_PAUSE_MS`] in
//! all is cut; while there is no room left for others, one that takes less than [`HURRIED_BYTES_PER_S`] for [`HURRY`]. Only bytes that went to the kernel count: taking an answer back is
//! no reading.
//!
//! Deliberately absent: streams and downloads, which are never far ahead of their readers (`pool`), and answers of less than [`SMALL`]: each of
//! a connection's streams has one at most, and keeping count would cost more than they do.

use crate::pace::Pace;
use afs_types::{Error, Reason, limits};
use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::io::{IoSlice, Result as IoResult};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Not counted.
const SMALL: usize = 2 << 10;
/// How long a connection may be slow while others are refused for it.
const HURRY: Duration = Duration::from_secs(5);
/// What is slow then.
const HURRIED_BYTES_PER_S: u64 = 1 << 20;
/// How often a connection is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);

tokio::task_local! {
    /// The call that a task runs.
    static CALL: Call;
}

/// A call of a connection, and what it has made that is not encoded yet.
#[derive(Clone)]
pub(crate) struct Call {
    of: Arc<Unread>,
    made: Arc<Mutex<Vec<Counted>>>,
}

impl Call {
    /// The one that this task runs.
    pub(crate) fn current() -> Option<Self> {
        CALL.try_with(Self::clone).ok()
    }

    /// It has made a result of so many bytes, which are counted until it is answered.
    pub(crate) fn made(&self, bytes: usize) {
        let counted = self.of.count(bytes);
        self.made.lock().push(counted);
    }
}

/// The call of a connection, which is known to [`admit`] wherever it waits.
pub(crate) fn of_connection<F: Future>(unread: &Arc<Unread>, call: F) -> impl Future<Output = F::Output> {
    CALL.scope(Call { of: unread.clone(), made: Arc::default() }, call)
}

/// Whether there is room for the answer of the call that this task runs, of its connection and of all.
pub(crate) fn admit(all: &Answers) -> Result<(), Error> {
    CALL.try_with(|call| call.of.admit()).unwrap_or_else(|_| all.admit())
}

/// Answers that wait, of all connections.
#[derive(Default)]
pub(crate) struct Answers(AtomicUsize);

impl Answers {
    /// Whether there is room for more.
    pub(crate) fn admit(&self) -> Result<(), Error> {
        let limit = limits::MAX_ANSWERS_BYTES;
        if !self.is_full() {
            return Ok(());
        }
        let message =
            format!("answers that nobody has read yet take the {limit} bytes that there are for them");
        Err(Error::new(Reason::QueueFull, message).with("limit", limit.to_string()))
    }

    fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= limits::MAX_ANSWERS_BYTES
    }
}

/// Answers that wait for the other end of one connection: an extension of its requests.
pub(crate) struct Unread {
    bytes: AtomicUsize,
    /// Bytes that went to the kernel so far.
    written: AtomicU64,
    all: Arc<Answers>,
}

impl Unread {
    pub(crate) fn new(all: &Arc<Answers>) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), written: AtomicU64::new(0), all: all.clone() })
    }

    /// Whether there is room for another answer, of this connection and of all.
    pub(crate) fn admit(&self) -> Result<(), Error> {
        let limit = limits::MAX_ANSWERS_OF_CONNECTION_BYTES;
        if self.bytes.load(Ordering::Relaxed) < limit {
            return self.all.admit();
        }
        let message = format!("this connection has {limit} bytes of answers to read, which is the limit");
        Err(Error::new(Reason::QueueFull, message)
            .with("limit", limit.to_string())
            .next("read the answers that have come, then call again"))
    }

    /// Resolves when the other end has been too slow with what waits for it. It is looked at after each `pause`, which is
    /// [`LOOK_EVERY`] outside of tests.
    pub(crate) async fn neglected(self: Arc<Self>, pause: Duration) {
        let (mut patience, mut before) = (Patience::new(), 0);
        while !patience.is_over {
            tokio::time::sleep(pause).await;
            let written = self.written.load(Ordering::Relaxed);
            match self.bytes.load(Ordering::Relaxed) {
                0 => patience = Patience::new(),
                _ => patience.looked(written.saturating_sub(before), self.all.is_full()),
            }
            before = written;
        }
    }

    fn count(self: &Arc<Self>, bytes: usize) -> Counted {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.all.0.fetch_add(bytes, Ordering::Relaxed);
        Counted { of: self.clone(), bytes }
    }
}

/// How slow the other end of a connection that has something to read may still be. Pure.
struct Patience {
    always: Pace,
    /// While others are refused.
    hurried: Pace,
    is_over: bool,
}

impl Patience {
    fn new() -> Self {
        let pause = Duration::from_millis(limits::MAX_READER_PAUSE_MS);
        Self { always: Pace::new(pause), hurried: Pace::new(HURRY), is_over: false }
    }

    /// So many bytes went since the last look.
    fn looked(&mut self, bytes: u64, others_are_refused: bool) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.always.waited(LOOK_EVERY);
        self.is_over |= self.always.patience().is_zero();
        self.always.moved(bytes);
        if !others_are_refused {
            self.hurried = Pace::new(HURRY);
            return;
        }
        self.hurried.waited(LOOK_EVERY);
        self.is_over |= self.hurried.patience().is_zero();
        let times = HURRIED_BYTES_PER_S / limits::MIN_TRANSFER_BYTES_PER_S;
        self.hurried.moved(bytes / times as usize);
    }
}

/// A connection that counts what goes to the kernel.
pub(crate) struct Watched<S> {
    inner: S,
    unread: Arc<Unread>,
}

impl<S> Watched<S> {
    pub(crate) fn new(inner: S, unread: Arc<Unread>) -> Self {
        Self { inner, unread }
    }

    fn wrote(&self, done: Poll<IoResult<usize>>) -> Poll<IoResult<usize>> {
        if let Poll::Ready(Ok(bytes)) = &done {
            self.unread.written.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        done
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<IoResult<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<IoResult<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(done)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<IoResult<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(done)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// So many bytes, until this is dropped.
struct Counted {
    of: Arc<Unread>,
    bytes: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.of.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes that are counted as long as the transport has them.
struct Held {
    bytes: Bytes,
    _counted: Counted,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The same answer, counted. A message is encoded when it is first asked for, which is now and not when the other end reads.
pub(crate) fn counted(response: Response, unread: &Arc<Unread>) -> Response {
    let (parts, mut rest) = response.into_parts();
    // One that is not there at once belongs to a stream; whoever asks for it next says whom to wake.
    let first = match Pin::new(&mut rest).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => Some(frame.map_data(|data| held(data, unread))),
        Poll::Ready(Some(Err(error))) => return Response::from_parts(parts, failed(error)),
        Poll::Ready(None) | Poll::Pending => None,
    };
    Response::from_parts(parts, Body::new(Begun { first, rest }))
}

fn held(bytes: Bytes, unread: &Arc<Unread>) -> Bytes {
    if bytes.len() < SMALL {
        return bytes;
    }
    let _counted = unread.count(bytes.len());
    Bytes::from_owner(Held { bytes, _counted })
}

fn failed(error: axum::Error) -> Body {
    Body::from_stream(futures::stream::once(std::future::ready(Err::<Bytes, _>(error))))
}

/// A body whose first frame has been taken.
struct Begun {
    first: Option<Frame<Bytes>>,
    rest: Body,
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.first.take() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + first);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + first);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    const MIB: usize = 1 << 20;

    fn answer(bytes: usize) -> Response {
        Response::new(Body::from(vec![7; bytes]))
    }

    #[tokio::test]
    async fn an_answer_counts_until_its_last_byte_is_gone() {
        let (all, small) = (Arc::new(Answers::default()), 100);
        let (a, b) = (Unread::new(&all), Unread::new(&all));
        let mut one = counted(answer(3 * MIB), &a).into_body();
        let _two = counted(answer(MIB), &b);
        let _small = counted(answer(small), &b);
        assert_eq!(one.size_hint().exact(), Some(3 * MIB as u64), "it keeps its length");
        assert_eq!(all.0.load(Ordering::Relaxed), 4 * MIB);
        let frame = one.frame().await.unwrap().unwrap().into_data().unwrap();
        drop(one);
        let mut part = frame.clone();
        drop(frame);
        assert_eq!(part.split_to(MIB).len(), MIB);
        assert_eq!(a.bytes.load(Ordering::Relaxed), 3 * MIB, "the transport still has some of it");
        drop(part);
        assert_eq!(a.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(all.0.load(Ordering::Relaxed), MIB);
    }

    #[test]
    fn a_connection_and_all_of_them_have_limits() {
        let all = Arc::new(Answers::default());
        let mut kept = Vec::new();
        let greedy = Unread::new(&all);
        while greedy.admit().is_ok() {
            kept.push(counted(answer(16 * MIB), &greedy));
        }
        assert_eq!(kept.len() * 16 * MIB, limits::MAX_ANSWERS_OF_CONNECTION_BYTES);
        assert!(Unread::new(&all).admit().is_ok(), "one connection does not keep others from their answers");
        while all.admit().is_ok() {
            kept.push(counted(answer(16 * MIB), &Unread::new(&all)));
            assert!(kept.len() * 16 * MIB <= limits::MAX_ANSWERS_BYTES);
        }
        let refused = Unread::new(&all).admit().unwrap_err();
        assert_eq!(refused.reason, Reason::QueueFull);
        assert!(refused.message().contains(&limits::MAX_ANSWERS_BYTES.to_string()), "{refused}");
        kept.clear();
        assert!(greedy.admit().is_ok());
    }

    /// Seconds that a reader of so many bytes a second lasts, at most an hour.
    fn lasts(bytes_per_s: u64, others_are_refused: bool) -> u64 {
        let mut patience = Patience::new();
        let looks = (0..1_800).take_while(|_| {
            patience.looked(bytes_per_s * LOOK_EVERY.as_secs(), others_are_refused);
            !patience.is_over
        });
        looks.count() as u64 * LOOK_EVERY.as_secs()
    }

    #[test]
    fn slow_readers_are_cut_and_others_are_not() {
        let (minute, hour, hurry) = (limits::MAX_READER_PAUSE_MS / 1000, 3_600, HURRY.as_secs());
        let least = limits::MIN_TRANSFER_BYTES_PER_S;
        assert!((minute - 4..=minute).contains(&lasts(0, false)));
        assert!(lasts(least / 2, false) <= 2 * minute, "half of the least rate");
        assert_eq!(lasts(least, false), hour);
        // Pings of the transport are no reading.
        assert!(lasts(10, false) <= minute);
        assert!(lasts(0, true) <= hurry && lasts(least, true) <= hurry);
        assert_eq!(lasts(HURRIED_BYTES_PER_S, true), hour, "who reads is not cut for who does not");
    }

    #[tokio::test]
    async fn who_reads_nothing_is_cut_and_who_has_nothing_to_read_is_not() {
        let all = Arc::new(Answers::default());
        let unread = Unread::new(&all);
        let pause = Duration::from_millis(1);
        let looks = tokio::time::timeout(Duration::from_millis(300), unread.clone().neglected(pause));
        assert!(looks.await.is_err(), "nothing waits, however long");
        let (one, _two) = (counted(answer(MIB), &unread), counted(answer(MIB), &unread));
        let waits = tokio::spawn(unread.clone().neglected(pause));
        // Taking one back is not reading the other.
        drop(one);
        waits.await.unwrap();
    }

    #[tokio::test]
    async fn a_call_that_waited_for_its_turn_is_asked_about_its_connection() {
        let all = Arc::new(Answers::default());
        let greedy = Unread::new(&all);
        let _kept: Vec<_> = (0..limits::MAX_ANSWERS_OF_CONNECTION_BYTES / (16 * MIB))
            .map(|_| counted(answer(16 * MIB), &greedy))
            .collect();
        assert!(admit(&all).is_ok(), "of no connection");
        let asked = |unread: Arc<Unread>, all: Arc<Answers>| async move {
            of_connection(&unread, async { admit(&all) }).await
        };
        assert_eq!(asked(greedy, all.clone()).await.unwrap_err().reason, Reason::QueueFull);
        assert!(asked(Unread::new(&all), all).await.is_ok());
    }

    #[tokio::test]
    async fn a_result_counts_from_when_it_is_made_until_it_is_answered() {
        let unread = Unread::new(&Arc::default());
        let bytes = |unread: &Unread| unread.bytes.load(Ordering::Relaxed);
        let call = of_connection(&unread, async {
            let call = Call::current().unwrap();
            let made = std::thread::spawn(move || call.made(3 * MIB));
            made.join().unwrap();
            bytes(&unread)
        });
        assert_eq!(call.await, 3 * MIB);
        assert_eq!(bytes(&unread), 0);
        assert!(Call::current().is_none());
    }

    #[tokio::test]
    async fn what_goes_to_the_kernel_is_counted() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let unread = Unread::new(&Arc::default());
        let (mut there, here) = tokio::io::duplex(64);
        let mut here = Watched::new(here, unread.clone());
        here.write_all(&[7; 40]).await.unwrap();
        assert_eq!(unread.written.load(Ordering::Relaxed), 40);
        there.write_all(&[8; 3]).await.unwrap();
        assert_eq!((here.read_u8().await.unwrap(), there.read_u8().await.unwrap()), (8, 7));
        assert_eq!(unread.written.load(Ordering::Relaxed), 40);
    }

    #[tokio::test]
    async fn a_stream_that_has_nothing_yet_waits_as_before() {
        let unread = Unread::new(&Arc::default());
        let (items, taken) = tokio::sync::mpsc::unbounded_channel::<Result<Bytes, std::io::Error>>();
        let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(taken);
        let body = counted(Response::new(Body::from_stream(stream)), &unread).into_body();
        let read = tokio::spawn(body.collect());
        tokio::task::yield_now().await;
        items.send(Ok(Bytes::from_static(b"late"))).unwrap();
        drop(items);
        assert_eq!(read.await.unwrap().unwrap().to_bytes(), "late");
    }
}
