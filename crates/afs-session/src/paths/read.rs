//! Reading files: ranges, lines, several at once.

use super::entry::{Entry, etag};
use super::error::at;
use super::lines::{LinesWindow, window};
use super::work::entry_of;
use super::{Files, View};
use crate::content::read_content;
use crate::shared::Shared;
use afs_core::extent::Content;
use afs_types::{Error, Reason, Result, SessionPath, limits};
use bytes::Bytes;
use std::sync::Arc;

/// A file as it was when it was opened, whatever happens to it.
pub struct Reader {
    /// Its entry; symbolic links were followed.
    pub entry: Entry,
    content: Content,
    shared: Arc<Shared>,
}

/// A whole small file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileBytes {
    /// Its bytes.
    pub content: Bytes,
    /// Its etag.
    pub etag: String,
}

/// Most files of one batch.
const MAX_BATCH: usize = 1000;
/// Largest file of a batch when the caller does not say.
const DEFAULT_BATCH_FILE_BYTES: u64 = 1 << 20;

impl Reader {
    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.entry.attr.size
    }
    /// Up to `len` bytes at `offset`; fewer at the end, at most `limits::MAX_IO_BYTES` a call.
    pub fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        self.read(offset, len.min(limits::MAX_IO_BYTES))
    }

    fn read(&self, offset: u64, len: usize) -> Result<Bytes> {
        if offset >= self.size() || len == 0 {
            return Ok(Bytes::new());
        }
        let path = &self.entry.path;
        read_content(&self.shared.ports.blobs, &self.content, self.size(), offset, len).map_err(at(path))
    }

    /// All of it, if it has at most `most` bytes.
    fn whole(&self, most: u64) -> Result<Bytes> {
        if self.size() > most {
            let error = Error::new(
                Reason::FileTooLarge,
                format!("it has {} bytes, the limit is {most}", self.size()),
            );
            return Err(at(&self.entry.path)(error.next("read it in ranges")));
        }
        self.read(0, self.size() as usize)
    }
}

impl View {
    /// Opens a regular file. Symbolic links are followed inside the session.
    pub fn open_read(&self, path: &SessionPath) -> Result<Reader> {
        let attr = self.resolve(path, true)?;
        if !attr.is_file() {
            let reason = if attr.is_dir() { Reason::IsADirectory } else { Reason::WrongType };
            return Err(at(path)(reason.into()));
        }
        let (content, _) = self.tree.content(attr.ino).ok_or(Reason::Stale)?;
        let entry = entry_of(&self.tree, &mut self.facts(), path.clone(), attr)?;
        Ok(Reader { entry, content, shared: self.shared.clone() })
    }

    /// A window of lines of a text file of at most `limits::MAX_TEXT_FILE_BYTES`: `limit` lines (0: 2000) and `max_bytes`
    /// (0: 1 MiB) from line `start` (0: 1) on.
    pub fn read_lines(
        &self,
        path: &SessionPath,
        start: u64,
        limit: u64,
        max_bytes: u64,
    ) -> Result<LinesWindow> {
        let reader = self.open_read(path)?;
        let bytes = reader.whole(limits::MAX_TEXT_FILE_BYTES)?;
        window(&bytes, reader.entry.etag, start, limit, max_bytes).map_err(at(path))
    }

    /// Whole files of at most `max_bytes` each (0: 1 MiB), each with its own failure; together at most as much as one message holds.
    pub fn batch_read(&self, paths: &[SessionPath], max_bytes: u64) -> Result<Vec<Result<FileBytes>>> {
        if paths.len() > MAX_BATCH {
            return Err(Error::above("paths", MAX_BATCH, "in one call"));
        }
        let most = if max_bytes == 0 { DEFAULT_BATCH_FILE_BYTES } else { max_bytes };
        // Room for the rest of the message, and for base64 in JSON.
        let mut room = (limits::MAX_MESSAGE_SIZE_BYTES / 2) as u64;
        Ok(paths.iter().map(|path| self.one_of_batch(path, most, &mut room)).collect())
    }

    fn one_of_batch(&self, path: &SessionPath, most: u64, room: &mut u64) -> Result<FileBytes> {
        let reader = self.open_read(path)?;
        if reader.size() <= most && reader.size() > *room {
            let error = Error::new(Reason::MessageTooLarge, "the files before it fill the answer");
            return Err(at(path)(error.next("ask for fewer files at once")));
        }
        let content = reader.whole(most)?;
        *room -= content.len() as u64;
        Ok(FileBytes { content, etag: etag(&self.tree, &reader.entry.attr) })
    }
}

impl Files<'_> {
    /// [`View::open_read`] now.
    pub fn open_read(&self, path: &SessionPath) -> Result<Reader> {
        self.view().open_read(path)
    }
    /// [`View::read_lines`] now.
    pub fn read_lines(
        &self,
        path: &SessionPath,
        start: u64,
        limit: u64,
        max_bytes: u64,
    ) -> Result<LinesWindow> {
        self.view().read_lines(path, start, limit, max_bytes)
    }
}
