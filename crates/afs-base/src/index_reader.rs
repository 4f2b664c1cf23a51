//! Git's index file, as any git may have left it in a session: which paths it holds, in their order, and what of each.
//!
//! Guarantees: versions 2 to 4; entry by entry, so that an index of any size takes the memory of one path. It is held to git's format strictly
//! (order, lengths, the checksum unless it was switched off), and what cannot be read as a whole is said to be so, never guessed at: damage, and
//! the two forms that keep entries elsewhere (a split index, a sparse one). What was read counts only once the end was reached.
//! Deliberately absent: times and sizes of files, what its extensions say, and writing ([`crate::git_index`] does).

use crate::object::{Oid, finish_sha1};
use afs_types::{Error, limits};
use std::io::{BufRead as _, BufReader, Read};

/// Why an index was not read.
#[derive(Debug)]
pub enum IndexFault {
    /// It is none that can be gone by, and why.
    Unusable(&'static str),
    /// Its bytes could not be had.
    Failed(Error),
}

type Outcome<T> = Result<T, IndexFault>;

const CUT: IndexFault = IndexFault::Unusable("it ends too early");
const ODD: IndexFault = IndexFault::Unusable("an entry is not as git writes it");
const CHECKSUM_BYTES: u64 = 20;
/// Of an entry, before its name: times, numbers and sizes, the object, flags.
const ENTRY_BYTES: usize = 62;

/// An index that is being read.
pub struct IndexReader<R> {
    input: BufReader<R>,
    /// Bytes before the checksum that are still to come.
    left: u64,
    hasher: gix::hash::Hasher,
    version: u32,
    /// Entries that are still to come.
    entries: u32,
    path: Vec<u8>,
    stage: u16,
    oid: Oid,
    is_gitlink: bool,
}

impl<R: Read> IndexReader<R> {
    /// Begins to read an index of `size` bytes.
    pub fn open(input: R, size: u64) -> Outcome<Self> {
        if size > limits::MAX_GIT_INDEX_BYTES {
            return Err(IndexFault::Unusable("it is larger than `git_index_bytes`"));
        }
        let mut reader = Self {
            input: BufReader::with_capacity(256 << 10, input),
            left: size.checked_sub(CHECKSUM_BYTES).ok_or(CUT)?,
            hasher: gix::hash::hasher(gix::hash::Kind::Sha1),
            version: 0,
            entries: 0,
            path: Vec::new(),
            stage: 0,
            oid: [0; 20],
            is_gitlink: false,
        };
        let magic: [u8; 4] = reader.take()?;
        reader.version = u32::from_be_bytes(reader.take()?);
        reader.entries = u32::from_be_bytes(reader.take()?);
        match (&magic, reader.version) {
            (b"DIRC", 2..=4) => Ok(reader),
            _ => Err(IndexFault::Unusable("it does not begin as an index of version 2, 3 or 4")),
        }
    }

    /// Goes to the next entry; false at the end, when all of it was found to be right. A path that was merged may have several.
    pub fn advance(&mut self) -> Outcome<bool> {
        if self.entries == 0 {
            self.extensions()?;
            self.checksum()?;
            return Ok(false);
        }
        self.entries -= 1;
        let head: [u8; ENTRY_BYTES] = self.take()?;
        let mode = u32::from_be_bytes([head[24], head[25], head[26], head[27]]);
        let flags = u16::from_be_bytes([head[60], head[61]]);
        self.oid.copy_from_slice(&head[40..60]);
        self.is_gitlink = mode & 0o170_000 == 0o160_000;
        match mode & 0o170_000 {
            0o100_000 | 0o120_000 | 0o160_000 => {}
            0o040_000 => return Err(IndexFault::Unusable("it is sparse: a directory stands for its files")),
            _ => return Err(ODD),
        }
        let is_extended = flags & 0x4000 != 0;
        if is_extended {
            let more: [u8; 2] = self.take()?;
            // The highest bit is reserved, and nobody had it when extended flags came.
            if self.version < 3 || more[0] & 0x80 != 0 {
                return Err(ODD);
            }
        }
        let before = std::mem::take(&mut self.path);
        let stage = std::mem::replace(&mut self.stage, flags >> 12 & 3);
        self.path = self.name(&before, is_extended)?;
        let is_whole = usize::from(flags & 0xfff) == self.path.len().min(0xfff) && !self.path.is_empty();
        let is_in_order =
            (before.as_slice(), stage) < (self.path.as_slice(), self.stage) || before.is_empty();
        if is_whole && is_in_order { Ok(true) } else { Err(ODD) }
    }

