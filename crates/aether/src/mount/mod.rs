//! A session in the kernel: the remote file system, the process that serves it, and what other processes can learn
//! of it.

mod record;
mod serve;
mod vfs;

pub(crate) use record::{Live, Record, ask, forget_dead, records, wait_gone};
pub(crate) use serve::{Serve, serve};
