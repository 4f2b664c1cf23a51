//! Reading files: ranges, lines, several at once.

use super::entry::{Entry, etag};
use super::error::at;
use super::lines::{LinesWindow, Windowed};
use super::work::entry_of;
use super::{Files, View};
use crate::content::read_content;
use crate::memory::Waits;
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

/// Largest file of a batch when the caller does not say.
const DEFAULT_BATCH_FILE_BYTES: u64 = 1 << 20;

/// Most bytes of all files of a batch, and of each: there is room for the rest of the message, and for base64 in JSON.
const BATCH_BYTES: usize = limits::MAX_MESSAGE_SIZE_BYTES / 2;

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
        self.check_size(most)?;
        self.read(0, self.size() as usize)
    }

    fn check_size(&self, most: u64) -> Result<()> {
        if self.size() <= most {
            return Ok(());
        }
        let error =
            Error::new(Reason::FileTooLarge, format!("it has {} bytes, the limit is {most}", self.size()));
        Err(at(&self.entry.path)(error.with("limit", most.to_string()).next("read it in ranges")))
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
        reader.check_size(limits::MAX_TEXT_FILE_BYTES)?;
        let mut window = Windowed::new((start, limit, max_bytes), reader.size());
        // Read piece by piece: only what is shown is held.
        let memory = &self.shared.memory;
        let need = 2 * limits::MAX_IO_BYTES + window.most();
        let _room = memory.take(need, Waits::OnCallThread, memory.until()).map_err(at(path))?;
        window.reserve();
        let mut offset = 0;
        while offset < reader.size() {
            let piece = reader.read_at(offset, limits::MAX_IO_BYTES)?;
            if piece.is_empty() {
                return Err(at(path)(Error::new(Reason::Corrupt, format!("it ends at {offset}"))));
            }
            offset += piece.len() as u64;
            window.push(&piece).map_err(at(path))?;
        }
        window.finish(reader.entry.etag).map_err(at(path))
    }

    /// Whole files of at most `max_bytes` each (0: 1 MiB), each with its own failure; together at most as much as one message holds. A file
    /// that no message holds is too large, whatever stands before it.
    pub fn batch_read(&self, paths: &[SessionPath], max_bytes: u64) -> Result<Vec<Result<FileBytes>>> {
        if paths.len() > limits::MAX_READ_BATCH {
            return Err(Error::above("paths", limits::MAX_READ_BATCH, "in one call"));
        }
        let most = if max_bytes == 0 { DEFAULT_BATCH_FILE_BYTES } else { max_bytes.min(BATCH_BYTES as u64) };
        // Failures come again, and are told, when the files are read.
        let attrs = paths.iter().filter_map(|path| self.resolve(path, true).ok());
        let need =
            batch_bytes(attrs.filter(|attr| attr.is_file()).map(|attr| attr.size), most).min(BATCH_BYTES);
        let memory = &self.shared.memory;
        let _held = memory.take(need, Waits::OnCallThread, memory.until())?;
        let mut room = BATCH_BYTES as u64;
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

/// Bytes of memory for files of these sizes: those of more than `most` bytes are refused.
fn batch_bytes(sizes: impl Iterator<Item = u64>, most: u64) -> usize {
    let all = sizes.filter(|size| *size <= most).fold(0, u64::saturating_add);
    usize::try_from(all).unwrap_or(usize::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_asks_for_what_its_files_take() {
        let need = |sizes: &[u64], most| batch_bytes(sizes.iter().copied(), most);
        assert_eq!(need(&[10, 10], 100), 20);
        assert_eq!(need(&[], 100), 0);
        assert_eq!(need(&[100, 101, u64::MAX], 100), 100, "what is refused takes nothing");
        assert_eq!(need(&[u64::MAX, 1], u64::MAX), usize::MAX);
    }
}
