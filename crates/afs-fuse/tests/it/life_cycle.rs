//! Mounting, unmounting, dying. Whatever happens, no process is left waiting for a mount.

use crate::bed::{Bed, eventually, need_fuse, sh_in, try_sh};
use crate::mem_fs::MemFs;
use afs_fuse::{Caps, Health, MountOptions, health, mount, mounts, sweep, unmount_path};
use afs_types::Reason;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CHILD_DIR: &str = "AFS_FUSE_TEST_CHILD_DIR";
const CHILD_AUTO_UNMOUNT: &str = "AFS_FUSE_TEST_CHILD_AUTO_UNMOUNT";

/// Not a test by itself: the process that the tests below start and kill.
#[test]
fn child_that_mounts_and_waits() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let fs = MemFs::new(Caps::default());
    fs.remote_write(1, b"f", b"hello");
    let auto_unmount = std::env::var_os(CHILD_AUTO_UNMOUNT).is_some();
    let mounted = mount(fs, Path::new(&dir), &MountOptions { auto_unmount, ..MountOptions::default() });
    match mounted {
        Ok(mounted) => {
            // Beside the test harness's own words, so that the parent can find it.
            println!("\nmounted");
            std::io::stdout().flush().unwrap();
            mounted.join().unwrap();
        }
        Err(error) => println!("\nfailed {error:?} next: {}", error.next_step()),
    }
}

/// A process that mounts; whatever becomes of the test, neither it nor its mount stays.
struct Mounter {
    process: Child,
    dir: PathBuf,
    said: String,
}

impl Mounter {
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Mounter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = sweep(&self.dir);
    }
}

fn child(dir: &Path, auto_unmount: bool) -> Mounter {
    let test = std::env::current_exe().unwrap();
    let words = ["--exact", "life_cycle::child_that_mounts_and_waits", "--nocapture"];
    let mut command = Command::new(test);
    command.args(words).env(CHILD_DIR, dir).stdout(Stdio::piped()).stderr(Stdio::null());
    if auto_unmount {
        command.env(CHILD_AUTO_UNMOUNT, "1");
    }
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.map_while(Result::ok).find(|l| l.starts_with("mounted") || l.starts_with("failed"));
    let said = said.unwrap_or_else(|| "ended without a word".into());
    Mounter { process: child, dir: dir.to_owned(), said }
}

fn is_mounted(dir: &Path) -> bool {
    let dir = dir.parent().unwrap().canonicalize().unwrap().join(dir.file_name().unwrap());
    mounts().unwrap().iter().any(|m| m.dir == dir)
}

#[test]
fn a_killed_process_leaves_no_hung_mount() {
    need_fuse();
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("with space");
    fs::create_dir(&dir).unwrap();
    let mut process = child(&dir, false);
    assert_eq!(process.said, "mounted");
    assert_eq!(fs::read_to_string(dir.join("f")).unwrap(), "hello");
    assert_eq!(health(&dir), Health::Alive);
    let open = File::open(dir.join("f")).unwrap();
    // A live mount is nobody else's place.
    let refused = mount(MemFs::new(Caps::default()), &dir, &MountOptions::default()).err().unwrap();
    assert_eq!(refused.reason, Reason::AlreadyExists, "{refused:?}");
    assert!(!sweep(&dir).unwrap());

    process.kill();
    let begin = Instant::now();
    assert!(is_mounted(&dir));
    assert_eq!(health(&dir), Health::Dead);
    assert_eq!(fs::read_dir(&dir).unwrap_err().raw_os_error(), Some(107)); // ENOTCONN, at once
    assert!(fs::metadata(dir.join("never-seen")).is_err());
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());

    // The next mount at this place removes it, although somebody still has a file open in it.
    let fs_ = MemFs::new(Caps::default());
    fs_.remote_write(1, b"f", b"again");
    let mounted = mount(fs_, &dir, &MountOptions::default()).unwrap();
    assert_eq!(fs::read_to_string(dir.join("f")).unwrap(), "again");
    drop(open);
    mounted.unmount().unwrap();
    assert!(!is_mounted(&dir));
}

