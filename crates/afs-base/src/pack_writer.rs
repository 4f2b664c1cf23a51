//! Writes a pack of whole objects with its index, durably.
//!
//! Guarantees: the pack appears under its final name only when it and its index are on disk; an object that is
//! written twice is kept once; nothing is left when it fails. Deliberately absent: deltas. A commit of a session is
//! small, and a later `git repack` finds them.

use crate::object::{Oid, finish_sha1, hash_file, hex, sha1};
use crate::packs::Kind;
use crate::temp::sync_dir;
use afs_types::{Error, Reason, Result};
use gix::zlib::Compression;
use gix::zlib::stream::deflate;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A pack that is being written.
pub(crate) struct PackWriter {
    dir: PathBuf,
    path: PathBuf,
    file: BufWriter<File>,
    at: u64,
    objects: HashMap<Oid, Place>,
}

#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    crc: u32,
}

const BUFFER: usize = 64 << 10;
/// A pack that is being written; the process's number follows.
const PREFIX: &str = "tmp_pack_";
static UNIQUE: AtomicU64 = AtomicU64::new(0);

impl PackWriter {
    /// Starts a pack in `dir` (`objects/pack`), after removing those that dead processes left.
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        clean(dir).map_err(|e| Error::io(format_args!("clean {}", dir.display()), e))?;
        let count = UNIQUE.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{PREFIX}{}_{count}", std::process::id()));
        let open = OpenOptions::new().create_new(true).read(true).write(true).open(&path);
        let file = open.map_err(|e| Error::io(format_args!("create {}", path.display()), e))?;
        let mut writer =
            Self { dir: dir.to_owned(), path, file: BufWriter::new(file), at: 0, objects: HashMap::new() };
        // The number of objects is filled in at the end.
        writer.write_raw(&[b"PACK".as_slice(), &2u32.to_be_bytes(), &0u32.to_be_bytes()].concat())?;
        Ok(writer)
    }

    pub(crate) fn holds(&self, oid: &Oid) -> bool {
        self.objects.contains_key(oid)
    }

    /// Adds an object that fits into memory; `known` tells whether it need not be written.
    pub(crate) fn add(&mut self, kind: Kind, bytes: &[u8], known: impl Fn(&Oid) -> bool) -> Result<Oid> {
        let oid = sha1(&[format!("{kind} {}\0", bytes.len()).as_bytes(), bytes])?;
        if !self.holds(&oid) && !known(&oid) {
            self.add_stream(kind, bytes.len() as u64, bytes, |_| false)?;
        }
        Ok(oid)
    }

    /// Adds an object of `len` bytes from a stream. It is taken back if it turns out to be known.
    pub(crate) fn add_stream(
        &mut self,
        kind: Kind,
        len: u64,
        content: impl Read,
        known: impl Fn(&Oid) -> bool,
    ) -> Result<Oid> {
        let start = self.at;
        let header = entry_header(kind, len);
        let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
        hasher.update(format!("{kind} {len}\0").as_bytes());
        self.write_raw(&header)?;
        let mut out = Counted { to: &mut self.file, crc: crc32(0, &header), bytes: 0 };
        let mut deflate = deflate::Write::new(&mut out, Compression::BEST_SPEED);
        let mut content = content.take(len + 1);
        let mut buffer = vec![0; BUFFER.min(len as usize + 1)];
        let mut seen = 0;
        loop {
            let n = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io("read the content of a file to commit", e)),
            };
            seen += n as u64;
            hasher.update(&buffer[..n]);
            deflate.write_all(&buffer[..n]).map_err(|e| write_error(&self.path, e))?;
        }
        deflate.flush().map_err(|e| write_error(&self.path, e))?;
        drop(deflate);
        let (crc, bytes) = (out.crc, out.bytes);
        self.at += bytes;
        if seen != len {
            return Err(Error::new(
                Reason::Internal,
                format!("a file to commit has {seen} bytes or more, not {len}"),
            ));
        }
        let oid = finish_sha1(hasher)?;
        if self.holds(&oid) || known(&oid) {
            self.cut(start)?;
        } else {
            self.objects.insert(oid, Place { offset: start, crc });
        }
        Ok(oid)
    }

    /// Where the next entry begins.
    #[cfg(test)]
    pub(crate) fn end(&self) -> u64 {
        self.at
    }

    /// Adds an entry as it is, so that tests can make packs that no git would.
    #[cfg(test)]
    pub(crate) fn add_entry(&mut self, oid: Oid, entry: &[u8]) -> Result<u64> {
        let offset = self.at;
        self.write_raw(entry)?;
        self.objects.insert(oid, Place { offset, crc: crc32(0, entry) });
        Ok(offset)
    }

    /// Makes the pack and its index durable and visible. None if it holds no object.
    pub(crate) fn finish(mut self) -> Result<Option<PathBuf>> {
        if self.objects.is_empty() {
            return Ok(None);
        }
        let fail = |path: &Path, e| write_error(path, e);
        let path = self.path.clone();
        self.file.flush().map_err(|e| fail(&path, e))?;
        let count = self.objects.len() as u32;
        let file = self.file.get_mut();
        let hash = seal(file, count).map_err(|e| fail(&path, e))??;
        file.sync_all().map_err(|e| fail(&path, e))?;
        let index = encode_index(&self.objects, &hash)?;
        let name = format!("pack-{}", hex(&hash));
        let (pack, idx) = (self.dir.join(format!("{name}.pack")), self.dir.join(format!("{name}.idx")));
        let fresh = self.path.with_extension("idx");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(&index)?;
            file.sync_all()?;
            // Readers look for the index: the pack must be there first.
            std::fs::rename(&path, &pack)?;
            std::fs::rename(&fresh, &idx)
        };
        let written = write().map_err(|e| fail(&fresh, e));
        if written.is_err() {
            let _ = std::fs::remove_file(&fresh);
        }
        written?;
        sync_dir(&self.dir)?;
        Ok(Some(pack))
    }

    fn write_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|e| write_error(&self.path, e))
    }

    fn cut(&mut self, at: u64) -> Result<()> {
        let cut = self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.get_ref().set_len(at));
        self.at = at;
        cut.map_err(|e| write_error(&self.path, e))
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        // After `finish` the name is gone already.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn clean(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next()).and_then(|p| p.parse().ok());
        let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else { continue };
        if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write_error(path: &Path, e: std::io::Error) -> Error {
    Error::io(format_args!("write {}", path.display()), e)
}

