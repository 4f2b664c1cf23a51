//! Who may talk to a server that has no authentication yet: programs on this machine, but no web page.
//!
//! A page in a browser on this machine could send requests to loopback. So a request is refused when its `Host` is not
//! this machine (DNS rebinding) or when it has an `Origin` that is not the host itself (cross-site requests).

use afs_proto::rest::problem_response;
use afs_types::{Error, Reason};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;

/// Refuses what a web page could have sent.
pub(crate) async fn local_only(request: Request, next: Next) -> Response {
    match check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => problem_response(&error, Some(request.uri().path())),
    }
}

fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), Error> {
    let text = |name: HeaderName| headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap_or("?"));
    let host = uri.authority().map(|a| a.as_str()).or_else(|| text(header::HOST));
    if let Some(host) = host.filter(|h| !is_local(h)) {
        return Err(refused(format!("host {host:?} is not this machine"), "call 127.0.0.1 or localhost"));
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let of = origin.strip_prefix("http://").unwrap_or("?");
    if host.is_some_and(|h| h.eq_ignore_ascii_case(of)) {
        return Ok(());
    }
    Err(refused(
        format!("a page of {origin:?} may not call this server"),
        "call it from a program, not from a web page",
    ))
}

fn refused(message: String, next: &str) -> Error {
    Error::new(Reason::PermissionDenied, message.chars().take(300).collect::<String>()).next(next)
}

fn is_local(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(""),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        check(&Uri::from_static("/v1/sessions"), &headers).is_ok()
    }

    #[test]
    fn programs_may_and_pages_may_not() {
        for host in ["127.0.0.1:7440", "localhost", "LOCALHOST:1", "[::1]:80", "127.0.0.9"] {
            assert!(allowed(host, None), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:80", "localhost.evil:80", ""] {
            assert!(!allowed(host, None), "{host}");
        }
        assert!(allowed("localhost:7440", Some("http://localhost:7440")));
        for origin in ["http://evil.example", "null", "https://localhost:7440", "http://localhost:1"] {
            assert!(!allowed("localhost:7440", Some(origin)), "{origin}");
        }
    }
}
