//! A request body, or any async stream of bytes, as a blocking reader.
//!
//! Guarantees: at most a few pieces wait; a stream that breaks off, pauses for [`limits::MAX_SENDER_PAUSE_MS`] or lags that much behind
//! the least rate (`pace`) is a read error, never an early end, and so is a feeding that is dropped: whoever reads blocks a thread and goes on
//! when the call is cancelled. A reader that stops early ends the feeding at once. Time in which the
//! bytes wait for us, as an upload without a turn does, counts for nobody. Of a piece that comes slowly its bytes count as they come,
//! not when it is whole: pieces of gRPC may take longer than any pause.

use crate::intake::Arrived;
use crate::pace::Pace;
use afs_types::{Error, Reason, limits};
use axum::body::Body;
use bytes::{Buf as _, Bytes};
use futures::{Stream, StreamExt as _};
use std::future::Future;
use std::io::{self, Read};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Each is at most a frame of HTTP, or `MAX_WRITE_PIECE_BYTES` of gRPC.
const PIECES: usize = 1;

/// What the feeding end says.
enum Item {
    Piece(Bytes),
    /// That was all. Without it the bytes that came are not all, whatever became of the sender.
    End,
    Broken(Error),
}

/// The blocking end.
pub(crate) struct BodyReader {
    items: mpsc::Receiver<Item>,
    current: Bytes,
    is_whole: bool,
}

/// A reader of a body, and the future that feeds it.
pub(crate) fn channel(body: Body) -> (BodyReader, impl Future<Output = ()> + Send) {
    let pieces = body.into_data_stream().map(|piece| {
        piece.map_err(|e| {
            Error::new(Reason::InvalidArgument, format!("body: it broke off: {e}")).with("field", "body")
        })
    });
    // Frames come as they are, so none has to be waited for.
    reader(pieces, None)
}

/// A reader of a stream, and the future that feeds it. `arrived` counts the bytes that the pieces are made of.
pub(crate) fn reader(
    stream: impl Stream<Item = Result<Bytes, Error>> + Send,
    arrived: Option<Arrived>,
) -> (BodyReader, impl Future<Output = ()> + Send) {
    paced(stream, Pace::new(Duration::from_millis(limits::MAX_SENDER_PAUSE_MS)), arrived)
}

fn paced(
    stream: impl Stream<Item = Result<Bytes, Error>> + Send,
    mut pace: Pace,
    arrived: Option<Arrived>,
) -> (BodyReader, impl Future<Output = ()> + Send) {
    let (sender, items) = mpsc::channel(PIECES);
    let feed = async move {
        let mut stream = std::pin::pin!(stream);
        let mut seen = arrived.as_ref().map_or(0, Arrived::total);
        // Bytes since they were last asked for, if they are counted.
        let mut more = || {
            let before = std::mem::replace(&mut seen, arrived.as_ref()?.total());
            usize::try_from(seen - before).ok()
        };
        loop {
            let began = Instant::now();
            let next = tokio::time::timeout(pace.patience(), stream.next()).await;
            pace.waited(began.elapsed());
            let item = match (next, more()) {
                (Ok(None), _) => Item::End,
                (Ok(Some(piece)), came) => {
                    pace.moved(came.unwrap_or_else(|| piece.as_ref().map_or(0, Bytes::len)));
                    piece.map_or_else(Item::Broken, Item::Piece)
                }
                (Err(_), Some(came @ 1..)) => {
                    pace.moved(came);
                    continue;
                }
                (Err(_), _) => Item::Broken(slow_sender(pace.grace())),
            };
            let is_last = !matches!(item, Item::Piece(_));
            if sender.send(item).await.is_err() || is_last {
                return;
            }
        }
    };
    (BodyReader { items, current: Bytes::new(), is_whole: false }, feed)
}

fn slow_sender(grace: Duration) -> Error {
    let (limit, rate) = (grace.as_millis(), limits::MIN_TRANSFER_BYTES_PER_S);
    let message = format!("body: nothing came for {limit} ms, or not {rate} bytes a second");
    Error::new(Reason::TimedOut, message)
        .with("field", "body")
        .with("limit", limit.to_string())
        .with("rate", rate.to_string())
        .next("send it faster; nothing was changed")
}

