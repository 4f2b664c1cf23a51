//! Requests on their way in: how much of them is held, how long one may take, and words for refusals of the transport.
//!
//! Guarantees: over all connections, requests that have not arrived whole or are being answered hold at most
//! [`limits::MAX_INTAKE_BYTES`]; beyond that a request gets `QUEUE_FULL` at once, nobody waits for somebody else's bytes. A message or
//! JSON body that takes longer than [`limits::MAX_MESSAGE_TIME_MS`] ends. What tonic refuses by itself (too large, another coding, no
//! such method) leaves with a reason, a field and a next step.
//! Deliberately absent: raw file bodies, which are never held (`raw::body` bounds them), and what a method does with a request.

use crate::outgo::{self, Unread, counted};
use afs_proto::rest::problem_response;
use afs_proto::{to_status, typed};
use afs_types::{Error, Reason, limits};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::Status;

/// A gRPC message has one byte of flags and four of length in front.
const PREFIX_BYTES: usize = 5;
const UNIT_BYTES: usize = 1 << 10;

/// Room for requests.
pub(crate) struct Intake {
    room: Arc<Semaphore>,
}

impl Default for Intake {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(limits::MAX_INTAKE_BYTES / UNIT_BYTES)) }
    }
}

/// How many bytes of a request's body have come, of messages that are not whole too: a request's extension.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrived(Arc<AtomicU64>);

impl Arrived {
    /// More have come.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    /// All so far.
    pub(crate) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts a request's bytes until it is answered, and then those of the answer until they are read.
pub(crate) async fn account(State(intake): State<Arc<Intake>>, request: Request, next: Next) -> Response {
    let is_grpc = is_grpc(&request);
    let unread = request.extensions().get::<Arc<Unread>>().cloned();
    let refused = unread.as_ref().filter(|_| has_answers(&request)).and_then(|unread| unread.admit().err());
    if let Some(error) = refused {
        let path = request.uri().path();
        return if is_grpc { to_status(&error).into_http() } else { problem_response(&error, Some(path)) };
    }
    if !is_grpc && request.uri().path().contains("/files/") {
        return next.run(request).await;
    }
    // Kept here too: a body is gone before its method is done.
    let held = Arc::new(Mutex::new(None));
    let (mut parts, body) = request.into_parts();
    let arrived = Arrived::default();
    parts.extensions.insert(arrived.clone());
    let shape = if is_grpc { Shape::Messages { prefix: Vec::new(), left: 0 } } else { Shape::Whole };
    let (room, held_too) = (intake.room.clone(), held.clone());
    let body = Metered { body, room, held: held_too, bytes: 0, shape, until: None, arrived };
    let answer = next.run(Request::from_parts(parts, Body::new(body)));
    let response = match &unread {
        Some(unread) => outgo::of_connection(unread, answer).await,
        None => answer.await,
    };
    drop(held);
    let response = if is_grpc { with_reason(response) } else { response };
    match unread {
        Some(unread) => counted(response, &unread),
        None => response,
    }
}

/// Whether an answer can be large. Who asks how the server is, or lets go of something, is never refused for want of room.
fn has_answers(request: &Request) -> bool {
    let path = request.uri().path();
    (path.starts_with("/v1/") || path.starts_with("/aether.")) && !path.ends_with("/Detach")
}

pub(crate) fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    kind.is_some_and(|k| k.starts_with("application/grpc"))
}

/// A refusal of the transport gets a reason.
fn with_reason(response: Response) -> Response {
    let headers = response.headers();
    if !headers.contains_key(Status::GRPC_STATUS) || headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return response;
    }
    match Status::from_header_map(headers) {
        Some(status) if status.code() != tonic::Code::Ok => typed(status).into_http(),
        _ => response,
    }
}

/// How a body is cut into messages.
enum Shape {
    /// It is one.
    Whole,
    /// gRPC: the part of a prefix that has come, and what the message still lacks.
    Messages { prefix: Vec<u8>, left: usize },
}

impl Shape {
    /// Takes bytes in; returns how many belong to a message that began in them (all, if none began) and whether one is open now.
    fn advance(&mut self, mut data: &[u8]) -> Advance {
        let Self::Messages { prefix, left } = self else {
            return Advance { began: None, total: data.len(), is_open: true };
        };
        let mut began = None;
        let total = data.len();
        while !data.is_empty() {
            if *left > 0 {
                let part = data.len().min(*left);
                *left -= part;
                data = &data[part..];
                continue;
            }
            if prefix.is_empty() {
                began = Some(data.len());
            }
            let part = data.len().min(PREFIX_BYTES - prefix.len());
            prefix.extend_from_slice(&data[..part]);
            data = &data[part..];
            if let [_, length @ ..] = prefix.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                *left = u32::from_be_bytes(length) as usize;
                prefix.clear();
            }
        }
        Advance { began, total, is_open: *left > 0 || !prefix.is_empty() }
    }
}

