//! Finding a name, the most frequent thing a file system does.

use super::world::World;
use crate::Context;
use crate::report::Bar;
use crate::rounds::Rounds;
use anyhow::{Result, ensure};

const ENTRIES: usize = 1_000_000;
const EDITS: usize = 1_000;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let world = World::of(ENTRIES)?;
    let hit = Rounds::of_batches(300, 1000, |number| {
        let (dir, name) = world.scattered(number);
        world.base.lookup(dir, name)
    });
    context.figure("hit, base of 1,000,000", hit.p50(), "ns", Bar::AtMost(150.0), hit.len());
    let miss =
        Rounds::of_batches(300, 1000, |number| world.base.lookup(world.scattered(number).0, b"no such name"));
    context.figure("miss, base of 1,000,000", miss.p50(), "ns", Bar::AtMost(150.0), miss.len());
    let mut tree = world.tree();
    world.edit(&mut tree, EDITS)?;
    ensure!(tree.overlay_len() >= EDITS, "the edits are not in the overlay");
    let edited = Rounds::of_batches(300, 1000, |number| {
        let (dir, name) = world.scattered(number);
        tree.lookup(dir, name)
    });
    context.figure("hit through 1,000 edits", edited.p50(), "ns", Bar::AtMost(250.0), edited.len());
    let attr = Rounds::of_batches(300, 1000, |number| {
        let (dir, name) = world.scattered(number);
        tree.lookup(dir, name).and_then(|ino| tree.attr(ino))
    });
    context.figure("hit with attributes through 1,000 edits", attr.p50(), "ns", Bar::None, attr.len());
    Ok(())
}
