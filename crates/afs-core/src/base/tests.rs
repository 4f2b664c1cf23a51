//! Tables against the trees they were built from, and against bytes that are not tables.

use super::format::{HEADER_BYTES, Header, SUMMED_FROM, VERSION_1, sum};
use super::*;
use crate::hash::name_hash;
use afs_types::{Reason, limits};
use bytes::Bytes;
use std::collections::BTreeMap;

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A tree as a list: parent and target are places in the list, a parent comes before its children.
struct Planned {
    parent: usize,
    name: Vec<u8>,
    entry: NewEntry,
    target: Option<usize>,
}

fn random_name(dice: &mut Dice) -> Vec<u8> {
    match dice.below(10) {
        0 => (0..1 + dice.below(255)).map(|_| 1 + (dice.below(46)) as u8).collect(),
        1 => vec![0x80 | dice.next() as u8, 0xff],
        2 => format!("prefix-that-is-shared-{}", dice.below(50)).into_bytes(),
        _ => format!("n{}", dice.below(200)).into_bytes(),
    }
}

fn random_entry(dice: &mut Dice, git: bool) -> NewEntry {
    let kind = match dice.below(20) {
        0..6 => NodeKind::Dir,
        6 | 7 => NodeKind::Symlink,
        8 => NodeKind::Special,
        9 => NodeKind::Gitlink,
        _ => NodeKind::File,
    };
    let mut entry = NewEntry::new(kind, MODE_FIFO | dice.below(0o10000) as u32);
    entry.uid = dice.below(3) as u32;
    entry.gid = dice.below(2) as u32;
    entry.mtime_ns = dice.next() as i64;
    let content = dice.below(100) as u8;
    match kind {
        NodeKind::File if content > 10 => (entry.size, entry.blob) = (dice.below(1 << 40), blob(content)),
        NodeKind::Symlink => (entry.size, entry.blob) = (1 + dice.below(4095), blob(content + 1)),
        NodeKind::Special => entry.rdev = dice.next() as u32,
        _ => {}
    }
    if git && kind != NodeKind::Special {
        entry.git_oid = Some([content.wrapping_mul(7) | 1; 20]);
    }
    entry
}

fn blob(byte: u8) -> Option<BlobId> {
    Some(BlobId([byte; 32]))
}

fn random_tree(dice: &mut Dice, size: usize, git: bool) -> Vec<Planned> {
    let root = NewEntry::new(NodeKind::Dir, 0o750);
    let mut plan = vec![Planned { parent: 0, name: Vec::new(), entry: root, target: None }];
    let mut taken = std::collections::HashSet::new();
    while plan.len() < size {
        let parent = dice.below(plan.len() as u64) as usize;
        let name = random_name(dice);
        let odd = name == b"." || name == b"..";
        if odd || plan[parent].entry.kind != NodeKind::Dir || !taken.insert((parent, name.clone())) {
            continue;
        }
        let to = dice.below(plan.len() as u64) as usize;
        let to = plan[to].target.unwrap_or(to);
        let can = matches!(plan[to].entry.kind, NodeKind::File | NodeKind::Symlink | NodeKind::Special);
        let target = (can && dice.below(5) == 0).then_some(to);
        let entry = target.map_or_else(|| random_entry(dice, git), |to| plan[to].entry.clone());
        plan.push(Planned { parent, name, entry, target });
    }
    plan
}

/// Builds the tree with its entries in another order, and another of the names of an inode as its first.
fn build(plan: &[Planned], seed: u64, order: &mut Dice) -> Vec<u8> {
    let mut builder = BaseBuilder::new(seed);
    builder.root(plan[0].entry.clone());
    let mut handles: BTreeMap<usize, NodeHandle> = BTreeMap::from([(0, BaseBuilder::ROOT)]);
    let mut inodes: BTreeMap<usize, NodeHandle> = BTreeMap::new();
    let mut left: Vec<usize> = (1..plan.len()).collect();
    while !left.is_empty() {
        let pick = order.below(left.len() as u64) as usize;
        let at = left[pick];
        let Some(parent) = handles.get(&plan[at].parent).copied() else { continue };
        let inode = plan[at].target.unwrap_or(at);
        let entry = match inodes.get(&inode) {
            Some(first) => NewEntry::hard_link(*first),
            None => plan[inode].entry.clone(),
        };
        let handle = builder.add(parent, &plan[at].name, entry).unwrap();
        inodes.entry(inode).or_insert(handle);
        handles.insert(at, handle);
        left.swap_remove(pick);
    }
    builder.finish()
}

