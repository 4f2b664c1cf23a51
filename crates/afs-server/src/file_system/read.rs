//! Reading: streams of bytes, entries and matches.

use super::wire;
use afs_proto::v1;
use afs_session::Engine;
use afs_session::paths::Reader;
use afs_types::{Error, Reason, Result, SessionId, SessionPath, limits};
use std::ops::ControlFlow;

/// What a ReadFile asks for.
pub(crate) struct FileRange {
    pub(crate) session: SessionId,
    pub(crate) path: SessionPath,
    pub(crate) at: String,
    pub(crate) offset: u64,
    /// 0: to the end.
    pub(crate) limit: u64,
    pub(crate) if_none_match: String,
}

/// A range of a file that is there, of one instant.
pub(crate) struct OpenRange {
    reader: Reader,
    offset: u64,
    wanted: u64,
}

impl FileRange {
    /// Looks the file up.
    pub(crate) fn open(&self, engine: &Engine) -> Result<OpenRange> {
        let reader = engine.files(&self.session)?.view_at(&self.at)?.open_read(&self.path)?;
        let size = reader.size();
        if self.offset > size {
            return Err(Error::new(Reason::OutOfRange, format!("offset: the file has {size} bytes"))
                .with("field", "offset")
                .with("size", size.to_string()));
        }
        let unchanged = !self.if_none_match.is_empty() && self.if_none_match == reader.entry.etag;
        let rest = size - self.offset;
        let wanted = match self.limit {
            _ if unchanged => 0,
            0 => rest,
            limit => limit.min(rest),
        };
        Ok(OpenRange { reader, offset: self.offset, wanted })
    }
}

impl OpenRange {
    /// Whether it fits into one piece: then it is read at once, and waits for nobody who reads slowly.
    pub(crate) fn is_small(&self) -> bool {
        self.wanted <= limits::MAX_IO_BYTES as u64
    }

    /// Hands over the entry, then the bytes.
    pub(crate) fn run(&self, sink: &mut dyn FnMut(v1::ReadFileResponse) -> bool) -> Result<()> {
        let head = v1::read_file_response::Part::Entry(wire::entry(self.reader.entry.clone()));
        if !sink(v1::ReadFileResponse { part: Some(head) }) {
            return Ok(());
        }
        pieces(&self.reader, self.offset, self.wanted, &mut |data| {
            sink(v1::ReadFileResponse { part: Some(v1::read_file_response::Part::Data(data)) })
        })
    }
}

/// Hands over a range of a file, in pieces.
pub(crate) fn pieces(
    reader: &Reader,
    start: u64,
    len: u64,
    sink: &mut dyn FnMut(bytes::Bytes) -> bool,
) -> Result<()> {
    let (mut at, end) = (start, start + len);
    while at < end {
        let piece = reader.read_at(at, (end - at).min(limits::MAX_IO_BYTES as u64) as usize)?;
        if piece.is_empty() {
            return Err(Error::new(
                Reason::Corrupt,
                format!("{} ends at {at}, before {end}", reader.entry.path),
            ));
        }
        at += piece.len() as u64;
        if !sink(piece) {
            break;
        }
    }
    Ok(())
}

/// Every entry below a path, of one instant.
pub(crate) fn manifest(
    engine: &Engine,
    session: &SessionId,
    at: &str,
    prefix: &SessionPath,
    sink: &mut dyn FnMut(v1::Entry) -> bool,
) -> Result<()> {
    engine.files(session)?.view_at(at)?.manifest(prefix, &mut |entry| {
        Ok(if sink(wire::entry(entry)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })
}