#[test]
fn a_killed_process_with_auto_unmount_leaves_nothing() {
    need_fuse();
    let place = tempfile::tempdir().unwrap();
    let mut process = child(place.path(), true);
    assert_eq!(process.said, "mounted");
    assert_eq!(fs::read_to_string(place.path().join("f")).unwrap(), "hello");
    process.kill();
    eventually("the mount is gone", || !is_mounted(place.path()));
    // And an orderly end leaves no helper behind.
    let mut process = child(place.path(), true);
    assert_eq!(process.said, "mounted");
    unmount_path(place.path(), false).unwrap();
    process.process.wait().unwrap();
    assert!(!is_mounted(place.path()));
}

#[test]
fn a_stopped_process_is_recognised_and_can_be_removed() {
    need_fuse();
    let place = tempfile::tempdir().unwrap();
    let mut process = child(place.path(), false);
    assert_eq!(process.said, "mounted");
    let pid = rustix::process::Pid::from_raw(process.process.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    eventually("it has really stopped", || health(place.path()) == Health::Unresponsive);
    let refused = mount(MemFs::new(Caps::default()), place.path(), &MountOptions::default()).err().unwrap();
    assert_eq!(refused.reason, Reason::InUse, "{refused:?}");
    assert!(refused.next_step().contains("--force"));
    // The probes of above wait in the mount, so it is busy; force frees them and the place.
    unmount_path(place.path(), true).unwrap();
    assert!(!is_mounted(place.path()));
    process.kill();
}

#[test]
fn a_busy_mount_is_an_error_that_names_the_user_and_then_goes() {
    let mut bed = Bed::new();
    fs::write(bed.path("f"), "x").unwrap();
    let file = File::open(bed.path("f")).unwrap();
    let busy = bed.mounted().try_unmount().unwrap_err();
    assert_eq!(busy.reason, Reason::InUse, "{busy:?}");
    let us = std::process::id().to_string();
    assert!(busy.message().contains(&us), "{busy:?} does not name {us}");
    assert_eq!(fs::read_to_string(bed.path("f")).unwrap(), "x", "it goes on");
    assert_eq!(unmount_path(&bed.path(""), false).unwrap_err().reason, Reason::InUse);

    let begin = Instant::now();
    let forced = bed.take().unmount().unwrap_err();
    assert_eq!(forced.reason, Reason::InUse);
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    assert!(!is_mounted(&bed.path("")));
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(107), "what is still open gets ENOTCONN");
}

#[test]
fn a_busy_mount_waits_for_users_that_leave() {
    let mut bed = Bed::new();
    fs::write(bed.path("f"), "x").unwrap();
    let file = File::open(bed.path("f")).unwrap();
    let leaver = std::thread::spawn(move || {
        crate::bed::pause(Duration::from_millis(300));
        drop(file);
    });
    bed.take().unmount().unwrap();
    leaver.join().unwrap();
    assert!(!is_mounted(&bed.path("")));
}

#[test]
fn drop_unmounts_and_a_second_round_works() {
    for _ in 0..5 {
        let bed = Bed::new();
        fs::write(bed.path("f"), "x").unwrap();
        let place = bed.path("");
        drop(bed);
        assert!(!is_mounted(&place));
    }
}

#[test]
fn somebody_else_unmounts() {
    let mut bed = Bed::new();
    let place = bed.path("");
    let mounted = bed.take();
    let joiner = std::thread::spawn(move || mounted.join());
    unmount_path(&place, false).unwrap();
    joiner.join().unwrap().unwrap();
    assert_eq!(unmount_path(&place, false).unwrap_err().reason, Reason::MountNotFound);
    // Somebody else's mount at the same place is not ours to unmount.
    let fs_ = MemFs::new(Caps::default());
    let first = mount(fs_.clone(), &place, &MountOptions::default()).unwrap();
    unmount_path(&place, false).unwrap();
    let second = mount(fs_, &place, &MountOptions::default()).unwrap();
    drop(first);
    assert!(is_mounted(&place));
    second.unmount().unwrap();
}