fn check_against(plan: &[Planned], table: &BaseTable) {
    let mut position = vec![1; plan.len()];
    let mut below: BTreeMap<usize, BTreeMap<&[u8], usize>> = BTreeMap::new();
    for (at, it) in plan.iter().enumerate().skip(1) {
        below.entry(it.parent).or_default().insert(&it.name, at);
    }
    // Breadth first, by name.
    let (mut order, mut next) = (vec![0], 0);
    while next < order.len() {
        if let Some(names) = below.get(&order[next]) {
            order.extend(names.values());
        }
        next += 1;
    }
    for (at, plan_at) in order.iter().enumerate() {
        position[*plan_at] = at as Ino + 1;
    }
    assert_eq!(table.len(), plan.len() as u64);
    for (at, it) in plan.iter().enumerate() {
        let names: Vec<usize> = (0..plan.len())
            .filter(|other| plan[*other].target.unwrap_or(*other) == it.target.unwrap_or(at))
            .collect();
        let ino = names.iter().map(|name| position[*name]).min().unwrap();
        check_entry(plan, table, at, &position, ino, names.len() as u32);
        let want: Vec<Ino> = order
            .iter()
            .map(|o| position[*o])
            .filter(|p| *p != ino && names.iter().any(|n| position[*n] == *p))
            .collect();
        assert_eq!(table.aliases(ino).collect::<Vec<_>>(), want);
        let names: Vec<&[u8]> = below.get(&at).map(|b| b.keys().copied().collect()).unwrap_or_default();
        let here = position[at];
        assert_eq!(table.children(here).map(|c| c.name).collect::<Vec<_>>(), names);
        for (skip, child) in table.children(here).enumerate() {
            assert!(
                table.children_from(here, child.position).map(|c| c.name).eq(names[skip..].iter().copied())
            );
            assert!(
                table
                    .names_from(here, child.position + 1)
                    .map(|c| c.name)
                    .eq(names[skip + 1..].iter().copied())
            );
            let light = table.names_from(here, child.position).next().unwrap();
            assert_eq!((light.ino, light.mode, light.name), (child.ino, child.mode, child.name));
        }
    }
}

fn check_entry(plan: &[Planned], table: &BaseTable, at: usize, position: &[Ino], ino: Ino, names: u32) {
    let it = &plan[at];
    let want = &plan[it.target.unwrap_or(at)].entry;
    let parent = position[it.parent];
    let found = if at == 0 { table.entry(1).unwrap() } else { table.find(parent, &it.name).unwrap() };
    if at > 0 {
        assert_eq!(table.lookup(parent, &it.name), Some(ino));
        assert_eq!(table.lookup(parent, &[&it.name[..], b"~"].concat()), None);
    }
    assert_eq!((found.ino, found.position, found.parent), (ino, position[at], parent));
    assert_eq!(found.name, &it.name);
    let is_first = found.position == ino;
    assert_eq!(found.kind, if is_first { want.kind } else { NodeKind::HardLink });
    assert_eq!(table.entry(found.position).is_some(), is_first);
    assert_eq!(table.at(found.position), Some(found.clone()));
    assert_eq!(Some(found.mode), want.kind.mode_type(MODE_FIFO).map(|t| t | want.mode & 0o7777));
    assert_eq!((found.uid, found.gid, found.size), (want.uid, want.gid, want.size));
    assert_eq!((found.mtime_ns, found.rdev), (want.mtime_ns, want.rdev));
    assert_eq!((found.blob, found.git_oid), (want.blob, want.git_oid));
    let subdirs = |kind| matches!(kind, NodeKind::Dir | NodeKind::Gitlink);
    let in_it = plan.iter().skip(1).filter(|p| p.parent == at && p.target.is_none() && subdirs(p.entry.kind));
    let links = if subdirs(want.kind) { 2 + in_it.count() as u32 } else { names };
    assert_eq!(found.nlink, links);
}

