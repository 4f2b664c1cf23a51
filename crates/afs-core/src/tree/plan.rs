//! Deciding: each `plan_*` checks a request against the tree and returns the operation that carries it out.
//!
//! Errors are those of Linux, in the order Linux gives them. Names come checked ([`NameRef`]). Nothing is changed here.

use super::{Attr, S_IFDIR, S_IFMT, S_IFREG, Tree};
use crate::extent::{Content, Source};
use crate::op::{AttrSet, Op};
use afs_types::{Error, Ino, NameRef, ROOT_INO, Reason, Result, limits};

const S_ISGID: u32 = 0o2000;
const S_ISUID: u32 = 0o4000;

/// Attributes of a new inode.
#[derive(Clone, Debug)]
pub struct NewNode<'a> {
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of special files.
    pub rdev: u32,
    /// Target of a symbolic link.
    pub target: Option<&'a [u8]>,
}

/// What `rename` does when the target exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RenameMode {
    /// Replace it.
    #[default]
    Replace,
    /// Refuse (`RENAME_NOREPLACE`).
    NoReplace,
    /// Swap the two (`RENAME_EXCHANGE`).
    Exchange,
}

impl Tree {
    /// A new inode `ino` named `name` in `parent`.
    pub fn plan_create(
        &self,
        parent: Ino,
        name: NameRef<'_>,
        ino: Ino,
        new: &NewNode<'_>,
        time_ns: i64,
    ) -> Result<Op> {
        if new.target.is_some_and(|t| t.is_empty() || t.len() > limits::MAX_SYMLINK_BYTES) {
            return Err(Error::new(
                Reason::NameTooLong,
                format!("a symbolic link's target has 1 to {} bytes", limits::MAX_SYMLINK_BYTES),
            )
            .with("field", "target"));
        }
        let dir = self.dir(parent)?;
        if self.lookup(parent, name.as_bytes()).is_some() {
            return Err(Reason::AlreadyExists.into());
        }
        // A directory with the setgid bit hands down its group, and the bit itself to directories.
        let inherit = dir.mode & S_ISGID != 0;
        let is_dir = new.mode & S_IFMT == S_IFDIR;
        Ok(Op::Create {
            parent,
            name: name.as_bytes().into(),
            ino,
            mode: new.mode | if inherit && is_dir { S_ISGID } else { 0 },
            uid: new.uid,
            gid: if inherit { dir.gid } else { new.gid },
            rdev: new.rdev,
            target: new.target.map(Into::into),
            time_ns,
        })
    }

    /// One more name for `ino`.
    pub fn plan_link(&self, ino: Ino, parent: Ino, name: NameRef<'_>, time_ns: i64) -> Result<Op> {
        let attr = self.attr(ino).ok_or(Reason::Stale)?;
        self.dir(parent)?;
        if self.lookup(parent, name.as_bytes()).is_some() {
            return Err(Reason::AlreadyExists.into());
        }
        if attr.is_dir() {
            return Err(Reason::NotPermitted.into());
        }
        if attr.nlink == 0 {
            return Err(Reason::NotFound.into());
        }
        if attr.nlink >= limits::MAX_LINKS {
            return Err(Reason::TooManyLinks.into());
        }
        Ok(Op::Link { ino, parent, name: name.as_bytes().into(), time_ns })
    }

    /// A name of something that is not a directory goes. `is_open` tells whether the inode must outlive its last name.
    pub fn plan_unlink(
        &self,
        parent: Ino,
        name: NameRef<'_>,
        is_open: impl Fn(Ino) -> bool,
        time_ns: i64,
    ) -> Result<Op> {
        let ino = self.child(parent, name)?;
        if self.attr(ino).is_some_and(|a| a.is_dir()) {
            return Err(Reason::IsADirectory.into());
        }
        Ok(Op::Unlink { parent, name: name.as_bytes().into(), keep: is_open(ino), time_ns })
    }

    /// An empty directory goes.
    pub fn plan_rmdir(
        &self,
        parent: Ino,
        name: NameRef<'_>,
        is_open: impl Fn(Ino) -> bool,
        time_ns: i64,
    ) -> Result<Op> {
        let ino = self.child(parent, name)?;
        if self.attr(ino).is_some_and(|a| !a.is_dir()) {
            return Err(Reason::NotADirectory.into());
        }
        if !self.is_empty_dir(ino) {
            return Err(Reason::NotEmpty.into());
        }
        Ok(Op::Unlink { parent, name: name.as_bytes().into(), keep: is_open(ino), time_ns })
    }

