//! Applies operations of a mount to its session.

use super::registry::Mount;
use super::resent::Resent;
use super::wire::{attributes, failed};
use crate::inode::{self, Allocate, By, Set, Time};
use afs_proto::v1::op::Op as Kind;
use afs_proto::v1::{self, Op, OpResult};
use afs_session::{Attr, Did, NewFile, RenameMode};
use afs_types::{Clock, Error, Reason, Result};

/// Applies one operation, once, also if it was sent to an earlier start of the server.
pub(crate) fn apply(mount: &Mount, clock: &dyn Clock, op: Op, resent: Option<&Resent>) -> OpResult {
    let op_id = op.op_id;
    let once = mount.replies.once(op_id, || match run(mount, clock, op, resent) {
        Ok(result) => OpResult { op_id, ..result },
        Err(error) => failed(op_id, &error),
    });
    once.unwrap_or_else(|error| failed(op_id, &error))
}

fn run(mount: &Mount, clock: &dyn Clock, op: Op, resent: Option<&Resent>) -> Result<OpResult> {
    let names = resent.map_or(&mount.names, |resent| &resent.names);
    let by = By { who: mount.who, op_id: names.of_op(op.op_id) };
    let Some(kind) = op.op else { return Err(Error::invalid("op", "one of the operations")) };
    if mount.read_only && !matches!(kind, Kind::Open(v1::OpenOp { truncate: false, .. }) | Kind::Release(_)) {
        return Err(Error::new(Reason::ReadOnly, format!("{} is mounted read-only", mount.id)));
    }
    if let Some(resent) = resent
        && let Some(did) = resent.became(&mount.session, &kind, by.op_id)?
    {
        return done_before(mount, &kind, did);
    }
    let s = &*mount.session;
    match kind {
        Kind::Create(op) => create(mount, clock, &op, by),
        Kind::Setattr(op) => inode::set(s, clock, op.inode, set_of(&op), by).map(|(attr, _)| changed(&attr)),
        Kind::Unlink(op) if op.directory => s.rmdir(op.parent, &op.name, by.who, by.op_id).map(|_| done()),
        Kind::Unlink(op) => s.unlink(op.parent, &op.name, by.who, by.op_id).map(|_| done()),
        Kind::Rename(op) => {
            let (from, to) = ((op.from_parent, &op.from_name[..]), (op.to_parent, &op.to_name[..]));
            s.rename(from, to, rename_mode(op.flags)?, by.who, by.op_id).map(|_| done())
        }
        Kind::Link(op) => s.link(op.inode, op.parent, &op.name, by.who, by.op_id).map(|(a, _)| changed(&a)),
        Kind::Xattr(op) => xattr(mount, &op, by),
        Kind::Write(op) => write(mount, &op, by),
        Kind::Mkdir(op) => {
            let new = NewFile { mode: op.mode, uid: op.uid, gid: op.gid, rdev: 0 };
            s.mkdir(op.parent, &op.name, new, by.who, by.op_id).map(|(a, _)| changed(&a))
        }
        Kind::Symlink(op) => {
            let new = NewFile { mode: 0, uid: op.uid, gid: op.gid, rdev: 0 };
            s.symlink(op.parent, &op.name, &op.target, new, by.who, by.op_id).map(|(a, _)| changed(&a))
        }
        Kind::Mknod(op) => {
            let rdev =
                u32::try_from(op.rdev).map_err(|_| Error::invalid("rdev", "a 32-bit device number"))?;
            let new = NewFile { mode: op.mode, uid: op.uid, gid: op.gid, rdev };
            s.create(op.parent, &op.name, new, by.who, by.op_id).map(|(a, _)| changed(&a))
        }
        Kind::Fallocate(op) => fallocate(mount, &op, by),
        Kind::CopyRange(op) => {
            let (from, to) = ((op.from_inode, op.from_offset), (op.to_inode, op.to_offset));
            let (count, _) = s.copy_range(from, to, op.length, by.who)?;
            Ok(OpResult { count, ..changed(&s.getattr(op.to_inode)?) })
        }
        Kind::Open(op) => open(mount, clock, &op, by),
        Kind::Release(op) => mount.release(op.inode).map(|()| done()),
    }
}

