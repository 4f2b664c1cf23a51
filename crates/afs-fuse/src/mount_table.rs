//! The mounts of this machine, the health of ours, and how one is removed, from any process.
//!
//! Nothing here touches a mount in a way that can hang the caller: what has to ask the file system is asked
//! from a thread of its own, with a deadline.

use crate::{errors, holders};
use afs_types::{Error, Reason, Result};
use rustix::mount::UnmountFlags;
use std::ffi::{CStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Type under which our mounts appear.
pub(crate) const FS_TYPE: &str = "fuse.aether";
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
const CONNECTIONS: &str = "/sys/fs/fuse/connections";
/// A place can be mounted over several times.
const MAX_STACKED: usize = 64;

/// One of our mounts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountEntry {
    /// Where.
    pub dir: PathBuf,
    /// What was given as [`crate::MountOptions::name`].
    pub name: String,
    /// Number of the kernel's connection.
    pub connection: u32,
}

/// Before the process in the name of a server's own mount of all sessions.
const SERVER_NAME: &str = "aether:sessions:";

/// The name of the mount in which this process, a server, shows all sessions. Whoever sees that mount knows by it whose it is: a session's
/// own mount is named for the session, whose id is no `sessions:`.
pub fn server_name() -> String {
    format!("{SERVER_NAME}{}", std::process::id())
}

impl MountEntry {
    /// The process of the server whose mount of all sessions this is; it may be gone.
    pub fn server(&self) -> Option<u32> {
        self.name.strip_prefix(SERVER_NAME)?.parse().ok()
    }
}

/// What a mount answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It works.
    Alive,
    /// The process that served it is gone (`ENOTCONN`).
    Dead,
    /// No answer within two seconds: its process is stopped, or waits for something.
    Unresponsive,
}

/// How a mount is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Detach {
    /// Only when nobody uses it.
    Clean,
    /// At once for new users; those who use it go on.
    Lazy,
    /// At once for all: requests under way end with an error.
    Abort,
}

/// All mounts of AetherFS in this mount namespace, in the order they were made.
pub fn mounts() -> Result<Vec<MountEntry>> {
    // Of this thread: another one may be in another mount namespace.
    let table =
        fs::read("/proc/thread-self/mountinfo").map_err(|e| errors::system("read the mount table", e))?;
    Ok(table
        .split(|b| *b == b'\n')
        .filter_map(parse)
        .filter(|(fs_type, _)| fs_type == FS_TYPE)
        .map(|(_, m)| m)
        .collect())
}

/// Our mount at this place, the topmost if there are several.
pub(crate) fn mount_at(dir: &Path) -> Result<Option<MountEntry>> {
    Ok(mounts()?.into_iter().rfind(|m| m.dir == dir))
}

/// Asks the file system mounted at `dir`.
pub fn health(dir: &Path) -> Health {
    let (sender, answer) = mpsc::channel();
    let place = dir.to_owned();
    // statfs is the one question that is never answered from a cache.
    let ask = move || sender.send(rustix::fs::statfs(&place).err()).map_err(drop);
    if std::thread::Builder::new().name("afs-probe".into()).spawn(ask).is_err() {
        return Health::Unresponsive;
    }
    match answer.recv_timeout(PROBE_PATIENCE) {
        Ok(Some(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED)) => Health::Dead,
        Ok(_) => Health::Alive,
        Err(_) => Health::Unresponsive,
    }
}

/// Removes a mount at `dir` whose process is gone; false if there is none. A live one is left alone.
pub fn sweep(dir: &Path) -> Result<bool> {
    let mut swept = false;
    for _ in 0..MAX_STACKED {
        if mount_at(dir)?.is_none() || health(dir) != Health::Dead {
            return Ok(swept);
        }
        tracing::info!(dir = %dir.display(), "removing a mount whose process is gone");
        detach(dir, Detach::Lazy)?;
        swept = true;
    }
    Err(Error::new(Reason::InUse, format!("{} is mounted over more than {MAX_STACKED} times", dir.display())))
}

/// Unmounts one of our mounts, from any process that may. Busy: an error that names the users; with `force` it
/// is taken away from them (their requests end with an error), and so is one that does not answer.
pub fn unmount_path(dir: &Path, force: bool) -> Result<()> {
    let dir = resolve(dir)?;
    if mount_at(&dir)?.is_none() {
        return Err(Error::new(Reason::MountNotFound, format!("no AetherFS mount at {}", dir.display()))
            .next("see `aether status` for the mounts of this machine"));
    }
    // Not asked first whether it answers: of one whose server is away the question itself would keep it in use.
    match detach(&dir, Detach::Clean) {
        Err(error) if error.reason == Reason::InUse => match sweep(&dir)? {
            true => Ok(()),
            false if force => detach(&dir, Detach::Abort),
            false => Err(error),
        },
        other => other,
    }
}

/// Where a mount at `dir` is or would be: absolute, without symbolic links. Does not look into the directory itself,
/// which may be a mount that does not answer.
pub fn resolve(dir: &Path) -> Result<PathBuf> {
    let failed = |e| errors::system(format!("resolve {}", dir.display()), e);
    let absolute = std::path::absolute(dir).map_err(failed)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => {
            let place = parent.canonicalize().map_err(failed)?.join(name);
            match fs::read_link(&place) {
                Ok(_) => place.canonicalize().map_err(failed),
                Err(_) => Ok(place), // not a link; that it exists is checked by the mount
            }
        }
        _ => absolute.canonicalize().map_err(failed), // `/`, or a path that ends in `..`
    }
}