    /// The path of the entry.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The object of the entry.
    pub fn oid(&self) -> &Oid {
        &self.oid
    }

    /// Whether that is the commit of a submodule.
    pub fn is_gitlink(&self) -> bool {
        self.is_gitlink
    }

    fn name(&mut self, before: &[u8], is_extended: bool) -> Outcome<Vec<u8>> {
        if self.version == 4 {
            let dropped = self.number()?;
            let kept = before.len().checked_sub(dropped).ok_or(ODD)?;
            let mut path = before[..kept].to_vec();
            self.until_nul(&mut path)?;
            return Ok(path);
        }
        let mut path = Vec::new();
        self.until_nul(&mut path)?;
        // One to eight zeros, so that the next entry begins at a multiple of eight; one was taken.
        let len = ENTRY_BYTES + 2 * usize::from(is_extended) + path.len();
        for _ in 0..7 - len % 8 {
            if self.take()? != [0] {
                return Err(ODD);
            }
        }
        Ok(path)
    }

    /// Adds what comes before the next zero, and takes that too.
    fn until_nul(&mut self, path: &mut Vec<u8>) -> Outcome<()> {
        let from = path.len();
        let most = (limits::MAX_PATH_BYTES as u64 + 1).min(self.left);
        self.input.by_ref().take(most).read_until(0, path).map_err(failed)?;
        self.hasher.update(&path[from..]);
        self.left -= (path.len() - from) as u64;
        match path.pop() {
            Some(0) if path.len() <= limits::MAX_PATH_BYTES => Ok(()),
            _ if self.left == 0 => Err(CUT),
            _ => Err(IndexFault::Unusable("a path in it is longer than `path_bytes`")),
        }
    }

    /// Git's variable-length number of offsets.
    fn number(&mut self) -> Outcome<usize> {
        let [mut byte] = self.take()?;
        let mut value = usize::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            [byte] = self.take()?;
            value = (value + 1) << 7 | usize::from(byte & 0x7f);
            if value > limits::MAX_PATH_BYTES {
                return Err(ODD);
            }
        }
        Ok(value)
    }

    fn extensions(&mut self) -> Outcome<()> {
        while self.left > 0 {
            let name: [u8; 4] = self.take()?;
            match &name {
                b"link" => return Err(IndexFault::Unusable("it is split: its entries are in another file")),
                b"sdir" => {
                    return Err(IndexFault::Unusable("it is sparse: a directory stands for its files"));
                }
                // Those that git itself passes over when it does not know them.
                [b'A'..=b'Z', ..] => {}
                _ => return Err(IndexFault::Unusable("it has an extension that must be understood")),
            }
            let mut len = u64::from(u32::from_be_bytes(self.take()?));
            if len > self.left {
                return Err(CUT);
            }
            let mut piece = [0; 4_096];
            while len > 0 {
                let part = usize::try_from(len).unwrap_or(usize::MAX).min(piece.len());
                self.fill(&mut piece[..part])?;
                len -= part as u64;
            }
        }
        Ok(())
    }

    fn checksum(&mut self) -> Outcome<()> {
        let mut stored: Oid = [0; 20];
        self.input.read_exact(&mut stored).map_err(failed)?;
        let hasher = std::mem::replace(&mut self.hasher, gix::hash::hasher(gix::hash::Kind::Sha1));
        let is_right = finish_sha1(hasher).is_ok_and(|found| found == stored);
        // `index.skipHash` leaves zeros.
        let is_unset = stored == [0; 20];
        if is_right || is_unset { Ok(()) } else { Err(IndexFault::Unusable("its checksum is another")) }
    }

    fn take<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    fn fill(&mut self, out: &mut [u8]) -> Outcome<()> {
        self.left = self.left.checked_sub(out.len() as u64).ok_or(CUT)?;
        self.input.read_exact(out).map_err(failed)?;
        self.hasher.update(out);
        Ok(())
    }
}

fn failed(error: std::io::Error) -> IndexFault {
    IndexFault::Failed(Error::io("read the git index of a session", error))
}

#[cfg(test)]
#[path = "index_reader_tests.rs"]
mod tests;
