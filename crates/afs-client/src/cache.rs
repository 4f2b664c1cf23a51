//! Names and attributes that a mount has seen, so that a walk over a tree costs one call per directory instead of one
//! per name.
//!
//! The first look-up in a directory lists it (up to a bound); names and absences are then answered from here. Kept right
//! by two things: every change by others arrives on the Sync stream and removes what it touches *before* the kernel
//! hears of it; every change of our own removes what it touches when it is sent, and is entered when it is
//! answered. An answer that was under way while its subject changed is not stored ([`Ticket`]).
//!
//! Bounded: directories go, oldest first, when there are more than [`MAX_ENTRIES`] entries. Deliberately absent: file content (the
//! kernel caches that), expiry by time.

use crate::api::{self, op::Op};
use crate::ops::{Applied, Directory};
use afs_types::Result;
use api::{Attributes, DirectoryEntry};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet, VecDeque};

/// Most entries kept; about 60 MB.
const MAX_ENTRIES: usize = 262_144;
/// Directories with more entries than this are looked up name by name.
pub(crate) const MAX_LISTING: usize = 16_384;
/// How many recent changes are remembered, to judge answers that were under way.
const MAX_RECENT: usize = 8192;
/// After a listing that came too late, so many look-ups go by before the next try, doubling each time.
const FIRST_SKIP: u32 = 4;
const LAST_SKIP: u32 = 1024;

/// The first listing of a directory stops here: one look-up in a large directory must not cost a long list.
pub(crate) const FIRST_LISTING: usize = 1024;
/// Entries of one page given to a reader.
const PAGE: usize = 512;
const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;

/// What a look-up finds here.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    Attributes(Attributes),
    Absent,
    /// The name is known, its attributes are not.
    Inode(u64),
    Unknown,
}

/// Taken before a question is sent: the answer may be stored only if its subject did not change since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    sequence: u64,
}

/// A change of our own that is under way.
pub(crate) struct Begun {
    ticket: Ticket,
    /// Inodes that it may change: nothing about them is stored until it is answered.
    inodes: Vec<u64>,
    /// It makes a name that was known to be absent.
    is_new: bool,
}

#[derive(Default)]
pub(crate) struct Cache {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dirs: HashMap<u64, Dir>,
    /// Directories with entries, oldest first.
    order: VecDeque<u64>,
    attributes: HashMap<u64, Attributes>,
    /// Files of `attributes` with several names: one may go that is not known here.
    linked: HashSet<u64>,
    /// Inodes known to have no `security.capability`, which the kernel asks for before the first write to a file.
    without_capability: HashSet<u64>,
    /// Inodes with changes of our own under way: how many, and whether two overlapped.
    changing: HashMap<u64, (u32, bool)>,
    entries: usize,
    /// See [`Cache::look_ahead`].
    look_ahead: usize,
    sequence: u64,
    /// Inodes (directories for names) that changed, with when. What is older than `forgotten` is not in it any more.
    recent: VecDeque<(u64, u64)>,
    forgotten: u64,
}

/// A name, its inode, and the cookie behind it.
type Listed = (Bytes, u64, u64);

#[derive(Default)]
struct Dir {
    /// None: something about this name changed, ask.
    names: HashMap<Bytes, Option<u64>>,
    /// All names are in `names`.
    is_complete: bool,
    /// As the server listed it, while nothing changed since; with the inode of `..`.
    listing: Option<(Vec<Listed>, u64)>,
    /// Look-ups to let go by before listing again, and the next such number.
    skip: (u32, u32),
    is_being_listed: bool,
}

