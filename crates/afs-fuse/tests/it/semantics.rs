//! What POSIX and Linux say, call by call.

use crate::bed::{Bed, eventually, sh_in};
use afs_fuse::{Caps, MountOptions};
use rustix::fs::{CWD, RenameFlags, SeekFrom, XattrFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let bed = Bed::new();
    let inodes = bed.fs.inode_count();
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(bed.path("f")).unwrap();
    file.write_all(b"still here").unwrap();
    fs::remove_file(bed.path("f")).unwrap();
    assert!(fs::metadata(bed.path("f")).is_err());
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.write_all(b", and growing").unwrap();
    file.set_len(15).unwrap();
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here, and");
    assert_eq!(bed.fs.inode_count(), inodes + 1);
    drop(file);
    eventually("the inode is gone", || bed.fs.inode_count() == inodes);
}

#[test]
fn rename_flags() {
    let bed = Bed::new();
    let (a, b) = (bed.path("a"), bed.path("b"));
    fs::write(&a, "A").unwrap();
    fs::write(&b, "B").unwrap();
    assert_eq!(renameat_with(CWD, &a, CWD, &b, RenameFlags::NOREPLACE), Err(Errno::EXIST));
    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
    assert_eq!((fs::read_to_string(&a).unwrap(), fs::read_to_string(&b).unwrap()), ("B".into(), "A".into()));
    renameat_with(CWD, &a, CWD, bed.path("c"), RenameFlags::NOREPLACE).unwrap();
    assert_eq!(renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE), Err(Errno::NOENT));
    assert_eq!(renameat_with(CWD, &b, CWD, bed.path("c"), RenameFlags::WHITEOUT), Err(Errno::INVAL));
    fs::rename(&b, bed.path("c")).unwrap();
    assert_eq!(fs::read_to_string(bed.path("c")).unwrap(), "A");
    // A directory over a directory with something in it.
    bed.sh("mkdir -p d e/x");
    assert_eq!(fs::rename(bed.path("d"), bed.path("e")).unwrap_err().raw_os_error(), Some(39));
}

#[test]
fn open_flags() {
    let bed = Bed::new();
    let path = bed.path("f");
    fs::write(&path, "0123456789").unwrap();
    let mut append = OpenOptions::new().append(true).open(&path).unwrap();
    let mut other = OpenOptions::new().append(true).open(&path).unwrap();
    append.write_all(b"a").unwrap();
    other.write_all(b"b").unwrap();
    append.write_all(b"c").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "0123456789abc");
    let old = File::open(&path).unwrap();
    File::create(&path).unwrap(); // O_TRUNC
    assert_eq!(old.metadata().unwrap().len(), 0);
    assert_eq!(old.read_at(&mut [0; 4], 0).unwrap(), 0);
    let exists = OpenOptions::new().write(true).create_new(true).open(&path).unwrap_err();
    assert_eq!(exists.raw_os_error(), Some(17));
    let mut direct = OpenOptions::new();
    direct.write(true).custom_flags(0o40000); // O_DIRECT
    if let Ok(file) = direct.open(&path) {
        file.write_all_at(&[7; 4096], 0).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [7; 4096]);
    }
}

#[test]
fn appends_land_at_the_end_whatever_the_kernel_believes() {
    let bed = Bed::new();
    let path = bed.path("log");
    fs::write(&path, "one\n").unwrap();
    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
    // Somebody else appends, and this kernel has not been told yet.
    bed.fs.silent_write(1, b"log", b"one\ntwo\n");
    log.write_all(b"three\n").unwrap();
    bed.settle();
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
}

