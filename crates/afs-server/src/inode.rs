//! Inode operations that a mount needs and the engine offers in smaller pieces; shared by the mount in this process and
//! the Bridge, so that both behave alike.

use afs_session::{Attr, AttrSet, NewFile, Session, Stamp, Who};
use afs_types::{Clock, Ino, Reason, Result};

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;
const CAPABILITY: &[u8] = b"security.capability";

/// Who changes what: goes with every operation.
#[derive(Clone, Copy)]
pub(crate) struct By {
    pub(crate) who: Who,
    pub(crate) op_id: u64,
}

/// A time that is set.
#[derive(Clone, Copy)]
pub(crate) enum Time {
    Now,
    At(i64),
}

/// Attributes to set; what is none stays.
#[derive(Clone, Copy, Default)]
pub(crate) struct Set {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<Time>,
    pub(crate) mtime: Option<Time>,
    pub(crate) kill_priv: bool,
}

/// Sets attributes; with `kill_priv` a file loses what would let it run as somebody else.
pub(crate) fn set(s: &Session, clock: &dyn Clock, ino: Ino, set: Set, by: By) -> Result<(Attr, Stamp)> {
    let at = |time: Time| match time {
        Time::Now => clock.now_ns(),
        Time::At(ns) => ns,
    };
    let mut mode = set.mode;
    if set.kill_priv {
        let attr = s.getattr(ino)?;
        if attr.is_file() {
            let old = mode.unwrap_or(attr.mode & 0o7777);
            mode = Some(without_privileges(old)).filter(|new| *new != old).or(mode);
            match s.removexattr(ino, CAPABILITY, by.who, by.op_id) {
                Err(e) if e.reason != Reason::NoAttribute => return Err(e),
                _ => {}
            }
        }
    }
    let set = AttrSet {
        mode,
        uid: set.uid,
        gid: set.gid,
        size: set.size,
        atime_ns: set.atime.map(at),
        mtime_ns: set.mtime.map(at),
    };
    s.setattr(ino, set, by.who, by.op_id)
}

fn without_privileges(mode: u32) -> u32 {
    let group = if mode & S_IXGRP != 0 { S_ISGID } else { 0 };
    mode & !(S_ISUID | group)
}

/// What a write did.
pub(crate) struct Written {
    pub(crate) attr: Attr,
    /// Version of the content before.
    pub(crate) before: u64,
    /// Where the bytes went.
    pub(crate) offset: u64,
}

/// Writes at an offset or, with none, at the end.
pub(crate) fn write(s: &Session, ino: Ino, offset: Option<u64>, bytes: &[u8], by: By) -> Result<Written> {
    let before = s.getattr(ino)?.version;
    let (attr, _) = match offset {
        Some(at) => s.write(ino, at, bytes, by.who, by.op_id)?,
        None => s.append(ino, bytes, by.who, by.op_id)?,
    };
    let offset = offset.unwrap_or(attr.size.saturating_sub(bytes.len() as u64));
    Ok(Written { attr, before, offset })
}

/// Makes a regular file; an existing one is the answer unless `exclusive`. True: it was made.
pub(crate) fn create(
    s: &Session,
    parent: Ino,
    name: &[u8],
    new: NewFile,
    exclusive: bool,
    by: By,
) -> Result<(Attr, bool)> {
    loop {
        match s.create(parent, name, new, by.who, by.op_id) {
            Ok((attr, _)) => return Ok((attr, true)),
            Err(e) if e.reason == Reason::AlreadyExists && !exclusive => {}
            Err(e) => return Err(e),
        }
        match s.lookup(parent, name) {
            Ok(attr) if attr.is_dir() => return Err(Reason::IsADirectory.into()),
            Ok(attr) => return Ok((attr, false)),
            Err(e) if e.reason == Reason::NotFound => {} // gone meanwhile: make it after all
            Err(e) => return Err(e),
        }
    }
}

/// What happens inside of a range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allocate {
    Reserve,
    Punch,
    Zero,
}

/// Reserves, punches or zeroes a range.
pub(crate) fn allocate(
    s: &Session,
    ino: Ino,
    (offset, length): (u64, u64),
    keep_size: bool,
    what: Allocate,
    by: By,
) -> Result<Attr> {
    if what == Allocate::Reserve {
        return s.fallocate(ino, offset, length, false, keep_size, by.who, by.op_id).map(|(attr, _)| attr);
    }
    let (attr, _) = s.fallocate(ino, offset, length, true, true, by.who, by.op_id)?;
    let end = offset.saturating_add(length);
    if what == Allocate::Zero && !keep_size && end > attr.size {
        return s.grow(ino, end, by.who, by.op_id).map(|(attr, _)| attr);
    }
    Ok(attr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_go() {
        for (mode, left) in
            [(0o4755, 0o755), (0o2755, 0o755), (0o2745, 0o2745), (0o6777, 0o777), (0o1644, 0o1644)]
        {
            assert_eq!(without_privileges(mode), left, "{mode:o}");
        }
    }
}
