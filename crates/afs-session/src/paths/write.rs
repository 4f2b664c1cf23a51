//! Writing a file from a stream.
//!
//! Guarantees: all bytes are in the store before the session changes, and then the file changes in one step, or not at all when the
//! stream fails, the digest is wrong or the precondition does not hold. Replacing a file's content keeps its inode: mode (but
//! setuid and setgid, as any write), owner, attributes and hard links stay. New files belong to whom their directory belongs.

use super::entry::Precondition;
use super::error::at;
use super::facts::Facts;
use super::resolve::Place;
use super::work::{FILE_MODE, PERMISSIONS, Task, Work, kept};
use super::{By, Files, Written};
use crate::content::append;
use crate::requests::Begin;
use afs_core::extent::{Content, Source};
use afs_core::tree::S_IFREG;
use afs_types::{BlobId, Error, Ino, Reason, Result, SessionPath, limits};
use std::io::{ErrorKind, Read};

/// Where the bytes of a write go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteAt {
    /// They are the whole new content.
    #[default]
    Whole,
    /// At the end, wherever that is when they arrive.
    End,
    /// From this offset on; the rest of the file stays.
    Offset(u64),
}

/// How to write a file.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// On the file.
    pub precondition: Precondition,
    /// Permissions of a new file; none is 0644. An existing file keeps its own.
    pub mode: Option<u32>,
    /// Make missing directories.
    pub create_parents: bool,
    /// Where the bytes go.
    pub at: WriteAt,
    /// BLAKE3 (without key) that the bytes must have.
    pub digest: Option<[u8; 32]>,
}

/// Bytes that are in the store, not yet in a file.
pub(super) enum Body {
    /// The whole content.
    Whole(Content, u64),
    /// Pieces in the data log, to be put one after the other.
    Pieces(Vec<(Source, u64)>),
}

/// Where a step puts a body.
pub(super) struct PutFile<'a> {
    pub(super) path: &'a SessionPath,
    pub(super) precondition: &'a Precondition,
    pub(super) mode: Option<u32>,
    pub(super) create_parents: bool,
    pub(super) at: WriteAt,
    pub(super) body: &'a Body,
}

impl Files<'_> {
    /// Writes a file from a stream. Symbolic links are followed inside the session.
    pub fn write_file(
        &self,
        path: &SessionPath,
        options: &WriteOptions,
        by: &By,
        bytes: &mut dyn Read,
    ) -> Result<Written> {
        let facts = &mut Facts::free(self.session.shared());
        if by.request_id.is_none() {
            // Before gigabytes arrive for nothing; what counts is the check with the change.
            self.rehearse(facts, &mut |work| {
                work.check(&options.precondition, path, true).map_err(at(path))
            })?;
        }
        let (body, digest) = self.receive(options, bytes).map_err(at(path))?;
        let print = format!("{options:?}");
        let attempt = match self.begin("WriteFile", by, &[&path.to_bytes(), print.as_bytes(), &digest])? {
            Begin::Done(words) => return self.replayed(&words, path, true),
            Begin::Go(attempt) => attempt,
        };
        let put = PutFile {
            path,
            precondition: &options.precondition,
            mode: options.mode,
            create_parents: options.create_parents,
            at: options.at,
            body: &body,
        };
        let step = |work: &mut Work<'_, '_, '_, '_>| {
            put.run(work).and_then(|()| work.entry(path, true)).map_err(at(path))
        };
        let (entry, stamp) = self.transact(&Task { by, attempt }, facts, step, kept)?;
        Ok(Written { entry, revision: stamp.seq, stamp })
    }

    /// Takes a stream into the store; also returns the BLAKE3 of its bytes. A stream that fails leaves no blob.
    fn receive(&self, options: &WriteOptions, bytes: &mut dyn Read) -> Result<(Body, [u8; 32])> {
        let mut bytes = Checked::new(bytes, options.digest);
        let body = match options.at {
            WriteAt::Whole => self.blobs().put_reader(&mut bytes).map(|(id, len)| match len {
                0 => Body::Whole(Content::Empty, 0),
                _ => Body::Whole(Content::Blob(id, len), len),
            }),
            WriteAt::End | WriteAt::Offset(_) => self.receive_pieces(&mut bytes).map(Body::Pieces),
        };
        match bytes.failure {
            Some(error) => Err(error),
            None => Ok((body?, *bytes.hasher.finalize().as_bytes())),
        }
    }

    fn receive_pieces(&self, bytes: &mut Checked<'_>) -> Result<Vec<(Source, u64)>> {
        let (mut pieces, mut piece) = (Vec::new(), Vec::new());
        loop {
            piece.clear();
            let read = bytes.by_ref().take(limits::MAX_IO_BYTES as u64).read_to_end(&mut piece);
            read.map_err(|e| Error::io("read the bytes to write", e))?;
            if piece.is_empty() {
                return Ok(pieces);
            }
            pieces.push((append(self.blobs(), &piece)?, piece.len() as u64));
        }
    }
}

