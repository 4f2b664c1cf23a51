//! What may be given to the `git` program as a remote, and how it is shown.
//!
//! Guarantees: a [`Remote`] never starts with `-`, never names a helper program (`ext::`), holds no control
//! characters, and its password is neither in an argument of a child process nor in a message. Only HTTP has passwords:
//! elsewhere one is refused, for `git` would take it as an argument, and nobody would ask for it. Whether an address has a form that is
//! taken is known without a look at a disk or network ([`check_address`]).
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

/// What an address says, before anybody has looked whether it is there.
enum Form {
    /// A path of this machine.
    Path(PathBuf),
    Remote(Remote),
}

/// Refuses what is no address for git, whatever is there: nothing is looked up, here or elsewhere. `field` is named.
pub fn check_address(field: &'static str, address: &str) -> Result<()> {
    Form::of(field, address).map(drop)
}

impl Form {
    fn of(field: &'static str, url: &str) -> Result<Self> {
        let bad = |want: &str| Error::invalid(field, want).with("url", without_password(url));
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
            let scheme = scheme.to_ascii_lowercase();
            check_authority(&scheme, rest.split('/').next().unwrap_or("")).map_err(bad)?;
            return Self::of_url(url, &scheme, rest).map_err(bad);
        }
        if is_helper(url) {
            return Err(bad("no transport helper such as ext::"));
        }
        match url.split_once(':') {
            Some((host, _)) if !host.contains('/') => {
                if host.is_empty() || host.rsplit('@').next().is_some_and(|h| h.starts_with('-')) {
                    return Err(bad("a host that does not start with '-'"));
                }
                if without_password(url) != url {
                    return Err(bad("user@host:path without a password: ssh takes keys"));
                }
                Ok(Self::of_target(url.into(), None, url))
            }
            _ => Ok(Self::Path(url.into())),
        }
    }

    fn of_target(target: OsString, credentials: Option<Credentials>, url: &str) -> Self {
        Self::Remote(Remote { target, local: None, credentials, key: key_of(OsStr::new(url)) })
    }

    fn of_url(url: &str, scheme: &str, rest: &str) -> Result<Self, &'static str> {
        if scheme == "file" {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err("file:/// and an absolute path");
            }
            return Ok(Self::Path(percent_decode(path)?.into()));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        match authority.rsplit_once('@') {
            Some((userinfo, host)) if scheme.starts_with("http") => {
                let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
                let credentials = Credentials {
                    origin: format!("{scheme}://{host}"),
                    user: percent_decode(user)?,
                    password: percent_decode(password)?,
                };
                Ok(Self::of_target(format!("{scheme}://{host}{path}").into(), Some(credentials), url))
            }
            _ => Ok(Self::of_target(url.into(), None, url)),
        }
    }
}

impl Remote {
    /// Checks `url`: a path of this machine, `host:path`, or a URL.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        match Form::of("url", url)? {
            Form::Path(path) => Self::from_path(&path),
            Form::Remote(remote) => Ok(remote),
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

    /// For people and for a session's own `.git/config`: no HTTP credentials, no SSH password.
    pub(crate) fn shown(&self) -> String {
        redact(&self.target.to_string_lossy())
    }
}

/// What stands between `://` and the path: why it cannot be right.
fn check_authority(scheme: &str, authority: &str) -> Result<(), &'static str> {
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
    if host.starts_with('-') || authority.starts_with('-') {
        return Err("a host that does not start with '-'");
    }
    if authority.contains(char::is_whitespace) {
        return Err("a user, password and host without spaces; in a password write %20");
    }
    if scheme != "file" && !has_port_or_none(host) {
        return Err("host or host:port after `://`; in a password write %2F for '/', %40 for '@'");
    }
    if !scheme.starts_with("http") && user.is_some_and(has_password) {
        return Err("no password unless the scheme is https or http: ssh takes keys");
    }
    Ok(())
}

/// Whether what follows the last colon, if there is one, can be a port.
fn has_port_or_none(host: &str) -> bool {
    match host.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((_, tail)) => host.ends_with(']') || tail.bytes().all(|b| b.is_ascii_digit()),
        None => true,
    }
}

/// Whether more than a name stands before a host.
fn has_password(user: &str) -> bool {
    user.contains(':') || user.to_ascii_lowercase().contains("%3a")
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

fn percent_decode(text: &str) -> Result<String, &'static str> {
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
        _ => Err("UTF-8 without control characters after %-decoding"),
    }
}