/// Takes a mount away. A busy one is [`Reason::InUse`], naming who uses it.
pub(crate) fn detach(dir: &Path, how: Detach) -> Result<()> {
    let flags = match how {
        Detach::Clean => UnmountFlags::NOFOLLOW,
        Detach::Lazy => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
        Detach::Abort => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH | UnmountFlags::FORCE,
    };
    match rustix::mount::unmount(dir, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::BUSY) => Err(busy(dir)),
        Err(rustix::io::Errno::PERM) => detach_by_helper(dir, how),
        Err(error) => Err(errors::system(format!("unmount {}", dir.display()), error.into())),
    }
}

fn detach_by_helper(dir: &Path, how: Detach) -> Result<()> {
    if how == Detach::Abort
        && let Some(mount) = mount_at(dir)?
    {
        abort(&abort_switch(mount.connection)?)?;
    }
    let mut helper = Command::new("fusermount3");
    helper.arg("-u").env("LC_ALL", "C").stdin(Stdio::null());
    if how != Detach::Clean {
        helper.arg("-z");
    }
    let output = helper.arg("--").arg(dir).output().map_err(helper_missing)?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false if said.contains("busy") => Err(busy(dir)),
        false => Err(Error::new(Reason::NotPermitted, format!("unmount {}: {}", dir.display(), said.trim()))
            .next("unmount as the user who mounted it, or as root")),
    }
}

fn busy(dir: &Path) -> Error {
    let users = holders::of(dir);
    let shown = match users.is_empty() {
        true => "by a process that cannot be seen from here".to_owned(),
        false => format!("by {}", users.join(", ")),
    };
    Error::new(Reason::InUse, format!("{} is in use {shown}", dir.display()))
        .with("processes", users.join(", "))
        .next("end these processes or leave the directory, or unmount with --force")
}

pub(crate) fn helper_missing(source: io::Error) -> Error {
    let next = "install fuse3 (Debian: apt-get install fuse3), or mount as root";
    match source.kind() {
        io::ErrorKind::NotFound => Error::new(
            Reason::Unsupported,
            "fusermount3 is not installed, and only root can mount without it",
        )
        .next(next)
        .caused_by(source),
        _ => errors::system("run fusermount3", source).next(next),
    }
}

/// The kernel's switch that ends a connection: a write to it fails every request under way and every later
/// one. It stays bound to this connection, also after the unmount (when a copy of the mount lives on in another
/// process's namespace), while the number goes to the next mount as soon as this one is gone.
pub(crate) fn abort_switch(connection: u32) -> Result<File> {
    let path = Path::new(CONNECTIONS).join(connection.to_string()).join("abort");
    let open = || OpenOptions::new().write(true).open(&path);
    let failed = |e| errors::system(format!("open {}", path.display()), e);
    match open() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // The control file system is usually mounted by the init system; in a container often by nobody.
            let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
            let mounted = rustix::mount::mount("fusectl", CONNECTIONS, "fusectl", flags, None::<&CStr>);
            mounted.map_err(|e| failed(e.into()))?;
            open().map_err(failed)
        }
        other => other.map_err(failed),
    }
}

pub(crate) fn abort(mut switch: &File) -> Result<()> {
    switch.write_all(b"1").map_err(|e| errors::system("abort a connection", e))
}

/// One line of mountinfo: `36 35 0:45 / /mnt\040x rw,nosuid shared:1 - fuse.aether aether:sess_x rw,user_id=0`.
fn parse(line: &[u8]) -> Option<(String, MountEntry)> {
    let mut words = line.split(|b| *b == b' ');
    let device = std::str::from_utf8(words.nth(2)?).ok()?;
    let dir = unescape(words.nth(1)?);
    let mut tail = words.skip_while(|w| *w != b"-").skip(1);
    let fs_type = String::from_utf8_lossy(tail.next()?).into_owned();
    let name = String::from_utf8_lossy(&unescape(tail.next()?)).into_owned();
    let connection = device.split_once(':')?.1.parse().ok()?;
    Some((fs_type, MountEntry { dir: PathBuf::from(OsString::from_vec(dir)), name, connection }))
}

/// `\040` and its like are octal.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let byte =
            octal.and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines() {
        let line = br"36 35 0:45 / /mnt/a\040b\134c rw,nosuid shared:1 master:2 - fuse.aether aether:sess_x rw,user_id=0";
        let (fs_type, entry) = parse(line).unwrap();
        assert_eq!(fs_type, FS_TYPE);
        assert_eq!(entry.dir, Path::new("/mnt/a b\\c"));
        assert_eq!((entry.name.as_str(), entry.connection), ("aether:sess_x", 45));
        assert_eq!(entry.server(), None);
        let own = MountEntry { name: server_name(), ..entry };
        assert_eq!(own.server(), Some(std::process::id()));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"1 2 3"), None);
        assert!(mounts().is_ok());
    }
}
