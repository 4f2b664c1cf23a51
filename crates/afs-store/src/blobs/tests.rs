//! The blob store over the simulated journal: what is put is read back, also after crashes; damage is seen and named.

use super::record::ZLIB_OF_LETTERS;
use super::state::REBUILDING;
use super::*;
use crate::journal::Batch;
use crate::sim::{SimJournal, mix};
use std::collections::BTreeMap;
use std::sync::Barrier;

pub(super) const KEY: [u8; 32] = [42; 32];

pub(super) struct Bench {
    pub(super) store: Arc<BlobStore>,
    pub(super) journal: Arc<SimJournal>,
    /// Last: dropping the journal commits what is queued, and that needs the directory.
    pub(super) dir: tempfile::TempDir,
}

pub(super) fn options() -> BlobOptions {
    BlobOptions { cache_bytes: 8 << 20, pack_bytes: 1 << 20, log_bytes: 64 << 10, reserve_bytes: 0 }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap(), SimJournal::new().unwrap())
    }
    pub(super) fn on(dir: tempfile::TempDir, journal: Arc<SimJournal>) -> Self {
        let store = BlobStore::open_with(dir.path(), KEY, options(), Arc::clone(&journal) as _).unwrap();
        Self { dir, journal, store }
    }
    /// A new process on the same disk.
    pub(super) fn restart(self) -> Self {
        self.journal.close().unwrap();
        let journal = self.journal.reopen().unwrap();
        Self::on(self.dir, journal)
    }
    pub(super) fn crash(self, seed: u64) -> Self {
        let journal = self.journal.crash(seed).unwrap();
        Self::on(self.dir, journal)
    }
    /// The whole blob, past the RAM cache.
    pub(super) fn read(&self, id: &BlobId) -> Result<Vec<u8>> {
        self.store.small.invalidate_all();
        self.store.read(id, 0, usize::MAX).map(|b| b.to_vec())
    }
    pub(super) fn files(&self, of: &str) -> Vec<PathBuf> {
        let mut found: Vec<_> =
            std::fs::read_dir(self.dir.path().join(of)).unwrap().map(|e| e.unwrap().path()).collect();
        found.sort();
        found
    }
}

/// Text-like bytes: they compress, and differ by seed.
pub(super) fn text(seed: u64, len: usize) -> Vec<u8> {
    let words = [&b"fn "[..], b"let ", b"pub ", b"self", b"return ", b"struct ", b"{\n", b"}\n", b"impl "];
    let mut out = seed.to_string().into_bytes();
    let mut chance = seed;
    while out.len() < len {
        chance = mix(chance);
        out.extend_from_slice(words[chance as usize % words.len()]);
    }
    out.truncate(len);
    out
}

pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| mix(seed ^ (i << 20)) as u8).collect()
}

pub(super) fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

#[test]
fn what_is_put_is_read_back_before_and_after_a_restart() {
    let mut bench = Bench::new();
    let small = limits::PACK_BLOB_BYTES as usize;
    let sizes = [0, 1, 100, 4096, small - 1, small, small + 1, 1 << 20, (3 << 20) + 5];
    let blobs: Vec<_> =
        sizes.iter().enumerate().flat_map(|(i, n)| [text(i as u64, *n), noise(i as u64, *n)]).collect();
    let ids: Vec<_> = blobs.iter().map(|b| bench.store.put(b).unwrap()).collect();
    for round in 0..3 {
        for (id, bytes) in ids.iter().zip(&blobs) {
            assert_eq!(*id, bench.store.hash(bytes));
            assert!(bench.store.contains(id).unwrap());
            assert_eq!(&bench.read(id).unwrap(), bytes);
            let stat = bench.store.stat(id).unwrap().unwrap();
            assert_eq!((stat.len, stat.raw), (bytes.len() as u64, bytes.len() >= small));
            bench.store.verify(id).unwrap();
            for (offset, len) in [(0, 10), (bytes.len() / 2, 5000), (bytes.len(), 1), (usize::MAX, 9)] {
                let from = offset.min(bytes.len());
                let to = from.saturating_add(len).min(bytes.len());
                assert_eq!(bench.store.read(id, offset as u64, len).unwrap(), bytes[from..to]);
            }
        }
        match round {
            0 => drop(bench.journal.sync().unwrap()),
            _ => bench = bench.restart(),
        }
        for (id, bytes) in ids.iter().zip(&blobs) {
            let path = bench.store.raw_file(id).unwrap();
            assert_eq!(path.is_some(), bytes.len() >= small);
            assert!(path.is_none_or(|path| std::fs::read(path).unwrap() == *bytes));
        }
    }
    let absent = bench.store.hash(b"never put");
    assert!(!bench.store.contains(&absent).unwrap() && bench.store.stat(&absent).unwrap().is_none());
    let error = bench.store.read(&absent, 0, 1).unwrap_err();
    assert!(error.reason == Reason::Corrupt && error.message().contains(&absent.to_hex()));
    assert!(error.next_step().contains("afs-server repair"));
}