    /// A name moves. None: both names are the same inode, so there is nothing to do.
    #[allow(
        clippy::too_many_arguments,
        reason = "the six arguments of renameat2, and what the pure rules may not know"
    )]
    pub fn plan_rename(
        &self,
        parent: Ino,
        name: NameRef<'_>,
        new_parent: Ino,
        new_name: NameRef<'_>,
        mode: RenameMode,
        is_open: impl Fn(Ino) -> bool,
        time_ns: i64,
    ) -> Result<Option<Op>> {
        self.directory(parent)?;
        let new_dir = self.directory(new_parent)?;
        let ino = self.child(parent, name)?;
        let source = self.attr(ino).ok_or(Reason::NotFound)?;
        let target = self.lookup(new_parent, new_name.as_bytes()).and_then(|t| self.attr(t));
        match (mode, &target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Reason::AlreadyExists.into()),
            (RenameMode::Exchange, None) => return Err(Reason::NotFound.into()),
            _ => {}
        }
        if source.is_dir() && self.is_at_or_below(new_parent, ino) {
            return Err(Reason::MoveIntoSelf.into());
        }
        if target.is_some_and(|t| t.is_dir() && self.is_at_or_below(parent, t.ino)) {
            let exchange = mode == RenameMode::Exchange;
            return Err(if exchange { Reason::MoveIntoSelf } else { Reason::NotEmpty }.into());
        }
        if target.is_some_and(|t| t.ino == ino) {
            return Ok(None);
        }
        if new_dir.nlink == 0 {
            return Err(Reason::NotFound.into());
        }
        if let (RenameMode::Replace, Some(target)) = (mode, &target) {
            self.check_replace(&source, target)?;
        }
        Ok(Some(Op::Rename {
            parent,
            name: name.as_bytes().into(),
            new_parent,
            new_name: new_name.as_bytes().into(),
            exchange: mode == RenameMode::Exchange,
            keep: target.is_some_and(|t| is_open(t.ino)),
            time_ns,
        }))
    }

    /// New attributes.
    pub fn plan_setattr(&self, ino: Ino, set: AttrSet, time_ns: i64) -> Result<Op> {
        let attr = self.attr(ino).ok_or(Reason::Stale)?;
        if let Some(size) = set.size {
            self.check_sized(&attr, size)?;
        }
        Ok(Op::SetAttr { ino, set, time_ns })
    }

    /// Bytes at an offset.
    pub fn plan_write(&self, ino: Ino, offset: u64, len: u64, source: Source, time_ns: i64) -> Result<Op> {
        let attr = self.attr(ino).ok_or(Reason::Stale)?;
        let end = offset.checked_add(len).ok_or(Reason::FileTooLarge)?;
        self.check_sized(&attr, end)?;
        Ok(Op::Write { ino, offset, len, source, kill_suid: attr.mode & (S_ISUID | S_ISGID) != 0, time_ns })
    }

    /// A hole inside the file.
    pub fn plan_punch(&self, ino: Ino, offset: u64, len: u64, time_ns: i64) -> Result<Op> {
        let attr = self.attr(ino).ok_or(Reason::Stale)?;
        self.check_sized(&attr, attr.size)?;
        Ok(Op::Punch { ino, offset, len, time_ns })
    }

    /// All content at once.
    pub fn plan_replace(&self, ino: Ino, size: u64, content: Content, time_ns: i64) -> Result<Op> {
        let attr = self.attr(ino).ok_or(Reason::Stale)?;
        self.check_sized(&attr, size)?;
        Ok(Op::Replace { ino, size, content, time_ns })
    }

    /// An extended attribute is set (`value`), or removed.
    pub fn plan_xattr(&self, ino: Ino, name: &[u8], value: Option<&[u8]>, time_ns: i64) -> Result<Op> {
        self.attr(ino).ok_or(Reason::Stale)?;
        if name.is_empty() || name.len() > limits::MAX_XATTR_NAME_BYTES || name.contains(&0) {
            return Err(Error::invalid(
                "name",
                format!("1 to {} bytes without NUL", limits::MAX_XATTR_NAME_BYTES),
            ));
        }
        let have = self.xattrs(ino);
        let others = have.iter().flat_map(|x| x.iter()).filter(|(n, _)| ***n != *name);
        let total: usize = others.map(|(n, v)| n.len() + v.len()).sum();
        match value {
            None if have.is_none_or(|x| !x.contains_key(name)) => return Err(Reason::NoAttribute.into()),
            Some(v) if v.len() > limits::MAX_XATTR_VALUE_BYTES => {
                return Err(Error::new(
                    Reason::MessageTooLarge,
                    format!("an attribute's value has at most {} bytes", limits::MAX_XATTR_VALUE_BYTES),
                ));
            }
            Some(v) if total + name.len() + v.len() > limits::MAX_XATTRS_BYTES => {
                return Err(Error::new(
                    Reason::NoSpace,
                    format!("the attributes of one inode have at most {} bytes", limits::MAX_XATTRS_BYTES),
                ));
            }
            _ => {}
        }
        Ok(Op::Xattr { ino, name: name.into(), value: value.map(Into::into), time_ns })
    }

    fn check_sized(&self, attr: &Attr, size: u64) -> Result<()> {
        if attr.is_dir() {
            return Err(Reason::IsADirectory.into());
        }
        if attr.mode & S_IFMT != S_IFREG {
            return Err(Reason::WrongType.into());
        }
        if size > limits::MAX_FILE_BYTES {
            return Err(Error::new(
                Reason::FileTooLarge,
                format!("the file would have {size} bytes, the limit is {}", limits::MAX_FILE_BYTES),
            ));
        }
        Ok(())
    }

    fn check_replace(&self, source: &Attr, target: &Attr) -> Result<()> {
        match (source.is_dir(), target.is_dir()) {
            (true, false) => Err(Reason::NotADirectory.into()),
            (false, true) => Err(Reason::IsADirectory.into()),
            (true, true) if !self.is_empty_dir(target.ino) => Err(Reason::NotEmpty.into()),
            _ => Ok(()),
        }
    }

    /// Whether directory `at` is `top` or lies below it.
    fn is_at_or_below(&self, mut at: Ino, top: Ino) -> bool {
        while at != top {
            match self.parent_of(at) {
                Some(parent) if at != ROOT_INO => at = parent,
                _ => return false,
            }
        }
        true
    }
}