struct Advance {
    /// Bytes since the beginning of the newest message, if it began in these.
    began: Option<usize>,
    total: usize,
    is_open: bool,
}

/// A body whose bytes are counted as they come.
struct Metered {
    body: Body,
    room: Arc<Semaphore>,
    held: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    /// Of the message that is open, or was the last.
    bytes: usize,
    shape: Shape,
    until: Option<Pin<Box<Sleep>>>,
    arrived: Arrived,
}

impl Metered {
    fn take(&mut self, data: &Bytes) -> Result<(), Status> {
        self.arrived.add(data.len());
        let step = self.shape.advance(data);
        let mut held = self.held.lock();
        match step.began {
            Some(since) => {
                // The messages before were handed on.
                *held = None;
                self.bytes = since;
            }
            None => self.bytes += step.total,
        }
        if !step.is_open {
            self.until = None;
        } else if self.until.is_none() || step.began.is_some() {
            self.until =
                Some(Box::pin(tokio::time::sleep(Duration::from_millis(limits::MAX_MESSAGE_TIME_MS))));
        }
        let units = self.bytes.div_ceil(UNIT_BYTES);
        let more = units.saturating_sub(held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let permit = self.room.clone().try_acquire_many_owned(more).map_err(|_| full())?;
        match held.as_mut() {
            Some(held) => held.merge(permit),
            None => *held = Some(permit),
        }
        Ok(())
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        match self.until.as_mut() {
            Some(until) => until.as_mut().poll(cx).map(|()| late()),
            None => Poll::Pending,
        }
    }
}

fn full() -> Status {
    let limit = limits::MAX_INTAKE_BYTES;
    to_status(
        &Error::new(Reason::QueueFull, format!("requests that hold {limit} bytes are on their way"))
            .with("limit", limit.to_string()),
    )
}

fn late() -> Status {
    let limit = limits::MAX_MESSAGE_TIME_MS;
    to_status(
        &Error::new(Reason::TimedOut, format!("body: it did not come whole within {limit} ms"))
            .with("field", "body")
            .with("limit", limit.to_string())
            .next("send it faster, or in smaller requests"),
    )
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let counted = frame.data_ref().map_or(Ok(()), |data| self.take(data));
                Poll::Ready(Some(counted.map(|()| frame).map_err(Into::into)))
            }
            Poll::Ready(other) => Poll::Ready(other.map(|outcome| outcome.map_err(Into::into))),
            Poll::Pending => self.poll_deadline(cx).map(|status| Some(Err(status.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((len as u32).to_be_bytes());
        bytes.resize(PREFIX_BYTES + len, 7);
        bytes
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let bytes = [message(3), message(0), message(600)].concat();
        for piece in 1..bytes.len() {
            let mut shape = Shape::Messages { prefix: Vec::new(), left: 0 };
            let (mut count, mut is_open, mut held) = (0, false, 0);
            for part in bytes.chunks(piece) {
                let step = shape.advance(part);
                count += usize::from(step.began.is_some());
                held = step.began.unwrap_or(held + step.total);
                is_open = step.is_open;
            }
            assert!((1..=3).contains(&count) && !is_open, "{piece}");
            assert_eq!(held, PREFIX_BYTES + 600, "{piece}");
        }
    }

    fn metered(room: &Arc<Semaphore>) -> Metered {
        Metered {
            body: Body::empty(),
            room: room.clone(),
            held: Arc::default(),
            bytes: 0,
            shape: Shape::Messages { prefix: Vec::new(), left: 0 },
            until: None,
            arrived: Arrived::default(),
        }
    }

    #[tokio::test]
    async fn room_is_taken_and_given_back() {
        let room = Arc::new(Semaphore::new(100));
        let mut one = metered(&room);
        one.take(&message(50 << 10).into()).unwrap();
        assert_eq!(room.available_permits(), 49);
        let refused = metered(&room).take(&message(60 << 10).into()).unwrap_err();
        assert_eq!(afs_proto::from_status(&refused).reason, Reason::QueueFull);
        // The next message of the same stream: the one before was handed on.
        one.take(&message(10).into()).unwrap();
        assert_eq!(room.available_permits(), 99);
        let arrived = one.arrived.clone();
        let before = arrived.total();
        one.take(&Bytes::from(message(100)).slice(..7)).unwrap();
        assert_eq!(arrived.total() - before, 7, "also of a message that is not whole");
        drop(one);
        assert_eq!(room.available_permits(), 100);
    }
}