#[test]
fn blobs_are_stored_once() {
    let mut bench = Bench::new();
    let (small, large) = (text(1, 5000), noise(1, 300_000));
    for round in 0..4 {
        for _ in 0..3 {
            bench.store.put(&small).unwrap();
            bench.store.put(&large).unwrap();
            bench.store.put_reader(&mut &large[..]).unwrap();
            let mut writer = bench.store.pack_writer().unwrap();
            writer.put(&small).unwrap();
            writer.put(&large).unwrap();
            writer.finish().unwrap();
        }
        bench.journal.sync().unwrap();
        let usage = bench.store.usage();
        assert_eq!((usage.blobs, usage.raw_bytes), (2, 300_000), "round {round}");
        assert!(usage.pack_bytes < 5000);
        assert_eq!(bench.store.core.pending.len(), 0);
        assert!(bench.files("temp").is_empty());
        bench = bench.restart();
    }
}

#[test]
fn threads_that_put_the_same_blob_store_it_once() {
    let bench = Bench::new();
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (bench, start) = (&bench, &start);
            scope.spawn(move || {
                let mut writer = bench.store.pack_writer().unwrap();
                for i in 0..300 {
                    if i % 50 == 0 {
                        start.wait();
                    }
                    let bytes = if i % 25 == 0 { noise(i, 270_000) } else { text(i, 2000 + i as usize) };
                    if (i + thread) % 3 == 0 { writer.put(&bytes) } else { bench.store.put(&bytes) }.unwrap();
                }
                writer.finish().unwrap();
            });
        }
    });
    bench.journal.sync().unwrap();
    assert_eq!(bench.store.usage().blobs, 300);
    assert_eq!(bench.store.usage().raw_bytes, 12 * 270_000);
    // Every record in the packs is a different blob.
    let bench = bench.restart();
    let journal = SimJournal::new().unwrap();
    let rebuilt = rebuild_index(bench.dir.path(), KEY, &*journal).unwrap();
    assert_eq!((rebuilt.blobs, rebuilt.raw_files), (300, 12));
    let stored: u64 = bench.files("packs").iter().map(|p| p.metadata().unwrap().len()).sum();
    assert_eq!(stored, bench.store.usage().pack_bytes);
}

#[test]
fn a_durable_batch_never_names_a_lost_blob() {
    let mut bench = Bench::new();
    let mut named: BTreeMap<BlobId, Vec<u8>> = BTreeMap::new();
    for seed in 0..25 {
        let mut writer = bench.store.pack_writer().unwrap();
        let mut last = None;
        for i in 0..40 {
            let bytes = match mix(seed * 100 + i) % 8 {
                0 => noise(seed * 100 + i, 280_000),
                1 => text(i, 3000), // the same in every round
                _ => text(seed * 100 + i, 3000),
            };
            // The blob may be in a writer's buffer that nobody ever finishes.
            if i % 4 == 0 {
                writer.put(&bytes).unwrap();
            }
            let id = bench.store.put(&bytes).unwrap();
            let mut batch = Batch::new();
            batch.put(Space::Record, id.0, b"named");
            let at = bench.journal.submit(batch).unwrap();
            named.insert(id, bytes);
            last = Some(at);
            if i == mix(seed) % 40 {
                bench.journal.wait(at).unwrap();
            }
        }
        if seed % 2 == 0 {
            bench.journal.wait(last.unwrap()).unwrap();
        }
        // Not finished: as if the process had died.
        std::mem::forget(writer);
        bench = bench.crash(seed);
        let mut kept = 0;
        for (id, bytes) in &named {
            if bench.journal.get(Space::Record, &id.0).unwrap().is_some() {
                assert_eq!(&bench.read(id).unwrap(), bytes);
                kept += 1;
            }
        }
        assert!(seed % 2 == 1 || kept == named.len());
        named.retain(|id, _| bench.journal.get(Space::Record, &id.0).unwrap().is_some());
    }
}

#[test]
fn writers_in_parallel_finish_whole() {
    let bench = Bench::new();
    let ids = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (bench, ids) = (&bench, &ids);
            scope.spawn(move || {
                let mut writer = bench.store.pack_writer().unwrap();
                for i in 0..3000 {
                    // A third is shared between the threads.
                    let seed = if i % 3 == 0 { i } else { thread * 10_000 + i };
                    let id = writer.put(&text(seed, 600 + (i as usize % 900))).unwrap();
                    ids.lock().push((id, seed, 600 + (i as usize % 900)));
                }
                writer.finish().unwrap();
            });
        }
    });
    bench.journal.sync().unwrap();
    assert_eq!(bench.store.core.pending.len(), 0);
    assert_eq!(bench.store.usage().blobs, 1000 + 4 * 2000);
    let bench = bench.restart();
    for (id, seed, len) in ids.into_inner().into_iter().step_by(7) {
        assert_eq!(bench.read(&id).unwrap(), text(seed, len));
    }
}

