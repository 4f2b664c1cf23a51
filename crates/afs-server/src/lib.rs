//! The AetherFS server: the engine behind gRPC, HTTP/JSON, raw bytes and a kernel mount, on one port.
//!
//! Guarantees: every surface calls the same engine and decides nothing itself; calls that can block never run on the
//! async threads without bound (`pool`); an acknowledgement with durability `local` is on disk; what comes from a caller is
//! checked field by field and refused with a typed error.
//!
//! Deliberately absent: authentication (so it listens on loopback only), TLS, WebDAV, the console.

mod admin;
mod app;
mod bridge;
mod config;
mod data_dir;
mod disk;
mod file_system;
mod guard;
mod inode;
mod intake;
mod listen;
mod mount;
mod outgo;
mod pace;
mod page;
mod persistence;
mod pool;
mod queues;
mod ram;
mod raw;
mod repair;
mod reply;
mod router;
mod run;
mod session;
mod source;
mod whole;
mod wiring;

pub use app::App;
pub use config::{Config, DEFAULT_LISTEN, LogFormat, Settings};
pub use mount::{AllSessions, OneSession};
pub use repair::repair;
pub use run::{Running, start};
