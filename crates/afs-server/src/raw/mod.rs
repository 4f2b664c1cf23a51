//! Raw file bytes over HTTP: GET, HEAD, PUT, DELETE `/v1/sessions/{session_id}/files/{path}`.
//!
//! Guarantees: a GET serves one instant of the file, whatever happens to it meanwhile; a PUT that breaks off changes
//! nothing; preconditions of a change are checked in the same step as the change. Memory per request is bounded, whatever the size.
//! Refused here: parameters that do not exist or come twice, conditions that would not be checked, coded bodies, bodies where none belongs.
//! Deliberately absent: several ranges (the whole file is sent, as RFC 9110 allows), and conditions by date: a second is too coarse
//! for files that programs write.

mod body;
mod rules;

pub(crate) use body::reader as body_reader;

use crate::app::App;
use crate::file_system::{mutation, read_pieces};
use crate::pool::durable;
use crate::reply::{field, optional};
use afs_proto::rest::{Etags, header_text, idempotency_key, percent_decode, problem_response, query_pairs};
use afs_session::paths::{By, Precondition, Reader, WriteOptions};
use afs_types::{Error, Reason, RequestId, Result, SessionId, SessionPath, limits};
use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Router, http};
use rules::Served;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const PREFIX: &str = "/v1/sessions/";

/// The routes of raw bytes.
pub(crate) fn routes(app: Arc<App>) -> Router {
    let methods = get(read).put(write).delete(remove);
    Router::new().route("/v1/sessions/{session_id}/files/{*path}", methods).with_state(app)
}

/// Session and path of a request. From the URI itself: a path is bytes, and need not be UTF-8.
fn target(uri: &Uri) -> Result<(SessionId, SessionPath)> {
    let rest = uri.path().strip_prefix(PREFIX).and_then(|rest| rest.split_once("/files/"));
    let (id, path) = rest.ok_or_else(|| Error::new(Reason::NotFound, "not a file route"))?;
    let id = String::from_utf8_lossy(&percent_decode(id)?).into_owned();
    let id = field("session_id", SessionId::parse(&id))?;
    Ok((id, field("path", SessionPath::parse(&percent_decode(path)?))?))
}

/// Query parameters by name; others than `known` are refused.
fn parameters<const N: usize>(uri: &Uri, known: [&'static str; N]) -> Result<[Option<String>; N]> {
    let mut values = [const { None }; N];
    for (name, value) in query_pairs(uri.query().unwrap_or(""))? {
        let Some(at) = known.iter().position(|k| *k == name) else {
            let name: String = name.chars().take(80).collect();
            return Err(Error::new(
                Reason::InvalidArgument,
                format!("{name}: no such parameter: want one of {}", known.join(", ")),
            )
            .with("field", name));
        };
        if values[at].replace(value).is_some() {
            return Err(wrong(known[at], "one value"));
        }
    }
    Ok(values)
}

fn wrong(field: &str, want: &str) -> Error {
    Error::new(Reason::InvalidArgument, format!("{field}: want {want}")).with("field", field)
}

/// Conditions by date are not checked, so a change, or a range, must not seem to depend on one.
fn no_dates(headers: &HeaderMap) -> Result<()> {
    match headers.contains_key(header::IF_UNMODIFIED_SINCE) {
        true => Err(wrong("if-unmodified-since", "If-Match with an etag: a second is too coarse")),
        false => Ok(()),
    }
}

fn answer(result: Result<Response>, uri: &Uri) -> Response {
    result.unwrap_or_else(|error| {
        if error.reason.kind() == afs_types::Kind::Internal {
            tracing::error!(?error, "a file request failed");
        }
        problem_response(&error, Some(uri.path()))
    })
}

async fn read(State(app): State<Arc<App>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    answer(try_read(&app, &method, &uri, &headers).await, &uri)
}

async fn try_read(app: &Arc<App>, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Response> {
    let (id, path) = target(uri)?;
    let [at] = parameters(uri, ["checkpoint_id"])?;
    no_dates(headers)?;
    let conditions = rules::Conditions {
        if_match: Etags::of(headers, &header::IF_MATCH)?,
        if_none_match: Etags::of(headers, &header::IF_NONE_MATCH)?,
        range: header_text(headers, &header::RANGE)?.filter(|_| method == Method::GET),
        if_range: header_text(headers, &header::IF_RANGE)?,
    };
    let engine = app.engine.clone();
    let reader =
        app.pool.run(move || engine.files(&id)?.view_at(&at.unwrap_or_default())?.open_read(&path)).await?;
    let size = reader.size();
    let (status, start, len) = match rules::serve(&conditions, &reader.entry.etag, size)? {
        Served::Whole => (StatusCode::OK, 0, size),
        Served::Part { start, len } => (StatusCode::PARTIAL_CONTENT, start, len),
        Served::NotModified => (StatusCode::NOT_MODIFIED, 0, 0),
        Served::OutOfRange => return Ok(out_of_range(uri, size)),
    };
    let empty = status == StatusCode::NOT_MODIFIED || method == Method::HEAD;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    describe(response.headers_mut(), &reader, status);
    if status != StatusCode::NOT_MODIFIED {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    }
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {start}-{}/{size}", start + len - 1);
        insert(response.headers_mut(), header::CONTENT_RANGE, &range);
    }
    if !empty {
        *response.body_mut() = content(app, reader, start, len).await?;
    }
    Ok(response)
}

fn describe(headers: &mut HeaderMap, reader: &Reader, status: StatusCode) {
    insert(headers, header::ETAG, &format!("\"{}\"", reader.entry.etag));
    let modified = Duration::from_nanos(reader.entry.attr.mtime_ns.max(0) as u64);
    insert(headers, header::LAST_MODIFIED, &httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + modified));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if status != StatusCode::NOT_MODIFIED {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    }
}

