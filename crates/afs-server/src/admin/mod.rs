//! What operators and tools ask a server about itself: versions, limits, counters, readiness.

mod checks;
mod grpc;
mod limits;

pub(crate) use checks::{MOUNT_AGAIN, run as run_checks};
pub(crate) use grpc::Admin;