fn check_totals(plan: &[Planned], table: &BaseTable) {
    let own = |kind| plan.iter().filter(move |p| p.target.is_none() && p.entry.kind == kind);
    let want = Totals {
        entries: plan.len() as u64,
        files: own(NodeKind::File).count() as u64,
        dirs: own(NodeKind::Dir).count() as u64,
        symlinks: own(NodeKind::Symlink).count() as u64,
        bytes: own(NodeKind::File).map(|p| p.entry.size).sum(),
    };
    assert_eq!(table.totals(), want);
}

#[test]
fn tables_hold_their_trees_whatever_the_order_of_import() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let size = 1 + dice.below(if seed < 50 { 60 } else { 900 }) as usize;
        let plan = random_tree(&mut dice, size, seed % 2 == 0);
        let bytes = build(&plan, seed, &mut Dice(1));
        assert!(bytes == build(&plan, seed, &mut Dice(2)), "seed {seed}: the order of import shows");
        for bytes in [version_1(&bytes), bytes] {
            let table = BaseTable::open(bytes.into()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            table.verify_index().unwrap();
            check_totals(&plan, &table);
            check_against(&plan, &table);
        }
    }
}

#[test]
fn the_smallest_table() {
    let table = BaseTable::open(BaseBuilder::new(9).finish().into()).unwrap();
    assert_eq!((table.len(), table.max_ino()), (1, 1));
    assert_eq!(table.name_hash(1, b"a"), name_hash(9, 1, b"a"));
    let root = table.entry(1).unwrap();
    assert_eq!((root.ino, root.parent, root.nlink, root.mode), (1, 1, 2, 0o40755));
    assert_eq!(table.lookup(1, b"a"), None);
    for odd in [0, 2, u64::from(u32::MAX) + 2, u64::MAX] {
        assert_eq!(table.entry(odd), None);
        assert_eq!(table.lookup(odd, b"a"), None);
        assert_eq!(table.children_from(1, odd).count() + table.children(odd).count(), 0);
        assert_eq!(table.aliases(odd).count(), 0);
    }
}

#[test]
fn numbers_are_final_before_contents() {
    let mut builder = BaseBuilder::new(1);
    let dir = builder.add(BaseBuilder::ROOT, b"z", NewEntry::new(NodeKind::Dir, 0o755)).unwrap();
    let late = builder.add(dir, b"index", NewEntry::new(NodeKind::File, 0o644)).unwrap();
    let early = builder.add(BaseBuilder::ROOT, b"a", NewEntry::new(NodeKind::File, 0o600)).unwrap();
    let link = builder.add(BaseBuilder::ROOT, b"b", NewEntry::hard_link(late)).unwrap();
    builder.number();
    // The inode takes the place of its first name.
    assert_eq!([early, link, late, dir].map(|node| builder.ino_of(node)), [2, 3, 3, 4]);
    let refused = builder.add(dir, b"x", NewEntry::new(NodeKind::File, 0o644)).unwrap_err();
    assert_eq!(refused.reason, Reason::Internal);
    builder.set_content(link, 5, blob(5), 77).unwrap();
    assert!(builder.set_content(dir, 5, blob(5), 77).is_err());
    let table = BaseTable::open(builder.finish().into()).unwrap();
    let entry = table.find(4, b"index").unwrap();
    assert_eq!((entry.ino, entry.size, entry.blob, entry.mtime_ns), (3, 5, blob(5), 77));
    assert_eq!(table.aliases(3).collect::<Vec<_>>(), [5]);
    assert_eq!(table.entry(5), None);
}

