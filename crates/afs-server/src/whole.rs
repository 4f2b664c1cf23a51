//! A request's body that ends only when all of it has come.
//!
//! Guarantees: a body that its sender took back is an error on every route, never an early end. HTTP/2 has a reset that says "no error", for which
//! hyper ends a body as if it were whole. What tells such a body from one that is: its last frame did not say that it was the last, or bytes are
//! missing of a length that the headers told.
//! Deliberately absent: whether the sender said all that it had to say; an upload over gRPC tells that itself (`file_system::upload`).

use afs_types::{Error, Reason};
use axum::BoxError;
use axum::http::{Request, Version};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

pub(crate) struct Whole {
    body: Incoming,
    is_http2: bool,
}

impl Whole {
    /// The same request with such a body.
    pub(crate) fn of(request: Request<Incoming>) -> Request<Self> {
        let is_http2 = request.version() == Version::HTTP_2;
        request.map(|body| Self { body, is_http2 })
    }

    /// Of a body that hyper says has ended. HTTP/1.1 without a length has an end of its own, which hyper waits for.
    fn is_cut(&self) -> bool {
        let misses_bytes = self.body.size_hint().exact().is_some_and(|left| left > 0);
        misses_bytes || (self.is_http2 && !self.body.is_end_stream())
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(frame) => Some(frame.map_err(Into::into)),
            None if self.is_cut() => Some(Err(cut().into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn cut() -> Error {
    Error::new(Reason::InvalidArgument, "body: it was taken back before all of it came")
        .with("field", "body")
        .next("send it again; nothing was changed")
}
