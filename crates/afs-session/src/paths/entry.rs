//! An entry as the API shows it, its etag, and preconditions on it.
//!
//! Etags, by what the path names:
//! * a regular file that nothing has written to since a base from git: `git-` and git's name of its content; the same for the same content in every such base;
//! * a regular file whose content is exactly one other blob: `b3-` and the first 32 hexadecimal digits of its name; the same for the same
//!   bytes written or imported otherwise, in every session of a tenant;
//! * any other regular file (just written through a mount, or empty): `v<version>-<inode>`, where the version is the revision of
//!   the last change of its content. This form goes on being accepted when the file is sealed into a blob;
//! * a symbolic link: `l<version>-<inode>`; a fifo, socket or device: `s<version>-<inode>`;
//! * a directory: `d<change time>-<inode>`, which changes when an entry in it comes or goes, not with what lies deeper.
//!
//! Equal etags of one of the first two forms mean equal bytes. Different forms say nothing about one another: writing the bytes that a file of a base has gives it another etag.
//!
//! Permissions, owner and times are no content and do not change a file's etag.

use afs_core::tree::{Attr, Tree};
use afs_types::{Error, Reason, Result, SessionPath};

/// One path of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path, as asked for.
    pub path: SessionPath,
    /// Its attributes.
    pub attr: Attr,
    /// For preconditions; see the module.
    pub etag: String,
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Unchanged since the base.
    pub base: bool,
}

impl Entry {
    /// About how many bytes it takes in an answer.
    pub(crate) fn weight(&self) -> usize {
        let names: usize = self.path.names().iter().map(|n| n.as_bytes().len() + 1).sum();
        names + self.target.as_ref().map_or(0, Vec::len) + 200
    }
}

/// What must hold for a change to happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The path exists and has this etag, or one of several with commas between; `*`: any. Quotes around each are optional.
    pub if_etag: Option<String>,
    /// The path does not exist.
    pub if_absent: bool,
}

impl Precondition {
    /// `ETAG_MISMATCH` unless it holds.
    pub(super) fn check(&self, tree: &Tree, found: Option<&Attr>, path: &SessionPath) -> Result<()> {
        match (found, &self.if_etag) {
            (Some(attr), _) if self.if_absent => {
                Err(mismatch(path, "exists already", Some(etag(tree, attr))))
            }
            (None, Some(_)) => Err(mismatch(path, "does not exist", None)),
            (Some(attr), Some(want)) if !want.split(',').any(|w| fits(tree, attr, w)) => {
                let now = etag(tree, attr);
                Err(mismatch(path, &format!("has etag {now}, not {want}"), Some(now)))
            }
            _ => Ok(()),
        }
    }
}

fn mismatch(path: &SessionPath, what: &str, now: Option<String>) -> Error {
    let path = path.to_text();
    let error = Error::new(Reason::EtagMismatch, format!("{path} {what}")).with("path", path);
    match now {
        Some(etag) => error.with("etag", etag),
        None => error,
    }
}

/// The etag of an inode.
pub(super) fn etag(tree: &Tree, attr: &Attr) -> String {
    by_content(tree, attr).unwrap_or_else(|| by_version(attr))
}

fn fits(tree: &Tree, attr: &Attr, want: &str) -> bool {
    let want = want.trim();
    let want = want.strip_prefix('"').and_then(|w| w.strip_suffix('"')).unwrap_or(want);
    want == "*" || want == by_version(attr) || by_content(tree, attr).is_some_and(|etag| want == etag)
}

fn by_content(tree: &Tree, attr: &Attr) -> Option<String> {
    let (content, size) = tree.content(attr.ino).filter(|_| attr.is_file())?;
    let blob = content.whole_blob(size)?;
    let of_base = (attr.version == 0).then(|| tree.base().entry(attr.ino)).flatten();
    Some(match of_base.and_then(|entry| entry.git_oid) {
        Some(oid) => oid.iter().fold("git-".to_owned(), |etag, byte| etag + &format!("{byte:02x}")),
        None => format!("b3-{}", &blob.to_hex()[..32]),
    })
}

fn by_version(attr: &Attr) -> String {
    if attr.is_dir() {
        return format!("d{:x}-{}", attr.ctime_ns, attr.ino);
    }
    let kind = match () {
        () if attr.is_file() => 'v',
        () if attr.is_symlink() => 'l',
        () => 's',
    };
    format!("{kind}{}-{}", attr.version, attr.ino)
}