#[test]
fn all_that_a_finished_writer_stored_is_in_the_next_group() {
    for seed in 0..4 {
        let bench = Bench::new();
        let mut writer = bench.store.pack_writer().unwrap();
        // Enough that packs are full and synced beside while the writer goes on.
        let ids: Vec<_> = (0..20_000).map(|i| writer.put(&noise(seed << 40 | i, 100)).unwrap()).collect();
        writer.finish().unwrap();
        bench.journal.wait(bench.journal.submit(Batch::new()).unwrap()).unwrap();
        assert!(bench.files("packs").len() > 1);
        let bench = bench.crash(seed);
        let lost = ids.iter().filter(|id| !bench.store.contains(id).unwrap()).count();
        assert_eq!(lost, 0, "seed {seed}");
        assert_eq!(bench.read(&ids[7]).unwrap(), noise(seed << 40 | 7, 100));
    }
}

#[test]
fn a_dropped_writer_loses_nothing_others_rely_on() {
    let bench = Bench::new();
    let mut writer = bench.store.pack_writer().unwrap();
    let id = writer.put(b"in a buffer").unwrap();
    assert_eq!(bench.read(&id).unwrap(), b"in a buffer");
    drop(writer);
    assert_eq!(bench.read(&id).unwrap(), b"in a buffer");
    // The next one takes the pack over, and hands it all in.
    let mut writer = bench.store.pack_writer().unwrap();
    writer.put(b"another").unwrap();
    writer.finish().unwrap();
    bench.journal.sync().unwrap();
    assert_eq!(bench.files("packs").len(), 1);
    assert_eq!(bench.restart().read(&id).unwrap(), b"in a buffer");
}

#[test]
fn streams_are_kept_as_they_are() {
    let mut bench = Bench::new();
    let letters = [b'a'; 5000];
    let mut writer = bench.store.pack_writer().unwrap();
    let id = writer.put_deflated(&letters, ZLIB_OF_LETTERS).unwrap();
    assert_eq!(id, bench.store.hash(&letters));
    // The same blob, however it comes.
    assert_eq!(writer.put(&letters).unwrap(), id);
    for round in 0..3 {
        assert_eq!(bench.read(&id).unwrap(), letters);
        assert_eq!(bench.store.read(&id, 4990, 20).unwrap(), letters[4990..]);
        let stat = bench.store.stat(&id).unwrap().unwrap();
        assert_eq!(stat.stored_len, (record::HEADER + ZLIB_OF_LETTERS.len()) as u64);
        bench.store.verify(&id).unwrap();
        if round == 0 {
            writer.finish().unwrap();
            writer = bench.store.pack_writer().unwrap();
            bench.journal.sync().unwrap();
        } else {
            drop(writer);
            bench = bench.restart();
            writer = bench.store.pack_writer().unwrap();
        }
    }
}

/// A large blob and its zlib stream, which a few lines can make: a letter, and matches of length 258 at distance 1, in the fixed code.
fn large_letters(seed: u8, len: usize) -> (Vec<u8>, Vec<u8>) {
    let matches = (len - 1) / 258;
    let plain = vec![seed; 1 + matches * 258];
    let mut bits: Vec<bool> = Vec::new();
    let mut put = |value: u32, count: u32| (0..count).for_each(|i| bits.push(value >> i & 1 == 1));
    put(1, 1); // the last block
    put(1, 2); // of the fixed code
    let code = |value: u32, count: u32| value.reverse_bits() >> (32 - count);
    put(code(0x30 + u32::from(seed), 8), 8);
    for _ in 0..matches {
        put(code(0xc0 + 285 - 280, 8), 8);
        put(0, 5);
    }
    put(0, 7); // the end
    let mut zlib = vec![0x78, 0x9c];
    zlib.extend(bits.chunks(8).map(|b| b.iter().rev().fold(0u8, |byte, bit| byte << 1 | u8::from(*bit))));
    let (a, b) = plain.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    zlib.extend((b << 16 | a).to_be_bytes());
    (plain, zlib)
}

