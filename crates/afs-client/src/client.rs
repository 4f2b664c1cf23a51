//! One endpoint, one HTTP/2 channel, deadlines.

use afs_proto::from_status;
use afs_types::{Error, Reason, Result};
use std::time::Duration;
use tonic::Streaming;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that answers no ping for so long is gone; a half-open connection is noticed within twice that.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Flow-control windows: one mount or upload fills a fast link on its own.
const WINDOW_BYTES: u32 = 8 << 20;
/// Messages carry at most this, plus their frame (see `afs_types::limits`).
pub(crate) const MAX_MESSAGE_BYTES: usize = afs_types::limits::MAX_MESSAGE_SIZE_BYTES + (1 << 20);

/// How to reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `http://host:port` or `https://host`.
    pub endpoint: String,
    /// Longest time for one call, retries included. For a stream: longest silence.
    pub timeout: Duration,
    /// Shown to the server, e.g. `aether/0.1.0`.
    pub user_agent: String,
}

/// A server. Cheap to clone; connects when first used, and again when it must.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    endpoint: String,
    timeout: Duration,
}

impl Client {
    /// Checks the options; nothing is sent yet. Must be called inside of a tokio runtime.
    pub fn new(options: &Options) -> Result<Self> {
        let bad = |why: &str| {
            Error::invalid(
                "endpoint",
                format!("http://HOST:PORT or https://HOST, not {:?}{why}", options.endpoint),
            )
        };
        let mut endpoint =
            Endpoint::from_shared(options.endpoint.clone()).map_err(|e| bad(&format!(" ({e})")))?;
        match endpoint.uri().scheme_str() {
            Some("http") => {}
            Some("https") => {
                let tls = ClientTlsConfig::new().with_native_roots();
                endpoint = endpoint.tls_config(tls).map_err(|e| bad(&format!(" ({e})")))?;
            }
            _ => return Err(bad("")),
        }
        let endpoint = endpoint
            .user_agent(options.user_agent.clone())
            .map_err(|e| Error::invalid("user_agent", e))?
            .connect_timeout(CONNECT_TIMEOUT.min(options.timeout))
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .tcp_nodelay(true);
        Ok(Self {
            channel: endpoint.connect_lazy(),
            endpoint: options.endpoint.clone(),
            timeout: options.timeout,
        })
    }

    /// Where it sends to.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Longest time for one call.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The error of a status, in words for somebody who knows the endpoint.
    pub(crate) fn error(&self, status: &tonic::Status) -> Error {
        let error = from_status(status);
        // The server's errors carry details. Those with a cause are tonic's own: no connection, or one that broke, in the
        // middle of a call under codes such as "unknown" and "internal".
        let is_transport = status.details().is_empty() && std::error::Error::source(status).is_some();
        if !is_transport {
            return error;
        }
        let cause = innermost(status);
        Error::new(Reason::Unavailable, format!("{} cannot be reached: {cause}", self.endpoint))
            .with("endpoint", self.endpoint.clone())
            .next("check that the server runs (a local one starts with `afs-server dev --data DIR`) and that the endpoint is right (`aether doctor`)")
    }

    pub(crate) fn timed_out(&self, operation: &str) -> Error {
        let seconds = self.timeout.as_secs_f64();
        Error::new(
            Reason::TimedOut,
            format!("{operation}: no answer from {} within {seconds} s", self.endpoint),
        )
        .with("endpoint", self.endpoint.clone())
    }
}

fn innermost(status: &tonic::Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.to_string() {
        text if text.is_empty() => status.message().to_owned(),
        text => text,
    }
}

/// What a streaming call answers, one by one.
pub struct Items<T> {
    stream: Streaming<T>,
    client: Client,
    operation: &'static str,
}

impl<T> Items<T> {
    pub(crate) fn new(stream: Streaming<T>, client: Client, operation: &'static str) -> Self {
        Self { stream, client, operation }
    }

    /// The next one; none at the end. An error means that what came before is not all.
    pub async fn next(&mut self) -> Result<Option<T>> {
        match tokio::time::timeout(self.client.timeout, self.stream.message()).await {
            Ok(Ok(item)) => Ok(item),
            Ok(Err(status)) => Err(self.client.error(&status)),
            Err(_) => Err(self.client.timed_out(self.operation)),
        }
    }

    /// All of them.
    pub async fn collect(mut self) -> Result<Vec<T>> {
        let mut all = Vec::new();
        while let Some(item) = self.next().await? {
            all.push(item);
        }
        Ok(all)
    }
}
