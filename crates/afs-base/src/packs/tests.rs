//! Packs that git made, and packs that no git would make.

use super::*;
use crate::pack_writer::PackWriter;
use std::io::Write;
use std::process::Command;

fn git(dir: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("git")
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs([("HOME", "/nonexistent"), ("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
        .args(["-c", "user.name=T", "-c", "user.email=t@example.com"])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A repository with families of similar files in one pack of deltas.
fn families(dir: &Path, delta_base_offset: bool) {
    git(dir, &["init", "-q"]);
    for family in 0..6u32 {
        let line = |n: u32| format!("line {n} of family {family}, {}\n", n.wrapping_mul(2_654_435_761));
        let mut lines: Vec<String> = (0..120).map(line).collect();
        for version in 0..40u32 {
            lines[(version * 7 % 120) as usize] = format!("changed in version {version}\n");
            lines.push(line(1000 + version));
            std::fs::write(dir.join(format!("{family}_{version}")), lines.concat()).unwrap();
        }
    }
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-qm", "families"]);
    let offsets = format!("repack.useDeltaBaseOffset={delta_base_offset}");
    git(dir, &["-c", &offsets, "repack", "-adfq", "--depth=30", "--window=30"]);
}

/// Every object in the packs: its name, its place, its kind and bytes according to git.
fn all(dir: &Path, packs: &Packs) -> Vec<(Oid, Place, Vec<u8>)> {
    let names = git(dir, &["cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)"]);
    let names = String::from_utf8(names).unwrap();
    let mut found: Vec<_> = names
        .lines()
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let oid = crate::object::parse_hex(name.as_bytes()).unwrap();
            (oid, packs.find(&oid).unwrap(), git(dir, &["cat-file", kind, name]))
        })
        .collect();
    found.sort_unstable_by_key(|(_, place, _)| *place);
    found
}

fn open(dir: &Path) -> Packs {
    Packs::open(&[dir.join(".git/objects")]).unwrap()
}

#[test]
fn families_of_deltas_are_read_in_any_order() {
    for delta_base_offset in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        families(dir.path(), delta_base_offset);
        let packs = open(dir.path());
        let objects = all(dir.path(), &packs);
        let deltas = |place: Place| {
            packs.packs[place.pack as usize].data.entry(place.offset).unwrap().header.is_delta()
        };
        let count = objects.iter().filter(|(_, place, _)| deltas(*place)).count();
        assert!(count > 200, "only {count} deltas");
        let is_blob = |oid: &Oid| git(dir.path(), &["cat-file", "-t", &hex(oid)]).starts_with(b"blob");
        let blobs: Vec<bool> = objects.iter().map(|(oid, _, _)| is_blob(oid)).collect();
        for order in 0..3 {
            let mut reader = packs.reader();
            for i in 0..objects.len() {
                let i = match order {
                    0 => i,
                    1 => objects.len() - 1 - i,
                    _ => i * 89 % objects.len(),
                };
                let (oid, place, want) = &objects[i];
                let readable = blobs[i] && (delta_base_offset || !deltas(*place));
                assert_eq!(reader.measure(*place), readable.then_some(want.len() as u32));
                let Object::Whole { bytes, zlib, .. } = reader.read_at(oid, *place).unwrap() else {
                    panic!("too large")
                };
                assert_eq!(bytes, want);
                assert_eq!(zlib.is_some(), !deltas(*place));
                if let Some(zlib) = zlib {
                    let mut again = vec![0; want.len()];
                    let (_, used, _) = gix::zlib::Inflate::default().once(zlib, &mut again).unwrap();
                    assert_eq!((used, &again), (zlib.len(), want));
                }
            }
        }
    }
}

#[test]
fn any_flipped_byte_is_an_error_or_changes_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    families(dir.path(), true);
    let packs = open(dir.path());
    let objects = all(dir.path(), &packs);
    let path = list(&dir.path().join(".git/objects")).unwrap().remove(0);
    drop(packs);
    let good = std::fs::read(&path).unwrap();
    let (mut refused, mut other) = (0, 0);
    for at in (12..good.len() - 20).step_by(good.len() / 150) {
        let mut bad = good.clone();
        bad[at] ^= 0x5a;
        // Another file each time: the old one may still be mapped.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bad).unwrap();
        let packs = open(dir.path());
        let mut reader = packs.reader();
        for (oid, place, want) in &objects {
            match reader.read_at(oid, *place) {
                Ok(Object::Whole { bytes, .. }) => other += u32::from(bytes != want),
                Ok(Object::TooLarge) => refused += 1,
                Err(error) => {
                    assert_eq!(error.reason, Reason::Corrupt);
                    assert!(error.message().contains(&hex(oid)), "{error:?}");
                    refused += 1;
                }
            }
        }
    }
    // The checksum of a stream finds nearly all; what it cannot find is a header that names another kind or base.
    assert!(refused > 150 && other < refused / 10, "{refused} refused, {other} other");
}

