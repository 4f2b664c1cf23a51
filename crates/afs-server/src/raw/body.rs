//! A request body, or any async stream of bytes, as a blocking reader.
//!
//! Guarantees: at most a few pieces wait; a stream that breaks off or pauses for [`PATIENCE`] is a read error, never an
//! early end; a reader that stops early ends the feeding at once.

use afs_types::{Error, Reason};
use axum::body::Body;
use bytes::{Buf as _, Bytes};
use futures::{Stream, StreamExt as _};
use std::future::Future;
use std::io::{self, Read};
use std::time::Duration;
use tokio::sync::mpsc;

/// Each is at most a frame of HTTP, or `MAX_WRITE_PIECE_BYTES` of gRPC.
const PIECES: usize = 1;
/// How long a sender may pause.
const PATIENCE: Duration = Duration::from_secs(60);

/// The blocking end.
pub(crate) struct BodyReader {
    pieces: mpsc::Receiver<Result<Bytes, Error>>,
    current: Bytes,
}

/// A reader of a body, and the future that feeds it.
pub(crate) fn channel(body: Body) -> (BodyReader, impl Future<Output = ()> + Send) {
    let pieces = body.into_data_stream().map(|piece| {
        piece.map_err(|e| {
            Error::new(Reason::InvalidArgument, format!("body: it broke off: {e}")).with("field", "body")
        })
    });
    reader(pieces)
}

/// A reader of a stream, and the future that feeds it.
pub(crate) fn reader(
    stream: impl Stream<Item = Result<Bytes, Error>> + Send,
) -> (BodyReader, impl Future<Output = ()> + Send) {
    let (sender, pieces) = mpsc::channel(PIECES);
    let feed = async move {
        let mut stream = std::pin::pin!(stream);
        let paused = |_| Some(Err(Error::new(Reason::TimedOut, format!("nothing came for {PATIENCE:?}"))));
        while let Some(piece) = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap_or_else(paused) {
            let last = piece.is_err();
            if sender.send(piece).await.is_err() || last {
                return;
            }
        }
    };
    (BodyReader { pieces, current: Bytes::new() }, feed)
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.current = piece,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(0),
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
        let (mut body, feed) = reader(stream::iter(pieces));
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            body.read_to_end(&mut all).map(|_| all)
        });
        feed.await;
        assert_eq!(read.await.unwrap().unwrap().len(), (0..100).sum::<usize>());
    }

    #[tokio::test]
    async fn a_break_is_an_error() {
        let pieces = [Ok(Bytes::from_static(b"ab")), Err(Error::bare(Reason::TimedOut))];
        let (mut body, feed) = reader(stream::iter(pieces));
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            body.read_to_end(&mut all)
        });
        feed.await;
        let error = read.await.unwrap().unwrap_err().downcast::<Error>().unwrap();
        assert_eq!(error.reason, Reason::TimedOut);
    }
}
