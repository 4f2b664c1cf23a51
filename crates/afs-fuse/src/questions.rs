//! A question to the mount in the form of a file, for programs that can only read files: in the root of a tree, the name
//! `.aether-since-INSTANT` leads to what changed since that instant, in the form that git's fsmonitor protocol (version 2) wants:
//! the name of the present instant, then paths, each followed by a NUL; the path `/` means everything.
//!
//! Guarantees: the names are in no listing and nothing of them is cached; an answer never names an instant that is newer than what the
//! kernel's own caches show, since git keeps what it saw under that name: when that cannot be had in time, the answer is
//! "everything" under a name that nobody knows. Questions are answered by threads of their own, because the kernel may have to wait
//! for requests that are under way, and those for the threads that serve it.
//!
//! Deliberately absent: any change through these names; questions that outlive the kernel's interest in their file.

use crate::dispatch::Adapter;
use crate::errors;
use crate::notifier::Queue;
use crate::vfs::{Attr, Changes, Vfs};
use afs_types::{Error, Ino, Reason, Result, limits};
use fuser::{Errno, FileHandle, FopenFlags, ReplyOpen};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What these names begin with.
pub const CHANGES_PREFIX: &str = ".aether-since-";
/// Numbers of files that are questions: above everything that a file system may use.
const FIRST: Ino = 1 << 63;
/// An instant that nobody knows.
const UNKNOWN: &str = "unknown";
/// How long a question may wait for the kernel's caches.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers being computed at once; each is a thread.
const MAX_THREADS: u64 = 64;

/// Questions that the kernel holds, and answers that somebody reads.
#[derive(Default)]
pub(crate) struct Questions {
    next: AtomicU64,
    asked: Mutex<HashMap<Ino, (Ino, Arc<str>)>>,
    answers: Mutex<HashMap<u64, Arc<[u8]>>>,
    running: AtomicU64,
}

pub(crate) fn is_question(ino: Ino) -> bool {
    ino >= FIRST
}

/// The instant that a name asks about, if it is a question at all.
pub(crate) fn instant_of(name: &[u8]) -> Option<&str> {
    let instant = std::str::from_utf8(name).ok()?.strip_prefix(CHANGES_PREFIX)?;
    let is_plain = instant.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (is_plain && !instant.is_empty() && instant.len() <= limits::MAX_INSTANT_BYTES).then_some(instant)
}

impl Questions {
    /// A file for a question. Each look-up makes a new one, and the kernel forgets them by itself.
    pub(crate) fn ask(&self, root: Ino, instant: &str) -> Attr {
        let number = FIRST + self.next.fetch_add(1, Ordering::Relaxed);
        self.asked.lock().insert(number, (root, instant.into()));
        attr(number)
    }

    pub(crate) fn attr(&self, ino: Ino) -> Result<Attr> {
        self.asked.lock().contains_key(&ino).then(|| attr(ino)).ok_or_else(|| Reason::Stale.into())
    }

    pub(crate) fn forget(&self, ino: Ino) {
        self.asked.lock().remove(&ino);
    }

    pub(crate) fn read(&self, fh: u64, offset: u64, length: usize) -> Result<Arc<[u8]>> {
        let answer = self.answers.lock().get(&fh).cloned().ok_or(Reason::Stale)?;
        let from = (offset as usize).min(answer.len());
        let to = from.saturating_add(length).min(answer.len());
        Ok(answer[from..to].into())
    }

    pub(crate) fn release(&self, fh: u64) {
        self.answers.lock().remove(&fh);
    }

    fn keep(&self, answer: Vec<u8>) -> u64 {
        let fh = self.next.fetch_add(1, Ordering::Relaxed);
        self.answers.lock().insert(fh, answer.into());
        fh
    }

    fn question(&self, ino: Ino) -> Result<(Ino, Arc<str>)> {
        self.asked.lock().get(&ino).cloned().ok_or_else(|| Reason::Stale.into())
    }
}

