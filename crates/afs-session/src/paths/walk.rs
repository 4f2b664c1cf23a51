//! Walking a tree in order of paths: directories before what is in them, names by their bytes.
//!
//! Guarantees: the same order whatever came from the base and what from the overlay; a walk can go on after any path,
//! also one that is gone; it takes memory for the names it is about to visit in the directories it is in, in growing
//! chunks. Symbolic links are not followed.

use afs_core::tree::{Attr, Tree};
use afs_types::{Ino, Name, SessionPath};
use std::collections::{BTreeMap, VecDeque};

const FIRST_CHUNK: usize = 512;

/// A walk under way.
pub(super) struct Walker<'t> {
    tree: &'t Tree,
    start: SessionPath,
    /// The path of the newest item, relative to the start, without a slash in front.
    path: Vec<u8>,
    frames: Vec<Frame>,
    item: Option<Item>,
}

/// What a walk visits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) attr: Attr,
    /// 1 for what is directly in the start.
    pub(super) depth: usize,
}

struct Frame {
    dir: Ino,
    /// Length of the directory's path.
    prefix: usize,
    ready: VecDeque<(Vec<u8>, Ino)>,
    /// The last name handed out or skipped; none at the start.
    last: Option<Vec<u8>>,
    chunk: usize,
    done: bool,
}

impl<'t> Walker<'t> {
    /// Everything below a directory.
    pub(super) fn new(tree: &'t Tree, dir: Ino, start: SessionPath) -> Self {
        let mut walker = Self { tree, start, path: Vec::new(), frames: Vec::new(), item: None };
        walker.push(dir, None);
        walker
    }

    /// Everything that comes after a relative path. If that path is still there it becomes the current item, so that the caller
    /// can decide to [`Walker::enter`] it, as after [`Walker::next`].
    pub(super) fn after(tree: &'t Tree, dir: Ino, start: SessionPath, position: &[u8]) -> Self {
        let mut walker = Self { tree, start, path: Vec::new(), frames: Vec::new(), item: None };
        let mut at = dir;
        for name in position.split(|b| *b == b'/') {
            walker.push(at, Some(name));
            if !walker.path.is_empty() {
                walker.path.push(b'/');
            }
            walker.path.extend_from_slice(name);
            let attr = tree.lookup(at, name).and_then(|ino| tree.attr(ino));
            walker.item = attr.map(|attr| Item { attr, depth: walker.frames.len() });
            match attr {
                Some(attr) if attr.is_dir() => at = attr.ino,
                // What follows is gone; what comes after its place is not.
                _ => break,
            }
        }
        walker
    }

    /// The next item; a directory is not entered by itself.
    pub(super) fn next(&mut self) -> Option<Item> {
        self.item = None;
        while let Some(frame) = self.frames.last_mut() {
            let Some((name, ino)) = frame.next(self.tree) else {
                self.frames.pop();
                continue;
            };
            let Some(attr) = self.tree.attr(ino) else { continue };
            self.path.truncate(frame.prefix);
            if frame.prefix > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            self.item = Some(Item { attr, depth: self.frames.len() });
            return self.item;
        }
        None
    }

    /// The current item.
    pub(super) fn item(&self) -> Option<Item> {
        self.item
    }

    /// Forgets the current item, so that it is not entered.
    pub(super) fn skip(&mut self) {
        self.item = None;
    }

    /// Goes into the current item, if it is a directory.
    pub(super) fn enter(&mut self) {
        if let Some(item) = self.item.filter(|i| i.attr.is_dir()) {
            self.push(item.attr.ino, None);
        }
    }

    /// The current item's path, relative to the start.
    pub(super) fn relative(&self) -> &[u8] {
        &self.path
    }

    /// The current item's path.
    pub(super) fn path(&self) -> SessionPath {
        let below = self.path.split(|b| *b == b'/').filter_map(|n| Name::new(n).ok());
        SessionPath::from(self.start.names().iter().cloned().chain(below).collect::<Vec<_>>())
    }

    fn push(&mut self, dir: Ino, after: Option<&[u8]>) {
        self.frames.push(Frame {
            dir,
            prefix: self.path.len(),
            ready: VecDeque::new(),
            last: after.map(<[u8]>::to_vec),
            chunk: FIRST_CHUNK,
            done: false,
        });
    }
}

impl Frame {
    fn next(&mut self, tree: &Tree) -> Option<(Vec<u8>, Ino)> {
        if self.ready.is_empty() && !self.done {
            let names = children(tree, self.dir, self.last.as_deref(), self.chunk);
            self.done = names.len() < self.chunk;
            self.last = names.last().map(|(name, _)| name.clone());
            self.ready = names.into();
            // Every chunk looks at all overlay entries of the directory: few chunks for large ones.
            self.chunk *= 4;
        }
        self.ready.pop_front()
    }
}

/// Up to `most` entries of a directory whose names come after `after`, in order of names.
pub(super) fn children(tree: &Tree, dir: Ino, after: Option<&[u8]>, most: usize) -> Vec<(Vec<u8>, Ino)> {
    let is_after = |name: &[u8]| after.is_none_or(|a| name > a);
    let slots = tree.dentries().range((dir, 0)..=(dir, u64::MAX)).flat_map(|(_, slot)| slot.chain());
    let mut overlay: BTreeMap<&[u8], Ino> =
        slots.filter(|s| is_after(&s.name)).map(|s| (&*s.name, s.ino)).collect();
    let mut found = Vec::new();
    let first = first_after(tree, dir, after);
    for child in first.into_iter().flat_map(|position| tree.base().names_from(dir, position)) {
        // The overlay's names before this one, and its word on this one.
        while let Some(entry) = overlay.first_entry().filter(|e| *e.key() < child.name) {
            push(&mut found, entry.remove_entry());
        }
        let ino = overlay.remove(child.name).unwrap_or(child.ino);
        push(&mut found, (child.name, ino));
        if found.len() >= most {
            found.truncate(most);
            return found;
        }
    }
    overlay.into_iter().for_each(|entry| push(&mut found, entry));
    found.truncate(most);
    found
}

/// Whiteouts are skipped.
fn push(found: &mut Vec<(Vec<u8>, Ino)>, (name, ino): (&[u8], Ino)) {
    if ino != 0 {
        found.push((name.to_vec(), ino));
    }
}

/// The position of the first of the base's children whose name comes after `after`.
fn first_after(tree: &Tree, dir: Ino, after: Option<&[u8]>) -> Option<Ino> {
    let base = tree.base();
    let all = base.entry(dir)?.children;
    let Some(after) = after else { return Some(all.start) };
    let (mut low, mut high) = (all.start, all.end);
    while low < high {
        let middle = low + (high - low) / 2;
        match base.at(middle) {
            Some(entry) if entry.name <= after => low = middle + 1,
            _ => high = middle,
        }
    }
    Some(low)
}
