//! What may be given to the `git` program as a remote, and how it is shown.
//!
//! Guarantees: a [`Remote`] never starts with `-`, never names a helper program (`ext::`), holds no control
//! characters, and its password is neither in an argument of a child process nor in a message.
//! Deliberately absent: which hosts may be reached; that is the operator's network policy.

use afs_types::{Error, Name, Reason, Result};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A checked remote.
#[derive(Clone)]
pub(crate) struct Remote {
    /// What `git` is told; without HTTP credentials.
    pub(crate) target: OsString,
    /// The directory or bundle on this machine, if it is one.
    pub(crate) local: Option<PathBuf>,
    /// HTTP user name and password, handed to git through its environment only.
    pub(crate) credentials: Option<Credentials>,
    /// Name of the mirror: a hash of the whole URL, credentials included, so that nobody reads through a
    /// mirror what somebody else's password fetched.
    pub(crate) key: String,
}

/// HTTP credentials that stood in a URL.
#[derive(Clone)]
pub(crate) struct Credentials {
    /// `https://host:port`, the only place that they are sent to.
    pub(crate) origin: String,
    pub(crate) user: String,
    pub(crate) password: String,
}

const SCHEMES: &[&str] = &["https", "http", "ssh", "git", "file", "git+ssh", "ssh+git"];

impl Remote {
    /// Checks `url`: a path of this machine, `host:path`, or a URL.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let bad = |want: &str| Error::invalid("url", want).with("url", redact(url));
        if url.is_empty() || url.len() > 4096 {
            return Err(bad("a path or URL of 1 to 4096 bytes"));
        }
        if url.starts_with('-') {
            return Err(bad("a path or URL that does not start with '-'"));
        }
        if url.chars().any(char::is_control) {
            return Err(bad("a path or URL without control characters"));
        }
        if let Some((scheme, rest)) = url.split_once("://") {
            if !SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) {
                return Err(bad("one of https, http, ssh, git, file, or a path"));
            }
            let authority = rest.split('/').next().unwrap_or("");
            if authority.rsplit('@').next().is_some_and(|host| host.starts_with('-'))
                || authority.starts_with('-')
            {
                return Err(bad("a host that does not start with '-'"));
            }
            return Self::from_url(url, &scheme.to_ascii_lowercase(), rest);
        }
        if is_helper(url) {
            return Err(bad("no transport helper such as ext::"));
        }
        match url.split_once(':') {
            Some((host, _)) if !host.contains('/') => {
                if host.is_empty() || host.rsplit('@').next().is_some_and(|h| h.starts_with('-')) {
                    return Err(bad("a host that does not start with '-'"));
                }
                Ok(Self { target: url.into(), local: None, credentials: None, key: key_of(OsStr::new(url)) })
            }
            _ => Self::from_path(Path::new(url)),
        }
    }

    fn from_path(path: &Path) -> Result<Self> {
        let real = match std::fs::canonicalize(path) {
            Ok(real) => real,
            // Its mirror, and commits that are known, outlive a source that is gone.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && path.is_absolute() => path.to_owned(),
            Err(e) => {
                let text = format!("{}: {e}", Name::lossy(path_bytes(path)));
                return Err(Error::new(Reason::SourceUnavailable, text)
                    .next("check that the path exists on the server and is readable"));
            }
        };
        let key = key_of(real.as_os_str());
        Ok(Self { target: real.clone().into(), local: Some(real), credentials: None, key })
    }

    fn from_url(url: &str, scheme: &str, rest: &str) -> Result<Self> {
        if scheme == "file" {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(Error::invalid("url", "file:/// and an absolute path"));
            }
            let decoded = percent_decode(path)?;
            return Self::from_path(Path::new(&decoded));
        }
        let key = key_of(OsStr::new(url));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        match authority.rsplit_once('@') {
            Some((userinfo, host)) if scheme.starts_with("http") => {
                let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
                let credentials = Credentials {
                    origin: format!("{scheme}://{host}"),
                    user: percent_decode(user)?,
                    password: percent_decode(password)?,
                };
                let target = format!("{scheme}://{host}{path}").into();
                Ok(Self { target, local: None, credentials: Some(credentials), key })
            }
            _ => Ok(Self { target: url.into(), local: None, credentials: None, key }),
        }
    }

    /// For people and for a session's own `.git/config`: no HTTP credentials, no SSH password.
    pub(crate) fn shown(&self) -> String {
        redact(&self.target.to_string_lossy())
    }
}

