//! The list of benches, one file each.

mod fork;
mod grpc;
mod import;
mod lookup;
mod memory;
mod mount;
mod node;
mod pmap;
mod read;
mod recovery;
mod trees;
mod world;
mod write;

use crate::Bench;

/// In the order in which they run.
pub(crate) const ALL: &[Bench] = &[
    Bench { name: "pmap", about: "the persistent map: insert, get, clone, memory", run: pmap::run },
    Bench {
        name: "lookup",
        about: "finding a name: in a base of a million entries, and through edits",
        run: lookup::run,
    },
    Bench {
        name: "memory",
        about: "bytes of RAM of edits and of the tree of an idle fork",
        run: memory::run,
    },
    Bench { name: "trees", about: "cloning a session's tree, large and small", run: trees::run },
    Bench {
        name: "fork",
        about: "forking through the engine: in RAM, durable, RAM of an idle fork",
        run: fork::run,
    },
    Bench { name: "grpc", about: "ForkSession over gRPC on loopback, one and a hundred", run: grpc::run },
    Bench { name: "write", about: "4 KiB into a 1 GiB base file; disk of a typical edit", run: write::run },
    Bench { name: "recovery", about: "opening after a million records", run: recovery::run },
    Bench {
        name: "import",
        about: "importing the corpus, beside cp -a and git clone --local",
        run: import::run,
    },
    Bench {
        name: "read",
        about: "first reading of every file, from bases of git and of a directory",
        run: read::run,
    },
    Bench {
        name: "mount",
        about: "git status and a walk in the mounts, beside the disk and an overlay",
        run: mount::run,
    },
];
