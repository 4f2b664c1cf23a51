//! The engine as a mounted file system: one session ([`OneSession`]), or every session as a directory ([`AllSessions`]).
//!
//! Guarantees: changes by others (API calls, other mounts) reach the kernel's caches through the watch; a session that
//! the kernel has forgotten can leave RAM. Refused here: changes of the directory of sessions itself, links and renames
//! across sessions. Deliberately absent: permissions (the kernel checks them) and FUSE (`afs-fuse`).

mod all;
mod one;
mod slots;

pub use all::AllSessions;
pub(crate) use all::relative;
pub use one::OneSession;
