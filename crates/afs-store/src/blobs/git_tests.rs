//! Objects of git packs as blobs. Packs that git made are read in the tests of `afs-base`; these are made by hand, some as no git would.

use super::tests::{Bench, KEY, flip, index, noise, text};
use super::*;
use crate::journal::Batch;
use sha1::{Digest, Sha1};

/// A pack under construction.
struct Maker(Vec<u8>);

impl Maker {
    fn new() -> Self {
        Self(b"PACK\0\0\0\x02\0\0\0\x09".to_vec())
    }

    /// Adds an entry of this type; returns its offset. `between` stands between head and stream.
    fn entry(&mut self, kind: u8, between: &[u8], bytes: &[u8]) -> u64 {
        self.entry_saying(bytes.len(), kind, between, bytes)
    }

    fn entry_saying(&mut self, mut len: usize, kind: u8, between: &[u8], bytes: &[u8]) -> u64 {
        let offset = self.0.len() as u64;
        let mut byte = kind << 4 | (len & 15) as u8;
        len >>= 4;
        while len > 0 {
            self.0.push(byte | 0x80);
            byte = (len & 0x7f) as u8;
            len >>= 7;
        }
        self.0.push(byte);
        self.0.extend_from_slice(between);
        self.0.extend(stream(bytes));
        offset
    }

    fn blob(&mut self, bytes: &[u8]) -> u64 {
        self.entry(3, b"", bytes)
    }

    /// A delta on the entry at `base`.
    fn delta(&mut self, base: u64, delta: &[u8]) -> u64 {
        let mut distance = self.0.len() as u64 - base;
        let mut bytes = vec![(distance & 0x7f) as u8];
        while distance > 0x7f {
            distance = (distance >> 7) - 1;
            bytes.insert(0, 0x80 | (distance & 0x7f) as u8);
        }
        self.entry(6, &bytes, delta)
    }

    /// A pack large enough for a file of its own, or not.
    fn finish(mut self, raw: bool) -> Vec<u8> {
        if raw {
            self.0.extend(noise(7, limits::PACK_BLOB_BYTES as usize));
        }
        self.0
    }
}