impl PutFile<'_> {
    /// Puts the body into its file.
    pub(super) fn run(&self, work: &mut Work<'_, '_, '_, '_>) -> Result<()> {
        let place = work.walk(self.path, true)?;
        self.precondition.check((work.tree(), work.revision()), place.attr(), self.path)?;
        let (ino, size, is_new) = match place {
            Place::There { attr, .. } => (attr.ino, attr.size, false),
            Place::Missing { dir, names } => {
                let (dir, name) = work.make_room(self.path, dir, names, self.create_parents)?;
                let mode = S_IFREG | (self.mode.unwrap_or(FILE_MODE) & PERMISSIONS);
                (work.create(dir, &name, mode, None)?, 0, true)
            }
        };
        match self.body {
            Body::Whole(_, 0) if is_new => Ok(()),
            Body::Whole(content, size) => replace(work, ino, content, *size),
            Body::Pieces(pieces) => self.put_pieces(work, ino, size, pieces),
        }
    }

    fn put_pieces(
        &self,
        work: &mut Work<'_, '_, '_, '_>,
        ino: Ino,
        size: u64,
        pieces: &[(Source, u64)],
    ) -> Result<()> {
        let mut offset = if let WriteAt::Offset(offset) = self.at { offset } else { size };
        for (source, len) in pieces {
            work.run(|c| c.tree.plan_write(ino, offset, *len, *source, c.now_ns).map(Some))?;
            offset += len;
        }
        // Also without bytes, a directory or fifo is no file to write to.
        work.tree().plan_write(ino, 0, 0, Source::Blob(BlobId::default(), 0), 0).map(drop)
    }
}

/// Gives a file another content.
pub(super) fn replace(work: &mut Work<'_, '_, '_, '_>, ino: Ino, content: &Content, size: u64) -> Result<()> {
    work.run(|c| c.tree.plan_replace(ino, size, content.clone(), c.now_ns).map(Some))
}

/// A stream that is hashed and measured as it is read. It fails at its end when it has another digest than it should have,
/// so that whoever stores it drops it.
struct Checked<'a> {
    bytes: &'a mut dyn Read,
    want: Option<[u8; 32]>,
    hasher: blake3::Hasher,
    count: u64,
    /// Why it failed, in full: an `io::Error` on its way through the store would lose it.
    failure: Option<Error>,
}

impl<'a> Checked<'a> {
    fn new(bytes: &'a mut dyn Read, want: Option<[u8; 32]>) -> Self {
        Self { bytes, want, hasher: blake3::Hasher::new(), count: 0, failure: None }
    }

    fn fail(&mut self, error: Error) -> std::io::Error {
        self.failure = Some(error);
        std::io::Error::other("the stream failed")
    }
}

impl Read for Checked<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = match self.bytes.read(out) {
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
            Err(e) => {
                // The surface's own word on why its stream ended (a limit, a client that left), if it has one.
                let error = e.downcast::<Error>().unwrap_or_else(|e| Error::io("read the bytes to write", e));
                return Err(self.fail(error));
            }
        };
        self.hasher.update(&out[..read]);
        self.count += read as u64;
        if self.count > limits::MAX_FILE_BYTES {
            let message = format!("a file has at most {} bytes", limits::MAX_FILE_BYTES);
            return Err(self.fail(Error::new(Reason::FileTooLarge, message)));
        }
        let at_end = read == 0 && !out.is_empty();
        if at_end && self.want.is_some_and(|want| want != *self.hasher.finalize().as_bytes()) {
            let message = "the bytes that came do not have the digest that was sent";
            return Err(self.fail(Error::new(Reason::DigestMismatch, message)));
        }
        Ok(read)
    }
}