/// An address as it may be shown, whatever its scheme and however it is written: `***` stands for a password, and for a name that
/// stands alone unless the scheme is SSH's, since it can be a token. What has the form of a password but cannot be one is hidden, too.
pub fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        // `user:password@host:path` is no form of git's, but people write it. In `user@host:a@b` and `host:a@b` it is the path that has
        // an `@`. Where there is a password, it may have one itself, so then all up to the last is hidden.
        let first = address.split('/').next().unwrap_or("");
        let is_login = |(user, rest): (&str, &str)| has_password(user) && rest.contains(':');
        let user = first.rsplit_once('@').filter(|_| first.split_once('@').is_some_and(is_login));
        return match user {
            Some((user, _)) => format!("{}:***{}", name_of(user), &address[user.len()..]),
            None => address.to_owned(),
        };
    };
    let authority = rest.split('/').next().unwrap_or("");
    let user = match authority.rsplit_once('@') {
        Some((user, _)) => user,
        // A slash in a password that is not written %2F.
        None if !has_port_or_none(authority) => rest.rsplit_once('@').map_or("", |(user, _)| user),
        None => "",
    };
    let is_login = scheme.to_ascii_lowercase().ends_with("ssh") || scheme.eq_ignore_ascii_case("ssh+git");
    let shown = match user {
        "" => return address.to_owned(),
        user if has_password(user) => format!("{}:***", name_of(user)),
        user if is_login => user.to_owned(),
        _ => "***".to_owned(),
    };
    format!("{scheme}://{shown}{}", &rest[user.len()..])
}

/// What stands before the password.
fn name_of(user: &str) -> &str {
    let coded = user.to_ascii_lowercase().find("%3a");
    &user[..user.find(':').into_iter().chain(coded).min().unwrap_or(user.len())]
}

/// `text` without the user names and passwords of URLs in it (a lone SSH user name stays).
pub(crate) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        // Quotes do not end it: they can be in a password, and a host less in a message harms nobody.
        let end = tail.find(|c: char| c == '/' || c.is_whitespace());
        let authority = &tail[..end.unwrap_or(tail.len())];
        let ssh = head.to_ascii_lowercase().ends_with("ssh://");
        rest = match authority.rsplit_once('@') {
            Some((user, _)) if !ssh || has_password(user) => {
                if ssh {
                    out.push_str(name_of(user));
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
            "https://u:p w@h/x",
            "https://u:p/w@h/x",
            "ssh://u:pw@h/x",
            "SSH://u%3Apw@h/x",
            "git://u:pw@h/x",
            "u:pw@h:x",
            "u:pw@pw@h:x/y",
        ] {
            let error = Remote::parse(bad).err().unwrap_or_else(|| panic!("{bad:?} was taken"));
            assert_eq!(error.reason, Reason::InvalidArgument, "{bad:?}");
            let early = check_address("spec.git.url", bad).unwrap_err();
            assert!(early.message().starts_with("spec.git.url: want "), "{early:?}");
            assert_eq!(early.message().strip_prefix("spec.git."), Some(error.message()), "{bad:?}");
            assert!(!format!("{early:?}{:?}", early.metadata()).contains("pw"), "{early:?}");
            assert!(!format!("{error:?}{:?}", error.metadata()).contains("pw"), "{error:?}");
        }
        for good in [
            "https://h:8443/x",
            "https://u:p@[::1]:8443/x",
            "http://[::1]/x",
            "ssh://u@h:/x",
            "u@h:x",
            "h:./a@b",
            "git@host:team@corp/repo.git",
            "host:repo@v1",
        ] {
            assert!(Remote::parse(good).is_ok(), "{good:?}");
            check_address("url", good).unwrap();
        }
        check_address("url", "no/such/path").unwrap();
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
        assert_eq!(
            redact("HTTPS://u:it's@h/x SSH://git:pw@h/y git+ssh://git%3Apw@h"),
            "HTTPS://h/x SSH://git@h/y git+ssh://git@h"
        );
        let loud = Remote::parse("HTTPS://bob:s%40cret@example.org/a").unwrap();
        assert_eq!(loud.target, "https://example.org/a");
        let plain = Remote::parse("https://example.org:8443/a/b.git").unwrap();
        assert_ne!(plain.key, remote.key, "another password may not read through the same mirror");
    }
}
