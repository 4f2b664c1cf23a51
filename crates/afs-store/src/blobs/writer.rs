//! [`PackWriter`]: what each thread of an import stores its files through.
//!
//! Guarantees: threads share nothing on the way of a blob but a shard of the pending map, and do not wait for the disk as long as it keeps up; a writer's pack
//! is synced beside, every few thousand blobs, so that commits of others wait for the last of an import's bytes at most. After [`PackWriter::finish`] every id that `put` returned is safe to name in a
//! batch submitted from then on; before, it is not.
//!
//! Deliberately absent: order between writers.

use super::append::FILE_HEADER;
use super::git::GitObject;
use super::location::Packed;
use super::pending::Pending;
use super::record::{Codec, Header, pays};
use super::{BlobStore, Found};
use crate::journal::Batch;
use afs_types::{BlobId, Error, Reason, Result, limits};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Buffered before a `pwrite`.
const BUFFER: usize = 1 << 20;
/// Blobs, and their bytes in the pack, between two syncs of an import's pack.
const RELEASE_BLOBS: usize = 8192;
const RELEASE_BYTES: u64 = 32 << 20;

/// A pack that one writer at a time appends to.
pub(super) struct WriterPack {
    pub(super) number: u32,
    file: Arc<File>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What comes after `written`.
    buffer: Vec<u8>,
    written: u64,
    /// Stored and not yet handed to the journal, in order of offsets.
    fresh: VecDeque<(BlobId, Packed)>,
    /// How many have left `fresh`.
    taken: u64,
    /// A sync failed. A later one may succeed and lie, so nothing of this pack is handed over any more.
    broken: bool,
}

impl WriterPack {
    fn new(number: u32, file: Arc<File>) -> Self {
        let state = State { written: FILE_HEADER, ..State::default() };
        Self { number, file, state: Mutex::new(state) }
    }

    fn add(&self, id: &BlobId, encode: impl FnOnce(&mut Vec<u8>) -> io::Result<Header>) -> Result<Packed> {
        let mut state = self.state.lock();
        self.check(&state)?;
        if state.buffer.len() >= BUFFER {
            self.write_out(&mut state)?;
        }
        let offset = state.end();
        let header = encode(&mut state.buffer).map_err(|e| Error::io("compress a blob", e))?;
        let (stored_len, plain_len) = (header.stored_len, header.plain_len);
        let at = Packed { pack: self.number, offset, stored_len, plain_len };
        state.fresh.push_back((*id, at));
        Ok(at)
    }

    fn check(&self, state: &State) -> Result<()> {
        if state.broken {
            return Err(Error::new(Reason::Io, format!("pack {} could not be synced", self.number)));
        }
        Ok(())
    }

    fn write_out(&self, state: &mut State) -> Result<()> {
        let written = self.file.write_all_at(&state.buffer, state.written);
        // The buffer stays as it is: when there is space again, the same bytes go to the same place.
        written.map_err(|e| Error::io(format_args!("write pack {}", self.number), e))?;
        state.written += state.buffer.len() as u64;
        state.buffer.clear();
        // A large blob went through: rare, and not worth its memory.
        state.buffer.shrink_to(4 * BUFFER);
        Ok(())
    }

    fn end(&self) -> u64 {
        self.state.lock().end()
    }

    /// Makes sure that the record is in the file, so that a sync of the file covers it.
    pub(super) fn ensure(&self, end: u64) -> Result<()> {
        let mut state = self.state.lock();
        self.check(&state)?;
        if end > state.written {
            self.write_out(&mut state)?;
        }
        if end > state.written {
            return Err(Error::new(
                Reason::Unavailable,
                "another import that was storing the same file failed",
            ));
        }
        Ok(())
    }

    /// The record, if it is still in the buffer.
    pub(super) fn buffered(&self, at: &Packed) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let from = at.offset.checked_sub(state.written)? as usize;
        state.buffer.get(from..from + (at.end() - at.offset) as usize).map(<[u8]>::to_vec)
    }

    /// Syncs what has been written and hands the entries that this covers to `sink`. The sink is called under the lock: an
    /// entry is always in `fresh` or in the sink.
    pub(super) fn sync(
        &self,
        sink: impl FnOnce(std::collections::vec_deque::Drain<'_, (BlobId, Packed)>),
    ) -> Result<()> {
        let upto = {
            let state = self.state.lock();
            self.check(&state)?;
            let covered = state.fresh.partition_point(|(_, at)| at.end() <= state.written);
            if covered == 0 {
                return Ok(());
            }
            state.taken + covered as u64
        };
        let synced = self.file.sync_data();
        let mut state = self.state.lock();
        state.broken |= synced.is_err();
        synced.map_err(|e| Error::io(format_args!("sync pack {}", self.number), e))?;
        self.check(&state)?;
        let left = upto.saturating_sub(state.taken) as usize;
        state.taken += left as u64;
        sink(state.fresh.drain(..left));
        Ok(())
    }

    /// Gives up what cannot become durable; returns those blobs, and whether the pack can be used further.
    fn abandon(&self) -> (Vec<BlobId>, bool) {
        let mut state = self.state.lock();
        if !state.broken && self.write_out(&mut state).is_ok() {
            return (Vec::new(), true);
        }
        state.buffer.clear();
        let written = if state.broken { 0 } else { state.written };
        let kept = state.fresh.partition_point(|(_, at)| at.end() <= written);
        (state.fresh.split_off(kept).into_iter().map(|(id, _)| id).collect(), !state.broken)
    }
}