#[test]
fn hostile_trees_are_refused_by_path() {
    let file = || NewEntry::new(NodeKind::File, 0o644);
    let mut builder = BaseBuilder::new(1);
    let dir = builder.add(BaseBuilder::ROOT, b"dir", NewEntry::new(NodeKind::Dir, 0o755)).unwrap();
    let one = builder.add(dir, b"one", file()).unwrap();
    let module = builder.add(dir, b"module", NewEntry::new(NodeKind::Gitlink, 0o755)).unwrap();
    let long = [b'x'; 256];
    let names: [&[u8]; 7] = [b"", b".", b"..", b"a/b", b"a\0", &long, b"one"];
    let mut errors: Vec<_> = names.iter().map(|name| builder.add(dir, name, file()).unwrap_err()).collect();
    errors.push(builder.add(one, b"x", file()).unwrap_err());
    errors.push(builder.add(module, b"x", file()).unwrap_err());
    errors.push(builder.add(dir, b"x", NewEntry::hard_link(dir)).unwrap_err());
    errors.push(builder.add(dir, b"x", NewEntry { hard_link_to: Some(one), ..file() }).unwrap_err());
    errors.push(builder.add(dir, b"x", NewEntry::new(NodeKind::HardLink, 0)).unwrap_err());
    errors.push(builder.add(dir, b"x", NewEntry::new(NodeKind::Symlink, 0)).unwrap_err());
    errors.push(builder.add(dir, b"x", NewEntry::new(NodeKind::Special, MODE_FILE)).unwrap_err());
    let huge = NewEntry { size: limits::MAX_FILE_BYTES + 1, ..file() };
    errors.push(builder.add(dir, b"x", huge).unwrap_err());
    for error in &errors {
        assert_eq!(error.reason, Reason::HostileTree);
        assert!(error.message().starts_with("/dir/"), "{}", error.message());
    }
    assert_eq!(errors[6].message(), "/dir/one: the name is there twice");
    // What was refused left nothing behind.
    builder.add(dir, b"x", file()).unwrap();
    BaseTable::open(builder.finish().into()).unwrap().verify_index().unwrap();
}

#[test]
fn depth_and_path_length_are_bounded() {
    for (name, most) in [(&b"d"[..], limits::MAX_PATH_DEPTH), (&[b'd'; 255], limits::MAX_PATH_BYTES / 256)] {
        let mut builder = BaseBuilder::new(1);
        let mut at = BaseBuilder::ROOT;
        let mut depth = 0;
        let error = loop {
            match builder.add(at, name, NewEntry::new(NodeKind::Dir, 0o755)) {
                Ok(node) => at = node,
                Err(error) => break error,
            }
            depth += 1;
        };
        assert_eq!((depth, error.reason), (most, Reason::HostileTree));
        BaseTable::open(builder.finish().into()).unwrap();
    }
}

fn sample() -> Vec<u8> {
    let mut dice = Dice(4711);
    let plan = random_tree(&mut dice, 80, true);
    assert!(plan.iter().any(|p| p.target.is_some()));
    build(&plan, 3, &mut dice)
}

/// The table as builds wrote it that knew version 1 alone; see `the_format_is_pinned`.
fn version_1(bytes: &[u8]) -> Vec<u8> {
    let table = BaseTable::open(Bytes::copy_from_slice(bytes)).unwrap();
    let (at, slots) = (&table.layout, slots::write(&table));
    let rest = [&bytes[at.rows.start..at.blobs.end], &bytes[at.oids.start..]];
    let mut old = [&bytes[..HEADER_BYTES], &slots, rest[0], rest[1]].concat();
    let length = old.len() as u64;
    let header: &mut Header = bytemuck::from_bytes_mut(&mut old[..HEADER_BYTES]);
    (header.version, header.length) = (VERSION_1.into(), length.into());
    header.lines = (slots.len() as u64 / 64).into();
    reseal(&mut old);
    old
}

/// Makes the checksum right.
fn reseal(table: &mut [u8]) {
    if table.len() > SUMMED_FROM {
        let right = sum(&table[SUMMED_FROM..]);
        table[16..48].copy_from_slice(&right);
    }
}

#[test]
fn damage_is_found() {
    damage_is_found_in(sample());
    damage_is_found_in(version_1(&sample()));
}

fn damage_is_found_in(good: Vec<u8>) {
    let open = |bytes: Vec<u8>| BaseTable::open(Bytes::from(bytes)).map(|_| ());
    open(good.clone()).unwrap();
    for len in 0..good.len() {
        assert_eq!(open(good[..len].to_vec()).unwrap_err().reason, Reason::Corrupt);
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        assert_eq!(open(bad).unwrap_err().reason, Reason::Corrupt, "byte {at}");
    }
    let longer = [&good[..], &[0]].concat();
    assert_eq!(open(longer).unwrap_err().reason, Reason::Corrupt);
}

