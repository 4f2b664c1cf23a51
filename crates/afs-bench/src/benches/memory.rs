//! What sessions cost in RAM, counted by the allocator.

use super::world::World;
use crate::report::Bar;
use crate::{Context, alloc};
use anyhow::Result;

const FORKS: usize = 10_000;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let world = World::of(context.dir(), 100_000)?;
    for (edits, bar_kb) in [(10, 4.0), (100, 24.0), (1_000, 200.0)] {
        let mut failure = None;
        let (_tree, bytes) = alloc::bytes_of(|| {
            let mut tree = world.tree();
            failure = world.edit(&mut tree, edits).err();
            tree
        });
        if let Some(error) = failure {
            return Err(error);
        }
        context.figure(
            &format!("{edits} edited files, metadata"),
            bytes as f64 / 1e3,
            "KB",
            Bar::AtMost(bar_kb),
            1,
        );
    }
    let mut parent = world.tree();
    world.edit(&mut parent, 1_000)?;
    let (_forks, bytes) = alloc::bytes_of(|| vec![parent.clone(); FORKS]);
    context.figure("tree of an idle fork", bytes as f64 / FORKS as f64, "B", Bar::AtMost(512.0), FORKS);
    Ok(())
}