#[test]
fn large_streams_are_expanded_when_they_are_read() {
    let mut bench = Bench::new();
    let blobs: Vec<_> =
        (0..4u8).map(|i| large_letters(b'a' + i, 300_000 + usize::from(i) * 700_000)).collect();
    let mut writer = bench.store.pack_writer().unwrap();
    let ids: Vec<_> = blobs.iter().map(|(plain, zlib)| writer.put_deflated(plain, zlib).unwrap()).collect();
    // Before anything is durable they are read from memory.
    for (id, (plain, _)) in ids.iter().zip(&blobs) {
        assert_eq!(*id, bench.store.hash(plain));
        assert_eq!(&bench.read(id).unwrap(), plain);
        assert_eq!(bench.store.raw_file(id).unwrap(), None);
    }
    writer.finish().unwrap();
    bench.journal.sync().unwrap();
    let packed = bench.store.usage();
    assert_eq!((packed.blobs, packed.raw_bytes), (4, 0));
    assert!(packed.pack_bytes < 100_000, "{packed:?}");
    assert!(!bench.store.stat(&ids[0]).unwrap().unwrap().raw);
    // Read by many at once: one file each, which the next group gives a name. The last is left as it is.
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (bench, ids, blobs) = (&bench, &ids, &blobs);
            scope.spawn(move || {
                for i in 0..3 {
                    let i = (i + thread) % 3;
                    let (plain, at) = (&blobs[i].0, blobs[i].0.len() - 10);
                    assert_eq!(bench.store.read(&ids[i], at as u64, 100).unwrap(), plain[at..]);
                }
            });
        }
    });
    assert_eq!(bench.files("temp").len() + bench.store.core.raw.list().unwrap().len(), 3);
    bench.journal.sync().unwrap();
    let raw_bytes = blobs[..3].iter().map(|b| b.0.len() as u64).sum();
    for round in 0..2 {
        let usage = bench.store.usage();
        assert_eq!((usage.blobs, usage.raw_bytes, usage.pack_bytes), (4, raw_bytes, packed.pack_bytes));
        assert_eq!(bench.store.core.pending.len(), 0);
        for (i, (id, (plain, _))) in ids.iter().zip(&blobs).enumerate() {
            let stat = bench.store.stat(id).unwrap().unwrap();
            assert_eq!((stat.raw, stat.len), (i < 3, plain.len() as u64), "{round}");
            bench.store.verify(id).unwrap();
            if i < 3 {
                assert_eq!(std::fs::read(bench.store.raw_file(id).unwrap().unwrap()).unwrap(), *plain);
                assert_eq!(&bench.read(id).unwrap(), plain);
            }
        }
        bench = bench.restart();
    }
    // An index made from the files alone says the same.
    let want = index(&*bench.journal);
    let journal = SimJournal::new().unwrap();
    bench.journal.close().unwrap();
    let rebuilt = rebuild_index(bench.dir.path(), KEY, &*journal).unwrap();
    assert_eq!((rebuilt.blobs, rebuilt.raw_files, rebuilt.damaged), (4, 3, Vec::new()));
    assert_eq!(index(&*journal), want);
}

#[test]
fn what_few_will_read_is_compressed_however_long_it_is() {
    let mut bench = Bench::new();
    let large = limits::PACK_BLOB_BYTES as usize;
    let blobs = [text(1, 1000), text(2, large - 1), text(3, large), text(4, 3 << 20), noise(5, large)];
    let mut writer = bench.store.pack_writer().unwrap();
    let ids = blobs.each_ref().map(|bytes| writer.put_compressed(bytes).unwrap());
    writer.finish().unwrap();
    bench.journal.sync().unwrap();
    let usage = bench.store.usage();
    // Only what does not compress has a file.
    assert_eq!((usage.blobs, usage.raw_bytes), (5, large as u64));
    assert!(usage.pack_bytes < (4 << 20) / 2, "{usage:?}");
    for round in 0..3 {
        for (id, bytes) in ids.iter().zip(&blobs) {
            assert_eq!(*id, bench.store.hash(bytes));
            assert_eq!(&bench.read(id).unwrap(), bytes, "{round}");
            bench.store.verify(id).unwrap();
        }
        bench.journal.sync().unwrap();
        assert_eq!(bench.store.usage().raw_bytes, (large + (3 << 20) + large) as u64);
        bench = bench.restart();
    }
    let journal = SimJournal::new().unwrap();
    let want = index(&*bench.journal);
    bench.journal.close().unwrap();
    let rebuilt = rebuild_index(bench.dir.path(), KEY, &*journal).unwrap();
    assert_eq!((rebuilt.blobs, rebuilt.damaged), (5, Vec::new()));
    assert_eq!(index(&*journal), want);
}

#[test]
fn a_rebuild_takes_the_record_of_a_blob_whose_file_is_damaged() {
    let bench = Bench::new();
    let (plain, zlib) = large_letters(b'x', 400_000);
    let mut writer = bench.store.pack_writer().unwrap();
    let id = writer.put_deflated(&plain, &zlib).unwrap();
    writer.finish().unwrap();
    bench.journal.sync().unwrap();
    bench.store.read(&id, 0, 1).unwrap();
    bench.journal.sync().unwrap();
    let path = bench.store.raw_file(&id).unwrap().unwrap();
    flip(&path, 300_000);
    let bench = bench.restart();
    assert_eq!(bench.store.verify(&id).unwrap_err().reason, Reason::Corrupt);
    bench.journal.close().unwrap();
    let journal = SimJournal::new().unwrap();
    let rebuilt = rebuild_index(bench.dir.path(), KEY, &*journal).unwrap();
    assert_eq!((rebuilt.blobs, rebuilt.damaged.len()), (1, 1));
    let bench = Bench::on(bench.dir, journal);
    assert_eq!((bench.store.usage().blobs, bench.store.usage().raw_bytes), (1, 0));
    assert_eq!(bench.read(&id).unwrap(), plain);
    bench.journal.sync().unwrap();
    bench.restart().store.verify(&id).unwrap();
}

