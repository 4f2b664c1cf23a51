//! The persistent map, which every session's tree is made of.

use crate::report::Bar;
use crate::rounds::Rounds;
use crate::{Context, alloc};
use afs_core::pmap::PMap;
use anyhow::Result;

const ENTRIES: u64 = 100_000;

pub(crate) fn run(context: &mut Context) -> Result<()> {
    let key = |number: usize| (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % ENTRIES;
    let (mut map, bytes) = alloc::bytes_of(|| {
        let mut map = PMap::new();
        for number in 0..ENTRIES {
            map.insert(number, number);
        }
        map
    });
    let get = Rounds::of_batches(200, 1000, |number| map.get(&key(number)).copied());
    context.figure("get, 100,000 entries", get.p50(), "ns", Bar::None, get.len());
    let insert = Rounds::of_batches(200, 1000, |number| map.insert(key(number), 1));
    context.figure("insert in place", insert.p50(), "ns", Bar::None, insert.len());
    let clone = Rounds::of_batches(200, 1000, |_| map.clone());
    context.figure("clone", clone.p50(), "ns", Bar::AtMost(50.0), clone.len());
    context.figure(
        "memory of an entry of 16 bytes",
        bytes as f64 / ENTRIES as f64,
        "B",
        Bar::AtMost(32.0),
        1,
    );
    Ok(())
}