#[test]
fn holes_allocation_and_copies() {
    let bed = Bed::new();
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(bed.path("f")).unwrap();
    file.write_all_at(b"start", 0).unwrap();
    file.write_all_at(b"end", 100 * 4096).unwrap();
    let seek = |from| rustix::fs::seek(&file, from);
    assert_eq!(seek(SeekFrom::Data(0)), Ok(0));
    assert_eq!(seek(SeekFrom::Hole(0)), Ok(4096));
    assert_eq!(seek(SeekFrom::Data(4096)), Ok(100 * 4096));
    assert_eq!(seek(SeekFrom::Hole(100 * 4096)), Ok(100 * 4096 + 3));
    assert_eq!(seek(SeekFrom::Data(100 * 4096 + 3)), Err(Errno::NXIO));
    use rustix::fs::FallocateFlags as F;
    rustix::fs::fallocate(&file, F::empty(), 0, 500_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 500_000);
    rustix::fs::fallocate(&file, F::KEEP_SIZE, 0, 900_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 500_000);
    rustix::fs::fallocate(&file, F::PUNCH_HOLE | F::KEEP_SIZE, 0, 4096).unwrap();
    let mut bytes = [1; 5];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [0; 5]);
    assert_eq!(rustix::fs::fallocate(&file, F::COLLAPSE_RANGE, 0, 4096), Err(Errno::OPNOTSUPP));
    let copy = File::create(bed.path("g")).unwrap();
    let (mut from, mut to) = (100 * 4096, 10);
    let copied = rustix::fs::copy_file_range(&file, Some(&mut from), &copy, Some(&mut to), 3).unwrap();
    assert_eq!((copied, fs::read(bed.path("g")).unwrap()), (3, b"\0\0\0\0\0\0\0\0\0\0end".to_vec()));
    assert!(bed.counters().copy_ranges > 0);
}

#[test]
fn set_id_bits_go_when_they_must() {
    let bed = Bed::new();
    if !rustix::process::geteuid().is_root() {
        return; // a plain user owns all it sees here and cannot give files away
    }
    let path = bed.path("f");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    let reset = || {
        fs::write(&path, "x").unwrap();
        std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
        assert_eq!(mode(), 0o6777);
    };
    let nobody = |script: &str| {
        let command = format!("setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '{script}'");
        sh_in(path.parent().unwrap(), &command)
    };
    bed.sh("chmod 777 .");
    reset();
    nobody("echo y >>f");
    assert_eq!(mode(), 0o777, "a write takes them off");
    reset();
    nobody("truncate -s 0 f");
    assert_eq!(mode(), 0o777, "so does a truncation");
    reset();
    nobody(": >f");
    assert_eq!(mode(), 0o777, "and O_TRUNC");
    reset();
    fs::write(&path, "by root").unwrap();
    assert_eq!(mode(), 0o6777, "root keeps them");
    std::os::unix::fs::chown(&path, Some(1), None).unwrap();
    assert_eq!(mode(), 0o777, "but not on a change of owner");
    reset();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6745)).unwrap();
    nobody("echo y >>f");
    assert_eq!(mode(), 0o2745, "set-group-id without group execution is no privilege");
    // New entries of a set-group-id directory.
    bed.sh("mkdir g; chgrp 65534 g; chmod 2775 g; : >g/f; mkdir g/d");
    assert_eq!(bed.sh("stat -c '%g %a' g/f g/d"), "65534 644\n65534 2755\n");
}

#[test]
fn permissions_are_checked() {
    let bed = Bed::new();
    if !rustix::process::geteuid().is_root() {
        return; // needs a second user
    }
    bed.sh("chmod 755 .; mkdir t; chmod 1777 t; echo secret >t/f; chmod 600 t/f; chmod 755 $(dirname $PWD)");
    let denied = "setpriv --reuid 65534 --regid 65534 --clear-groups sh -c 'cat t/f; rm -f t/f; echo x >new' 2>&1 || true";
    let said = bed.sh(denied);
    assert_eq!(said.matches("ermission denied").count() + said.matches("not permitted").count(), 3, "{said}");
    assert_eq!(bed.sh("cat t/f").trim(), "secret");
}

#[test]
fn extended_attributes() {
    let bed = Bed::new();
    fs::write(bed.path("f"), "").unwrap();
    let path = bed.path("f");
    let mut buffer = [0u8; 64];
    rustix::fs::setxattr(&path, "user.a", b"value", XattrFlags::CREATE).unwrap();
    assert_eq!(rustix::fs::setxattr(&path, "user.a", b"v", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(rustix::fs::setxattr(&path, "user.b", b"v", XattrFlags::REPLACE), Err(Errno::NODATA));
    assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut buffer), Ok(5));
    assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut [0u8; 2]), Err(Errno::RANGE));
    assert_eq!(rustix::fs::getxattr(&path, "user.none", &mut buffer), Err(Errno::NODATA));
    assert_eq!(rustix::fs::listxattr(&path, &mut buffer), Ok(7));
    rustix::fs::removexattr(&path, "user.a").unwrap();
    assert_eq!(rustix::fs::removexattr(&path, "user.a"), Err(Errno::NODATA));
    let acl = rustix::fs::setxattr(&path, "system.posix_acl_access", &[2, 0, 0, 0], XattrFlags::empty());
    assert_eq!(acl, Err(Errno::OPNOTSUPP));
}

