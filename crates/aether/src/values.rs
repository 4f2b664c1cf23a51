//! Values of arguments, checked when they are parsed: a wrong one is a usage error that says what would be right.

use afs_types::{CheckpointId, CommitId, Name, SessionId, SessionPath, SourceId};
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// `SESSION:/path`, or just a session: its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) session: SessionId,
    pub(crate) path: SessionPath,
}

impl Target {
    /// The path as the API writes it.
    pub(crate) fn path_text(&self) -> String {
        self.path.to_text()
    }
    pub(crate) fn session_text(&self) -> String {
        self.session.to_string()
    }
    /// The same session, one name deeper.
    pub(crate) fn join(&self, name: Name) -> Self {
        Self { session: self.session.clone(), path: self.path.join(name) }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.session, self.path)
    }
}

/// Parser of [`Target`].
pub(crate) fn target() -> ValueParser {
    ValueParser::new(OsStringValueParser::new().try_map(|text: OsString| parse_target(text.as_bytes())))
}

pub(crate) fn parse_target(text: &[u8]) -> Result<Target, String> {
    let (session, path) = match text.iter().position(|b| *b == b':') {
        Some(colon) => (&text[..colon], &text[colon + 1..]),
        None => (text, &b""[..]),
    };
    let session = String::from_utf8_lossy(session);
    let session = SessionId::parse(&session).map_err(|e| format!("{e} (want SESSION:/path)"))?;
    let path = SessionPath::parse(path).map_err(|e| e.to_string())?;
    Ok(Target { session, path })
}

pub(crate) fn session_id(text: &str) -> Result<SessionId, String> {
    SessionId::parse(text).map_err(|e| e.to_string())
}

pub(crate) fn source_id(text: &str) -> Result<SourceId, String> {
    SourceId::parse(text).map_err(|e| e.to_string())
}

pub(crate) fn checkpoint_id(text: &str) -> Result<CheckpointId, String> {
    CheckpointId::parse(text).map_err(|e| e.to_string())
}

pub(crate) fn commit_id(text: &str) -> Result<CommitId, String> {
    CommitId::parse(text).map_err(|e| e.to_string())
}

/// A branch to push to. The empty text is the API's for the default, which nobody means who names a branch: a script with an empty variable
/// would push where it does not look.
pub(crate) fn branch(text: &str) -> Result<String, String> {
    match text.is_empty() {
        false => Ok(text.to_owned()),
        true => Err("want the name of a branch; for the default leave --branch out".into()),
    }
}

/// `key=value`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("want KEY=VALUE".into()),
    }
}

/// `90`, `90s`, `15m`, `2h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration: want e.g. 90s, 15m, 2h, 7d");
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let number: f64 = number.parse().map_err(|_| bad())?;
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(bad()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())
}

/// Octal permission bits.
pub(crate) fn permissions(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777).ok_or_else(|| {
        "want octal permission bits, e.g. 644 (symbolic ones such as u+x are not taken)".into()
    })
}

/// `REPOSITORY[@REF]`. An `@` in a user name (`git@host:path`, `https://me@host/path`) is not a ref.
pub(crate) fn split_ref(text: &str) -> (&str, Option<&str>) {
    let start = match text.find("://") {
        // The user name ends before the path begins.
        Some(scheme) => text[scheme + 3..].find('/').map_or(text.len(), |slash| scheme + 3 + slash),
        // `user@host:path`: the `@` is before the colon, and no slash is before that.
        None => match text.find(':') {
            Some(colon) if !text[..colon].contains('/') && text[..colon].contains('@') => colon,
            _ => 0,
        },
    };
    // `@{1}` and its like belong to the ref.
    let is_part = |at: &usize| text[start + at + 1..].starts_with('{');
    match text[start..].rmatch_indices('@').map(|(at, _)| at).find(|at| !is_part(at)) {
        Some(at) if at > 0 && at + 1 < text.len() - start => {
            (&text[..start + at], Some(&text[start + at + 1..]))
        }
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let ok = |text: &str| parse_target(text.as_bytes()).unwrap().to_string();
        assert_eq!(ok("sess_a:/b/c"), "sess_a:/b/c");
        assert_eq!(ok("sess_a:b"), "sess_a:/b");
        assert_eq!(ok("sess_a"), "sess_a:/");
        assert_eq!(ok("sess_a:/100%"), "sess_a:/100%25");
        assert_eq!(parse_target(b"sess_a:/\xff").unwrap().path_text(), "/%FF");
        for bad in ["", "x:/a", "sess_a:/../b", "/etc/passwd"] {
            assert!(parse_target(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn refs() {
        for (text, want) in [
            ("/src/repo", ("/src/repo", None)),
            ("/src/repo@main", ("/src/repo", Some("main"))),
            (".@feature/x", (".", Some("feature/x"))),
            ("git@host:team/repo", ("git@host:team/repo", None)),
            ("git@host:team/repo@v1", ("git@host:team/repo", Some("v1"))),
            ("https://me@host/repo", ("https://me@host/repo", None)),
            ("https://me@host/repo.git@v1.2", ("https://me@host/repo.git", Some("v1.2"))),
            ("repo@", ("repo@", None)),
            ("repo@main@{1}", ("repo", Some("main@{1}"))),
            ("repo@HEAD~1", ("repo", Some("HEAD~1"))),
            ("repo@v1^{}", ("repo", Some("v1^{}"))),
        ] {
            assert_eq!(split_ref(text), want, "{text}");
        }
    }

    #[test]
    fn durations_and_modes() {
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("-1s").is_err() && duration("1 week").is_err() && duration("").is_err());
        assert_eq!(permissions("755"), Ok(0o755));
        assert!(permissions("8").is_err() && permissions("10000").is_err());
    }
}
