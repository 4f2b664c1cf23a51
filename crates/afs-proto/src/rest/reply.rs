//! Answers: JSON, problem+json, and streams as server-sent events or lines.

use crate::Problem;
use afs_types::{Error, Reason};
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use serde::Serialize;
use std::convert::Infallible;
use tonic::Status;

/// A message as JSON.
pub(super) fn json<A: Serialize>(answer: &A, path: &str) -> Response {
    match serde_json::to_vec(answer) {
        Ok(body) => with_type(StatusCode::OK, "application/json", body.into()),
        Err(e) => problem_response(&encode_error(&e), Some(path)),
    }
}

/// An error as problem+json, with the status of its reason.
pub fn problem_response(error: &Error, path: Option<&str>) -> Response {
    problem_with_status(error, error.reason.http_status(), path)
}

/// An error as problem+json with a status that only HTTP has, e.g. 405.
pub fn problem_with_status(error: &Error, status: u16, path: Option<&str>) -> Response {
    let mut problem = Problem::from(error);
    problem.instance = path.map(str::to_owned);
    problem.status = status;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(&problem).unwrap_or_default(); // plain strings and numbers always encode
    let mut response = with_type(status, "application/problem+json", body.into());
    if let Some(after) = problem.retry_after_ms {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.div_ceil(1000)));
    }
    response
}

/// A stream; its first message is awaited so that an error before it has its own status.
pub(super) async fn stream<A, S>(messages: S, lines: bool, path: String) -> Response
where
    A: Serialize + Send + 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
{
    let mut messages = Box::pin(messages);
    let first = match messages.next().await {
        Some(Err(status)) => return problem_response(&crate::from_status(&status), Some(&path)),
        first => first,
    };
    let parts = stream::iter(first).chain(messages).map(encode::<A>).chain(stream::iter([Part::End]));
    // After an error nothing follows, not even the end.
    let parts = parts.scan(false, |ended, part| {
        let go_on = !std::mem::replace(ended, matches!(part, Part::Error(_)));
        std::future::ready(go_on.then_some(part))
    });
    if lines { as_lines(parts) } else { as_events(parts) }
}

/// One message of a stream, encoded; `Error` and `End` come last, one of them.
enum Part {
    Data(String),
    Error(String),
    End,
}

fn encode<A: Serialize>(message: Result<A, Status>) -> Part {
    let error = match message {
        Ok(message) => match serde_json::to_string(&message) {
            Ok(text) => return Part::Data(text),
            Err(e) => encode_error(&e),
        },
        Err(status) => crate::from_status(&status),
    };
    Part::Error(serde_json::to_string(&Problem::from(&error)).unwrap_or_default())
}

fn as_lines(parts: impl Stream<Item = Part> + Send + 'static) -> Response {
    let lines = parts.map(|part| {
        let line = match part {
            Part::Data(text) => text + "\n",
            Part::Error(problem) => format!("{{\"error\":{problem}}}\n"),
            Part::End => String::new(),
        };
        Ok::<_, Infallible>(Bytes::from(line))
    });
    with_type(StatusCode::OK, "application/x-ndjson", Body::from_stream(lines))
}

fn as_events(parts: impl Stream<Item = Part> + Send + 'static) -> Response {
    let events = parts.map(|part| match part {
        Part::Data(text) => Event::default().data(text),
        Part::Error(problem) => Event::default().event("error").data(problem),
        Part::End => Event::default().event("end").data("{}"), // the stream is complete, not cut
    });
    let response = Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::default());
    let no_buffer = [(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"))];
    (no_buffer, response).into_response()
}

fn encode_error(cause: &serde_json::Error) -> Error {
    Error::new(Reason::Internal, format!("encode answer: {cause}"))
}

fn with_type(status: StatusCode, kind: &'static str, body: Body) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static(kind))], body).into_response()
}
