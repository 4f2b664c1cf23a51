//! A session in the kernel: the remote file system, the process that serves it, and what other processes can learn
//! of it.

mod record;
mod serve;
mod vfs;

pub(crate) use record::{End, Live, Record, ask, end_of, forget_dead, record_at, records, wait_gone};
pub(crate) use serve::{Serve, serve};
