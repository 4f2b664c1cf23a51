//! Applying: the deterministic effect of each operation. Total: an operation that names what is not there changes
//! nothing, since replay after a fold may meet operations on inodes that were dropped with their last handle.

use super::{Inode, Packed, S_IFDIR, S_IFMT, ShortName, Slot, Tree};
use crate::extent::Content;
use crate::op::{AttrSet, Bytes, Op};
use afs_types::Ino;
use std::sync::Arc;

const PERMISSIONS: u32 = 0o7777;
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;

impl Tree {
    /// Carries out one operation. `seq` is its sequence number in the session.
    pub fn apply(&mut self, op: &Op, seq: u64) {
        match op {
            Op::Create { .. } => self.apply_create(op, seq),
            Op::Link { ino, parent, name, time_ns } => {
                self.set_name(*parent, name, *ino);
                self.touch_dir(*parent, *time_ns, seq, 0);
                self.update(*ino, |i| {
                    i.nlink += 1;
                    i.parent = *parent;
                    i.ctime_ns = *time_ns;
                });
            }
            Op::Unlink { parent, name, keep, time_ns } => {
                let Some(ino) = self.lookup(*parent, name) else { return };
                self.set_name(*parent, name, 0);
                let was_dir = self.drop_name(ino, *keep, *time_ns);
                self.touch_dir(*parent, *time_ns, seq, -i32::from(was_dir));
            }
            Op::Rename { .. } => self.apply_rename(op, seq),
            Op::SetAttr { ino, set, time_ns } => self.update(*ino, |i| set_attr(i, set, *time_ns, seq)),
            Op::Write { ino, offset, len, source, kill_suid, time_ns } => self.update(*ino, |i| {
                i.content.write(i.size, *offset, *len, *source);
                i.size = i.size.max(offset + len);
                if *kill_suid {
                    i.drop_privileges();
                }
                i.changed(seq, *time_ns);
            }),
            Op::Punch { ino, offset, len, time_ns } => self.update(*ino, |i| {
                i.content.punch(i.size, *offset, *len);
                i.drop_privileges();
                i.changed(seq, *time_ns);
            }),
            Op::Replace { ino, size, content, time_ns } => self.update(*ino, |i| {
                i.content = content.clone();
                i.size = *size;
                i.drop_privileges();
                i.changed(seq, *time_ns);
            }),
            Op::Xattr { ino, name, value, time_ns } => {
                self.update(*ino, |i| set_xattr(i, name, value, *time_ns))
            }
            Op::Reap { ino } => {
                if self.inodes.get(ino).is_some_and(|i| i.nlink() == 0) {
                    self.bury(*ino);
                }
            }
            Op::Seal { ino, version, content } => self.update(*ino, |i| {
                if i.version == *version {
                    i.content = content.clone();
                }
            }),
        }
    }

    fn apply_create(&mut self, op: &Op, seq: u64) {
        let Op::Create { parent, name, ino, mode, uid, gid, rdev, target, time_ns } = op else { return };
        let is_dir = mode & S_IFMT == S_IFDIR;
        let inode = Inode {
            mode: *mode,
            uid: *uid,
            gid: *gid,
            nlink: 1 + u32::from(is_dir),
            rdev: *rdev,
            size: target.as_ref().map_or(0, |t| t.len() as u64),
            atime_ns: *time_ns,
            mtime_ns: *time_ns,
            ctime_ns: *time_ns,
            version: seq,
            parent: *parent,
            content: target.as_ref().map_or(Content::Empty, |t| Content::Inline(t.clone())),
            xattrs: None,
        };
        self.set_inode(*ino, Some(Packed::of(inode)));
        self.set_name(*parent, name, *ino);
        self.touch_dir(*parent, *time_ns, seq, i32::from(is_dir));
    }

    fn apply_rename(&mut self, op: &Op, seq: u64) {
        let Op::Rename { parent, name, new_parent, new_name, exchange, keep, time_ns } = op else { return };
        let Some(ino) = self.lookup(*parent, name) else { return };
        let replaced = self.lookup(*new_parent, new_name);
        let moved_dir = i32::from(self.is_dir(ino));
        self.set_name(*new_parent, new_name, ino);
        let mut back_dir = 0;
        match replaced {
            Some(other) if *exchange => {
                back_dir = i32::from(self.is_dir(other));
                self.set_name(*parent, name, other);
                self.moved(other, *parent, *time_ns);
            }
            Some(other) => {
                self.set_name(*parent, name, 0);
                back_dir = i32::from(self.drop_name(other, *keep, *time_ns));
                // The replaced directory leaves the new parent's count, the moved one enters it.
                self.touch_dir(*new_parent, *time_ns, seq, -back_dir);
                back_dir = 0;
            }
            None => self.set_name(*parent, name, 0),
        }
        self.moved(ino, *new_parent, *time_ns);
        self.touch_dir(*parent, *time_ns, seq, back_dir - moved_dir);
        self.touch_dir(*new_parent, *time_ns, seq, moved_dir - back_dir);
    }

    fn is_dir(&self, ino: Ino) -> bool {
        self.attr(ino).is_some_and(|a| a.is_dir())
    }