impl State {
    fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }
}

/// Stores many blobs from one thread. See the module.
pub struct PackWriter {
    store: Arc<BlobStore>,
    codec: Codec,
    pack: Option<Arc<WriterPack>>,
    /// Full packs of this writer, and packs of others that hold a blob this one was given, too, and how far.
    foreign: Vec<(Arc<WriterPack>, u64)>,
    blobs: usize,
    bytes: u64,
    /// The last large file was there already, so the next may be, too: it is hashed before it is written.
    known: bool,
}

impl PackWriter {
    pub(super) fn new(store: Arc<BlobStore>) -> Result<Self> {
        let codec = Codec::new().map_err(|e| Error::io("start zstd", e))?;
        Ok(Self { store, codec, pack: None, foreign: Vec::new(), blobs: 0, bytes: 0, known: false })
    }

    /// Stores a blob, unless it is there. The id may be named in a batch only after [`PackWriter::finish`].
    pub fn put(&mut self, bytes: &[u8]) -> Result<BlobId> {
        self.put_packed(bytes, None)
    }

    /// The same for bytes of which the caller has a zlib stream (header and checksum included) that holds exactly them. The blob is kept as that stream
    /// where it pays, so that nothing is compressed; a large one gets its raw file when it is first read. A stream of something else is found, as
    /// `CORRUPT`, only when the blob is read.
    pub fn put_deflated(&mut self, bytes: &[u8], zlib: &[u8]) -> Result<BlobId> {
        self.put_packed(bytes, Some(zlib))
    }

    /// The same for bytes that few will read: compressed where it pays, however many they are. Large ones get their raw file when they are first read.
    pub fn put_compressed(&mut self, bytes: &[u8]) -> Result<BlobId> {
        let len = bytes.len() as u64;
        if !(limits::PACK_BLOB_BYTES..=limits::MAX_PACKED_BLOB_BYTES).contains(&len) {
            return self.put(bytes);
        }
        let frame = self.codec.compress_large(bytes).map_err(|e| Error::io("compress a blob", e))?;
        let Some(frame) = frame else { return self.put(bytes) };
        let id = self.store.hash(bytes);
        self.put_record(id, frame.len() as u64, |_, out| {
            let header = Header::of_large(id, bytes, &frame);
            out.extend_from_slice(&header.encode());
            out.extend_from_slice(&frame);
            Ok(header)
        })?;
        Ok(id)
    }

    /// Whether the store has this blob. If so, it may be named like one that was put here.
    pub fn reuse(&mut self, id: &BlobId) -> Result<bool> {
        let store = Arc::clone(&self.store);
        match store.find(id)? {
            Found::Durable => Ok(true),
            Found::Pending(pending) => {
                self.rely_on(pending);
                Ok(true)
            }
            Found::Absent(_) => Ok(false),
        }
    }

    fn put_packed(&mut self, bytes: &[u8], zlib: Option<&[u8]>) -> Result<BlobId> {
        let len = bytes.len() as u64;
        let fits = zlib.is_some_and(|z| pays(z.len(), bytes.len()) && len <= limits::MAX_PACKED_BLOB_BYTES);
        if len >= limits::PACK_BLOB_BYTES && !fits {
            return self.store.put(bytes);
        }
        let id = self.store.hash(bytes);
        self.put_record(id, len, |codec, out| codec.encode(&id, bytes, zlib, out))?;
        Ok(id)
    }

    /// Names an object of a git pack of which this store has the blob, without reading it; the pack must have been put through this
    /// writer, or be in the store already. What turns out not to be that object, or not to be readable from the pack alone (see [`GitObject`]), is found, as
    /// `CORRUPT`, when the blob is read.
    pub fn put_object(&mut self, object: &GitObject) -> Result<BlobId> {
        let id = object.name(&self.store.git_key);
        self.put_record(id, GitObject::PAYLOAD as u64, |_, out| {
            let header = Header::of_object(id, object.len);
            out.extend_from_slice(&header.encode());
            object.encode(out);
            Ok(header)
        })?;
        Ok(id)
    }

    /// Adds the record of a blob that needs up to `bytes` on disk, unless the store has the blob.
    fn put_record(
        &mut self,
        id: BlobId,
        bytes: u64,
        encode: impl FnOnce(&mut Codec, &mut Vec<u8>) -> io::Result<Header>,
    ) -> Result<()> {
        let store = Arc::clone(&self.store);
        match store.find(&id)? {
            Found::Durable => {}
            Found::Pending(pending) => self.rely_on(pending),
            Found::Absent(claim) => {
                store.reserve.admit(bytes)?;
                let pack = self.pack()?;
                let at = pack.add(&id, |out| encode(&mut self.codec, out))?;
                claim.stored(Pending::Owned(at, pack));
                self.blobs += 1;
                self.bytes += at.end() - at.offset;
                store.core.packs.count(at.end() - at.offset);
            }
        }
        if self.blobs >= RELEASE_BLOBS || self.bytes >= RELEASE_BYTES {
            self.release()?;
        }
        Ok(())
    }

