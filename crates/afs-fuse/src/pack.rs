//! Plain types to fuser's and back. No decisions.

use crate::vfs::{Allocate, AllocateAction, Attr, Caller, OpenMode, RenameMode, SetTime};
use fuser::{FileAttr, FileType, INodeNo, OpenAccMode, OpenFlags, RenameFlags, Request, TimeOrNow};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const BLOCK_SIZE: u32 = 4096;

pub(crate) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

pub(crate) fn file_type(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        libc::S_IFSOCK => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

pub(crate) fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: time(attr.atime_ns),
        mtime: time(attr.mtime_ns),
        ctime: time(attr.ctime_ns),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.mode),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// The answer "there is no such name", which the kernel may keep: an entry without an inode.
pub(crate) fn absent() -> FileAttr {
    let nothing = Attr {
        ino: 0,
        mode: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        size: 0,
        blocks: 0,
        atime_ns: 0,
        mtime_ns: 0,
        ctime_ns: 0,
        rdev: 0,
        version: 0,
    };
    attr(&nothing)
}

fn time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

pub(crate) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(at) => SetTime::At(nanoseconds(at)),
    }
}

/// fuser 0.18 decodes (-2 s, +0.8 s) as 2.8 s before 1970 instead of 1.2 s before: undone here by reading
/// the fraction as what it was, an addition. Times outside of the years 1678 to 2262 stop at these bounds.
fn nanoseconds(at: SystemTime) -> i64 {
    let of = |seconds: u64, fraction: u32, sign: i128| -> i64 {
        let ns = i128::from(seconds) * sign * 1_000_000_000 + i128::from(fraction);
        ns.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    };
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => of(after.as_secs(), after.subsec_nanos(), 1),
        Err(before) => of(before.duration().as_secs(), before.duration().subsec_nanos(), -1),
    }
}

pub(crate) fn open_mode(flags: OpenFlags, privileged: bool) -> OpenMode {
    let access = flags.acc_mode();
    let truncate = flags.0 & libc::O_TRUNC != 0;
    OpenMode {
        read: access != OpenAccMode::O_WRONLY,
        write: access != OpenAccMode::O_RDONLY,
        append: flags.0 & libc::O_APPEND != 0,
        truncate,
        kill_priv: truncate && !privileged,
    }
}

/// None: flags that are only for file systems under an overlay.
pub(crate) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    match flags {
        f if f.is_empty() => Some(RenameMode::Replace),
        RenameFlags::RENAME_NOREPLACE => Some(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Some(RenameMode::Exchange),
        _ => None,
    }
}

/// None: a combination that no Linux file system has.
pub(crate) fn allocate(offset: u64, length: u64, mode: i32) -> Option<Allocate> {
    let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    let action = match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => AllocateAction::Reserve,
        libc::FALLOC_FL_PUNCH_HOLE if keep_size => AllocateAction::PunchHole,
        libc::FALLOC_FL_ZERO_RANGE => AllocateAction::ZeroRange,
        _ => return None,
    };
    Some(Allocate { offset, length, keep_size, action })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive() {
        assert_eq!(nanoseconds(UNIX_EPOCH + Duration::new(3, 5)), 3_000_000_005);
        // What fuser hands over for -1.2 s, i.e. (-2, 800,000,000):
        assert_eq!(nanoseconds(UNIX_EPOCH - Duration::new(2, 800_000_000)), -1_200_000_000);
        assert_eq!(nanoseconds(UNIX_EPOCH - Duration::new(2, 0)), -2_000_000_000);
        assert_eq!(time(-1_200_000_000), UNIX_EPOCH - Duration::new(1, 200_000_000));
        assert_eq!(nanoseconds(UNIX_EPOCH + Duration::from_secs(1 << 40)), i64::MAX);
    }

    #[test]
    fn fallocate_modes() {
        let action = |mode| allocate(0, 1, mode).map(|a| (a.keep_size, a.action));
        assert_eq!(action(0), Some((false, AllocateAction::Reserve)));
        assert_eq!(action(1), Some((true, AllocateAction::Reserve)));
        assert_eq!(action(3), Some((true, AllocateAction::PunchHole)));
        assert_eq!(action(2), None);
        assert_eq!(action(0x11), Some((true, AllocateAction::ZeroRange)));
        assert_eq!(action(8), None); // collapse
    }
}
