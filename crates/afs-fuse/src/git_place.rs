//! The one place where a mount shows bytes of its own: git believes its cache of untracked files (`UNTR` in the index) only
//! in the work tree whose path the cache names. The index that comes with a base leaves that name open, since a base does not
//! know where it will be mounted. Here the mount fills it in, with the checksum that follows from it.
//!
//! Guarantees: only the first index of a session, as long as nothing has written to it ([`Attr::version`] 0), and only a
//! field that is there, empty, and large enough; a file of the same size. Everything else is shown as it is. Without this, or
//! where the path is another one (a bind mount), git looks through all directories once, and is right too.
//!
//! Deliberately absent: any change of what the session holds: the API shows the field empty, and so does a fork elsewhere.

use crate::vfs::{Attr, Vfs};
use afs_types::{Ino, NameRef, Reason, Result};
use parking_lot::{Mutex, RwLock};
use sha1::{Digest, Sha1};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

const HASH: u64 = 20;
/// "EOIE", its length, an offset, a hash: what ends the extensions of an index, if it is there.
const END: u64 = 4 + 4 + 4 + HASH;
const PIECE: usize = 1 << 20;
/// No index is larger; a hostile length must not become a long loop.
const MAX_INDEX: u64 = 4 << 30;
const MAX_EXTENSIONS: usize = 16;
/// Indexes whose beginning is remembered as hashed: one per base.
const MAX_PREFIXES: usize = 64;

/// Hashes of indexes up to the name, by the checksum that the index was stored with: forks of a base share them.
type Prefixes = Mutex<HashMap<[u8; 20], Sha1>>;

/// The index of one tree.
pub(crate) struct Place {
    ino: Ino,
    size: u64,
    /// Where the name goes, and the name.
    at: u64,
    name: Vec<u8>,
    digest: OnceLock<[u8; 20]>,
    prefixes: Arc<Prefixes>,
}

/// The indexes that this mount has met.
pub(crate) struct Places {
    dir: PathBuf,
    by_root: RwLock<HashMap<Ino, Option<Arc<Place>>>>,
    by_ino: RwLock<HashMap<Ino, Arc<Place>>>,
    prefixes: Arc<Prefixes>,
}

impl Places {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            by_root: RwLock::default(),
            by_ino: RwLock::default(),
            prefixes: Arc::default(),
        }
    }

    /// A file that nothing has written to is opened: it may be an index.
    pub(crate) fn opened(&self, vfs: &dyn Vfs, ino: Ino) {
        let Some((root, name)) = vfs.tree_of(ino) else { return };
        if self.by_root.read().contains_key(&root) {
            return;
        }
        let place = index_of(vfs, root).and_then(|attr| self.place(vfs, &attr, &name)).map(Arc::new);
        if let Some(place) = &place {
            self.by_ino.write().insert(place.ino, place.clone());
        }
        self.by_root.write().insert(root, place);
    }

    pub(crate) fn of(&self, ino: Ino) -> Option<Arc<Place>> {
        self.by_ino.read().get(&ino).cloned()
    }

    pub(crate) fn forget(&self, ino: Ino) {
        if self.by_root.read().contains_key(&ino) {
            let place = self.by_root.write().remove(&ino).flatten();
            if let Some(place) = place {
                self.by_ino.write().remove(&place.ino);
            }
        }
    }

    fn place(&self, vfs: &dyn Vfs, attr: &Attr, name: &[u8]) -> Option<Place> {
        use std::os::unix::ffi::OsStrExt;
        let (at, room) = field(&|offset, length| read(vfs, attr.ino, offset, length), attr.size)?;
        let slash: &[u8] = if name.is_empty() { b"" } else { b"/" };
        let path = [self.dir.as_os_str().as_bytes(), slash, name].concat();
        let name = [&b"Location "[..], &path, b", system Linux\0"].concat();
        let place = Place {
            ino: attr.ino,
            size: attr.size,
            at,
            name,
            digest: OnceLock::new(),
            prefixes: self.prefixes.clone(),
        };
        (place.name.len() as u64 <= room).then_some(place)
    }
}

/// The index of a tree, if nothing has written to it.
fn index_of(vfs: &dyn Vfs, root: Ino) -> Option<Attr> {
    let git = vfs.lookup(root, NameRef::new(b".git").ok()?).ok()?;
    let index = vfs.lookup(git.ino, NameRef::new(b"index").ok()?).ok()?;
    let is_file = index.mode & libc::S_IFMT == libc::S_IFREG;
    (is_file && index.version == 0 && index.size <= MAX_INDEX).then_some(index)
}

fn read(vfs: &dyn Vfs, ino: Ino, offset: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    vfs.read(ino, 0, offset, length, &mut |piece| bytes = piece.to_vec()).ok()?;
    (bytes.len() == length).then_some(bytes)
}

/// Finds the empty name at the beginning of the cache of untracked files: its offset and its room.
fn field(read: &dyn Fn(u64, usize) -> Option<Vec<u8>>, size: u64) -> Option<(u64, u64)> {
    let end = size.checked_sub(HASH + END)?;
    let mark = read(end, 12)?;
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_be_bytes);
    if mark[..4] != *b"EOIE" || u64::from(number(&mark[4..8])) != END - 8 {
        return None;
    }
    let mut at = u64::from(number(&mark[8..12]));
    for _ in 0..MAX_EXTENSIONS {
        if at.checked_add(8)? > end {
            return None;
        }
        let header = read(at, 8)?;
        let (start, length) = (at + 8, u64::from(number(&header[4..8])));
        if header[..4] == *b"UNTR" {
            return empty_name(read, start, end.min(start + length));
        }
        at = start + length;
    }
    None
}

