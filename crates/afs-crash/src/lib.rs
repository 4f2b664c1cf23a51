//! Crash tests: a workload that remembers what was acknowledged, and a check of what is there after a crash.
//!
//! Guarantees: [`Ledger::check`] finds an acknowledged operation that is gone, a session that is at no instant of its history (a hole, a torn file, half an operation),
//! a checkpoint that changed, and a store that no longer takes writes. The suites on top (`tests/it`) carry negative controls, so that a check that cannot fail would be noticed.
//! Deliberately absent: comparing with a model of what operations mean (afs-testkit does that); here a session is compared with its own past.

mod digest;
mod ledger;
mod node;
mod workload;

pub use digest::{Digest, digest};
pub use ledger::{Ack, Ledger};
pub use node::{Node, NodeOptions};
pub use workload::Workload;