impl Cache {
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket { sequence: self.state.lock().sequence }
    }

    pub(crate) fn lookup(&self, parent: u64, name: &[u8]) -> Found {
        let state = self.state.lock();
        let Some(dir) = state.dirs.get(&parent) else { return Found::Unknown };
        match dir.names.get(name) {
            Some(Some(ino)) => match state.attributes.get(ino) {
                Some(attributes) => Found::Attributes(*attributes),
                None => Found::Inode(*ino),
            },
            None if dir.is_complete => Found::Absent,
            Some(None) | None => Found::Unknown,
        }
    }

    pub(crate) fn attributes(&self, ino: u64) -> Option<Attributes> {
        self.state.lock().attributes.get(&ino).copied()
    }

    /// Whether a look-up that found nothing here should list the directory, and how far. It must then say
    /// [`Cache::store_listing`] or [`Cache::refuse_listing`].
    pub(crate) fn wants_listing(&self, parent: u64) -> Option<usize> {
        let mut state = self.state.lock();
        if state.dirs.len() > MAX_ENTRIES {
            state.clear();
        }
        let dir = state.dirs.entry(parent).or_default();
        if dir.is_complete || dir.is_being_listed || dir.skip.0 > 0 {
            dir.skip.0 = dir.skip.0.saturating_sub(1);
            return None;
        }
        dir.is_being_listed = true;
        Some(if dir.skip.1 == 0 { FIRST_LISTING } else { MAX_LISTING })
    }

    /// How many entries the next listing should bring, of directories below the one that is asked for.
    pub(crate) fn look_ahead(&self) -> usize {
        let mut state = self.state.lock();
        let now = state.look_ahead.max(FIRST_LISTING);
        state.look_ahead = (now * 2).min(MAX_LISTING);
        now
    }

    /// The directory is too large, or could not be listed.
    pub(crate) fn refuse_listing(&self, parent: u64) {
        self.state.lock().dirs.entry(parent).or_default().back_off();
    }

    /// All entries of a directory.
    pub(crate) fn store_listing(
        &self,
        parent: u64,
        dotdot: u64,
        entries: Vec<DirectoryEntry>,
        ticket: Ticket,
    ) {
        let mut state = self.state.lock();
        if state.changed_since(parent, ticket) {
            return state.dirs.entry(parent).or_default().back_off();
        }
        let was_listed = state.dirs.get(&parent).is_some_and(|d| d.is_complete);
        state.drop_dir(parent);
        let is_complete = entries.iter().all(|e| e.attributes.is_some());
        let mut dir = Dir { is_complete, ..Dir::default() };
        let mut listing = Vec::with_capacity(entries.len());
        let fresh = state.fresh_since(ticket, &entries);
        for (entry, is_fresh) in entries.into_iter().zip(fresh) {
            let Some(attributes) = entry.attributes else { continue };
            dir.names.insert(entry.name.clone(), Some(attributes.inode));
            listing.push((entry.name, entry.next_cookie, attributes.inode));
            if is_fresh {
                state.know(attributes);
            }
        }
        state.entries += dir.names.len();
        dir.listing = Some((listing, dotdot));
        state.dirs.insert(parent, dir);
        if !was_listed {
            state.order.push_back(parent);
        }
        state.make_room(parent);
    }

    /// A page of the entries after a cookie, if all of it is known and unchanged.
    pub(crate) fn listing(&self, dir: u64, cookie: u64) -> Option<Directory> {
        let state = self.state.lock();
        let (listing, dotdot) = state.dirs.get(&dir)?.listing.as_ref()?;
        let start = match cookie {
            0 => 0,
            cookie => listing.iter().position(|(_, next, _)| *next == cookie)? + 1,
        };
        let entry = |(name, next_cookie, ino): &(Bytes, u64, u64)| {
            let attributes = Some(*state.attributes.get(ino)?);
            Some(DirectoryEntry { name: name.clone(), next_cookie: *next_cookie, attributes })
        };
        let entries: Vec<_> = listing[start..].iter().take(PAGE).map(entry).collect::<Option<_>>()?;
        Some(Directory { end: start + entries.len() == listing.len(), entries, parent: *dotdot })
    }

    /// The answer to a question about one inode.
    pub(crate) fn store(&self, attributes: Attributes, ticket: Ticket) {
        let mut state = self.state.lock();
        if !state.changed_since(attributes.inode, ticket) {
            state.know(attributes);
            if state.attributes.len() > 2 * MAX_ENTRIES {
                state.clear();
            }
        }
    }

    /// The answer to a question about one name.
    pub(crate) fn store_name(&self, parent: u64, name: Bytes, ino: Option<u64>, ticket: Ticket) {
        let mut state = self.state.lock();
        if state.changed_since(parent, ticket) {
            return;
        }
        match ino {
            Some(_) => state.set_name(parent, name, ino),
            None => state.forget_name(parent, &name),
        }
    }

    /// The file has no `security.capability`.
    pub(crate) fn store_no_capability(&self, ino: u64, ticket: Ticket) {
        let mut state = self.state.lock();
        if !state.changed_since(ino, ticket) {
            state.note_no_capability(ino);
        }
    }

    pub(crate) fn has_no_capability(&self, ino: u64) -> bool {
        self.state.lock().without_capability.contains(&ino)
    }

    pub(crate) fn inode_changed(&self, ino: u64, content: bool) {
        let mut state = self.state.lock();
        state.inode_changed(ino);
        state.without_capability.remove(&ino);
        if content && let Some(dir) = state.dirs.get_mut(&ino) {
            dir.listing = None;
        }
    }

    pub(crate) fn name_changed(&self, parent: u64, name: &[u8]) {
        let mut state = self.state.lock();
        state.name_unknown(parent, name);
    }

    pub(crate) fn clear(&self) {
        self.state.lock().clear();
    }

    /// A change of our own is about to be sent.
    pub(crate) fn begin(&self, op: &Op) -> Begun {
        let mut state = self.state.lock();
        let names = names_of(op);
        let mut inodes: Vec<u64> = inode_of(op).into_iter().collect();
        for (parent, name) in &names {
            match state.ino_of(*parent, name) {
                Some(ino) => inodes.push(ino),
                None if state.is_absent(*parent, name) => {}
                None => inodes.extend(&state.linked),
            }
        }
        inodes.sort_unstable();
        inodes.dedup();
        let is_new = names.iter().all(|(parent, name)| state.is_absent(*parent, name));
        for (parent, name) in names {
            state.name_unknown(parent, name);
        }
        for ino in &inodes {
            let (count, overlap) = state.changing.entry(*ino).or_default();
            *count += 1;
            *overlap |= *count > 1;
            state.inode_changed(*ino);
        }
        Begun { ticket: Ticket { sequence: state.sequence }, inodes, is_new }
    }

    /// It was answered.
    pub(crate) fn finish(&self, begun: Begun, op: &Op, outcome: &Result<Applied>) {
        let mut state = self.state.lock();
        let names = names_of(op);
        // Changes by others that came in between may be older or newer than the answer: then it tells nothing.
        let is_undisturbed = |state: &State, ino: u64| !state.heard_since(ino, begun.ticket);
        let names_count = names.iter().all(|(parent, _)| is_undisturbed(&state, *parent));
        let attributes = outcome.as_ref().ok().and_then(|a| a.attributes);
        let mut attributes = attributes.filter(|a| is_undisturbed(&state, a.inode));
        for ino in &begun.inodes {
            state.inode_changed(*ino);
            if !state.end_change(*ino) {
                attributes = attributes.filter(|a| a.inode != *ino);
            }
        }
        for (parent, name) in names {
            state.name_unknown(parent, name);
        }
        if let Op::Xattr(op) = op {
            state.without_capability.remove(&op.inode);
        }
        if outcome.is_ok() {
            state.enter(op, attributes, names_count);
            if begun.is_new
                && names_count
                && let (Op::Create(_), Some(made)) = (op, attributes)
            {
                state.note_no_capability(made.inode);
            }
        }
    }
}

