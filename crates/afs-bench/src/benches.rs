//! The list of benches, one file each.

mod lookup;
mod memory;
mod pmap;
mod trees;
mod world;

use crate::Bench;

/// In the order in which they run.
pub(crate) const ALL: &[Bench] = &[
    Bench { name: "pmap", about: "the persistent map: insert, get, clone, memory", run: pmap::run },
    Bench {
        name: "lookup",
        about: "finding a name: in a base of a million entries, and through edits",
        run: lookup::run,
    },
    Bench { name: "memory", about: "bytes of RAM of an idle fork and of edits", run: memory::run },
    Bench { name: "trees", about: "cloning a session's tree, large and small", run: trees::run },
];
