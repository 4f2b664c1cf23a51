//! An entry as the API shows it, its etag, and preconditions on it.
//!
//! Etags, by what the path names:
//! * a regular file that a session has changed or made: `v<version>-<inode>`, where the version is the revision of the last change of its
//!   content; also an empty one of a base, with version 0;
//! * any other regular file of a base from git: `git-` and git's name of its content; of another base: `b3-` and the first 32 hexadecimal
//!   digits of the name of the blob. Each is the same for the same content in every such base;
//! * a symbolic link: `l<version>-<inode>`; a fifo, socket or device: `s<version>-<inode>`;
//! * a directory: `d<change time>-<inode>`, which changes when an entry in it comes or goes, not with what lies deeper.
//!
//! Guarantees: a file's etag changes when its content does, and never by itself. How the bytes are stored is not in it, since sealing moves
//! them while nobody writes; version and inode are part of the tree, and come back with it from eviction, restart, fork and restore. Within the
//! history of one session an etag never stands for two contents: no revision is given to two changes, not even one that a crash took back, and no
//! inode number to two files. What has no revision yet (a dry run, or a change set that fails half-way) therefore has no etag.
//!
//! Permissions, owner and times are no content and do not change a file's etag.
//!
//! Deliberately absent: comparing sessions by etags of the first form. Two forks number their changes from the same revision on, so the same one
//! can stand for different bytes in each; [`Entry::blob`] and `Engine::diff` compare contents. Forms say nothing about one another: writing the
//! bytes that a file has gives it another etag. A precondition is also met by the content form (`git-`, `b3-`) of what is one whole blob, as
//! earlier versions told it of written files too: that one means equal bytes in every session.

use afs_core::tree::{Attr, Tree};
use afs_types::{BlobId, Error, Reason, Result, SessionPath};

/// One path of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path, as asked for.
    pub path: SessionPath,
    /// Its attributes.
    pub attr: Attr,
    /// For preconditions; see the module. Empty in the answer to a dry run.
    pub etag: String,
    /// The blob that is exactly the file's content, if there is one: equal blobs are equal bytes.
    pub blob: Option<BlobId>,
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Unchanged since the base.
    pub base: bool,
}

impl Entry {
    /// As a dry run shows it: what was not done has no etag.
    pub(super) fn untold(self) -> Self {
        Self { etag: String::new(), ..self }
    }

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
    /// `ETAG_MISMATCH` unless it holds. `revision` is the newest that is given away: what is newer in the tree may never come to be.
    pub(super) fn check(
        &self,
        (tree, revision): (&Tree, u64),
        found: Option<&Attr>,
        path: &SessionPath,
    ) -> Result<()> {
        let told = |attr: &Attr| (attr.version <= revision).then(|| etag(tree, attr));
        match (found, &self.if_etag) {
            (Some(attr), _) if self.if_absent => Err(mismatch(path, "exists already", told(attr))),
            (None, Some(_)) => Err(mismatch(path, "does not exist", None)),
            (Some(attr), Some(want)) if !want.split(',').any(|w| fits(tree, attr, w)) => {
                let now = told(attr);
                let has = now.as_ref().map_or_else(
                    || format!("is changed before by the same request, and has not etag {want}"),
                    |now| format!("has etag {now}, not {want}"),
                );
                Err(mismatch(path, &has, now))
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
    etag_with(tree, attr, whole_blob(tree, attr))
}

/// The same, of an inode whose [`whole_blob`] is known.
pub(super) fn etag_with(tree: &Tree, attr: &Attr, blob: Option<BlobId>) -> String {
    match blob.filter(|_| attr.version == 0) {
        Some(blob) => by_content(tree, attr, blob),
        None => by_version(attr),
    }
}

/// The blob that is exactly the content of a file.
pub(super) fn whole_blob(tree: &Tree, attr: &Attr) -> Option<BlobId> {
    let (content, size) = tree.content(attr.ino).filter(|_| attr.is_file())?;
    content.whole_blob(size)
}

fn fits(tree: &Tree, attr: &Attr, want: &str) -> bool {
    let want = want.trim();
    let want = want.strip_prefix('"').and_then(|w| w.strip_suffix('"')).unwrap_or(want);
    want == "*"
        || want == by_version(attr)
        || whole_blob(tree, attr).is_some_and(|blob| want == by_content(tree, attr, blob))
}

fn by_content(tree: &Tree, attr: &Attr, blob: BlobId) -> String {
    let of_base = (attr.version == 0).then(|| tree.base().entry(attr.ino)).flatten();
    match of_base.and_then(|entry| entry.git_oid) {
        Some(oid) => oid.iter().fold("git-".to_owned(), |etag, byte| etag + &format!("{byte:02x}")),
        None => format!("b3-{}", &blob.to_hex()[..32]),
    }
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