/// Nobody is left to read it, but whoever looks into a log.
fn cut_off() -> Error {
    Error::new(
        Reason::InvalidArgument,
        "body: the call was cancelled, or its connection went, before all of it came",
    )
    .with("field", "body")
    .next("send it again; nothing was changed")
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.is_whole {
                return Ok(0);
            }
            match self.items.blocking_recv() {
                Some(Item::Piece(piece)) => self.current = piece,
                Some(Item::End) => self.is_whole = true,
                Some(Item::Broken(error)) => return Err(io::Error::other(error)),
                None => return Err(io::Error::other(cut_off())),
            }
        }
        let count = out.len().min(self.current.len());
        self.current.copy_to_slice(&mut out[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    #[tokio::test]
    async fn a_stream_becomes_a_reader() {
        let pieces = (0..100u8).map(|n| Ok(Bytes::from(vec![n; n.into()])));
        let (mut body, feed) = reader(stream::iter(pieces), None);
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            body.read_to_end(&mut all).map(|_| all)
        });
        feed.await;
        assert_eq!(read.await.unwrap().unwrap().len(), (0..100).sum::<usize>());
    }

    #[tokio::test]
    async fn a_byte_before_the_end_of_every_pause_is_too_slow() {
        let trickle = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(60)).await;
            Some((Ok(Bytes::from_static(b"x")), ()))
        });
        let (mut body, feed) = paced(trickle, Pace::new(Duration::from_millis(100)), None);
        let taken = async {
            let mut came = 0;
            // A trickle that is let go on is seen after a while, too.
            while let Some(Item::Piece(_)) = body.items.recv().await {
                came += 1;
                assert!(came < 20, "it keeps its turn for ever");
            }
            came
        };
        let cut = async {
            feed.await;
            true
        };
        let (came, is_cut) = tokio::join!(taken, cut);
        assert!(is_cut && came <= 1, "{came}");
        assert_eq!(slow_sender(Duration::from_secs(1)).reason, Reason::TimedOut);
    }

    /// How many pieces come of one that takes four times the grace, with so many bytes of it every few milliseconds.
    async fn whole_pieces(bytes: usize) -> usize {
        let arrived = Arrived::default();
        let counted = arrived.clone();
        let slow = stream::once(async move {
            for _ in 0..40 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                counted.add(bytes);
            }
            Ok(Bytes::from(vec![7; 40 * bytes]))
        });
        let (mut body, feed) = paced(slow, Pace::new(Duration::from_millis(100)), Some(arrived));
        let taken = async {
            let mut came = 0;
            while let Some(item) = body.items.recv().await {
                came += usize::from(matches!(item, Item::Piece(_)));
            }
            came
        };
        tokio::join!(taken, feed).0
    }

    #[tokio::test]
    async fn a_large_piece_counts_as_it_comes() {
        assert_eq!(whole_pieces(4096).await, 1, "fifty times the least rate");
        assert_eq!(whole_pieces(1).await, 0, "an eightieth of it");
        assert_eq!(whole_pieces(0).await, 0, "nothing at all");
    }

    #[tokio::test]
    async fn a_sender_that_waits_for_us_is_not_slow() {
        let pieces = (0..4u8).map(|n| Ok(Bytes::from(vec![n])));
        let (mut body, feed) = paced(stream::iter(pieces), Pace::new(Duration::from_millis(50)), None);
        let taken = async {
            let mut came = 0;
            while let Some(item) = body.items.recv().await {
                came += usize::from(matches!(item, Item::Piece(_)));
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            came
        };
        assert_eq!(tokio::join!(taken, feed).0, 4);
    }

    /// What is dropped is the future, as when a call is cancelled: the thread that reads takes that for no end.
    #[tokio::test]
    async fn a_feeding_that_is_dropped_is_an_error() {
        let begun = || stream::iter([Ok(Bytes::from_static(b"ab"))]);
        let in_a_pause = begun().chain(stream::pending()).boxed();
        for (stream, what) in [(begun().boxed(), "before it began"), (in_a_pause, "in a pause")] {
            let (mut body, feed) = reader(stream, None);
            if what == "in a pause" {
                assert!(tokio::time::timeout(Duration::from_millis(20), feed).await.is_err(), "{what}");
            } else {
                drop(feed);
            }
            let read = tokio::task::spawn_blocking(move || {
                let mut all = Vec::new();
                // Twice: who asks again is not told that it was whole.
                (body.read_to_end(&mut all).is_err(), body.read_to_end(&mut all).unwrap_err())
            });
            let (first, again) = read.await.unwrap();
            assert!(first, "{what}");
            assert_eq!(again.downcast::<Error>().unwrap().reason, Reason::InvalidArgument, "{what}");
        }
    }

    #[tokio::test]
    async fn a_break_is_an_error() {
        let pieces = [Ok(Bytes::from_static(b"ab")), Err(Error::bare(Reason::TimedOut))];
        let (mut body, feed) = reader(stream::iter(pieces), None);
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            body.read_to_end(&mut all)
        });
        feed.await;
        let error = read.await.unwrap().unwrap_err().downcast::<Error>().unwrap();
        assert_eq!(error.reason, Reason::TimedOut);
    }
}