/// Calls everything: nothing may panic or hang, whatever the table says.
fn use_all(table: &BaseTable) -> usize {
    let mut seen = 0;
    for ino in 0..=table.len() + 1 {
        if let Some(entry) = table.at(ino) {
            // A name may not be found, but what is found has it.
            let found = table.find(entry.parent, entry.name);
            assert!(
                found
                    .as_ref()
                    .is_none_or(|e| e.parent == entry.parent && e.name == entry.name && e.position > 1)
            );
            assert_eq!(table.lookup(entry.parent, entry.name), found.as_ref().map(|e| e.ino));
            seen += usize::from(found.is_some());
        }
        seen += usize::from(table.entry(ino).is_some());
        seen += table.children(ino).map(|c| c.name.len()).sum::<usize>();
        seen += table.names_from(ino, 7).count() + table.aliases(ino).count();
        seen += usize::from(table.lookup(ino, b"no such name").is_some());
    }
    // One tree: going up ends at the root.
    for ino in 1..=table.len() {
        let (mut at, mut steps) = (ino, 0);
        while at != 1 {
            at = table.at(at).unwrap().parent;
            steps += 1;
            assert!(steps <= table.len());
        }
    }
    seen + usize::from(table.verify_index().is_ok())
}

/// With a right checksum, only the structural checks stand between the bytes and the readers.
#[test]
fn crafted_tables_are_refused_or_harmless() {
    crafted_tables_from(sample());
    crafted_tables_from(version_1(&sample()));
}

fn crafted_tables_from(good: Vec<u8>) {
    let mut dice = Dice(99);
    let (mut refused, mut taken) = (0, 0);
    let rounds = 60_000;
    for round in 0..rounds {
        let mut bad = good.clone();
        if round % 50 == 0 {
            bad.truncate(dice.below(good.len() as u64 + 1) as usize);
        }
        for _ in 0..1 + dice.below(3) {
            if bad.len() <= SUMMED_FROM {
                break;
            }
            let at = SUMMED_FROM + dice.below((bad.len() - SUMMED_FROM) as u64) as usize;
            bad[at] = match dice.below(4) {
                0 => bad[at] ^ (1 << dice.below(8)),
                1 => bad[at].wrapping_add(1),
                2 => [0, 0xff, 0x7f, 0x80][dice.below(4) as usize],
                _ => dice.next() as u8,
            };
        }
        reseal(&mut bad);
        match BaseTable::open(bad.into()) {
            Ok(table) => {
                taken += 1;
                use_all(&table);
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error.reason, Reason::Corrupt);
            }
        }
    }
    // Times, owners and hashes may be anything; the rest may not.
    assert!(refused > rounds / 5 && taken > rounds / 20, "{refused} refused, {taken} taken");
}

