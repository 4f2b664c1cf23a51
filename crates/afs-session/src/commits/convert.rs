//! What git does to a file's bytes when it adds it: encoding, ends of lines, `$Id$`, in this order.
//!
//! Guarantees: bytes go through in pieces, whatever the size of the file, and are read again rather than kept: once to see whether there
//! is anything to do, once to know how many bytes it makes, once to write them. What looks like text is git's rule. An encoding that git
//! would refuse for these bytes, or that is not read exactly as git reads it, is an error and no guess.
//! Deliberately absent: which files are converted (`attributes` says that), and the way back.

mod stages;

use crate::attributes::{Conversion, LineEnds};
use crate::content::ContentReader;
use afs_base::EditContent;
use afs_core::extent::Content;
use afs_store::BlobStore;
use afs_types::{Error, Result, SessionPath};
use stages::{CrLf, Decoder, Ident, Stages, Stats};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// A file's bytes, to be read as often as needed.
pub(super) struct Source {
    pub(super) blobs: Arc<BlobStore>,
    pub(super) content: Content,
    pub(super) size: u64,
    pub(super) stop: Arc<AtomicBool>,
}

impl Source {
    /// From the start.
    pub(super) fn open(&self) -> UntilStop {
        UntilStop(ContentReader::new(self.blobs.clone(), self.content.clone(), self.size), self.stop.clone())
    }

    /// As it is.
    pub(super) fn stream(&self) -> EditContent {
        EditContent::Stream { len: self.size, reader: Box::new(self.open()) }
    }

    /// Whether these bytes, if git tracks them, keep it from touching ends of lines.
    pub(super) fn has_crlf(&self) -> Result<bool> {
        Ok(self.stats(&mut Stages::default())?.keeps_line_ends())
    }

    /// What the bytes are that come out of some stages.
    fn stats(&self, stages: &mut Stages) -> Result<Stats> {
        let mut stats = Stats::default();
        self.each(stages, &mut |bytes| stats.push(bytes))?;
        stats.finish();
        Ok(stats)
    }

    /// Visits what comes out of some stages.
    fn each(&self, stages: &mut Stages, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let (mut from, mut input, mut out) = (self.open(), vec![0; PIECE], Vec::new());
        loop {
            out.clear();
            let n =
                from.read(&mut input).map_err(|e| Error::io("read the content of a file to commit", e))?;
            match n {
                0 => stages.finish(&mut out)?,
                n => stages.push(&input[..n], &mut out)?,
            }
            visit(&out);
            if n == 0 {
                return Ok(());
            }
        }
    }
}

/// Whether bytes that git tracks keep it from touching ends of lines.
pub(super) fn has_crlf(bytes: &[u8]) -> bool {
    let mut stats = Stats::default();
    stats.push(bytes);
    stats.finish();
    stats.keeps_line_ends()
}

/// A file as git keeps it; none if that is as it is. `is_kept` says whether what git tracks of it has other ends of lines, asked only if
/// that matters.
pub(super) fn convert(
    source: &Source,
    how: &Conversion,
    path: &SessionPath,
    is_kept: &mut dyn FnMut() -> Result<bool>,
) -> Result<Option<EditContent>> {
    // Git does not look at what is empty, not even for a byte order mark.
    if source.size == 0 {
        return Ok(None);
    }
    let told = |error: Error| error.prefixed(path).with("path", path.to_text());
    let decoder = || how.encoding.as_deref().map(Decoder::named).transpose().map_err(told);
    let mut crlf = 0;
    if how.line_ends != LineEnds::Keep {
        let stats = source.stats(&mut Stages::new(decoder()?, None, None)).map_err(told)?;
        let is_text = how.line_ends == LineEnds::Text || !stats.is_binary();
        if stats.crlf > 0 && is_text && (how.line_ends == LineEnds::Text || !is_kept()?) {
            crlf = stats.crlf;
        }
    }
    let stages = || {
        let line_ends = (crlf > 0).then(CrLf::default);
        Ok::<_, Error>(Stages::new(decoder()?, line_ends, how.ident.then(Ident::default)))
    };
    let len = if how.encoding.is_some() || how.ident {
        let mut len = 0;
        source.each(&mut stages()?, &mut |bytes| len += bytes.len() as u64).map_err(told)?;
        len
    } else {
        source.size - crlf
    };
    // Without another encoding, whatever is changed gets shorter.
    if how.encoding.is_none() && len == source.size {
        return Ok(None);
    }
    let (from, input) = (source.open(), vec![0; PIECE]);
    let reader = Converted { from, stages: stages()?, input, out: Vec::new(), taken: 0, is_done: false };
    Ok(Some(EditContent::Stream { len, reader: Box::new(reader) }))
}

/// Reads until the server stops, which does not wait for a commit of many gigabytes.
pub(super) struct UntilStop(ContentReader, Arc<AtomicBool>);

impl Read for UntilStop {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match self.1.load(Ordering::Relaxed) {
            true => Err(std::io::Error::other("the server stops")),
            false => self.0.read(out),
        }
    }
}

/// What comes out of some stages, as a stream.
struct Converted {
    from: UntilStop,
    stages: Stages,
    input: Vec<u8>,
    /// What came out, and how much of it is taken.
    out: Vec<u8>,
    taken: usize,
    is_done: bool,
}

impl Read for Converted {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        while self.taken == self.out.len() && !self.is_done {
            self.out.clear();
            self.taken = 0;
            let n = self.from.read(&mut self.input)?;
            self.is_done = n == 0;
            let made = match n {
                0 => self.stages.finish(&mut self.out),
                n => self.stages.push(&self.input[..n], &mut self.out),
            };
            made.map_err(std::io::Error::other)?;
        }
        let n = to.len().min(self.out.len() - self.taken);
        to[..n].copy_from_slice(&self.out[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}