fn stream(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut deflate = gix::zlib::stream::deflate::Write::new(&mut out, gix::zlib::Compression::BEST_SPEED);
    deflate.write_all(bytes).unwrap();
    deflate.flush().unwrap();
    drop(deflate);
    out
}

/// The header of an entry of less than 2,048 bytes.
fn header(kind: u8, len: usize) -> [u8; 2] {
    [0x80 | kind << 4 | (len & 0xf) as u8, (len >> 4) as u8]
}

/// A delta on an object by its name.
fn on_name(base: &Oid, delta: &[u8]) -> Vec<u8> {
    [&header(7, delta.len())[..], base, &stream(delta)].concat()
}

#[test]
fn deltas_in_a_circle_or_of_nothing_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pack_dir = dir.path().join("pack");
    std::fs::create_dir(&pack_dir).unwrap();
    let mut pack = PackWriter::new(&pack_dir).unwrap();
    let same = [4, 4, 0x90, 4];
    let [a, b, itself, nothing, before, whole, good, longer] = [1u8, 2, 3, 4, 5, 6, 7, 8].map(|n| [n; 20]);
    pack.add_entry(a, &on_name(&b, &same)).unwrap();
    pack.add_entry(b, &on_name(&a, &same)).unwrap();
    pack.add_entry(itself, &on_name(&itself, &same)).unwrap();
    pack.add_entry(nothing, &on_name(&[9; 20], &same)).unwrap();
    // A base 16,511 bytes before: before the pack.
    pack.add_entry(before, &[&header(6, 4)[..], &[0xff, 0x7f], &stream(&same)].concat()).unwrap();
    pack.add_entry(whole, &[&header(3, 4)[..], &stream(b"base")].concat()).unwrap();
    pack.add_entry(good, &on_name(&whole, &same)).unwrap();
    pack.add_entry(longer, &[&header(3, 5)[..], &stream(b"base")].concat()).unwrap();
    pack.finish().unwrap().unwrap();
    let packs = Packs::open(&[dir.path().to_owned()]).unwrap();
    let places: Vec<Place> =
        [a, b, itself, nothing, before, whole, good, longer].iter().map(|o| packs.find(o).unwrap()).collect();
    let mut reader = packs.reader();
    // What is said by name is not for the store, and a length that is a lie is found when the object is read.
    let lens = places.iter().map(|place| reader.measure(*place));
    assert_eq!(lens.collect::<Vec<_>>(), [None, None, None, None, None, Some(4), None, Some(5)]);
    for (oid, place) in [a, b, itself, nothing, before].iter().zip(&places) {
        let Err(error) = reader.read_at(oid, *place) else { panic!("{} was read", hex(oid)) };
        assert!(error.reason == Reason::Corrupt && error.message().contains(&hex(oid)), "{error:?}");
    }
    assert!(reader.read_at(&longer, places[7]).is_err());
    // The reader goes on.
    assert_eq!(reader.expect(&good, Kind::Blob).unwrap(), b"base");
    assert_eq!(reader.expect(&whole, Kind::Blob).unwrap(), b"base");
}

