//! Directories, mounts and loop devices, and the promise that none of them outlives its use.
//!
//! Guarantees: everything lives below one directory named after the process; dropping unmounts in the right order and removes it; loop
//! devices are attached with autoclear, so they end with their mount. [`sweep`] ends what a killed process left mounted.

use crate::disk::{Disk, FILE};
use fuser::{BackgroundSession, Config, MountOption};
use rustix::mount::{UnmountFlags, unmount};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Directories of this crate are `afs-powercut-<process>-<number>`.
const PREFIX: &str = "afs-powercut-";
/// How long a file system may still be in use after the test has let go of it.
const LET_GO: Duration = Duration::from_secs(10);
static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) fn require_root() -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "the power-cut simulation needs root, because it attaches loop devices and mounts file systems: run these tests as root",
    ))
}

fn failed(what: impl std::fmt::Display, detail: &[u8]) -> io::Error {
    io::Error::other(format!("{what}: {}", String::from_utf8_lossy(detail).trim()))
}

fn run(program: &str, arguments: &[&str], path: &Path, more: &[&Path]) -> io::Result<()> {
    // mkfs and mount are in the system directories, which a user's PATH may lack.
    let search = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).env("PATH", search).args(arguments).arg(path).args(more).output();
    let output = output.map_err(|error| io::Error::new(error.kind(), format!("start {program}: {error}")))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(format_args!("{program} {}", path.display()), &output.stderr))
    }
}

/// An ext4 with everything initialised, so that nothing but the test writes to it later.
pub(crate) fn make_ext4(image: &Path, size_mb: u64) -> io::Result<()> {
    File::create_new(image)?.set_len(size_mb.max(16) << 20)?;
    let options = ["-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"];
    run("mkfs.ext4", &options, image, &[])
}

pub(crate) fn mount_image(image: &Path, at: &Path) -> io::Result<()> {
    fs::create_dir_all(at)?;
    run("mount", &["-t", "ext4", "-o", "loop,noatime"], image, &[at])
}

pub(crate) fn sync_file_system(mounted: &Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(mounted)?)?;
    Ok(())
}

/// Unmounts, waiting a little for threads that close their files on their own time; what still uses the file system then keeps it
/// until it ends (lazily), and the caller hears of it.
pub(crate) fn unmount_now(at: &Path) -> io::Result<()> {
    let deadline = Instant::now() + LET_GO;
    loop {
        match unmount(at, UnmountFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::BUSY) if Instant::now() < deadline => pause(),
            Err(error) => {
                let _ = unmount(at, UnmountFlags::DETACH);
                return Err(failed(format_args!("unmount {}", at.display()), error.to_string().as_bytes()));
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the kernel does not say when a mount is no longer in use")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Ends mounts and removes directories of processes that no longer run.
pub(crate) fn sweep() -> io::Result<()> {
    let table = fs::read_to_string("/proc/self/mounts")?;
    let mut abandoned: Vec<PathBuf> = Vec::new();
    // Later mounts stand on earlier ones, so the table is gone through from its end.
    for at in table.lines().rev().filter_map(|line| line.split(' ').nth(1)).map(Path::new) {
        let Some(dir) = at.ancestors().find(|dir| owner(dir).is_some()) else { continue };
        if owner(dir).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = unmount(at, UnmountFlags::DETACH);
            abandoned.push(dir.to_owned());
        }
    }
    for dir in abandoned {
        let _ = fs::remove_dir_all(dir);
    }
    Ok(())
}

/// The process that a directory of this crate belongs to.
fn owner(dir: &Path) -> Option<u32> {
    dir.file_name()?.to_str()?.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// The directory of one recording with its mounts.
pub(crate) struct Scratch {
    root: PathBuf,
    fs: PathBuf,
    /// The mounted file system, if any.
    is_mounted: bool,
    fuse: Option<BackgroundSession>,
}

impl Scratch {
    pub(crate) fn create(dir: &Path) -> io::Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = fs::canonicalize(dir)?.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&root)?;
        let fs = root.join("fs");
        Ok(Self { root, fs, is_mounted: false, fuse: None })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn mounted(&self) -> &Path {
        &self.fs
    }

    /// Serves the disk as `fuse/disk.img`.
    pub(crate) fn serve(&mut self, disk: Disk) -> io::Result<()> {
        let at = self.path("fuse");
        fs::create_dir(&at)?;
        let mut config = Config::default();
        config.mount_options =
            vec![MountOption::FSName("afs-powercut".into()), MountOption::NoDev, MountOption::NoSuid];
        self.fuse = Some(fuser::spawn_mount(disk, at, &config)?);
        Ok(())
    }

    pub(crate) fn mount_disk(&mut self) -> io::Result<()> {
        mount_image(&self.path("fuse").join(FILE), &self.fs)?;
        self.is_mounted = true;
        Ok(())
    }

    /// Unmounts the file system, then the disk below it; the files stay until this is dropped.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        let unmounted = if std::mem::take(&mut self.is_mounted) { unmount_now(&self.fs) } else { Ok(()) };
        if let Some(fuse) = self.fuse.take() {
            let _ = unmount(self.path("fuse"), UnmountFlags::DETACH);
            // Joined only when nothing can hold the disk any more; else the thread ends with its last user.
            if unmounted.is_ok() {
                fuse.join()?;
            }
        }
        unmounted
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.stop();
        let _ = fs::remove_dir_all(&self.root);
    }
}