fn insert(headers: &mut HeaderMap, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn out_of_range(uri: &Uri, size: u64) -> Response {
    let error = Error::new(Reason::OutOfRange, format!("range: the file has {size} bytes"))
        .with("field", "range")
        .with("size", size.to_string());
    let mut response = problem_response(&error, Some(uri.path()));
    insert(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
    response
}

/// Bytes of a file: small ones at once, others as a stream of pieces.
async fn content(app: &Arc<App>, reader: Reader, start: u64, len: u64) -> Result<Body> {
    if len <= limits::MAX_IO_BYTES as u64 {
        return app.pool.run(move || reader.read_at(start, len as usize)).await.map(Body::from);
    }
    let pieces = app.pool.stream(move |sink| read_pieces(&reader, start, len, sink));
    Ok(Body::from_stream(pieces.await?))
}

/// The etags that a change may find, as preconditions have them.
fn if_match(headers: &HeaderMap) -> Result<Option<String>> {
    Etags::of(headers, &header::IF_MATCH)?.map(|etags| etags.for_change()).transpose()
}

async fn write(State(app): State<Arc<App>>, request: Request) -> Response {
    let uri = request.uri().clone();
    answer(try_write(&app, request).await, &uri)
}

/// Whether a change is acknowledged only when it is on disk.
fn waits(durability: Option<&str>) -> Result<bool> {
    match durability {
        None | Some("local") => Ok(true),
        Some("accepted") => Ok(false),
        Some(_) => Err(Error::invalid("durability", "accepted or local")),
    }
}

async fn try_write(app: &Arc<App>, request: Request) -> Result<Response> {
    let (id, path) = target(request.uri())?;
    let [mode, durability] = parameters(request.uri(), ["mode", "durability"])?;
    let wait = waits(durability.as_deref())?;
    let headers = request.headers();
    no_dates(headers)?;
    let if_absent = match Etags::of(headers, &header::IF_NONE_MATCH)? {
        None => false,
        Some(Etags::Any) => true,
        // That it is none of no tags is always so.
        Some(Etags::List(list)) if list.is_empty() => false,
        Some(Etags::List(_)) => return Err(wrong("if-none-match", "* (only if the file does not exist)")),
    };
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err(wrong("content-range", "no such header: the body is the whole file"));
    }
    if header_text(headers, &header::CONTENT_ENCODING)?.is_some_and(|c| !c.eq_ignore_ascii_case("identity")) {
        return Err(wrong("content-encoding", "none: the body is the file as it is to be stored"));
    }
    let options = WriteOptions {
        precondition: Precondition { if_etag: if_match(headers)?, if_absent },
        mode: mode.as_deref().map(rules::octal).transpose()?,
        create_parents: true,
        ..WriteOptions::default()
    };
    let key = idempotency_key(headers)?.unwrap_or_default();
    let by = By { who: 0, request_id: optional("idempotency-key", &key, RequestId::parse)?.flatten() };
    let (mut bytes, feed) = body::channel(request.into_body());
    let engine = app.engine.clone();
    let write = app.pool.run_upload(move || engine.files(&id)?.write_file(&path, &options, &by, &mut bytes));
    let (written, ()) = tokio::join!(write, feed);
    let written = written?;
    if wait {
        durable(&*app.journal, written.stamp.at).await?;
    }
    let etag = written.entry.as_ref().map(|e| format!("\"{}\"", e.etag));
    let mut response = Json(mutation(written, wait)).into_response();
    if let Some(etag) = etag {
        insert(response.headers_mut(), header::ETAG, &etag);
    }
    Ok(response)
}

async fn remove(State(app): State<Arc<App>>, request: Request) -> Response {
    let uri = request.uri().clone();
    answer(try_remove(&app, request).await, &uri)
}

async fn try_remove(app: &Arc<App>, request: Request) -> Result<Response> {
    let (id, path) = target(request.uri())?;
    let [durability] = parameters(request.uri(), ["durability"])?;
    let wait = waits(durability.as_deref())?;
    let headers = request.headers();
    no_dates(headers)?;
    if headers.contains_key(header::IF_NONE_MATCH) {
        return Err(wrong("if-none-match", "no such precondition here"));
    }
    let precondition = Precondition { if_etag: if_match(headers)?, if_absent: false };
    if !request.body().is_end_stream() {
        return Err(wrong("body", "no body here"));
    }
    let engine = app.engine.clone();
    let removed =
        app.pool.run(move || engine.files(&id)?.remove(&path, false, &precondition, &By::default())).await?;
    if wait {
        durable(&*app.journal, removed.stamp.at).await?;
    }
    Ok(Json(mutation(removed, wait)).into_response())
}