/// A line that lies about a row would make a lookup answer what is not so, whatever the rows say.
#[test]
fn an_index_that_is_not_like_the_rows_is_refused() {
    let good = sample();
    let table = BaseTable::open(good.clone().into()).unwrap();
    let at = table.layout.clone();
    let places = |line: usize| at.lines.start + 64 * line + 32;
    let used = |slot: usize| good[places(slot / 4) + 8 * (slot % 4)..][..8] != [0; 8];
    let all = 0..at.lines.len() / 16;
    let slot = all.clone().find(|slot| used(*slot)).unwrap();
    let roomy = all.clone().find(|slot| !used(*slot)).unwrap() / 4;
    let (key, place) = (at.lines.start + 64 * (slot / 4) + 8 * (slot % 4), places(slot / 4) + 8 * (slot % 4));
    let refused = |what: &str, at: usize, with: u8| {
        let mut bad = good.clone();
        bad[at] ^= with;
        reseal(&mut bad);
        let error = BaseTable::open(bad.into()).map(|_| ()).unwrap_err();
        assert_eq!(error.reason, Reason::Corrupt, "{what}");
        error.message().to_owned()
    };
    let unlike = "base table: an index slot that is not like its row";
    for (what, at, with) in [
        ("length of the name", key, 1),
        ("parent", key + 4, 1),
        ("parent beyond all", key + 7, 0x80),
        ("position", place, 1),
        ("bits that mean nothing", place + 3, 0x40),
        ("hard link", place + 3, 0x80),
        ("name", place + 4, 1),
    ] {
        let message = refused(what, at, with);
        let beyond = message.starts_with("base table: an index slot beyond the end");
        assert!(message.starts_with(unlike) || (beyond && what == "position"), "{what}: {message}");
    }
    let passed = refused("passed", at.tags.start + 4 * roomy, 0x80);
    assert!(passed.starts_with("base table: a passed line of the index with room"), "{passed}");
    for start in at.starts.clone().step_by(4) {
        let message = refused("start", start, 1);
        assert!(message.starts_with("base table: a wrong count of names"), "{message}");
    }
    // A free slot that would pass for the root, under the first name of all.
    let free = all.clone().find(|slot| !used(*slot)).unwrap();
    let message = refused("free slot", at.lines.start + 64 * (free / 4) + 8 * (free % 4), 3);
    assert!(message.starts_with("base table: a free index slot with a key"), "{message}");
    // A slot less, and all tags of the line as they were.
    let mut bad = good.clone();
    bad[key..key + 8].fill(0);
    bad[place..place + 8].fill(0);
    bad[at.tags.start + 4 * (slot / 4)] &= 0x7f;
    reseal(&mut bad);
    let message = BaseTable::open(bad.into()).unwrap_err().message().to_owned();
    assert!(message.starts_with("base table: wrong number of index slots"), "{message}");
}

/// Tags and the bits of the hash in a key are not looked at by `open`: if they are wrong, names are not found, and
/// `verify_index` says so.
#[test]
fn wrong_tags_are_found_by_looking_up_every_name() {
    let good = sample();
    let tags = BaseTable::open(good.clone().into()).unwrap().layout.tags.clone();
    let mut bad = good;
    for at in tags {
        bad[at] ^= 0x55;
    }
    reseal(&mut bad);
    let table = BaseTable::open(bad.into()).unwrap();
    assert_eq!(table.verify_index().unwrap_err().reason, Reason::Corrupt);
    use_all(&table);
}

/// The hash leads to a slot; what is there is compared. Asked for with the hash of a name that is there:
#[test]
fn a_hash_alone_finds_nothing() {
    let mut builder = BaseBuilder::new(5);
    let dir = builder.add(BaseBuilder::ROOT, b"dir", NewEntry::new(NodeKind::Dir, 0o755)).unwrap();
    for n in 0..40 {
        let name = format!("a-name-of-{n}-many-bytes");
        builder.add(dir, name.as_bytes(), NewEntry::new(NodeKind::File, 0o644)).unwrap();
    }
    let dir = builder.ino_of(dir);
    let new = builder.finish();
    for bytes in [version_1(&new), new] {
        let table = BaseTable::open(bytes.into()).unwrap();
        let first = table.children(dir).next().unwrap();
        let hash = table.name_hash(dir, first.name);
        let find = |parent, name: &[u8]| table.lookup_hashed(parent, name, hash);
        assert_eq!(find(dir, first.name), Some(first.ino));
        let mut other = first.name.to_vec();
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(find(dir, &other), None);
        assert_eq!(find(dir, &first.name[1..]), None);
        for parent in [0, 1, first.ino, table.max_ino() + 1, 1 << 32, dir + (1 << 32), u64::MAX] {
            assert_eq!(find(parent, first.name), None);
        }
        // As long as this name modulo 256, and the very bytes that lie in the table from its first one on.
        let all: Vec<u8> = table.children(dir).flat_map(|child| child.name.to_vec()).collect();
        let long = &all[..first.name.len() + 256];
        assert!(long.starts_with(first.name) && long.len() > limits::MAX_NAME_BYTES);
        assert_eq!((find(dir, long), find(dir, b"")), (None, None));
    }
}