#[test]
fn a_crash_while_a_blob_is_expanded_leaves_the_record() {
    let mut bench = Bench::new();
    let (plain, zlib) = large_letters(b'x', 400_000);
    let mut writer = bench.store.pack_writer().unwrap();
    let id = writer.put_deflated(&plain, &zlib).unwrap();
    writer.finish().unwrap();
    bench.journal.sync().unwrap();
    for seed in 0..8 {
        assert_eq!(bench.store.read(&id, 5, 10).unwrap(), plain[5..15]);
        bench = bench.crash(seed);
        assert_eq!(bench.store.usage().blobs, 1);
        assert_eq!(bench.read(&id).unwrap(), plain);
    }
}

#[test]
fn a_large_blob_that_cannot_be_expanded_is_read_all_the_same() {
    let bench = Bench::new();
    let (plain, zlib) = large_letters(b'x', 400_000);
    let mut writer = bench.store.pack_writer().unwrap();
    let id = writer.put_deflated(&plain, &zlib).unwrap();
    writer.finish().unwrap();
    bench.journal.sync().unwrap();
    let temp = bench.dir.path().join("temp");
    std::fs::remove_dir(&temp).unwrap();
    assert_eq!(bench.read(&id).unwrap(), plain);
    assert_eq!(bench.store.raw_file(&id).unwrap(), None);
    std::fs::create_dir(&temp).unwrap();
    assert_eq!(bench.read(&id).unwrap(), plain);
    bench.journal.sync().unwrap();
    assert!(bench.store.raw_file(&id).unwrap().is_some());
    // Damage in a record is found in large ones, too.
    let other = Bench::new();
    let mut writer = other.store.pack_writer().unwrap();
    let id = writer.put_deflated(&plain, &zlib).unwrap();
    writer.finish().unwrap();
    other.journal.sync().unwrap();
    flip(&other.files("packs")[0], 16 + record::HEADER as u64 + 20);
    let error = other.store.read(&id, 0, 1).unwrap_err();
    assert!(error.reason == Reason::Corrupt && error.message().contains(&id.to_hex()), "{error:?}");
    assert!(other.files("temp").is_empty());
}

#[test]
fn a_stream_of_something_else_is_damage() {
    let bench = Bench::new();
    let mut writer = bench.store.pack_writer().unwrap();
    let id = writer.put_deflated(&[b'b'; 5000], ZLIB_OF_LETTERS).unwrap();
    writer.finish().unwrap();
    let error = bench.read(&id).unwrap_err();
    assert!(error.reason == Reason::Corrupt && error.message().contains(&id.to_hex()), "{error:?}");
}

#[test]
fn known_blobs_are_named_again_without_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let bytes = noise(1, 2_000_000);
    std::fs::write(&path, &bytes).unwrap();
    let (file, len) = (File::open(&path).unwrap(), bytes.len() as u64);
    let bench = Bench::new();
    let mut first = bench.store.pack_writer().unwrap();
    let small = first.put(b"small").unwrap();
    let large = first.put_file(&file, len).unwrap();
    let other = bench.store.hash(b"other");
    // Not durable yet, and in another writer's buffer: naming it makes that writer's pack part of the next group.
    let mut second = bench.store.pack_writer().unwrap();
    assert!(second.reuse(&small).unwrap() && second.reuse(&large).unwrap() && !second.reuse(&other).unwrap());
    second.finish().unwrap();
    let mut batch = Batch::new();
    batch.put(Space::Name, b"named".as_slice(), small.0);
    bench.journal.wait(bench.journal.submit(batch).unwrap()).unwrap();
    let bench = bench.crash(7);
    assert_eq!(bench.read(&small).unwrap(), b"small");
    assert_eq!(bench.read(&large).unwrap(), bytes);
    // Durable: nothing is written. The first large file of a writer is, for it does not know yet what it will meet.
    std::mem::forget(first);
    let mut third = bench.store.pack_writer().unwrap();
    assert!(third.reuse(&small).unwrap());
    assert_eq!(third.put_file(&file, len).unwrap(), large);
    let temp = bench.dir.path().join("temp");
    std::fs::remove_dir(&temp).unwrap();
    assert_eq!(third.put_file(&file, len).unwrap(), large);
    assert_eq!(third.put_file(&file, len + 1).unwrap_err().reason, Reason::Unavailable);
    assert_eq!(third.put(&bytes).unwrap(), large);
    // Another content is written, and that needs the directory.
    std::fs::write(&path, noise(2, 2_000_000)).unwrap();
    assert!(third.put_file(&file, len).is_err());
    std::fs::create_dir(&temp).unwrap();
    assert_eq!(third.put_file(&file, len).unwrap(), bench.store.hash(&noise(2, 2_000_000)));
}

