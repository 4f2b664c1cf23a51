//! Prints what the base table costs: `cargo run --release -p afs-core --example measure_base [entries]`.
//!
//! Processor time, best of several rounds, so that a busy machine disturbs it little. No figure is asserted.
#![allow(clippy::print_stdout, reason = "printing is all it does")]

use afs_core::base::{BaseBuilder, BaseTable, NewEntry, NodeKind};
use afs_types::BlobId;
use bytes::Bytes;
use std::collections::VecDeque;
use std::hint::black_box;

fn mix(i: u64) -> u64 {
    let z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (z >> 17)
}

/// The kernel counts processor time in ticks of some milliseconds: shorter measurements mean nothing.
const ENOUGH_NS: u64 = 50_000_000;

/// Processor time of this thread so far.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// Nanoseconds per step, best of five rounds.
fn best<T>(name: &str, steps: u64, mut round: impl FnMut() -> T) -> T {
    let mut best = f64::MAX;
    let mut last = None;
    for _ in 0..5 {
        let (start, mut rounds) = (cpu_ns(), 0.0);
        while rounds < 1.0 || cpu_ns() - start < ENOUGH_NS {
            drop(last.take());
            last = Some(black_box(round()));
            rounds += 1.0;
        }
        best = best.min((cpu_ns() - start) as f64 / rounds);
    }
    println!("{name:<40}{:>10.1} ms {:>10.1} ns each", best / 1e6, best / steps as f64);
    last.expect("five rounds ran")
}

/// Directory by directory, as importers walk. One in eight entries is a directory; 2.4 entries share a name,
/// as in real trees; most blobs are distinct.
fn tree(entries: u64, git: bool) -> BaseBuilder {
    let mut builder = BaseBuilder::new(42);
    let mut dirs = VecDeque::from([BaseBuilder::ROOT]);
    let mut i = 0;
    while let Some(dir) = dirs.pop_front() {
        let here = if i == 0 { 100 } else { 4 + mix(i) % 16 };
        for _ in 0..here {
            i += 1;
            let chance = mix(i);
            let kind = if chance.is_multiple_of(8) { NodeKind::Dir } else { NodeKind::File };
            let mut entry = NewEntry::new(kind, if kind == NodeKind::Dir { 0o755 } else { 0o644 });
            if kind == NodeKind::File {
                let mut blob = [7; 32];
                blob[..8].copy_from_slice(&(mix(i) % (entries * 8 / 10)).to_le_bytes());
                (entry.size, entry.blob) = (1 + chance % 20_000, Some(BlobId(blob)));
            }
            if git {
                let mut oid = [1; 20];
                oid[..8].copy_from_slice(&mix(i).to_le_bytes());
                entry.git_oid = Some(oid);
            }
            let number = if chance % 10 < 4 { i } else { mix(chance) % 20_000 };
            let name = format!("file-{number:x}.ts");
            if let Ok(node) = builder.add(dir, name.as_bytes(), entry)
                && kind == NodeKind::Dir
            {
                dirs.push_back(node);
            }
            if i + 1 >= entries {
                return builder;
            }
        }
    }
    builder
}

/// As a mapped file would be: from a cache line on.
fn aligned(table: &[u8]) -> Bytes {
    let mut room = vec![0; table.len() + 64];
    let from = room.as_ptr().align_offset(64);
    room[from..from + table.len()].copy_from_slice(table);
    Bytes::from(room).slice(from..from + table.len())
}

fn hits(table: &BaseTable, rows: &[(u64, Vec<u8>)]) -> usize {
    rows.iter().filter(|(parent, name)| table.lookup(*parent, name).is_some()).count()
}

fn main() {
    let entries: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    best("collect", entries, || tree(entries, false).len());
    let bytes = best("collect, number and write", entries, || tree(entries, false).finish());
    let git = tree(entries, true).finish();
    let per = |len: usize| len as f64 / entries as f64;
    println!("{entries} entries: {:.1} B each, {:.1} B with git ids", per(bytes.len()), per(git.len()));
    let bytes = aligned(&bytes);
    best("checksum alone", entries, || blake3::hash(&bytes));
    let open = || BaseTable::open(bytes.clone()).expect("a table just built opens");
    let table = best("open, with all checks", entries, open);
    best("verify the index", entries, || table.verify_index().is_ok());
    let rows: Vec<(u64, Vec<u8>)> = (0..entries)
        .filter_map(|i| table.at(2 + mix(i) % (table.len() - 1)).map(|e| (e.parent, e.name.to_vec())))
        .collect();
    let steps = rows.len() as u64;
    best("lookup, hit, anywhere in all entries", steps, || hits(&table, &rows));
    let some = &rows[..rows.len() / 20];
    best("lookup, hit, in a working set of 5 %", steps / 20 * 10, || {
        (0..10).map(|_| hits(&table, some)).sum::<usize>()
    });
    // Copied, so that the names asked for lie in memory in the order of asking.
    let mut near: Vec<_> = rows.iter().collect();
    near.sort_unstable();
    let near: Vec<_> = near.into_iter().cloned().collect();
    best("lookup, hit, directory by directory", steps, || hits(&table, &near));
    best("lookup, miss, anywhere", steps, || {
        rows.iter().filter(|r| table.lookup(r.0 + 1, &r.1).is_some()).count()
    });
    best("read names", entries, || {
        (1..=table.len())
            .map(|dir| table.names_from(dir, 0).map(|c| c.name.len()).sum::<usize>())
            .sum::<usize>()
    });
    best("read whole entries", entries, || {
        (1..=table.len()).map(|dir| table.children(dir).map(|e| e.size).sum::<u64>()).sum::<u64>()
    });
    best("entry by number, random", entries, || {
        (0..entries).filter_map(|i| table.entry(1 + mix(i) % table.len())).map(|e| e.size).sum::<u64>()
    });
}
