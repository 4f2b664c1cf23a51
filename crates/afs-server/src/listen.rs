//! One port for everything: HTTP/1.1 and HTTP/2 without TLS, told apart by the first bytes.
//!
//! Guarantees: connections, streams, header sizes and header times are bounded; who connects and says nothing is cut, and who comes
//! when all places are taken is told so; who does not read its answers is cut (`outgo`); after a stop no connection is accepted, open ones finish their requests within [`DRAIN`], and
//! then the rest is cut.

use crate::outgo::{self, Answers, Unread, Watched};
use crate::whole::Whole;
use afs_proto::Problem;
use afs_types::{Error, Reason};
use axum::Router;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// How long requests under way may take after a stop.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);
const MAX_HEADER_BYTES: usize = 64 << 10;
const MAX_STREAMS: u32 = 1024;
const HEADER_TIME: Duration = Duration::from_secs(10);
/// What every HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How often a preface that comes in pieces is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Connections that are being told that there is no place; beyond these they are closed without a word.
const TURNED_AWAY: usize = 64;
const TURN_AWAY_TIME: Duration = Duration::from_secs(1);
/// A client that is gone without a word is noticed after at most the sum of these.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIME: Duration = Duration::from_secs(20);
/// Of one stream and of one connection: a 1 MiB read or write needs no pause for a window update.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Serves until `stop` resolves, then drains.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    answers: Arc<Answers>,
    stop: impl Future<Output = ()>,
) {
    let builder = Arc::new(builder());
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(max_connections));
    let turned_away = TurnedAway::new(max_connections);
    let (stopping, stopped) = watch::channel(false);
    let mut stop = std::pin::pin!(stop);
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, or the peer was gone already: neither is a reason to stop.
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            turned_away.tell(stream);
            continue;
        };
        prepare(&stream);
        let unread = Unread::new(&answers);
        let service = told(TowerToHyperService::new(router.clone()), unread.clone());
        let (builder, watcher, mut stopped) = (builder.clone(), graceful.watcher(), stopped.clone());
        tokio::spawn(async move {
            let _place = place;
            let speaks = tokio::select! {
                speaks = tokio::time::timeout(HEADER_TIME, speaks(&stream)) => speaks.unwrap_or(false),
                _ = stopped.wait_for(|stopped| *stopped) => false,
            };
            if !speaks {
                tracing::debug!("a connection said nothing");
                return;
            }
            let connection =
                builder.serve_connection(TokioIo::new(Watched::new(stream, unread.clone())), service);
            tokio::select! {
                ended = watcher.watch(connection.into_owned()) => {
                    if let Err(error) = ended {
                        tracing::debug!(error, "a connection broke off");
                    }
                }
                () = unread.neglected(outgo::LOOK_EVERY) => tracing::info!("cut a connection that does not read its answers"),
            }
        });
    }
    drop(listener);
    stopping.send_replace(true);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("cutting connections that did not end within {DRAIN:?}");
    }
}

/// The same service; every request knows what its connection has not read, and no body of one ends early.
fn told(
    service: TowerToHyperService<Router>,
    unread: Arc<Unread>,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone {
    service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(unread.clone());
        service.call(Whole::of(request))
    })
}

/// Waits until enough has come to tell HTTP/1.1 from HTTP/2; false if the other side goes first.
async fn speaks(stream: &TcpStream) -> bool {
    let mut first = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut first).await {
            Ok(0) | Err(_) => return false,
            Ok(count) if count == PREFACE.len() || !PREFACE.starts_with(&first[..count]) => return true,
            Ok(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Says that there is no place, in HTTP/1.1, which every client can at least log.
struct TurnedAway {
    places: Arc<Semaphore>,
    answer: Arc<[u8]>,
}

impl TurnedAway {
    fn new(max_connections: usize) -> Self {
        let error = Error::new(
            Reason::QueueFull,
            format!("{max_connections} connections are open, which is the limit"),
        )
        .with("limit", max_connections.to_string())
        .next("close connections that are not used, or raise max_connections of the server");
        let problem = Problem { status: 503, ..Problem::from(&error) };
        let body = serde_json::to_string(&problem).unwrap_or_default(); // plain strings and numbers always encode
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { places: Arc::new(Semaphore::new(TURNED_AWAY)), answer: answer.into_bytes().into() }
    }

    fn tell(&self, mut stream: TcpStream) {
        let Ok(place) = self.places.clone().try_acquire_owned() else { return };
        let answer = self.answer.clone();
        tokio::spawn(async move {
            let _place = place;
            let told = async {
                // A close with unread bytes would take the answer back: the request is read first, and then the end.
                stream.readable().await?;
                stream.write_all(&answer).await?;
                stream.shutdown().await?;
                let mut rest = [0; 4096];
                while stream.read(&mut rest).await? > 0 {}
                std::io::Result::Ok(())
            };
            if let Ok(Err(error)) = tokio::time::timeout(TURN_AWAY_TIME, told).await {
                tracing::debug!(%error, "turn a connection away");
            }
        });
    }
}

fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set TCP_NODELAY");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        // Not `pipeline_flush`: it copies bodies into a buffer of hyper's, where nobody counts them (`outgo`).
        .max_buf_size(MAX_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIME);
    builder
}
