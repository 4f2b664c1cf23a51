//! Prints what the persistent map costs: `cargo run --release -p afs-core --example measure_pmap`.
//!
//! Processor time, best of several rounds, so that a busy machine disturbs it little. No figure is asserted.
#![allow(clippy::print_stdout, reason = "printing is all it does")]

use afs_core::pmap::PMap;
use std::hint::black_box;

const ENTRIES: u64 = 100_000;

type Map = PMap<(u64, u64), (u64, u64)>;

fn mix(i: u64) -> u64 {
    let z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (z >> 17)
}

fn key(i: u64) -> (u64, u64) {
    (mix(i) % 5_000, mix(i ^ 0xabcd))
}

/// The kernel counts processor time in ticks of some milliseconds: shorter measurements mean nothing.
const ENOUGH_NS: u64 = 50_000_000;

/// Processor time of this thread so far.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// Nanoseconds per step, best of seven rounds.
fn best(name: &str, steps: u64, mut round: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..7 {
        let (start, mut rounds) = (cpu_ns(), 0.0);
        while rounds < 1.0 || cpu_ns() - start < ENOUGH_NS {
            round();
            rounds += 1.0;
        }
        best = best.min((cpu_ns() - start) as f64 / rounds / steps as f64);
    }
    println!("{name:<44}{best:>10.1} ns");
}

fn filled() -> Map {
    let mut map = Map::new();
    for i in 0..ENTRIES {
        map.insert(key(i), (i, i));
    }
    map
}

fn main() {
    let map = filled();
    println!("{} entries of 16 + 16 B, {:.1} B each", map.len(), map.heap_bytes() as f64 / map.len() as f64);
    best("insert, random, one owner", ENTRIES, || drop(black_box(filled())));
    let order: Vec<_> = (0..ENTRIES).map(|i| key(mix(i) % ENTRIES)).collect();
    best("lookup, hit", ENTRIES, || {
        for k in &order {
            black_box(map.get(k));
        }
    });
    best("lookup, miss", ENTRIES, || {
        for k in &order {
            black_box(map.get(&(k.0, k.1 ^ 1)));
        }
    });
    best("range of one directory, per range", 5_000, || {
        for dir in 0..5_000 {
            black_box(map.range((dir, 0)..(dir + 1, 0)).count());
        }
    });
    best("iterate, per entry", ENTRIES, || {
        black_box(map.iter().count());
    });
    best("fork and drop", ENTRIES, || {
        for _ in 0..ENTRIES {
            black_box(map.clone());
        }
    });
    let mut own = map.clone();
    best("replace a value, one owner", ENTRIES, || {
        for k in &order {
            own.insert(*k, (7, 7));
        }
    });
    best("replace a value after a fork", 10_000, || {
        for k in &order[..10_000] {
            let mut fork = map.clone();
            black_box(fork.insert(*k, (7, 7)));
        }
    });
    best("remove and insert again, one owner", ENTRIES, || {
        for k in &order {
            own.remove(k);
            own.insert(*k, (7, 7));
        }
    });
    for changes in [1, 10, 100, 1_000] {
        let mut fork = map.clone();
        for k in &order[..changes] {
            fork.insert(*k, (7, 7));
        }
        best(&format!("diff of {changes} changes"), 100, || {
            for _ in 0..100 {
                black_box(map.diff(&fork).filter(|(_, a, b)| a != b).count());
            }
        });
    }
    let sorted: Vec<_> = map.iter().map(|(k, v)| (*k, *v)).collect();
    best("build from sorted entries, per entry", ENTRIES, || {
        black_box(sorted.iter().copied().collect::<Map>());
    });
}
