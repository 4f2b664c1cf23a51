//! Prints what finding a name costs: `cargo run --release -p afs-core --example measure_lookup [entries]`.
//!
//! The trees, the names asked for and the way of timing are those of `cargo xtask bench lookup`, without all that the
//! bench needs to be built. Beside them stands what the machine's memory can do: a load that tells where the next one is. No figure is asserted.
#![allow(clippy::print_stdout, reason = "printing is all it does")]
#![allow(clippy::unwrap_used, reason = "it measures, and stops where it cannot")]

use afs_core::base::{BaseBuilder, BaseTable, NewEntry, NodeHandle, NodeKind};
use afs_core::extent::{LogRef, Source};
use afs_core::op::Op;
use afs_core::tree::plan::{NewNode, RenameMode};
use afs_core::tree::{S_IFREG, Tree};
use afs_types::{BlobId, Ino, NameRef};
use memmap2::{Advice, Mmap, MmapMut};
use std::fs::File;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const FILES_PER_DIR: usize = 20;
const DIRS_PER_DIR: usize = 50;
const EDITS: usize = 1000;
const TIME_NS: i64 = 1_700_000_000_000_000_000;
const LINE: usize = 64;

/// Prints the tenth and the middle one of three hundred rounds of a thousand calls, in nanoseconds for each call.
fn show<T>(name: &str, mut call: impl FnMut(usize) -> T) {
    let mut round = |round: usize| {
        let started = Instant::now();
        for step in 0..1000 {
            black_box(call(round * 1000 + step));
        }
        started.elapsed().as_nanos() as f64 / 1000.0
    };
    for number in 0..30 {
        round(number);
    }
    let mut times: Vec<f64> = (0..300).map(round).collect();
    times.sort_by(f64::total_cmp);
    println!("{name:<58}{:>8.1} {:>8.1} ns", times[30], times[150]);
}

/// One load after another, each from a place that only the one before tells.
fn memory(name: &str, bytes: usize, huge: bool) {
    let mut room = MmapMut::map_anon(bytes).unwrap();
    if huge {
        room.advise(Advice::HugePage).unwrap();
    }
    let mut order: Vec<u32> = (0..bytes / LINE).map(|line| line as u32).collect();
    let mut word = 0x9e37_79b9_7f4a_7c15u64;
    for n in (1..order.len()).rev() {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        order.swap(n, word as usize % (n + 1));
    }
    for (n, line) in order.iter().enumerate() {
        let next = order[(n + 1) % order.len()];
        room[*line as usize * LINE..][..4].copy_from_slice(&next.to_ne_bytes());
    }
    let mut at = 0u32;
    show(name, |_| {
        at = u32::from_ne_bytes(*room[at as usize * LINE..].first_chunk().unwrap());
        at
    });
}

/// A base mapped as the server maps it, and where its files are.
struct World {
    base: Arc<BaseTable>,
    dirs: Vec<Ino>,
    names: Vec<Vec<u8>>,
}

impl World {
    /// With `rare` names each occurs once in the whole tree, so that its bytes are not in the caches.
    fn of(entries: usize, rare: bool) -> Self {
        let names: Vec<Vec<u8>> =
            (0..FILES_PER_DIR).map(|n| format!("source-file-{n}.rs").into_bytes()).collect();
        let mut builder = BaseBuilder::new(0x5eed);
        let mut dirs: Vec<NodeHandle> = Vec::new();
        let mut upper = BaseBuilder::ROOT;
        let dir_entry = || NewEntry::new(NodeKind::Dir, 0o755);
        while builder.len() < entries {
            if dirs.len().is_multiple_of(DIRS_PER_DIR) {
                let name = format!("package-{}", dirs.len() / DIRS_PER_DIR);
                upper = builder.add(BaseBuilder::ROOT, name.as_bytes(), dir_entry()).unwrap();
            }
            let dir =
                builder.add(upper, format!("module-{}", dirs.len() % DIRS_PER_DIR).as_bytes(), dir_entry());
            let dir = dir.unwrap();
            for name in &names {
                let number = builder.len() as u64;
                let file =
                    NewEntry { size: 1000, blob: Some(blob(number)), ..NewEntry::new(NodeKind::File, 0o644) };
                let name = if rare { rare_name(dirs.len(), name) } else { name.clone() };
                builder.add(dir, &name, file).unwrap();
            }
            dirs.push(dir);
        }
        let dirs = dirs.into_iter().map(|dir| builder.ino_of(dir)).collect();
        let path = std::env::temp_dir().join(format!("measure-lookup-{}", std::process::id()));
        std::fs::write(&path, builder.finish()).unwrap();
        let base = Arc::new(BaseTable::open(map(&path)).unwrap());
        std::fs::remove_file(path).unwrap();
        Self { base, dirs, names }
    }

    /// The `number`th file in an order that jumps through the whole tree.
    fn scattered(&self, number: usize) -> (Ino, &[u8]) {
        let file = number.wrapping_mul(7_368_787) % (self.dirs.len() * FILES_PER_DIR);
        (self.dirs[file / FILES_PER_DIR], &self.names[file % FILES_PER_DIR])
    }
    /// The files of a directory one after another, directories in an order that jumps.
    fn dir_by_dir(&self, number: usize) -> (Ino, &[u8]) {
        let dir = (number / FILES_PER_DIR).wrapping_mul(7_368_787) % self.dirs.len();
        (self.dirs[dir], &self.names[number % FILES_PER_DIR])
    }