/// `name::address` starts the program `git-remote-name`.
fn is_helper(url: &str) -> bool {
    url.split_once("::").is_some_and(|(name, _)| {
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+' | b'.'))
    })
}

fn key_of(url: &OsStr) -> String {
    let hash = blake3::Hasher::new_derive_key("aetherfs 2026 mirror name").update(os_bytes(url)).finalize();
    hash.to_hex()[..40].to_owned()
}

pub(crate) fn os_bytes(text: &OsStr) -> &[u8] {
    std::os::unix::ffi::OsStrExt::as_bytes(text)
}

pub(crate) fn path_bytes(path: &Path) -> &[u8] {
    os_bytes(path.as_os_str())
}

fn percent_decode(text: &str) -> Result<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        let hex = (b == b'%').then(|| tail.get(..2)).flatten().and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(value) => {
                out.push(value);
                rest = &tail[2..];
            }
            None => {
                out.push(b);
                rest = tail;
            }
        }
    }
    match String::from_utf8(out) {
        Ok(text) if !text.chars().any(char::is_control) => Ok(text),
        _ => Err(Error::invalid("url", "UTF-8 without control characters after %-decoding")),
    }
}

/// `text` without the user names and passwords of URLs in it (a lone SSH user name stays).
pub(crate) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let end = tail.find(|c: char| c == '/' || c.is_whitespace() || matches!(c, '\'' | '"' | '<' | '>'));
        let authority = &tail[..end.unwrap_or(tail.len())];
        let ssh = head.ends_with("ssh://");
        rest = match authority.rsplit_once('@') {
            Some((user, _)) if !ssh || user.contains(':') => {
                if ssh {
                    out.push_str(user.split(':').next().unwrap_or(""));
                    out.push('@');
                }
                &tail[user.len() + 1..]
            }
            _ => tail,
        };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_urls_are_refused() {
        for bad in [
            "",
            "-u",
            "--upload-pack=touch x",
            "ext::sh -c x",
            "fd::3",
            "EXT::x",
            "a\nb",
            "https://h/\u{1b}[2J",
            "ssh://-oProxyCommand=x/y",
            "ssh://u@-oProxyCommand=x/y",
            "-oProxyCommand=x:y",
            "u@-o:y",
            ":x",
            "ftp://h/x",
            "javascript://x",
            "file://host/x",
            "https://u:p%0a@h/x",
        ] {
            let error = Remote::parse(bad).err().unwrap_or_else(|| panic!("{bad:?} was taken"));
            assert_eq!(error.reason, Reason::InvalidArgument, "{bad:?}");
        }
        assert_eq!(Remote::parse("no/such/path").err().unwrap().reason, Reason::SourceUnavailable);
    }

    #[test]
    fn credentials_never_reach_arguments_or_messages() {
        let remote = Remote::parse("https://bob:s%40cret@example.org:8443/a/b.git").unwrap();
        assert_eq!(remote.target, "https://example.org:8443/a/b.git");
        let credentials = remote.credentials.clone().unwrap();
        assert_eq!((credentials.user.as_str(), credentials.password.as_str()), ("bob", "s@cret"));
        assert_eq!(credentials.origin, "https://example.org:8443");
        assert!(!remote.shown().contains("cret"));
        assert_eq!(
            redact("fatal: 'https://u:p@h/x' and ssh://git:pw@h/y"),
            "fatal: 'https://h/x' and ssh://git@h/y"
        );
        assert_eq!(redact("ssh://git@h/x git@h:x"), "ssh://git@h/x git@h:x");
        let plain = Remote::parse("https://example.org:8443/a/b.git").unwrap();
        assert_ne!(plain.key, remote.key, "another password may not read through the same mirror");
    }
}