/// The answer to what an earlier start of the server did; attributes are those of now.
fn done_before(mount: &Mount, kind: &Kind, did: Did) -> Result<OpResult> {
    let now = |ino: u64| mount.session.getattr(ino).map(|attr| changed(&attr));
    match (kind, did) {
        (Kind::Create(op), Did::Created(ino)) => {
            let answer = now(ino)?;
            if op.open {
                mount.open(ino)?;
            }
            Ok(answer)
        }
        (Kind::Mkdir(_) | Kind::Symlink(_) | Kind::Mknod(_), Did::Created(ino)) => now(ino),
        (Kind::Link(op), Did::Linked) => now(op.inode),
        // The version before is not known: one that nobody has, so that what was cached of it goes.
        (Kind::Write(op), Did::Written { offset, len }) => {
            Ok(OpResult { count: len, offset, version_before: u64::MAX, ..now(op.inode)? })
        }
        (Kind::Unlink(_), Did::Unlinked) | (Kind::Rename(_), Did::Renamed) | (Kind::Xattr(_), Did::Xattr) => {
            Ok(done())
        }
        _ => Err(Error::invalid("op_id", "a number that another kind of operation has not had")),
    }
}

fn done() -> OpResult {
    OpResult::default()
}

fn changed(attr: &Attr) -> OpResult {
    OpResult { attributes: Some(attributes(attr)), ..done() }
}

fn create(mount: &Mount, clock: &dyn Clock, op: &v1::CreateOp, by: By) -> Result<OpResult> {
    let new = NewFile { mode: op.mode, uid: op.uid, gid: op.gid, rdev: 0 };
    let (mut attr, made) = inode::create(&mount.session, op.parent, &op.name, new, op.exclusive, by)?;
    if op.open {
        mount.open(attr.ino)?;
    }
    if op.truncate && !made {
        attr = match truncate(mount, clock, attr.ino, op.kill_priv, by) {
            Ok(attr) => attr,
            Err(error) => {
                // Who is told of an error holds nothing.
                if op.open {
                    mount.release(attr.ino)?;
                }
                return Err(error);
            }
        };
    }
    Ok(changed(&attr))
}

fn open(mount: &Mount, clock: &dyn Clock, op: &v1::OpenOp, by: By) -> Result<OpResult> {
    let before = mount.session.getattr(op.inode)?;
    mount.open(op.inode)?;
    if !op.truncate {
        return Ok(changed(&before));
    }
    match truncate(mount, clock, op.inode, op.kill_priv, by) {
        Ok(attr) => Ok(OpResult { version_before: before.version, ..changed(&attr) }),
        Err(error) => {
            mount.release(op.inode)?;
            Err(error)
        }
    }
}

fn truncate(mount: &Mount, clock: &dyn Clock, ino: u64, kill_priv: bool, by: By) -> Result<Attr> {
    let empty = Set { size: Some(0), kill_priv, ..Set::default() };
    inode::set(&mount.session, clock, ino, empty, by).map(|(attr, _)| attr)
}

fn write(mount: &Mount, op: &v1::WriteDataOp, by: By) -> Result<OpResult> {
    let offset = (!op.append).then_some(op.offset);
    let done = inode::write(&mount.session, op.inode, offset, &op.data, by)?;
    Ok(OpResult {
        count: op.data.len() as u64,
        offset: done.offset,
        version_before: done.before,
        ..changed(&done.attr)
    })
}

fn xattr(mount: &Mount, op: &v1::XattrOp, by: By) -> Result<OpResult> {
    let s = &mount.session;
    if op.remove {
        return s.removexattr(op.inode, &op.name, by.who, by.op_id).map(|_| done());
    }
    let must = match op.flags {
        0 => None,
        1 => Some(false),
        2 => Some(true),
        _ => return Err(Error::invalid("flags", "0, 1 (create) or 2 (replace)")),
    };
    s.setxattr(op.inode, &op.name, &op.value, must, by.who, by.op_id).map(|_| done())
}

fn fallocate(mount: &Mount, op: &v1::FallocateOp, by: By) -> Result<OpResult> {
    let (keep_size, what) = match op.mode {
        0 => (false, Allocate::Reserve),
        1 => (true, Allocate::Reserve),
        3 => (true, Allocate::Punch),
        16 => (false, Allocate::Zero),
        17 => (true, Allocate::Zero),
        _ => return Err(Error::bare(Reason::Unsupported)),
    };
    inode::allocate(&mount.session, op.inode, (op.offset, op.length), keep_size, what, by)
        .map(|a| changed(&a))
}

fn set_of(op: &v1::SetAttrOp) -> Set {
    let time = |now: bool, at: Option<i64>| if now { Some(Time::Now) } else { at.map(Time::At) };
    Set {
        mode: op.mode.map(|m| m & 0o7777),
        uid: op.uid,
        gid: op.gid,
        size: op.size,
        atime: time(op.atime_now, op.atime_ns),
        mtime: time(op.mtime_now, op.mtime_ns),
        kill_priv: op.kill_priv,
    }
}

fn rename_mode(flags: u32) -> Result<RenameMode> {
    match flags {
        0 => Ok(RenameMode::Replace),
        1 => Ok(RenameMode::NoReplace),
        2 => Ok(RenameMode::Exchange),
        _ => Err(Error::invalid("flags", "0, 1 (no replace) or 2 (exchange)")),
    }
}