#[test]
fn without_attributes_the_kernel_asks_only_once() {
    let bed = Bed::with(Caps { xattrs: false, ..Caps::default() }, MountOptions::default());
    bed.sh("for i in $(seq 50); do echo x >f$i; echo y >>f$i; done");
    assert_eq!(bed.counters().xattrs, 0);
    assert_eq!(
        bed.sh("python3 -c 'import os; print(os.listxattr(\"f1\"))' 2>&1 || true").matches("95").count(),
        1
    );
}

#[test]
fn writes_in_a_row_ask_for_capabilities_once() {
    let bed = Bed::new();
    let mut file = File::create(bed.path("f")).unwrap();
    for _ in 0..100 {
        file.write_all(b"some bytes").unwrap();
    }
    let counters = bed.counters();
    assert_eq!((counters.writes, counters.write_bytes), (100, 1000));
    assert!(counters.xattrs <= 2, "{counters:?}");
}

#[test]
fn names_of_any_bytes_up_to_the_limit() {
    use std::os::unix::ffi::OsStrExt;
    let bed = Bed::new();
    for name in [&b"\xff\xfe\x01"[..], b" ", b"...", b"new\nline", &[b'x'; 255], "äöü".as_bytes()] {
        let path = bed.path("").join(std::ffi::OsStr::from_bytes(name));
        fs::write(&path, name).unwrap();
        assert_eq!(fs::read(&path).unwrap(), name);
    }
    assert_eq!(fs::read_dir(bed.path("")).unwrap().count(), 6);
    assert_eq!(fs::write(bed.path(&"x".repeat(256)), "").unwrap_err().raw_os_error(), Some(36));
}

#[test]
fn times_before_1970_and_nanoseconds() {
    use rustix::fs::{AtFlags, Timespec, Timestamps, utimensat};
    let bed = Bed::new();
    fs::write(bed.path("f"), "").unwrap();
    let times = Timestamps {
        last_access: Timespec { tv_sec: -2, tv_nsec: 800_000_000 },
        last_modification: Timespec { tv_sec: 1_700_000_000, tv_nsec: 123_456_789 },
    };
    utimensat(CWD, bed.path("f"), &times, AtFlags::empty()).unwrap();
    bed.fs.report_everything();
    bed.settle();
    let meta = fs::metadata(bed.path("f")).unwrap();
    assert_eq!((meta.atime(), meta.atime_nsec()), (-2, 800_000_000));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_700_000_000, 123_456_789));
}

#[test]
fn a_read_only_mount_takes_no_changes() {
    let mut options = MountOptions { read_only: true, ..MountOptions::default() };
    options.name = "aether:with,comma and space".into();
    let bed = Bed::with(Caps::default(), options);
    bed.fs.remote_write(1, b"f", b"text");
    assert_eq!(bed.sh("cat f"), "text");
    for script in ["echo x >>f", "rm f", "mkdir d", "chmod 1 f", "mv f g"] {
        let output = crate::bed::try_sh(&bed.path(""), script);
        assert!(String::from_utf8_lossy(&output.stderr).contains("Read-only"), "{script}");
    }
}

#[test]
fn a_panic_below_is_one_error_and_the_mount_lives() {
    let bed = Bed::new();
    fs::write(bed.path("f"), "x").unwrap();
    for round in 1..=20 {
        bed.fs.report_everything();
        bed.settle();
        bed.fs.panic_once.store(true, std::sync::atomic::Ordering::SeqCst);
        let failed = fs::metadata(bed.path("f")).is_err() || fs::metadata(bed.path("")).is_err();
        assert!(failed, "round {round}");
        assert_eq!(bed.counters().panics, round);
    }
    assert_eq!(fs::read_to_string(bed.path("f")).unwrap(), "x");
}

#[test]
fn locks_are_local() {
    let bed = Bed::new();
    let out =
        bed.sh("touch l; flock -n l sh -c 'flock -n l echo both || echo refused'; flock -n l echo free");
    assert_eq!(out, "refused\nfree\n");
}

#[test]
fn dropped_inodes_are_reported() {
    let bed = Bed::new();
    bed.sh("for i in $(seq 100); do echo x >f$i; done; rm f*");
    eventually("the kernel gives the inodes back", || {
        bed.fs.forgotten.load(std::sync::atomic::Ordering::Relaxed) >= 100
    });
    assert_eq!(bed.fs.inode_count(), 1);
}
