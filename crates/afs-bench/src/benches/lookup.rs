//! Finding a name, the most frequent thing a file system does.
//!
//! Two ways of asking. Directory by directory is what tools do: the directories in an order that jumps, the files of one after another, whose places
//! in the index are neighbours. Every name at random finds little in the processor's caches: such a look-up hashes the name and then waits for one load
//! (the line of the index), and cannot be quicker than the machine's memory, whose own time stands beside it.

use super::world::World;
use crate::Context;
use crate::report::Bar;
use crate::rounds::Rounds;
use anyhow::{Result, ensure};

const ENTRIES: usize = 1_000_000;
const EDITS: usize = 1_000;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let world = World::of(context.dir(), ENTRIES)?;
    let load = memory_latency();
    context.figure("raw limit: a load from 16 MB at random", load.p50(), "ns", Bar::None, load.len());
    let walked = Rounds::of_batches(300, 1000, |number| {
        let (dir, name) = world.dir_by_dir(number);
        world.base.lookup(dir, name)
    });
    let bar = Bar::AtMost(150.0);
    context.figure("hit, base of 1,000,000, directory by directory", walked.p50(), "ns", bar, walked.len());
    let hit = Rounds::of_batches(300, 1000, |number| {
        let (dir, name) = world.scattered(number);
        world.base.lookup(dir, name)
    });
    context.figure("hit, base of 1,000,000, every name at random", hit.p50(), "ns", bar, hit.len());
    context.figure("the same, in loads from memory", hit.p50() / load.p50(), "x", Bar::None, hit.len());
    let miss =
        Rounds::of_batches(300, 1000, |number| world.base.lookup(world.scattered(number).0, b"no such name"));
    context.figure("miss, base of 1,000,000", miss.p50(), "ns", Bar::AtMost(150.0), miss.len());
    let mut tree = world.tree();
    world.edit(&mut tree, EDITS)?;
    ensure!(tree.overlay_len() >= EDITS, "the edits are not in the overlay");
    let walked = Rounds::of_batches(300, 1000, |number| {
        let (dir, name) = world.dir_by_dir(number);
        tree.lookup(dir, name)
    });
    let bar = Bar::AtMost(250.0);
    context.figure("hit through 1,000 edits, directory by directory", walked.p50(), "ns", bar, walked.len());
    let edited = Rounds::of_batches(300, 1000, |number| {
        let (dir, name) = world.scattered(number);
        tree.lookup(dir, name)
    });
    context.figure("hit through 1,000 edits, every name at random", edited.p50(), "ns", bar, edited.len());
    let attr = Rounds::of_batches(300, 1000, |number| {
        let (dir, name) = world.scattered(number);
        tree.lookup(dir, name).and_then(|ino| tree.attr(ino))
    });
    context.figure("hit with attributes through 1,000 edits", attr.p50(), "ns", Bar::None, attr.len());
    Ok(())
}

/// One load after another, each from a place that only the one before tells, in as much memory as the rows of a million entries take.
fn memory_latency() -> Rounds {
    const LINE: usize = 16; // u32s
    let lines = (16 << 20) / 64;
    let mut order: Vec<usize> = (0..lines).collect();
    let mut word = 0x9e37_79b9_7f4a_7c15u64;
    for n in (1..lines).rev() {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        order.swap(n, word as usize % (n + 1));
    }
    let mut next = vec![0u32; lines * LINE];
    for pair in order.windows(2) {
        next[pair[0] * LINE] = (pair[1] * LINE) as u32;
    }
    next[order[lines - 1] * LINE] = (order[0] * LINE) as u32;
    let mut at = 0;
    Rounds::of_batches(300, 1000, |_| {
        at = next[at as usize];
        at
    })
}