/// A zlib stream of stored blocks.
fn stream(plain: &[u8]) -> Vec<u8> {
    let (a, b) = plain.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    let mut out = vec![0x78, 1];
    let blocks: Vec<&[u8]> = if plain.is_empty() { vec![b""] } else { plain.chunks(0xffff).collect() };
    for (i, block) in blocks.iter().enumerate() {
        out.push(u8::from(i + 1 == blocks.len()));
        out.extend((block.len() as u16).to_le_bytes());
        out.extend((!(block.len() as u16)).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend((b << 16 | a).to_be_bytes());
    out
}

fn oid(bytes: &[u8]) -> [u8; 20] {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hasher.finalize().into()
}

fn varint(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while n > 0x7f {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

/// A delta that copies the first `keep` bytes (fewer than 2^24) and appends `more` (fewer than 128).
fn extend(base: &[u8], keep: usize, more: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let result = [&base[..keep], more].concat();
    let head = [varint(base.len()), varint(result.len())].concat();
    let mut steps = Vec::new();
    let mut at = 0;
    while at < keep {
        let len = (keep - at).min(0xffff);
        let (offset, len_bytes) = ((at as u32).to_le_bytes(), (len as u16).to_le_bytes());
        steps.extend([0xbf, offset[0], offset[1], offset[2], offset[3], len_bytes[0], len_bytes[1]]);
        at += len;
    }
    steps.push(more.len() as u8);
    steps.extend_from_slice(more);
    ([head, steps].concat(), result)
}

fn object(pack: BlobId, offset: u64, plain: &[u8]) -> GitObject {
    GitObject { pack, oid: oid(plain), offset, len: plain.len() as u32 }
}

/// Puts a pack, and names what is in it.
fn put(bench: &Bench, pack: &[u8], objects: &[(u64, Vec<u8>)]) -> Vec<BlobId> {
    let mut writer = bench.store.pack_writer().unwrap();
    let pack = writer.put(pack).unwrap();
    let ids = objects.iter().map(|(offset, plain)| writer.put_object(&object(pack, *offset, plain)).unwrap());
    let ids = ids.collect();
    writer.finish().unwrap();
    ids
}

/// A family: whole, a delta on it, a delta on that; one that takes several windows, and a large one with a delta on it.
fn family(raw: bool) -> (Vec<u8>, Vec<(u64, Vec<u8>)>) {
    let mut pack = Maker::new();
    let mut objects = Vec::new();
    for (seed, len) in [(1, 900), (2, 30_000), (3, 300_000)] {
        let whole = text(seed, len);
        let (first, second) = extend(&whole, len - 10, b"and more");
        let (third, fourth) = extend(&second, len / 2, b"and less");
        let at = pack.blob(&whole);
        let on_it = pack.delta(at, &first);
        let on_that = pack.delta(on_it, &third);
        objects.extend([(at, whole), (on_it, second), (on_that, fourth)]);
    }
    (pack.finish(raw), objects)
}

fn check(bench: &Bench, ids: &[BlobId], objects: &[(u64, Vec<u8>)]) {
    bench.store.bases.invalidate_all();
    // From the ends of the chains first, so that their bases are not known.
    for (id, (_, plain)) in ids.iter().zip(objects).rev() {
        assert_eq!(bench.read(id).unwrap(), *plain);
        assert_eq!(bench.store.read(id, 70, 50).unwrap(), plain[70..120]);
        assert_eq!(bench.store.stat(id).unwrap().unwrap().len, plain.len() as u64);
        bench.store.verify(id).unwrap();
    }
}

#[test]
fn objects_are_read_from_the_pack_before_and_after_restart_and_rebuild() {
    for raw in [false, true] {
        let (pack, objects) = family(raw);
        let mut bench = Bench::new();
        let ids = put(&bench, &pack, &objects);
        check(&bench, &ids, &objects);
        bench.journal.sync().unwrap();
        check(&bench, &ids, &objects);
        assert_eq!(put(&bench, &pack, &objects), ids, "the same names");
        bench = bench.restart();
        check(&bench, &ids, &objects);
        let (bench, rebuilt) = rebuild(bench);
        assert_eq!(rebuilt.damaged, []);
        check(&bench, &ids, &objects);
    }
}

#[test]
fn names_are_of_the_pack_and_the_key() {
    let (pack, objects) = family(true);
    let bench = Bench::new();
    let ids = put(&bench, &pack, &objects);
    for (id, (offset, plain)) in ids.iter().zip(&objects) {
        assert_ne!(*id, bench.store.hash(plain));
        let object = object(bench.store.hash(&pack), *offset, plain);
        assert_ne!(*id, object.name(&KEY), "bytes of a blob could have this name");
    }
    // The same objects in another pack are others: nobody's pack says what is in somebody else's base.
    let other = put(&bench, &[&pack[..], b"x"].concat(), &objects);
    assert!(ids.iter().zip(&other).all(|(a, b)| a != b));
    // An index of the pack that is wrong spoils nothing for those who have a right one.
    let wrong = [(objects[0].0 + 1, objects[0].1.clone())];
    let spoilt = put(&bench, &pack, &wrong);
    bench.read(&spoilt[0]).unwrap_err();
    check(&bench, &put(&bench, &pack, &objects), &objects);
}

#[test]
fn a_large_object_gets_a_file_under_the_name_of_its_bytes() {
    let (pack, objects) = family(true);
    let large: Vec<_> = objects.into_iter().filter(|(_, plain)| plain.len() > 1 << 18).collect();
    assert_eq!(large.len(), 2);
    let mut bench = Bench::new();
    let ids = put(&bench, &pack, &large);
    bench.journal.sync().unwrap();
    let blobs = bench.store.usage().blobs;
    // The second is stored by somebody else, too: there is one file.
    bench.store.put(&large[1].1).unwrap();
    bench.journal.sync().unwrap();
    for round in 0..3 {
        check(&bench, &ids, &large);
        bench.journal.sync().unwrap();
        for (id, (_, plain)) in ids.iter().zip(&large) {
            let path = bench.store.raw_file(id).unwrap().expect("a file");
            assert!(path.ends_with(bench.store.hash(plain).to_hex()), "{}", path.display());
            assert_eq!(std::fs::read(path).unwrap(), *plain);
            assert!(bench.store.stat(id).unwrap().unwrap().raw);
        }
        assert_eq!(bench.store.usage().blobs, blobs + 2, "round {round}");
        bench = bench.restart();
    }
    assert_eq!(bench.store.usage().raw_bytes, (pack.len() + large[0].1.len() + large[1].1.len()) as u64);
    // A crash before the group: the record is what there is, again.
    let bench = Bench::new();
    let ids = put(&bench, &pack, &large);
    bench.journal.sync().unwrap();
    check(&bench, &ids, &large);
    check(&bench.crash(5), &ids, &large);
}

#[test]
fn what_no_git_would_make_is_refused_and_named() {
    let mut maker = Maker::new();
    let good = text(4, 2000);
    let (delta, result) = extend(&good, 1990, b"end");
    let at = maker.blob(&good);
    let cases: Vec<(&str, u64, Vec<u8>)> = vec![
        ("another name", at, text(5, 2000)),
        ("another length", maker.blob(b"short"), good.clone()),
        ("a tree", maker.entry(2, b"", &good), good.clone()),
        ("by name", maker.entry(7, &oid(&good), &delta), result.clone()),
        ("before the pack", maker.entry(6, &[0xff, 0xff, 0x7f], &delta), result.clone()),
        ("itself", maker.entry(6, &[0], &delta), result.clone()),
        ("no delta", maker.delta(at, b"\xff\xff"), result.clone()),
        ("on something shorter", maker.delta(at, &extend(&good[..1995], 1990, b"end").0), result.clone()),
        ("a lie about its length", maker.entry_saying(1999, 3, b"", &good), good.clone()),
        ("a bomb", maker.entry_saying(1 << 40, 3, b"", &good), good.clone()),
        (
            "a large delta",
            maker.delta(at, &[varint(2000), varint(1 << 30), vec![0]].concat()),
            result.clone(),
        ),
        ("behind the end", 1 << 50, good.clone()),
        ("in the middle", at + 9, good.clone()),
    ];
    let on_it = maker.delta(at, &delta);
    let pack = maker.finish(true);
    let bench = Bench::new();
    let objects: Vec<_> = cases.iter().map(|(_, offset, plain)| (*offset, plain.clone())).collect();
    // One by one: two of them are the same object at different places, which is one name.
    for (case, object) in cases.iter().zip(objects) {
        let bench = Bench::new();
        let ids = put(&bench, &pack, std::slice::from_ref(&object));
        let error = bench.read(&ids[0]).expect_err(case.0);
        let name: String = oid(&object.1).iter().map(|b| format!("{b:02x}")).collect();
        assert!(error.reason == Reason::Corrupt && error.message().contains(&name), "{}: {error:?}", case.0);
        assert!(error.next_step().contains("git fsck"), "{error:?}");
        bench.store.verify(&ids[0]).unwrap_err();
    }
    let fine = [(at, good), (on_it, result)];
    check(&bench, &put(&bench, &pack, &fine), &fine);
}

#[test]
fn damage_of_the_pack_or_the_record_is_seen() {
    let (pack, objects) = family(true);
    let mut bench = Bench::new();
    let ids = put(&bench, &pack, &objects);
    bench.journal.sync().unwrap();
    bench = bench.restart();
    let path = bench.store.raw_file(&bench.store.hash(&pack)).unwrap().unwrap();
    flip(&path, objects[0].0 + 100);
    let error = bench.read(&ids[0]).unwrap_err();
    assert!(error.reason == Reason::Corrupt && error.message().contains(path.to_str().unwrap()), "{error:?}");
    flip(&path, objects[0].0 + 100);
    // A record that another blob's entry leads to.
    let entries = index(&*bench.journal);
    let mut batch = Batch::new();
    batch.put(Space::Blob, ids[0].0, entries[&ids[1].0[..]].clone());
    bench.journal.submit(batch).unwrap();
    bench = bench.restart();
    assert_eq!(bench.read(&ids[0]).unwrap_err().reason, Reason::Corrupt);
    // A rebuild puts that right.
    let (bench, rebuilt) = rebuild(bench);
    assert_eq!(rebuilt.damaged, []);
    check(&bench, &ids, &objects);
    // Without the pack it says what is missing, once, and goes on listing what is in it.
    std::fs::remove_file(&path).unwrap();
    let (bench, rebuilt) = rebuild(bench);
    assert!(matches!(&rebuilt.damaged[..], [one] if one.what.contains("git pack")), "{rebuilt:?}");
    assert_eq!(bench.read(&ids[8]).unwrap_err().reason, Reason::Corrupt);
    // When it is back, nothing is lost.
    bench.store.put(&pack).unwrap();
    bench.journal.sync().unwrap();
    check(&bench, &ids, &objects);
}

#[test]
fn one_bad_part_of_a_pack_costs_what_is_in_it_also_after_a_rebuild() {
    let (pack, mut objects) = family(false);
    objects.truncate(6);
    let pack = [pack, noise(3, 3 << 20)].concat();
    let bench = Bench::new();
    let ids = put(&bench, &pack, &objects);
    bench.journal.sync().unwrap();
    let path = bench.store.raw_file(&bench.store.hash(&pack)).unwrap().unwrap();
    flip(&path, 2 << 20);
    let (bench, rebuilt) = rebuild(bench);
    assert_eq!(rebuilt.damaged.len(), 1, "{rebuilt:?}");
    check(&bench, &ids, &objects);
    flip(&path, objects[0].0 + 100);
    let (bench, _) = rebuild(bench);
    let error = bench.read(&ids[0]).unwrap_err();
    assert!(error.reason == Reason::Corrupt && error.message().contains(path.to_str().unwrap()), "{error:?}");
}

/// The index made anew, as `afs-server repair` does it.
fn rebuild(bench: Bench) -> (Bench, Rebuilt) {
    bench.journal.close().unwrap();
    let Bench { store, journal, dir } = bench;
    drop(store);
    let journal = journal.reopen().unwrap();
    let rebuilt = rebuild_index(dir.path(), KEY, &*journal).unwrap();
    (Bench::on(dir, journal), rebuilt)
}

#[test]
fn a_chain_may_be_long_and_not_make_too_much() {
    // Each delta makes the same bytes again: so many of them are too much together.
    let whole = text(6, 1 << 20);
    let (same, result) = extend(&whole, (1 << 20) - 1, &whole[(1 << 20) - 1..]);
    assert_eq!(whole, result);
    let mut maker = Maker::new();
    let mut places = vec![maker.blob(&whole)];
    for _ in 0..66 {
        let last = *places.last().unwrap();
        places.push(maker.delta(last, &same));
    }
    let pack = maker.finish(true);
    let bench = Bench::new();
    // The chain's own result is not counted: whoever asks for it needs it.
    let fine = put(&bench, &pack, &[(places[65], whole.clone())]);
    assert_eq!(bench.read(&fine[0]).unwrap(), whole);
    bench.store.bases.invalidate_all();
    let more = put(&bench, &pack, &[(places[66], whole.clone())]);
    let error = bench.read(&more[0]).unwrap_err();
    assert!(error.reason == Reason::Corrupt && error.message().contains("64 MiB"), "{error:?}");
    // As long as git's longest, of little.
    let little = text(7, 100);
    let (same, _) = extend(&little, 99, &little[99..]);
    let mut maker = Maker::new();
    let mut places = vec![maker.blob(&little)];
    for _ in 0..=MAX_CHAIN {
        let last = *places.last().unwrap();
        places.push(maker.delta(last, &same));
    }
    let pack = maker.finish(true);
    let ids =
        put(&bench, &pack, &[(places[MAX_CHAIN], little.clone()), (places[MAX_CHAIN + 1], little.clone())]);
    assert!(bench.read(&ids[1]).unwrap_err().message().contains("4,095"));
    bench.store.bases.invalidate_all();
    assert_eq!(bench.read(&ids[0]).unwrap(), little);
}

#[test]
fn streams_are_read_however_long_they_are() {
    // Stored blocks are longer than what they hold; the first reads end in the middle of them.
    for len in [4000, 4060, 4096, 8200, 16_384, 16_400, 70_000, 200_000] {
        let bytes = noise(len as u64, len);
        let mut maker = Maker::new();
        let at = maker.blob(&bytes);
        for pack in [maker.0.clone(), maker.finish(true)] {
            let bench = Bench::new();
            let ids = put(&bench, &pack, &[(at, bytes.clone())]);
            assert_eq!(bench.read(&ids[0]).unwrap(), bytes, "{len}");
            // A pack that ends in the middle.
            let cut = put(&bench, &pack[..at as usize + 2 + len / 2], &[(at, bytes.clone())]);
            assert_eq!(bench.read(&cut[0]).unwrap_err().reason, Reason::Corrupt);
        }
    }
}