#[test]
fn zeros_of_large_blobs_take_no_disk() {
    use std::os::unix::fs::MetadataExt as _;
    let bench = Bench::new();
    let mut bytes = vec![0; 8 << 20];
    bytes[5 << 20] = 1;
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write_all_at(&[1], 5 << 20).unwrap();
    let mut all_zeros = bytes.clone();
    all_zeros[5 << 20] = 0;
    let ids = [
        bench.store.put_file(&file, bytes.len() as u64).unwrap(),
        bench.store.put(&all_zeros).unwrap(),
        bench.store.put_reader(&mut &[&bytes[..], &all_zeros[..]].concat()[..]).unwrap().0,
    ];
    bench.journal.sync().unwrap();
    let bench = bench.crash(3);
    let wholes = [bytes.clone(), all_zeros.clone(), [bytes, all_zeros].concat()];
    for (id, whole) in ids.iter().zip(wholes) {
        let stat = std::fs::metadata(bench.store.core.raw.path(id)).unwrap();
        assert_eq!(stat.size(), whole.len() as u64);
        assert!(
            stat.blocks() * 512 <= 256 << 10,
            "{} bytes of disk for one that is not zero",
            stat.blocks() * 512
        );
        assert!(bench.read(id).unwrap() == whole);
    }
}

#[test]
fn many_large_files_are_published_together() {
    let bench = Bench::new();
    let blobs: Vec<_> = (0..40).map(|i| noise(i, 262_144 + i as usize * 100)).collect();
    let ids: Vec<_> = blobs.iter().map(|b| bench.store.put(b).unwrap()).collect();
    bench.journal.sync().unwrap();
    let bench = bench.crash(3);
    for (id, bytes) in ids.iter().zip(&blobs) {
        assert_eq!(&bench.read(id).unwrap(), bytes);
    }
    assert!(bench.files("temp").is_empty());
}

#[test]
fn files_are_stored_up_to_their_length() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    for len in [0usize, 10, 5000, 262_144, 2_000_000] {
        let bytes = noise(len as u64, len);
        std::fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        let id = bench.store.put_file(&file, len as u64).unwrap();
        assert_eq!(bench.read(&id).unwrap(), bytes);
        let mut writer = bench.store.pack_writer().unwrap();
        assert_eq!(writer.put_file(&file, len as u64).unwrap(), id);
        let error = bench.store.put_file(&file, len as u64 + 1).unwrap_err();
        assert_eq!(error.reason, Reason::Unavailable);
        assert_eq!(bench.store.put_file(&file, len as u64 / 2).unwrap(), bench.store.hash(&bytes[..len / 2]));
    }
    bench.journal.sync().unwrap();
    assert!(bench.files("temp").is_empty());
}

#[test]
fn the_data_log_keeps_concurrent_appends_apart() {
    let mut bench = Bench::new();
    let mut all = Vec::new();
    for round in 0..3 {
        let refs = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (bench, refs) = (&bench, &refs);
                scope.spawn(move || {
                    for i in 0..100 {
                        let bytes = noise(round * 1000 + thread * 100 + i, 1 + (i as usize * 13) % 3000);
                        let at = bench.store.append(&bytes).unwrap();
                        refs.lock().push((at, bytes));
                    }
                });
            }
        });
        let before: Vec<_> = all.iter().map(|(at, _): &(LogRef, Vec<u8>)| at.segment).collect();
        let new = refs.into_inner();
        assert!(new.iter().all(|(at, _)| !before.contains(&at.segment)), "appended to an old segment");
        all.extend(new);
        bench.journal.sync().unwrap();
        for (at, bytes) in &all {
            let mut out = vec![0; bytes.len()];
            bench.store.read_log(*at, &mut out).unwrap();
            assert_eq!(&out, bytes);
        }
        bench = bench.restart();
    }
    assert!(bench.files("log").len() > 10, "segments roll");
    assert_eq!(bench.store.append(&[0; 65 << 10]).unwrap_err().reason, Reason::MessageTooLarge);
    let (at, _) = all[0];
    let mut out = [0; 16];
    let beyond = LogRef { offset: 1 << 40, ..at };
    let error = bench.store.read_log(beyond, &mut out).unwrap_err();
    assert!(error.reason == Reason::Corrupt && error.message().contains(".log"), "{error:?}");
    std::fs::remove_file(bench.store.core.log.path(at.segment)).unwrap();
    let error = bench.restart().store.read_log(at, &mut out).unwrap_err();
    assert!(error.message().contains("missing"), "{error:?}");
}

#[test]
fn file_numbers_are_never_used_again() {
    let mut bench = Bench::new();
    let mut seen = std::collections::BTreeSet::new();
    for i in 0..5u64 {
        bench.store.put(&text(i, 100)).unwrap();
        bench.store.append(b"x").unwrap();
        bench.journal.sync().unwrap();
        for path in [bench.files("packs"), bench.files("log")].concat() {
            assert!(seen.insert(path.file_stem().unwrap().to_owned()), "{path:?} again");
            std::fs::remove_file(path).unwrap(); // as garbage collection will
        }
        bench = bench.restart();
    }
    assert_eq!(seen.len(), 10);
}

