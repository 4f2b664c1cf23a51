//! The objects of a local source: its packs are copied, by the kernel and once (as a clone that shares blocks where the
//! file system can do that), loose objects are packed once, and nothing borrowed stays behind.
//!
//! Guarantees: afterwards the mirror stands alone, no file of it is also the source's, it has no loose objects, and each copied pack and index has the checksum that it ends with. A
//! hard link would be cheaper, but packs are mapped: whoever owns the source could cut the file off under the map, which
//! ends the server, or change what commits stand on. Deliberately absent: references, which `git clone --shared` has brought.

use crate::Progress;
use crate::child::{Call, Done, Git, cancelled};
use crate::object::{finish_sha1, hash_file};
use afs_types::{Error, Name, Reason, Result};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Turns the fresh `--shared` clone at `mirror` into one that stands alone.
pub(crate) fn take_objects(
    git: &Git,
    mirror: &Path,
    lock: &File,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let call = || Call { git_dir: Some(mirror), input: Some(lock), ..Call::default() };
    let alternates = mirror.join("objects/info/alternates");
    let step = |e| Error::io(format_args!("read {}", alternates.display()), e);
    let text = match fs::read(&alternates) {
        Ok(text) => text,
        // A bundle, or a source that git chose to copy.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(step(e)),
    };
    let dirs: Vec<PathBuf> = text
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty() && !l.starts_with(b"#"))
        .map(|l| PathBuf::from(OsString::from_vec(l.to_vec())))
        .collect();
    let borrowed = dirs.iter().any(|d| d.join("info/alternates").exists());
    if borrowed {
        // The source itself borrows: let git copy what is reachable.
        let done = git.run(call(), ["-c", "pack.compression=1", "repack", "-a", "-d", "-q"], progress)?;
        if !done.status.success() {
            return Err(broken(&done));
        }
    } else {
        let pack_dir = mirror.join("objects/pack");
        fs::create_dir_all(&pack_dir).map_err(step)?;
        let mut loose = Vec::new();
        for dir in &dirs {
            copy_packs(&dir.join("pack"), &pack_dir, progress)?;
            list_loose(dir, &mut loose)?;
        }
        if !loose.is_empty() {
            // Fast rather than small: no delta search. `git repack` of the source, whenever its owner wants, packs
            // better, and a mirror made after that profits.
            progress.update("packing loose objects", 0, Some(loose.len() as u64));
            let fast = ["-c", "pack.compression=1", "-c", "pack.window=0"];
            let done = git.run(call(), fast.into_iter().chain(["repack", "-d", "-q"]), progress)?;
            if !done.status.success() {
                pack_list(git, mirror, &loose, scratch, progress)?;
            }
        }
    }
    fs::remove_file(&alternates).map_err(step)
}