/// Another process that unshares its mount namespace takes a copy of our mount along; an unmount must not wait for it.
#[test]
fn a_copy_in_another_namespace_does_not_keep_us() {
    need_fuse();
    if !rustix::process::geteuid().is_root() {
        return; // making a namespace needs root
    }
    let mut bed = Bed::new();
    let mut other = Command::new("unshare").args(["-m", "sleep", "100"]).spawn().unwrap();
    let space = format!("/proc/{}/mountinfo", other.id());
    let place = bed.path("").display().to_string();
    let place = place.trim_end_matches('/').to_owned();
    let own = fs::read_link("/proc/thread-self/ns/mnt").unwrap();
    eventually("the copy is made", || {
        fs::read_link(format!("/proc/{}/ns/mnt", other.id())).is_ok_and(|ns| ns != own)
            && fs::read_to_string(&space).is_ok_and(|t| t.contains(&place))
    });
    let begin = Instant::now();
    bed.take().unmount().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn unprivileged_through_the_helper() {
    need_fuse();
    if !rustix::process::geteuid().is_root() {
        return; // then every other test of this file has shown it
    }
    assert!(Path::new("/usr/bin/fusermount3").exists(), "install the package fuse3");
    // A namespace of its own, where the device is open to all: nothing of the machine changes.
    let place = tempfile::tempdir().unwrap();
    let script = format!(
        "set -eu; chmod 755 {0}; mkdir {0}/dev {0}/mnt {0}/bin; chown 65534 {0}/mnt
         mount -t tmpfs none {0}/dev; mknod -m 666 {0}/dev/fuse c 10 229; mount --bind {0}/dev/fuse /dev/fuse
         cp {1} {0}/bin/test; chmod 755 {0}/bin {0}/bin/test
         as='setpriv --reuid 65534 --regid 65534 --clear-groups'
         {2}={0}/mnt $as {0}/bin/test --exact life_cycle::child_that_mounts_and_waits --nocapture >{0}/out 2>&1 &
         for i in $(seq 100); do grep -Eq '^(mounted|failed)' {0}/out && break; sleep 0.1; done
         cat {0}/out; $as cat {0}/mnt/f; $as sh -c 'cd {0}/mnt; mkdir d; echo own >d/x; mv d e; cat e/x'
         cat {0}/mnt/f 2>/dev/null && echo root may enter || echo root may not enter
         $as fusermount3 -u {0}/mnt; wait; echo ended",
        place.path().display(),
        std::env::current_exe().unwrap().display(),
        CHILD_DIR,
    );
    let output = Command::new("timeout").args(["60", "unshare", "-m", "sh", "-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    for words in ["\nmounted", "hello", "own", "root may not enter", "ended"] {
        assert!(said.contains(words), "no {words:?} in {said}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn errors_of_mounting_say_what_to_do() {
    need_fuse();
    let place = tempfile::tempdir().unwrap();
    let try_at =
        |path: &Path| mount(MemFs::new(Caps::default()), path, &MountOptions::default()).err().unwrap();
    assert_eq!(try_at(&place.path().join("none")).reason, Reason::NotFound);
    fs::write(place.path().join("file"), "").unwrap();
    assert_eq!(try_at(&place.path().join("file")).reason, Reason::NotADirectory);
    assert!(try_at(&place.path().join("file/x")).message().contains("file/x"));
    // Through a symbolic link it is the directory behind it.
    fs::create_dir(place.path().join("dir")).unwrap();
    std::os::unix::fs::symlink("dir", place.path().join("link")).unwrap();
    let mounted =
        mount(MemFs::new(Caps::default()), &place.path().join("link"), &MountOptions::default()).unwrap();
    assert!(mounted.dir().ends_with("dir"));
}

#[test]
fn many_mounts_in_one_process_cost_little() {
    need_fuse();
    let place = tempfile::tempdir().unwrap();
    let resident = || -> u64 {
        let text = fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let before = resident();
    let begin = Instant::now();
    let mounted: Vec<_> = (0..50)
        .map(|i| {
            let dir = place.path().join(i.to_string());
            fs::create_dir(&dir).unwrap();
            let fs_ = MemFs::new(Caps::default());
            let mounted = mount(fs_, &dir, &MountOptions::default()).unwrap();
            fs::write(dir.join("f"), "x").unwrap();
            mounted
        })
        .collect();
    let grown = resident().saturating_sub(before);
    println!("50 mounts: {:?}, {} KiB", begin.elapsed(), grown / 1024);
    // Without the allocator's fixed threshold this is 50 * 3 * 16 MiB.
    assert!(grown < 100 << 20, "{grown} bytes");
    for mounted in mounted {
        mounted.unmount().unwrap();
    }
    assert!(sh_in(place.path(), "ls */f 2>/dev/null | wc -l").trim() == "0");
    assert!(try_sh(place.path(), "rmdir *").status.success());
}