/// A file whose size is not known before it is read; it is read past the kernel's cache, so that does not matter.
fn attr(ino: Ino) -> Attr {
    Attr {
        ino,
        mode: libc::S_IFREG | 0o444,
        nlink: 1,
        uid: 0,
        gid: 0,
        size: 0,
        blocks: 0,
        atime_ns: 0,
        mtime_ns: 0,
        ctime_ns: 0,
        rdev: 0,
        version: 0,
    }
}

impl Adapter {
    /// Computes the answer and opens it, from a thread of its own.
    pub(crate) fn answer(&self, ino: Ino, reply: ReplyOpen) {
        self.counting.questions.one();
        let (root, instant) = match self.call("open", || self.questions.question(ino)) {
            Ok(question) => question,
            Err(errno) => return reply.error(errno),
        };
        let questions = self.questions.clone();
        if questions.running.fetch_add(1, Ordering::Relaxed) >= MAX_THREADS {
            questions.running.fetch_sub(1, Ordering::Relaxed);
            return reply.error(Errno::EAGAIN);
        }
        let (vfs, queue) = (self.vfs.clone(), self.queue.clone());
        // A thread that cannot be started drops its reply, which answers EIO; whoever asked then takes everything for changed.
        let spawned = std::thread::Builder::new().name("afs-question".into()).spawn(move || {
            match changes(&*vfs, &queue, root, &instant) {
                Ok(changes) => {
                    let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH;
                    reply.opened(FileHandle(questions.keep(text(&changes))), flags);
                }
                Err(error) => reply.error(errors::errno("changed since", &error)),
            }
            questions.running.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = spawned {
            self.questions.running.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%error, "start a thread that answers what has changed");
        }
    }
}

fn changes(vfs: &dyn Vfs, queue: &Queue, root: Ino, instant: &str) -> Result<Changes> {
    let ask = std::panic::AssertUnwindSafe(|| vfs.changed_since(root, instant));
    let changes = std::panic::catch_unwind(ask)
        .unwrap_or_else(|_| Err(Error::new(Reason::Internal, "the file system panicked")))?;
    // What it names is visible through this mount only when the kernel has dropped what it had cached.
    match queue.settle_all(PATIENCE) {
        true => Ok(changes),
        false => Ok(Changes { instant: UNKNOWN.into(), paths: None }),
    }
}

fn text(changes: &Changes) -> Vec<u8> {
    let mut out = changes.instant.clone().into_bytes();
    out.push(0);
    match &changes.paths {
        None => out.extend_from_slice(b"/\0"),
        Some(paths) => paths.iter().for_each(|path| {
            out.extend_from_slice(path);
            out.push(0);
        }),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_questions() {
        assert_eq!(instant_of(b".aether-since-base-00ff"), Some("base-00ff"));
        for other in
            [&b".aether-since-"[..], b".aether-since-a/b", b".aether-since-a b", b"aether-since-a", b"\xff"]
        {
            assert_eq!(instant_of(other), None);
        }
        assert_eq!(instant_of(format!("{CHANGES_PREFIX}{}", "a".repeat(97)).as_bytes()), None);
    }

    #[test]
    fn answers_are_what_git_reads() {
        let some = Changes { instant: "at-1".into(), paths: Some(vec![b"a/b".to_vec(), b"c".to_vec()]) };
        assert_eq!(text(&some), b"at-1\0a/b\0c\0");
        assert_eq!(text(&Changes { instant: "x".into(), paths: None }), b"x\0/\0");
        assert_eq!(text(&Changes { instant: "x".into(), paths: Some(vec![]) }), b"x\0");
    }

    #[test]
    fn questions_go_when_they_are_forgotten() {
        let questions = Questions::default();
        let attr = questions.ask(1, "base-1");
        assert!(is_question(attr.ino) && !is_question(u64::from(u32::MAX) << 31));
        assert_eq!(questions.question(attr.ino).unwrap().0, 1);
        questions.forget(attr.ino);
        assert!(questions.attr(attr.ino).is_err() && questions.question(attr.ino).is_err());
        let fh = questions.keep(b"answer".to_vec());
        assert_eq!(&*questions.read(fh, 2, 3).unwrap(), b"swe");
        assert_eq!(&*questions.read(fh, 9, 3).unwrap(), b"");
        questions.release(fh);
        assert!(questions.read(fh, 0, 1).is_err());
    }
}
