//! `kill -9` of the whole server, again and again on one data directory, while everybody works through every surface: gRPC, HTTP, the server's own
//! mount, a remote mount that outlives the server, forks, checkpoints, restores, commits, imports.
//!
//! After each kill: what was acknowledged as durable is there; of the rest each client has the state after some number of its steps; nobody has a later
//! step of a session without an earlier one; what was under way is done again and happens once; forks and checkpoints are of one instant and never
//! change; a mount that lost something says so at the next fsync; nothing hangs. What a kill cannot show is a missing fsync: `power_cut` does.
//! So the negative controls are of another kind: answers given before the journal has the step, and a data directory that is one round old.
//!
//! More rounds: `AFS_KILL_ROUNDS=5000 AFS_KILL_SEED=7 cargo test --release -p afs-crash --test it kill_9::rounds -- --nocapture`.

mod area;
mod chance;
mod http;
mod imports;
mod ledger;
mod ledger_tests;
mod life;
mod lost;
mod observe;
mod rounds;
mod signals;
mod surfaces;
mod worker;
mod world;