#[test]
fn every_flipped_bit_is_seen_and_named() {
    let bench = Bench::new();
    let mut writer = bench.store.pack_writer().unwrap();
    let small = [text(1, 900), noise(2, 700)].map(|b| writer.put(&b).unwrap());
    let zlib = writer.put_deflated(&[b'a'; 5000], ZLIB_OF_LETTERS).unwrap();
    writer.finish().unwrap();
    let large = [noise(3, 300_000), noise(4, (2 << 20) + 99)].map(|b| bench.store.put(&b).unwrap());
    let ids = [small[0], small[1], zlib, large[0], large[1]];
    bench.journal.sync().unwrap();
    let mut bench = bench.restart();
    let pack = bench.files("packs").remove(0);
    let whole = std::fs::read(&pack).unwrap();
    for at in (16..whole.len() as u64).step_by(3) {
        flip(&pack, at);
        let broken: Vec<_> = ids[..3].iter().filter_map(|id| bench.read(id).err().map(|e| (id, e))).collect();
        assert_eq!(broken.len(), 1, "the flip at {at} was not seen, or in another blob");
        let (id, error) = &broken[0];
        assert_eq!(error.reason, Reason::Corrupt);
        assert!(error.message().contains(&id.to_hex()) && error.message().contains(pack.to_str().unwrap()));
        assert!(bench.store.verify(id).is_err());
        flip(&pack, at);
    }
    // A raw file: partial reads see damage in what they touch, and only there.
    for (id, len) in [(ids[3], 300_000u64), (ids[4], (2 << 20) + 99)] {
        for at in [0, len / 2, len - 1] {
            bench = bench.restart();
            let path = bench.store.raw_file(&id).unwrap().unwrap();
            flip(&path, at);
            let error = bench.store.read(&id, at, 1).unwrap_err();
            assert!(
                error.reason == Reason::Corrupt && error.message().contains(path.to_str().unwrap()),
                "{error:?}"
            );
            assert!(bench.read(&id).is_err() && bench.store.verify(&id).is_err());
            if len > 1 << 20 && at > 1 << 20 {
                bench.store.read(&id, 0, 1000).unwrap();
            }
            flip(&path, at);
            bench.store.verify(&id).unwrap();
        }
    }
}

#[test]
fn missing_and_cut_files_are_named() {
    let bench = Bench::new();
    let small = bench.store.put(&text(1, 900)).unwrap();
    let large = bench.store.put(&noise(1, 400_000)).unwrap();
    bench.journal.sync().unwrap();
    let pack = bench.files("packs").remove(0);
    let raw = bench.store.raw_file(&large).unwrap().unwrap();
    let cut = |path: &Path, len| File::options().write(true).open(path).unwrap().set_len(len).unwrap();
    let mut bench = bench.restart();
    let check = |bench: &Bench, id: &BlobId, path: &Path| {
        let error = bench.read(id).unwrap_err();
        assert!(
            error.reason == Reason::Corrupt && error.message().contains(path.to_str().unwrap()),
            "{error:?}"
        );
        assert!(error.metadata().iter().any(|(k, v)| *k == "blob" && *v == id.to_hex()), "{error:?}");
        assert!(error.next_step().contains("backup"));
    };
    cut(&pack, 60);
    cut(&raw, 399_999);
    check(&bench, &small, &pack);
    check(&bench, &large, &raw);
    for path in [&pack, &raw] {
        std::fs::remove_file(path).unwrap();
    }
    bench = bench.restart();
    check(&bench, &small, &pack);
    check(&bench, &large, &raw);
}

pub(super) fn index(journal: &dyn Journal) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut visit = |k: &[u8], v: &[u8]| {
        found.insert(k.to_vec(), v.to_vec());
        Ok(std::ops::ControlFlow::Continue(()))
    };
    journal.scan(Space::Blob, b"", None, &mut visit).unwrap();
    found
}

#[test]
fn the_index_can_be_rebuilt_from_the_files_alone() {
    let bench = Bench::new();
    let mut writer = bench.store.pack_writer().unwrap();
    for i in 0..2500 {
        writer.put(&text(i, 1500)).unwrap();
        bench.store.put(&noise(i, 500)).unwrap();
    }
    let zlib = writer.put_deflated(&[b'a'; 5000], ZLIB_OF_LETTERS).unwrap();
    writer.finish().unwrap();
    for i in 0..4 {
        bench.store.put(&noise(i, 300_000 + i as usize * 500_000)).unwrap();
    }
    bench.journal.sync().unwrap();
    let (want, usage) = (index(&*bench.journal), bench.store.usage());
    bench.journal.close().unwrap();
    let journal = SimJournal::new().unwrap();
    let rebuilt = rebuild_index(bench.dir.path(), KEY, &*journal).unwrap();
    assert_eq!((rebuilt.blobs, rebuilt.raw_files, rebuilt.damaged), (5005, 4, Vec::new()));
    assert!(rebuilt.packs >= 2 && index(&*journal) == want);
    let dir = bench.dir;
    let bench = Bench::on(dir, journal);
    assert_eq!(bench.store.usage(), usage);
    assert_eq!(bench.read(&bench.store.hash(&text(77, 1500))).unwrap(), text(77, 1500));
    assert_eq!(bench.read(&zlib).unwrap(), [b'a'; 5000]);
}