/// Length as git's variable-length number, then that many bytes.
fn empty_name(read: &dyn Fn(u64, usize) -> Option<Vec<u8>>, start: u64, end: u64) -> Option<(u64, u64)> {
    let head = read(start, 3)?;
    let (mut room, mut used) = (u64::from(head[0] & 0x7f), 1);
    while head[used - 1] & 0x80 != 0 {
        room = (room + 1) << 7 | u64::from(*head.get(used)? & 0x7f);
        used += 1;
    }
    let at = start + used as u64;
    if at + room > end {
        return None;
    }
    read(at, room as usize)?.iter().all(|b| *b == 0).then_some((at, room))
}

impl Place {
    /// Puts name and checksum into bytes of the file that begin at `offset`.
    pub(crate) fn fill(&self, vfs: &dyn Vfs, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let digest_at = self.size - HASH;
        let end = offset + bytes.len() as u64;
        put(bytes, offset, self.at, &self.name);
        if end > digest_at && offset < self.size {
            put(bytes, offset, digest_at, &self.digest(vfs, digest_at)?);
        }
        Ok(())
    }

    fn digest(&self, vfs: &dyn Vfs, digest_at: u64) -> Result<[u8; 20]> {
        if let Some(digest) = self.digest.get() {
            return Ok(*digest);
        }
        let stored = read(vfs, self.ino, digest_at, HASH as usize).and_then(|hash| hash.try_into().ok());
        let stored: [u8; 20] = stored.ok_or(Reason::Stale)?;
        let prefix = self.prefixes.lock().get(&stored).cloned();
        let mut hash = match prefix {
            Some(hash) => hash,
            None => {
                let mut hash = Sha1::new();
                self.absorb(vfs, &mut hash, 0..self.at)?;
                let mut prefixes = self.prefixes.lock();
                if prefixes.len() >= MAX_PREFIXES {
                    prefixes.clear();
                }
                prefixes.insert(stored, hash.clone());
                hash
            }
        };
        self.absorb(vfs, &mut hash, self.at..digest_at)?;
        Ok(*self.digest.get_or_init(|| hash.finalize().into()))
    }

    /// Hashes a range of the file, with the name in it.
    fn absorb(&self, vfs: &dyn Vfs, hash: &mut Sha1, range: Range<u64>) -> Result<()> {
        let mut offset = range.start;
        while offset < range.end {
            let length = PIECE.min((range.end - offset) as usize);
            let mut got = 0;
            vfs.read(self.ino, 0, offset, length, &mut |piece| {
                let mut piece = piece.to_vec();
                put(&mut piece, offset, self.at, &self.name);
                got = piece.len() as u64;
                hash.update(&piece);
            })?;
            if got == 0 {
                return Err(Reason::Stale.into()); // it became shorter
            }
            offset += got;
        }
        Ok(())
    }
}

/// Overwrites the part of `bytes` (which begin at `offset` of a file) that `what` at `at` covers.
fn put(bytes: &mut [u8], offset: u64, at: u64, what: &[u8]) {
    let (from, to) = (at.max(offset), (at + what.len() as u64).min(offset + bytes.len() as u64));
    if from < to {
        let (from_in, to_in) = ((from - offset) as usize, (to - offset) as usize);
        bytes[from_in..to_in].copy_from_slice(&what[(from - at) as usize..(to - at) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries, two extensions, the end; `room` bytes of name.
    fn index(name: &[u8]) -> Vec<u8> {
        let mut file = b"DIRC entries".to_vec();
        let start = file.len() as u32;
        let mut extension = |name: &[u8], content: &[u8]| {
            file.extend_from_slice(name);
            file.extend_from_slice(&(content.len() as u32).to_be_bytes());
            file.extend_from_slice(content);
        };
        extension(b"TREE", b"cache");
        // 300 = (1 + 1) << 7 | 44
        extension(b"UNTR", &[&[0x81, 44][..], name, b"rest"].concat());
        extension(b"EOIE", &[&start.to_be_bytes()[..], &[0; 20]].concat());
        file.extend_from_slice(&[7; 20]);
        file
    }

    fn find(file: &[u8]) -> Option<(u64, u64)> {
        field(
            &|offset, length| file.get(offset as usize..)?.get(..length).map(<[u8]>::to_vec),
            file.len() as u64,
        )
    }

    #[test]
    fn the_field_is_found_only_where_it_is_empty() {
        let file = index(&[0; 300]);
        let (at, room) = find(&file).unwrap();
        assert_eq!((room, &file[at as usize + 300..][..4]), (300, &b"rest"[..]));
        let mut named = [0; 300];
        named[5] = b'x';
        assert_eq!(find(&index(&named)), None);
        for length in 0..file.len() {
            assert_eq!(find(&file[..length]), None, "{length}");
        }
    }

    #[test]
    fn pieces_are_put_where_they_belong() {
        for (offset, want) in [(0, "0123XYZ789"), (5, "YZ789"), (6, "Z789"), (7, "789")] {
            let mut bytes = b"0123456789"[offset..].to_vec();
            put(&mut bytes, offset as u64, 4, b"XYZ");
            assert_eq!(bytes, want.as_bytes());
        }
        let mut bytes = b"0123".to_vec();
        put(&mut bytes, 0, 3, b"XYZ");
        assert_eq!(bytes, b"012X");
    }
}