#[test]
fn a_delta_that_grows_without_end_is_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let pack_dir = dir.path().join("pack");
    std::fs::create_dir(&pack_dir).unwrap();
    let mut pack = PackWriter::new(&pack_dir).unwrap();
    // 62 MiB made of 64 KiB; and as many made of those, which do not fit beside them.
    let base = [1; 20];
    let bytes = vec![b'x'; 1 << 16];
    let entry = [&[0xb0, 0x80, 0x20][..], &stream(&bytes)].concat();
    pack.add_entry(base, &entry).unwrap();
    let length = |mut n: u64| {
        let mut out = Vec::new();
        while n > 0x7f {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out
    };
    let times = |of: u64| {
        // 0x10000 bytes from 0, a thousand times.
        [length(of), length(1000 << 16), vec![0x80; 1000]].concat()
    };
    let (large, larger) = ([2; 20], [3; 20]);
    pack.add_entry(large, &on_name(&base, &times(1 << 16))).unwrap();
    pack.add_entry(larger, &on_name(&large, &times(1000 << 16))).unwrap();
    pack.finish().unwrap().unwrap();
    let packs = Packs::open(&[dir.path().to_owned()]).unwrap();
    let mut reader = packs.reader();
    assert_eq!([large, larger].map(|oid| reader.measure(packs.find(&oid).unwrap())), [None, None]);
    let Object::Whole { bytes, .. } = reader.read_at(&large, packs.find(&large).unwrap()).unwrap() else {
        panic!("62 MiB are not too large")
    };
    assert!(bytes.len() == 1000 << 16 && bytes.iter().all(|b| *b == b'x'));
    assert!(matches!(reader.read_at(&larger, packs.find(&larger).unwrap()).unwrap(), Object::TooLarge));
    reader.read_at(&base, packs.find(&base).unwrap()).unwrap();
    assert!(reader.buffer.capacity() <= KEEP_BUFFER);
}

/// A chain of deltas that each make the same again, as the store could read it.
fn chain(dir: &Path, bytes: &[u8], deltas: usize) -> (Packs, Vec<Place>) {
    let pack_dir = dir.join("pack");
    std::fs::create_dir(&pack_dir).unwrap();
    let mut pack = PackWriter::new(&pack_dir).unwrap();
    let oid = |n: usize| {
        let mut oid = [0; 20];
        oid[..4].copy_from_slice(&(n as u32).to_be_bytes());
        oid
    };
    let len = |mut n: usize| {
        let mut out = Vec::new();
        while n > 0x7f {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out
    };
    // In 64 KiB pieces from the start: what comes out does not matter here.
    let mut same = [len(bytes.len()), len(bytes.len())].concat();
    let mut left = bytes.len();
    while left > 0 {
        let piece = left.min(0xffff);
        same.extend([0xb0, piece as u8, (piece >> 8) as u8]);
        left -= piece;
    }
    let mut head = vec![0xb0 | (bytes.len() & 15) as u8];
    let mut rest = bytes.len() >> 4;
    while rest > 0x7f {
        head.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    head.push(rest as u8);
    let mut last = pack.add_entry(oid(0), &[&head[..], &stream(bytes)].concat()).unwrap();
    let mut places = vec![Place { pack: 0, offset: last }];
    for n in 1..=deltas {
        // This one begins where the last one ends.
        let distance: Vec<u8> = crate::git_index::offset_varint(pack.end() - last).collect();
        let entry = [&header(6, same.len())[..], &distance, &stream(&same)].concat();
        last = pack.add_entry(oid(n), &entry).unwrap();
        places.push(Place { pack: 0, offset: last });
    }
    pack.finish().unwrap().unwrap();
    (Packs::open(&[dir.to_owned()]).unwrap(), places)
}

#[test]
fn what_is_too_much_work_is_not_left_to_readers() {
    let dir = tempfile::tempdir().unwrap();
    let (packs, places) = chain(dir.path(), b"little", MAX_CHAIN + 2);
    // One by one, each standing on one that is known, and at once.
    let mut reader = packs.reader();
    let readable = places.iter().filter(|place| reader.measure(**place).is_some()).count();
    assert_eq!(readable, MAX_CHAIN + 1);
    assert_eq!(packs.reader().measure(places[MAX_CHAIN]), Some(6));
    assert_eq!(packs.reader().measure(places[MAX_CHAIN + 1]), None);
    let dir = tempfile::tempdir().unwrap();
    let (packs, places) = chain(dir.path(), &vec![b'x'; 1 << 20], 70);
    let mut reader = packs.reader();
    let readable = places.iter().filter(|place| reader.measure(**place).is_some()).count();
    // The whole one, and deltas of which all but the last make 64 MiB.
    assert_eq!(readable, 66);
    assert_eq!(packs.reader().measure(places[65]), Some(1 << 20));
    assert_eq!(packs.reader().measure(places[66]), None);
}