impl State {
    fn clear(&mut self) {
        let changing = std::mem::take(&mut self.changing);
        let sequence = self.sequence + 1;
        *self = Self { changing, sequence, forgotten: sequence, ..Self::default() };
    }

    fn note(&mut self, ino: u64) {
        self.sequence += 1;
        self.recent.push_back((self.sequence, ino));
        if self.recent.len() > MAX_RECENT
            && let Some((sequence, _)) = self.recent.pop_front()
        {
            self.forgotten = sequence;
        }
    }

    /// Whether an answer about this inode, or about names in this directory, may be outdated.
    fn changed_since(&self, ino: u64, ticket: Ticket) -> bool {
        self.changing.contains_key(&ino) || self.heard_since(ino, ticket)
    }

    fn heard_since(&self, ino: u64, ticket: Ticket) -> bool {
        let mut news = self.recent.iter().rev().take_while(|(at, _)| *at > ticket.sequence);
        ticket.sequence < self.forgotten || news.any(|(_, changed)| *changed == ino)
    }

    fn ino_of(&self, parent: u64, name: &[u8]) -> Option<u64> {
        self.dirs.get(&parent)?.names.get(name).copied().flatten()
    }

    fn is_absent(&self, parent: u64, name: &[u8]) -> bool {
        self.dirs.get(&parent).is_some_and(|dir| dir.is_complete && !dir.names.contains_key(name))
    }

    fn note_no_capability(&mut self, ino: u64) {
        if self.without_capability.len() >= MAX_ENTRIES {
            self.without_capability.clear();
        }
        self.without_capability.insert(ino);
    }

    fn fresh_since(&self, ticket: Ticket, entries: &[DirectoryEntry]) -> Vec<bool> {
        let news: HashSet<u64> = self
            .recent
            .iter()
            .rev()
            .take_while(|(at, _)| *at > ticket.sequence)
            .map(|(_, ino)| *ino)
            .collect();
        let is_fresh = |e: &DirectoryEntry| {
            let ino = e.attributes.map_or(0, |a| a.inode);
            ticket.sequence >= self.forgotten && !self.changing.contains_key(&ino) && !news.contains(&ino)
        };
        entries.iter().map(is_fresh).collect()
    }

    fn know(&mut self, attributes: Attributes) {
        let is_directory = attributes.mode & S_IFMT == S_IFDIR;
        if attributes.nlink > 1 && !is_directory {
            self.linked.insert(attributes.inode);
        }
        self.attributes.insert(attributes.inode, attributes);
    }

    fn inode_changed(&mut self, ino: u64) {
        self.note(ino);
        self.attributes.remove(&ino);
        self.linked.remove(&ino);
    }