#[test]
fn a_rebuild_goes_on_behind_damage() {
    let bench = Bench::new();
    let ids: Vec<_> = (0..10).map(|i| bench.store.put(&noise(i, 1000)).unwrap()).collect();
    let raw = bench.store.put(&noise(99, 300_000)).unwrap();
    bench.journal.sync().unwrap();
    let pack = bench.files("packs").remove(0);
    let raw_path = bench.store.raw_file(&raw).unwrap().unwrap();
    let bench = bench.restart();
    flip(&pack, 16 + 8); // the header of the first
    flip(&pack, 16 + 3 * 1056 + 500); // the payload of the fourth
    flip(&raw_path, 7);
    File::options().write(true).open(&pack).unwrap().set_len(16 + 10 * 1056 - 1).unwrap(); // the last, cut off
    let journal = SimJournal::new().unwrap();
    let rebuilt = rebuild_index(bench.dir.path(), KEY, &*journal).unwrap();
    assert_eq!(rebuilt.blobs, 7);
    let places: Vec<_> = rebuilt.damaged.iter().map(|d| (d.file.clone(), d.offset)).collect();
    assert_eq!(
        places,
        [(raw_path, 0), (pack.clone(), 16), (pack.clone(), 16 + 3 * 1056), (pack, 16 + 9 * 1056)]
    );
    let bench = Bench::on(bench.dir, journal);
    for (i, id) in ids.iter().enumerate() {
        assert_eq!(bench.store.contains(id).unwrap(), ![0, 3, 9].contains(&i));
    }
    // What was lost can be put again.
    assert_eq!(bench.store.put(&noise(99, 300_000)).unwrap(), raw);
    bench.journal.sync().unwrap();
    bench.store.verify(&raw).unwrap();
}

#[test]
fn an_interrupted_rebuild_and_a_wrong_key_are_refused() {
    let bench = Bench::new();
    bench.store.put(b"x").unwrap();
    bench.journal.sync().unwrap();
    let open = |bench: &Bench, key| {
        BlobStore::open_with(bench.dir.path(), key, options(), Arc::clone(&bench.journal) as _).map(drop)
    };
    let error = open(&bench, [1; 32]).unwrap_err();
    assert!(error.reason == Reason::Corrupt && error.next_step().contains("tenant key"));
    assert!(rebuild_index(bench.dir.path(), [1; 32], &*bench.journal).is_err());
    let mut batch = Batch::new();
    batch.put(Space::Meta, REBUILDING, b"1");
    bench.journal.wait(bench.journal.submit(batch).unwrap()).unwrap();
    let error = open(&bench, KEY).unwrap_err();
    assert!(error.message().contains("interrupted"), "{error:?}");
    rebuild_index(bench.dir.path(), KEY, &*bench.journal).unwrap();
    open(&bench, KEY).unwrap();
}

#[test]
fn other_tenants_names_tell_nothing() {
    let bench = Bench::new();
    let other = BlobId(*blake3::hash(b"x").as_bytes());
    assert_ne!(bench.store.put(b"x").unwrap(), other);
    assert!(!bench.store.contains(&other).unwrap());
    let mut hasher = bench.store.hasher();
    hasher.update(b"x");
    assert_eq!(hasher.finalize(), blake3::Hash::from_bytes(bench.store.hash(b"x").0));
}

/// A pack that came with an import lies there already: it becomes a blob without a second copy, and outlives the name it had.
#[test]
fn a_finished_file_becomes_a_blob_without_a_copy() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    let (large, small) = (noise(1, 3 << 20), noise(2, 1000));
    let path = bench.dir.path().join("finished");
    std::fs::write(&path, &large).unwrap();
    let inode = std::fs::metadata(&path).unwrap().ino();
    let mut writer = bench.store.pack_writer().unwrap();
    let (id, len) = writer.put_finished(&path).unwrap();
    assert_eq!((id, len), (bench.store.hash(&large), 3 << 20));
    // Again, as an import that is repeated does it.
    assert_eq!(writer.put_finished(&path).unwrap(), (id, len));
    std::fs::write(bench.dir.path().join("short"), &small).unwrap();
    let (short, _) = writer.put_finished(&bench.dir.path().join("short")).unwrap();
    writer.finish().unwrap();
    bench.journal.sync().unwrap();
    let stored = bench.store.raw_file(&id).unwrap().unwrap();
    assert_eq!(std::fs::metadata(stored).unwrap().ino(), inode, "a copy");
    std::fs::remove_file(&path).unwrap();
    let bench = bench.restart();
    assert_eq!(bench.read(&id).unwrap(), large);
    assert_eq!(bench.read(&short).unwrap(), small);
    assert_eq!(bench.files("temp"), Vec::<PathBuf>::new());
    // No blob comes of what is not there.
    let mut writer = bench.store.pack_writer().unwrap();
    writer.put_finished(&path).unwrap_err();
}