/// Copies all packs with their indexes. An index comes after its pack, as git does it.
fn copy_packs(from: &Path, to: &Path, progress: &dyn Progress) -> Result<()> {
    let step = |e| Error::io(format_args!("list {}", from.display()), e);
    let mut files = Vec::new();
    match fs::read_dir(from) {
        Ok(entries) => {
            for entry in entries {
                files.push(entry.map_err(step)?.path());
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(step(e)),
    }
    let rank = |p: &Path| ["pack", "rev", "idx"].iter().position(|e| p.extension().is_some_and(|x| x == *e));
    let mut packs: Vec<(usize, PathBuf)> = files.into_iter().filter_map(|p| Some((rank(&p)?, p))).collect();
    packs.sort();
    let total = packs.len() as u64;
    for (done, (_, path)) in packs.iter().enumerate() {
        progress.update("copying packs", done as u64, Some(total));
        let Some(name) = path.file_name() else { continue };
        copy_regular(path, &to.join(name), progress)?;
    }
    Ok(())
}

/// Checks that a copied pack, index or reverse index ends with the checksum of all before: what was damaged at its owner's, or changed while it was copied, is
/// found before anybody relies on it. Whoever wants to can make a wrong pack with a right checksum; that is found object by object.
pub(crate) fn check(path: &Path) -> Result<()> {
    let step = |e| Error::io(format_args!("read {}", path.display()), e);
    let mut file = File::open(path).map_err(step)?;
    let len = file.metadata().map_err(step)?.len();
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hash_file(&mut hasher, &mut file, Some(len.saturating_sub(20))).map_err(step)?;
    let mut sum = Vec::new();
    file.read_to_end(&mut sum).map_err(step)?;
    if finish_sha1(hasher)?[..] == sum[..] {
        return Ok(());
    }
    let name = path.file_name().map_or_else(Default::default, |name| name.to_string_lossy());
    Err(Error::new(Reason::Corrupt, format!("{name} of the source is damaged: its checksum does not fit"))
        .with("file", name)
        .next("check the source with `git fsck`, and repair it, for instance with a new clone; then import it again"))
}

/// Bytes copied between two looks at whether anybody still wants them.
const COPY_BYTES: u64 = 256 << 20;

/// A copy of a regular file, which must be one. Its owner may change it meanwhile: then the copy is a mixture, and whoever reads it
/// finds that; but it is ours, and stays as it is. Synced with the rest of the mirror.
fn copy_regular(from: &Path, to: &Path, progress: &dyn Progress) -> Result<()> {
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    let step = |e| Error::io(format_args!("copy {}", from.display()), e);
    let odd = || {
        let shown = Name::lossy(crate::url::path_bytes(from));
        Error::new(Reason::HostileTree, format!("{shown}: a pack that is not a regular file"))
    };
    // NONBLOCK: a pipe in the file's place must not hold us up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(from, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP | Errno::NXIO) => return Err(odd()),
        Err(e) => return Err(step(e.into())),
    };
    let kind = file.metadata().map_err(step)?;
    if !kind.is_file() {
        return Err(odd());
    }
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o444).open(to).map_err(step)?;
    if rustix::fs::ioctl_ficlone(&copy, &file).is_ok() {
        return Ok(());
    }
    // As long as it is now: somebody may write to it faster than it is copied.
    let mut left = kind.len();
    while left > 0 {
        if progress.cancelled() {
            return Err(cancelled());
        }
        // `copy_file_range`, or what else the kernel has for these two file systems.
        let copied = io::copy(&mut (&file).take(left.min(COPY_BYTES)), &mut copy).map_err(step)?;
        if copied == 0 {
            break;
        }
        left -= copied;
    }
    Ok(())
}

/// The last resort when git finds the source's history broken: the objects as they are, without a look at what
/// they refer to. The import then finds what is wrong, and names it.
fn pack_list(
    git: &Git,
    mirror: &Path,
    loose: &[String],
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let list = scratch.join("loose");
    let step = |e| Error::io(format_args!("write {}", list.display()), e);
    fs::write(&list, loose.join("\n") + "\n").map_err(step)?;
    let input = File::open(&list).map_err(step)?;
    let call = Call { git_dir: Some(mirror), input: Some(&input), ..Call::default() };
    let base = mirror.join("objects/pack/pack");
    let args = ["pack-objects", "-q", "--window=0", "--compression=1"].map(OsString::from);
    let done = git.run(call, args.into_iter().chain([base.into_os_string()]), progress)?;
    match done.status.success() {
        true => Ok(()),
        false => Err(broken(&done)),
    }
}

/// Git cannot put the source's objects together.
fn broken(done: &Done) -> Error {
    let error = done.error(Reason::SourceUnavailable, "the source is damaged");
    match error.reason {
        Reason::SourceUnavailable => {
            error.next("check the source, and what it borrows objects from, with `git fsck`")
        }
        _ => error,
    }
}

fn list_loose(objects: &Path, loose: &mut Vec<String>) -> Result<()> {
    let step = |e| Error::io(format_args!("list {}", objects.display()), e);
    let hex =
        |name: &OsString, len| name.len() == len && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit);
    for fan in fs::read_dir(objects).map_err(step)? {
        let fan = fan.map_err(step)?;
        let head = fan.file_name();
        if !hex(&head, 2) {
            continue;
        }
        for object in fs::read_dir(fan.path()).map_err(step)? {
            let tail = object.map_err(step)?.file_name();
            if hex(&tail, 38) {
                loose.push(format!("{}{}", head.to_string_lossy(), tail.to_string_lossy()));
            }
        }
    }
    Ok(())
}