/// Fills in the number of objects and appends the pack's hash.
fn seal(file: &mut File, count: u32) -> std::io::Result<Result<Oid>> {
    file.seek(SeekFrom::Start(8))?;
    file.write_all(&count.to_be_bytes())?;
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hash_file(&mut hasher, file, None)?;
    match finish_sha1(hasher) {
        Ok(hash) => {
            file.seek(SeekFrom::End(0))?;
            file.write_all(&hash)?;
            Ok(Ok(hash))
        }
        Err(e) => Ok(Err(e)),
    }
}

/// Type and size of a pack entry.
fn entry_header(kind: Kind, len: u64) -> Vec<u8> {
    let code = match kind {
        Kind::Commit => 1,
        Kind::Tree => 2,
        Kind::Blob => 3,
        Kind::Tag => 4,
    };
    let mut rest = len >> 4;
    let mut out = vec![code << 4 | (len & 0xf) as u8];
    while rest > 0 {
        if let Some(last) = out.last_mut() {
            *last |= 0x80;
        }
        out.push((rest & 0x7f) as u8);
        rest >>= 7;
    }
    out
}

/// A pack index, version 2.
fn encode_index(objects: &HashMap<Oid, Place>, pack: &Oid) -> Result<Vec<u8>> {
    let mut sorted: Vec<(&Oid, &Place)> = objects.iter().collect();
    sorted.sort_unstable_by_key(|(oid, _)| **oid);
    let mut out = b"\xfftOc\0\0\0\x02".to_vec();
    for first in 0..=255u8 {
        let upto = sorted.partition_point(|(oid, _)| oid[0] <= first);
        out.extend_from_slice(&(upto as u32).to_be_bytes());
    }
    sorted.iter().for_each(|(oid, _)| out.extend_from_slice(*oid));
    sorted.iter().for_each(|(_, place)| out.extend_from_slice(&place.crc.to_be_bytes()));
    let mut large = Vec::new();
    for (_, place) in &sorted {
        // Offsets of 2 GiB and more stand in a table of their own.
        let word = match u32::try_from(place.offset) {
            Ok(small) if small < 1 << 31 => small,
            _ => {
                large.push(place.offset);
                1 << 31 | (large.len() - 1) as u32
            }
        };
        out.extend_from_slice(&word.to_be_bytes());
    }
    large.iter().for_each(|offset| out.extend_from_slice(&offset.to_be_bytes()));
    out.extend_from_slice(pack);
    let hash = sha1(&[&out])?;
    out.extend_from_slice(&hash);
    Ok(out)
}

/// Counts and checksums what goes through.
struct Counted<W> {
    to: W,
    crc: u32,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.crc = crc32(self.crc, &bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut value = i as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        table[i] = value;
        i += 1;
    }
    table
};

/// CRC-32 (IEEE) of what came before and `bytes`.
fn crc32(before: u32, bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!before, |crc, b| CRC[((crc ^ u32::from(*b)) & 0xff) as usize] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_and_headers_are_the_known_ones() {
        assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(crc32(0, b"1234"), b"56789"), 0xcbf4_3926);
        assert_eq!(entry_header(Kind::Blob, 3), [0x33]);
        assert_eq!(entry_header(Kind::Commit, 0x1234), [0x94, 0xa3, 0x02]);
    }

    #[test]
    fn a_pack_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        // Process numbers end at 2^22.
        std::fs::write(dir.path().join("tmp_pack_4194999_0"), "of a dead process").unwrap();
        let mut pack = PackWriter::new(dir.path()).unwrap();
        pack.add(Kind::Blob, b"x", |_| false).unwrap();
        assert!(pack.add_stream(Kind::Blob, 9, &b"short"[..], |_| false).is_err());
        drop(pack);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(PackWriter::new(dir.path()).unwrap().finish().unwrap().is_none());
    }
}
