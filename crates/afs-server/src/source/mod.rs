//! Sources: where bases come from. Imports run in the engine; here they are started, watched and listed.
//!
//! Refused here: a spec that names nothing, a relative local path, a wait beyond 60 s.

mod grpc;
mod wire;

pub(crate) use grpc::Sources;
