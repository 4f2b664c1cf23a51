//! The public contract of AetherFS in Rust.
//!
//! Guarantees: everything here follows from `proto/aether/v1`: messages and gRPC ([`v1`]), canonical JSON (serde
//! on the same types), REST routes that call the same service in process ([`rest`], feature `rest`), the OpenAPI
//! document ([`openapi_json`]). [`afs_types::Error`] crosses gRPC in both directions without loss of reason,
//! message, facts and next step ([`to_status`], [`from_status`]).
//!
//! Deliberately absent: rules. Nothing here decides whether a request is allowed or makes sense beyond its types.

mod convert;
mod error;
mod problem;
#[cfg(feature = "rest")]
pub mod rest;
pub mod wire;

pub use convert::{duration_ns, timestamp, timestamp_ns, to_duration};
pub use error::{DOMAIN, from_status, to_status, typed};
pub use problem::{Problem, Violation};

/// Messages, clients and (feature `server`) services of package `aether.v1`.
#[allow(missing_docs, clippy::all, clippy::too_many_lines, unused_qualifications, unreachable_pub)] // generated; documented in proto/
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/aether.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/aether.v1.serde.rs"));
}

/// The compiled contract, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The OpenAPI 3.1 document of the HTTP surface.
pub fn openapi_json() -> &'static str {
    include_str!(concat!(env!("OUT_DIR"), "/openapi.json"))
}