    /// The directory's own attributes (times, links) change with it, and so may those of what the name meant.
    fn name_unknown(&mut self, parent: u64, name: &[u8]) {
        self.inode_changed(parent);
        let Some(dir) = self.dirs.get_mut(&parent) else { return };
        dir.listing = None;
        let before = dir.names.get(name).copied().flatten();
        self.set_name(parent, Bytes::copy_from_slice(name), None);
        if let Some(ino) = before {
            self.inode_changed(ino);
        }
    }

    /// Whether no other change of this inode overlapped with the one that ends.
    fn end_change(&mut self, ino: u64) -> bool {
        let Some((count, overlap)) = self.changing.get_mut(&ino) else { return false };
        *count -= 1;
        let is_alone = !*overlap;
        if *count == 0 {
            self.changing.remove(&ino);
        }
        is_alone
    }

    /// What a successful change of our own says.
    fn enter(&mut self, op: &Op, attributes: Option<Attributes>, names_count: bool) {
        if let Some(attributes) = attributes
            && !self.changing.contains_key(&attributes.inode)
        {
            self.note(attributes.inode);
            self.know(attributes);
        }
        if !names_count {
            return;
        }
        let made = attributes.map(|a| a.inode);
        match op {
            Op::Create(op) => self.set_name(op.parent, op.name.clone(), made),
            Op::Mkdir(op) => self.set_name(op.parent, op.name.clone(), made),
            Op::Symlink(op) => self.set_name(op.parent, op.name.clone(), made),
            Op::Mknod(op) => self.set_name(op.parent, op.name.clone(), made),
            Op::Link(op) => self.set_name(op.parent, op.name.clone(), made),
            Op::Unlink(op) => self.forget_name(op.parent, &op.name),
            // Which inode now has the new name is asked when it is needed.
            Op::Rename(op) if op.flags & 2 == 0 => self.forget_name(op.from_parent, &op.from_name),
            _ => {}
        }
    }

    /// Only in a directory of which all names are known; elsewhere a name alone would never be used.
    fn set_name(&mut self, parent: u64, name: Bytes, ino: Option<u64>) {
        if let Some(dir) = self.dirs.get_mut(&parent)
            && dir.is_complete
            && dir.names.insert(name, ino).is_none()
        {
            self.entries += 1;
        }
    }

    /// It is absent, as we know.
    fn forget_name(&mut self, parent: u64, name: &[u8]) {
        if let Some(dir) = self.dirs.get_mut(&parent)
            && dir.is_complete
            && dir.names.remove(name).is_some()
        {
            self.entries -= 1;
        }
    }

    fn drop_dir(&mut self, ino: u64) {
        let Some(dir) = self.dirs.remove(&ino) else { return };
        self.entries -= dir.names.len();
        for child in dir.names.into_values().flatten() {
            self.attributes.remove(&child);
            self.linked.remove(&child);
        }
    }

    fn make_room(&mut self, keep: u64) {
        while self.entries > MAX_ENTRIES {
            match self.order.pop_front() {
                Some(ino) if ino == keep => return self.order.push_back(ino),
                Some(ino) => self.drop_dir(ino),
                None => return,
            }
        }
    }
}

impl Dir {
    fn back_off(&mut self) {
        self.is_being_listed = false;
        let next = self.skip.1.clamp(FIRST_SKIP, LAST_SKIP);
        self.skip = (next, next * 2);
    }
}

/// Names that an operation gives, takes or changes.
fn names_of(op: &Op) -> Vec<(u64, &[u8])> {
    match op {
        Op::Create(op) => vec![(op.parent, &op.name)],
        Op::Mkdir(op) => vec![(op.parent, &op.name)],
        Op::Symlink(op) => vec![(op.parent, &op.name)],
        Op::Mknod(op) => vec![(op.parent, &op.name)],
        Op::Link(op) => vec![(op.parent, &op.name)],
        Op::Unlink(op) => vec![(op.parent, &op.name)],
        Op::Rename(op) => vec![(op.from_parent, &op.from_name), (op.to_parent, &op.to_name)],
        Op::Setattr(_) | Op::Xattr(_) | Op::Write(_) | Op::Fallocate(_) | Op::CopyRange(_) => vec![],
        Op::Open(_) | Op::Release(_) => vec![],
    }
}

/// The inode that an operation changes by number.
fn inode_of(op: &Op) -> Option<u64> {
    match op {
        Op::Setattr(op) => Some(op.inode),
        Op::Xattr(op) => Some(op.inode),
        Op::Write(op) => Some(op.inode),
        Op::Fallocate(op) => Some(op.inode),
        Op::CopyRange(op) => Some(op.to_inode),
        Op::Link(op) => Some(op.inode),
        Op::Open(op) if op.truncate => Some(op.inode),
        _ => None,
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