    fn moved(&mut self, ino: Ino, parent: Ino, time_ns: i64) {
        self.update(ino, |i| {
            i.parent = parent;
            i.ctime_ns = time_ns;
        });
    }

    /// A directory whose entries changed; `subdirs` is how many subdirectories came or went.
    fn touch_dir(&mut self, dir: Ino, time_ns: i64, seq: u64, subdirs: i32) {
        self.update(dir, |i| {
            i.version = seq;
            i.nlink = i.nlink.saturating_add_signed(subdirs);
            i.mtime_ns = time_ns;
            i.ctime_ns = time_ns;
        });
    }

    /// One name less. Returns whether it was a directory, which loses its only name and all it holds.
    fn drop_name(&mut self, ino: Ino, keep: bool, time_ns: i64) -> bool {
        let is_dir = self.is_dir(ino);
        let mut gone = false;
        self.update(ino, |i| {
            i.nlink = if is_dir { 0 } else { i.nlink.saturating_sub(1) };
            i.ctime_ns = time_ns;
            gone = i.nlink == 0;
        });
        if is_dir {
            self.note_burial(ino, 0);
            // Whiteouts below a dead directory hide nothing any more.
            let keys: Vec<(Ino, u64)> =
                self.dentries.range((ino, 0)..=(ino, u64::MAX)).map(|(k, _)| *k).collect();
            keys.iter().for_each(|k| self.put_slot(*k, None));
        }
        if gone && keep {
            self.note_unnamed(ino, true);
        } else if gone {
            self.bury(ino);
        }
        is_dir
    }

    /// The inode is dead. A base inode needs a tombstone, or the base's record would show again.
    fn bury(&mut self, ino: Ino) {
        self.note_unnamed(ino, false);
        if ino <= self.base.max_ino() {
            self.set_inode(ino, Some(Packed::Dead));
        } else {
            self.set_inode(ino, None);
        }
    }

    fn update(&mut self, ino: Ino, change: impl FnOnce(&mut Inode)) {
        if let Some(packed) = self.inodes.get_mut(&ino) {
            let before = packed.heap_bytes();
            // Taken out, so that a map of extents that only this tree has is changed in place.
            if let Some(mut inode) = std::mem::replace(packed, Packed::Dead).into_inode() {
                change(&mut inode);
                *packed = Packed::of(inode);
            }
            self.heap = self.heap + packed.heap_bytes() - before;
        } else if let Some(mut inode) = self.inode(ino) {
            change(&mut inode);
            self.set_inode(ino, Some(Packed::of(inode)));
        }
    }

    /// Makes `name` in `dir` name `ino`, or nothing (0).
    fn set_name(&mut self, dir: Ino, name: &Bytes, ino: Ino) {
        let key = (dir, self.hash(dir, name));
        let in_base = self.base.lookup_hashed(dir, name, key.1);
        let others: Vec<(Ino, ShortName)> = self.dentries.get(&key).map_or_else(Vec::new, |slot| {
            slot.chain().filter(|s| *s.name != **name).map(|s| (s.ino, s.name.clone())).collect()
        });
        // Nothing to say when the base says the same: a rename there and back leaves no trace.
        let mine = (ino != in_base.unwrap_or(0)).then(|| (ino, ShortName::from(name)));
        let chain = others
            .into_iter()
            .chain(mine)
            .fold(None, |next: Option<Slot>, (ino, name)| Some(Slot { ino, name, next: next.map(Arc::new) }));
        self.put_slot(key, chain);
    }
}

impl Inode {
    /// As Linux does on a write: setgid without group execution means mandatory locking and stays.
    fn drop_privileges(&mut self) {
        self.mode &= if self.mode & GROUP_EXECUTE != 0 { !(SETUID | SETGID) } else { !SETUID };
    }

    fn changed(&mut self, seq: u64, time_ns: i64) {
        self.version = seq;
        self.mtime_ns = time_ns;
        self.ctime_ns = time_ns;
    }
}

fn set_attr(i: &mut Inode, set: &AttrSet, time_ns: i64, seq: u64) {
    if let Some(size) = set.size {
        if size != i.size {
            i.content.truncate(size);
            i.size = size;
        }
        i.changed(seq, time_ns);
    }
    if let Some(mode) = set.mode {
        i.mode = (i.mode & S_IFMT) | (mode & PERMISSIONS);
    }
    i.uid = set.uid.unwrap_or(i.uid);
    i.gid = set.gid.unwrap_or(i.gid);
    i.atime_ns = set.atime_ns.unwrap_or(i.atime_ns);
    i.mtime_ns = set.mtime_ns.unwrap_or(i.mtime_ns);
    i.ctime_ns = time_ns;
}

fn set_xattr(i: &mut Inode, name: &Bytes, value: &Option<Bytes>, time_ns: i64) {
    let mut all = i.xattrs.as_deref().cloned().unwrap_or_default();
    match value {
        Some(value) => all.insert(name.clone(), value.clone()),
        None => all.remove(name),
    };
    i.xattrs = (!all.is_empty()).then(|| Arc::new(all));
    i.ctime_ns = time_ns;
}
