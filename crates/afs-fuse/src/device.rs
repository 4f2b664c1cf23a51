//! Makes the mount itself and gets the kernel's end of the connection: directly as root, through the setuid helper
//! `fusermount3` otherwise. (Not through fuser, whose own mount code may unmount a stranger's file system
//! at the same place and cannot say "busy".)

use crate::errors;
use crate::mount::MountOptions;
use crate::mount_table::{FS_TYPE, helper_missing};
use afs_types::{Error, Reason, Result};
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const DEVICE: &str = "/dev/fuse";

/// A fresh connection, mounted.
pub(crate) struct Device {
    pub(crate) fd: OwnedFd,
    /// Unmounts when this process is gone.
    pub(crate) watchdog: Option<Watchdog>,
}

/// The helper that stays: it waits for its socket to close, then removes a dead mount.
pub(crate) struct Watchdog {
    child: Child,
    socket: UnixStream,
}

impl Watchdog {
    /// After the unmount: nothing is left for it to do.
    pub(crate) fn end(mut self) {
        drop(self.socket);
        let _ = self.child.wait(); // it ends by itself, whatever its status
    }
}

/// Whether reader threads can have connections of their own.
pub(crate) fn can_clone() -> bool {
    open_device().is_ok()
}

pub(crate) fn mount(dir: &Path, options: &MountOptions) -> Result<Device> {
    let root = rustix::process::geteuid().is_root();
    if root && !options.auto_unmount {
        match mount_directly(dir, options) {
            Err(error) if error.reason == Reason::NotPermitted => {} // root of a container: the helper may still do it
            other => return other,
        }
    }
    mount_by_helper(dir, options)
}

fn open_device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(DEVICE)
}

fn mount_directly(dir: &Path, options: &MountOptions) -> Result<Device> {
    let device = open_device().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::new(Reason::Unsupported, format!("{DEVICE} does not exist"))
            .next("load the kernel module (modprobe fuse), or give the container the device")
            .caused_by(e),
        _ => errors::system(format!("open {DEVICE}"), e),
    })?;
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}{}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
        kernel_options(options).iter().map(|o| format!(",{o}")).collect::<String>(),
    );
    let data = CString::new(data).map_err(|_| Error::invalid("name", "no NUL"))?;
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOEXEC, options.no_exec);
    flags.set(MountFlags::NOSUID, !options.suid);
    flags.set(MountFlags::NODEV, !options.dev);
    rustix::mount::mount(options.name.as_str(), dir, FS_TYPE, flags, data.as_c_str())
        .map_err(|e| errors::system(format!("mount at {}", dir.display()), e.into()))?;
    Ok(Device { fd: device.into(), watchdog: None })
}

fn kernel_options(options: &MountOptions) -> Vec<&'static str> {
    let mut list = vec!["default_permissions"];
    if options.allow_other {
        list.push("allow_other");
    }
    list
}

fn mount_by_helper(dir: &Path, options: &MountOptions) -> Result<Device> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| errors::system("make a socket pair", e))?;
    let list = helper_options(options);
    // The helper is told the number of a descriptor; as its standard input it needs no unsafe hook to inherit it.
    let mut child = Command::new("fusermount3")
        .args(["-o", &list, "--"])
        .arg(dir)
        .env("_FUSE_COMMFD", "0")
        .env("LC_ALL", "C")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(helper_missing)?;
    match receive(&ours) {
        Ok(fd) if options.auto_unmount => Ok(Device { fd, watchdog: Some(Watchdog { child, socket: ours }) }),
        Ok(fd) => {
            let _ = child.wait(); // it has done its work, or we would have no descriptor
            Ok(Device { fd, watchdog: None })
        }
        Err(error) => {
            drop(ours);
            let mut said = String::new();
            if let Some(mut pipe) = child.stderr.take() {
                let _ = pipe.read_to_string(&mut said); // only adds words to the error below
            }
            let _ = child.wait();
            Err(helper_failed(dir, said.trim(), error))
        }
    }
}

fn helper_options(options: &MountOptions) -> String {
    let mut list: Vec<String> = kernel_options(options).into_iter().map(String::from).collect();
    list.push(format!("fsname={}", options.name.replace(['\\', ','], "_")));
    list.push(format!("subtype={}", FS_TYPE.trim_start_matches("fuse.")));
    let flags = [
        (options.read_only, "ro"),
        (options.no_exec, "noexec"),
        (options.suid, "suid"),
        (options.dev, "dev"),
        (options.auto_unmount, "auto_unmount"),
    ];
    list.extend(flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_owned()));
    list.join(",")
}

fn helper_failed(dir: &Path, said: &str, source: io::Error) -> Error {
    let error =
        Error::new(Reason::NotPermitted, format!("fusermount3 cannot mount at {}: {said}", dir.display()));
    let error = match () {
        () if said.contains("user_allow_other") => {
            error.next("add the line user_allow_other to /etc/fuse.conf, or mount without --allow-other")
        }
        () if said.contains(DEVICE) => {
            error.next(format!("make {DEVICE} usable for you (chmod 666), or mount as root"))
        }
        () if said.contains("no write access") => error.next("mount at a directory that is yours"),
        () => error.next("see `aether doctor`"),
    };
    error.caused_by(source)
}

/// The descriptor arrives beside one byte.
fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::io::retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags))?;
    let fds = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "fusermount3 sent no descriptor"))
}