/// Each byte of a name counts, whatever its length.
#[test]
fn names_that_differ_in_one_byte_differ() {
    let mut builder = BaseBuilder::new(6);
    let name = |len: usize| (1..=len).map(|at| b'a' + (at * at % 26) as u8).collect::<Vec<u8>>();
    for len in 1..=limits::MAX_NAME_BYTES {
        builder.add(BaseBuilder::ROOT, &name(len), NewEntry::new(NodeKind::File, 0o644)).unwrap();
    }
    let table = BaseTable::open(builder.finish().into()).unwrap();
    for len in 1..=limits::MAX_NAME_BYTES {
        let (name, hash) = (name(len), table.name_hash(1, &name(len)));
        assert!(table.lookup_hashed(1, &name, hash).is_some());
        for at in 0..len {
            let mut other = name.clone();
            other[at] ^= 0x20;
            assert_eq!(table.lookup_hashed(1, &other, hash), None, "byte {at} of {len}");
        }
    }
}

/// Directories of all sizes, so that lines are full, passed and empty, at the end of the index too.
#[test]
fn names_are_found_and_others_are_not_whatever_the_shape() {
    for (seed, dirs, names) in [(1, 1, 5000), (2, 400, 3), (3, 3000, 1), (4, 40, 100), (5, 900, 0)] {
        let mut builder = BaseBuilder::new(seed);
        let mut parents = vec![BaseBuilder::ROOT];
        let mut want = std::collections::HashMap::new();
        for dir in 0..dirs {
            let name = format!("d{dir}").into_bytes();
            let up = parents[dir / 3];
            parents.push(builder.add(up, &name, NewEntry::new(NodeKind::Dir, 0o755)).unwrap());
            want.insert((up, name), *parents.last().unwrap());
            for file in 0..names {
                let name = format!("f{file}").into_bytes();
                let node =
                    builder.add(parents[dir + 1], &name, NewEntry::new(NodeKind::File, 0o644)).unwrap();
                want.insert((parents[dir + 1], name), node);
            }
        }
        let want: Vec<_> = want
            .into_iter()
            .map(|((dir, name), node)| (builder.ino_of(dir), name, builder.ino_of(node)))
            .collect();
        let new = builder.finish();
        for bytes in [version_1(&new), new] {
            let table = BaseTable::open(bytes.into()).unwrap();
            table.verify_index().unwrap();
            for (dir, name, ino) in &want {
                assert_eq!(table.lookup(*dir, name), Some(*ino));
                assert_eq!(table.lookup(*ino, name), None, "{name:?} in itself");
                assert_eq!(table.lookup(*dir, &[&name[..], b"x"].concat()), None);
            }
        }
    }
}

/// What makes a lookup one load: seven of eight names lie in the line that their hash leads to, the others near.
#[test]
fn nearly_all_names_lie_where_they_belong() {
    let mut builder = BaseBuilder::new(11);
    for n in 0..100_000 {
        let name = format!("file-{n}");
        builder.add(BaseBuilder::ROOT, name.as_bytes(), NewEntry::new(NodeKind::File, 0o644)).unwrap();
    }
    let table = BaseTable::open(builder.finish().into()).unwrap();
    let (mut far, mut most) = (0, 0);
    for entry in table.children(1) {
        let steps = table.steps(1, entry.name);
        far += usize::from(steps > 0);
        most = most.max(steps);
    }
    assert!(far * 100 < table.len() as usize * 14, "{far} of {} names lie elsewhere", table.len());
    assert!(most < 100, "{most} lines to go");
}

/// The formats are stored for ever: a change of these bytes needs a new version number. That of version 1 is what builds
/// of that time wrote for the same tree: `version_1` makes the same bytes.
#[test]
fn the_format_is_pinned() {
    let bytes = sample();
    for (bytes, pinned) in [(version_1(&bytes), PINNED_1), (bytes, PINNED_2)] {
        assert_eq!(&bytes[..8], b"AFSBASE\0");
        assert_eq!(BlobId(sum(&bytes[SUMMED_FROM..])).to_hex(), pinned);
    }
}
const PINNED_1: &str = "12d281175e01cfbda73645b2c4feedda9b773e7a45eaa8b162b3bcb2fab09f81";
const PINNED_2: &str = "4047ad20af7544a80f70c5b93721d002051558f6081d547b53d302704f07a6ea";