    /// Of ten edits five write in place, two replace a file by a temporary one, two make a file, one deletes one.
    fn edit(&self, tree: &mut Tree) {
        let mut session = Session { tree, seq: 0, next_ino: self.base.max_ino() + 1 };
        for number in 0..EDITS {
            let (dir, name) = self.scattered(number);
            let file = NameRef::new(name).unwrap();
            match number % 10 {
                0..=4 => session.write(session.tree.lookup(dir, name).unwrap()),
                5 | 6 => {
                    session.create(dir, b".source-file.rs.tmp");
                    let from = NameRef::new(b".source-file.rs.tmp").unwrap();
                    let mode = RenameMode::Replace;
                    let plan =
                        session.tree.plan_rename(dir, from, dir, file, mode, |_| false, TIME_NS).unwrap();
                    session.apply(&plan.unwrap());
                }
                7 | 8 => session.create(dir, format!("new-file-{number}.rs").as_bytes()),
                _ => session.apply(&session.tree.plan_unlink(dir, file, |_| false, TIME_NS).unwrap()),
            }
        }
    }
}

/// What the engine does, without a journal.
struct Session<'a> {
    tree: &'a mut Tree,
    seq: u64,
    next_ino: Ino,
}

impl Session<'_> {
    fn apply(&mut self, op: &Op) {
        self.seq += 1;
        self.tree.apply(op, self.seq);
    }
    fn write(&mut self, ino: Ino) {
        let source = Source::Log(LogRef { segment: 0, offset: self.seq * 4096 });
        let op = self.tree.plan_write(ino, 0, 100, source, TIME_NS).unwrap();
        self.apply(&op);
    }
    fn create(&mut self, dir: Ino, name: &[u8]) {
        let new = NewNode { mode: S_IFREG | 0o644, uid: 0, gid: 0, rdev: 0, target: None };
        let ino = self.next_ino;
        self.next_ino += 1;
        let op = self.tree.plan_create(dir, NameRef::new(name).unwrap(), ino, &new, TIME_NS).unwrap();
        self.apply(&op);
        self.write(ino);
    }
}

fn rare_name(dir: usize, name: &[u8]) -> Vec<u8> {
    [format!("{dir}-").as_bytes(), name].concat()
}

fn blob(number: u64) -> BlobId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    id[8..16].copy_from_slice(&(number + 1).to_le_bytes());
    BlobId(id)
}

#[allow(unsafe_code, reason = "memory-mapping is unsafe in every crate that offers it")]
fn map(path: &std::path::Path) -> bytes::Bytes {
    // SAFETY: the file was made by this process under a name of its own, and nobody changes it.
    let map = unsafe { Mmap::map(&File::open(path).unwrap()) }.unwrap();
    // A wish, as in the server.
    let _ = map.advise(Advice::HugePage);
    bytes::Bytes::from_owner(map)
}

fn measure(world: &World, what: &str) {
    let base = &world.base;
    show(&format!("{what}: hit, directory by directory"), |number| {
        let (dir, name) = world.dir_by_dir(number);
        base.lookup(dir, name)
    });
    show(&format!("{what}: hit, every name at random"), |number| {
        let (dir, name) = world.scattered(number);
        base.lookup(dir, name)
    });
    show(&format!("{what}: miss"), |number| base.lookup(world.scattered(number).0, b"no such name"));
}

fn main() {
    let entries: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    memory("raw limit: a load from 16 MB at random", 16 << 20, false);
    memory("raw limit: the same in huge pages", 16 << 20, true);
    memory("raw limit: a load from 24 MB in huge pages", 24 << 20, true);
    let world = World::of(entries, false);
    measure(&world, "base");
    let mut tree = Tree::new(Arc::clone(&world.base));
    world.edit(&mut tree);
    show("1,000 edits: hit, directory by directory", |number| {
        let (dir, name) = world.dir_by_dir(number);
        tree.lookup(dir, name)
    });
    show("1,000 edits: hit, every name at random", |number| {
        let (dir, name) = world.scattered(number);
        tree.lookup(dir, name)
    });
    show("1,000 edits: miss", |number| tree.lookup(world.scattered(number).0, b"no such name"));
    show("1,000 edits: hit with attributes", |number| {
        let (dir, name) = world.scattered(number);
        tree.lookup(dir, name).and_then(|ino| tree.attr(ino))
    });
    drop((world, tree));
    let world = World::of(entries, true);
    let asked: Vec<(Ino, Vec<u8>)> = (0..330_000)
        .map(|number| {
            let file = number * 7_368_787 % (world.dirs.len() * FILES_PER_DIR);
            let dir = file / FILES_PER_DIR;
            (world.dirs[dir], rare_name(dir, &world.names[file % FILES_PER_DIR]))
        })
        .collect();
    show("names that occur once: hit, every name at random", |number| {
        let (dir, name) = &asked[number];
        let found = world.base.lookup(*dir, name);
        assert!(found.is_some());
        found
    });
}
