//! Forking a tree in memory: must not depend on the size of the base or of the overlay.

use super::world::World;
use crate::Context;
use crate::report::Bar;
use crate::rounds::Rounds;
use anyhow::Result;
use std::path::Path;

const ROUNDS: usize = 100_000;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let large = clone_time(context.dir(), 1_000_000, 100_000)?;
    let small = clone_time(context.dir(), 10_000, 1_000)?;
    context.figure(
        "clone, overlay 100,000 on base 1,000,000, p50",
        large.p50(),
        "ns",
        Bar::AtMost(1_000.0),
        ROUNDS,
    );
    context.figure(
        "clone, overlay 100,000 on base 1,000,000, p99",
        large.p99(),
        "ns",
        Bar::AtMost(10_000.0),
        ROUNDS,
    );
    context.figure(
        "large over small (100 times smaller)",
        large.p50() / small.p50(),
        "x",
        Bar::AtMost(2.0),
        ROUNDS,
    );
    Ok(())
}

fn clone_time(dir: &Path, entries: usize, edits: usize) -> Result<Rounds> {
    let world = World::of(dir, entries)?;
    let mut tree = world.tree();
    world.edit(&mut tree, edits)?;
    // Kept, as sessions are: dropping each at once would measure a fork that nobody uses.
    let mut forks = Vec::with_capacity(ROUNDS * 2);
    Ok(Rounds::of(ROUNDS, |_| forks.push(tree.clone())))
}