    /// Stores a file of `len` bytes, unless it is there; otherwise like [`PackWriter::put`].
    pub fn put_file(&mut self, file: &File, len: u64) -> Result<BlobId> {
        self.put_file_watched(file, len, &|_| Ok(()))
    }

    /// The same. `watch` is told of each piece of a large file when that is read, and ends it with an error: gigabytes take minutes, in which
    /// somebody may want to know how far it is, or to stop it.
    pub fn put_file_watched(
        &mut self,
        file: &File,
        len: u64,
        watch: &dyn Fn(u64) -> Result<()>,
    ) -> Result<BlobId> {
        if len >= limits::PACK_BLOB_BYTES {
            if self.known
                && let Some(id) = self.store.known_file(file, len, watch)?
            {
                return Ok(id);
            }
            let (id, known) = self.store.put_large_file(file, len, watch)?;
            self.known = known;
            return Ok(id);
        }
        let mut bytes = vec![0; len as usize];
        super::read_all(file, &mut bytes)?;
        self.put(&bytes)
    }

    /// Stores a file that nobody writes to any more, under any of its names, unless it is there; returns its length, too. A large one on the
    /// store's own file system becomes another name of the same file. Otherwise like [`PackWriter::put`].
    pub fn put_finished(&mut self, path: &Path) -> Result<(BlobId, u64)> {
        let step = |e| Error::io(format_args!("read {}", path.display()), e);
        let file = File::open(path).map_err(step)?;
        let len = file.metadata().map_err(step)?.len();
        if len >= limits::PACK_BLOB_BYTES
            && let Some(raw) = self.store.core.raw.link_file(path, &file)?
        {
            return Ok((self.store.adopt(raw)?.0, len));
        }
        Ok((self.put_file(&file, len)?, len))
    }

    /// Makes every id returned so far safe to name in a batch submitted from now on.
    pub fn finish(mut self) -> Result<()> {
        let foreign = std::mem::take(&mut self.foreign);
        let own = self.pack.clone().map(|pack| (pack.end(), pack));
        for (end, pack) in foreign.into_iter().map(|(pack, end)| (end, pack)).chain(own) {
            pack.ensure(end)?;
            self.store.core.want(pack);
        }
        // An empty batch: it makes the journal call the flushers soon.
        self.store.journal.submit(Batch::new()).map(drop)
    }

    /// Has this writer's pack synced, and its entries handed to the next group.
    fn release(&mut self) -> Result<()> {
        (self.blobs, self.bytes) = (0, 0);
        let Some(pack) = self.pack.clone() else { return Ok(()) };
        pack.write_out(&mut pack.state.lock())?;
        if pack.end() >= self.store.pack_bytes {
            // Full, and not on disk yet: `finish` has to know of it.
            self.pack = None;
            self.foreign.push((Arc::clone(&pack), pack.end()));
        }
        let core = Arc::clone(&self.store.core);
        self.store.beside(move || {
            pack.sync(|entries| core.ready.lock().extend(entries))?;
            core.mark_dirty();
            Ok(())
        })?;
        // An empty batch: it makes the journal take what earlier syncs have handed over.
        self.store.journal.submit(Batch::new()).map(drop)
    }

    fn pack(&mut self) -> Result<Arc<WriterPack>> {
        if let Some(pack) = &self.pack {
            return Ok(Arc::clone(pack));
        }
        let reused = self.store.idle_packs.lock().pop();
        let pack = match reused {
            Some(pack) => pack,
            None => {
                let (number, file) = self.store.core.packs.create()?;
                Arc::new(WriterPack::new(number, file))
            }
        };
        self.pack = Some(Arc::clone(&pack));
        Ok(pack)
    }

    /// Remembers whose pack holds a blob that this writer's caller is going to name. What is not in a writer's pack is covered by the next group anyway.
    fn rely_on(&mut self, pending: Pending) {
        let Pending::Owned(at, pack) = pending else { return };
        if self.pack.as_ref().is_some_and(|own| own.number == pack.number) {
            return;
        }
        match self.foreign.iter_mut().find(|(known, _)| known.number == pack.number) {
            Some((_, far)) => *far = at.end().max(*far),
            None => self.foreign.push((pack, at.end())),
        }
    }
}

impl Drop for PackWriter {
    fn drop(&mut self) {
        if let Some(pack) = self.pack.take() {
            let (lost, usable) = pack.abandon();
            for id in lost {
                self.store.core.pending.forget(&id);
            }
            if usable {
                self.store.idle_packs.lock().push(pack);
            }
        }
    }
}
