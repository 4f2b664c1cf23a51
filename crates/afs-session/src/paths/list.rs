//! Stat, list, manifest.

use super::entry::Entry;
use super::error::at;
use super::resolve::{Place, walk};
use super::walk::Walker;
use super::work::entry_of;
use super::{Files, View, page};
use crate::lifecycle::{Room, page_size};
use afs_types::{Reason, Result, SessionPath};
use std::ops::ControlFlow;

/// A page of entries.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The entries, in order of paths.
    pub entries: Vec<Entry>,
    /// For the next page; none at the end.
    pub next: Option<String>,
    /// The revision that this page shows.
    pub revision: u64,
}

impl View {
    /// One entry. A symbolic link at the end of the path is shown itself.
    pub fn stat(&self, path: &SessionPath) -> Result<Entry> {
        self.try_stat(path, false)?.ok_or_else(|| at(path)(Reason::NotFound.into()))
    }

    /// Whether something is at exactly this path: no link on the way is followed.
    pub fn is_there(&self, path: &SessionPath) -> bool {
        self.tree.walk(path).is_some()
    }

    /// One entry, or none if nothing is there.
    pub(super) fn try_stat(&self, path: &SessionPath, follow: bool) -> Result<Option<Entry>> {
        let facts = &mut self.facts();
        match walk(&self.tree, facts, path, follow).map_err(at(path))? {
            Place::There { attr, .. } => entry_of(&self.tree, facts, path.clone(), attr).map(Some),
            Place::Missing { .. } => Ok(None),
        }
    }

    /// Entries below a directory down to `depth` levels (0 means 1), a page at a time. Between pages the directory may change:
    /// what stays is listed exactly once.
    pub fn list(&self, path: &SessionPath, depth: usize, size: usize, token: &str) -> Result<Listing> {
        let size = page_size(size)?;
        let depth = depth.max(1);
        let dir = self.resolve(path, true)?;
        if !dir.is_dir() {
            return Err(at(path)(Reason::NotADirectory.into()));
        }
        let query: [&[u8]; 3] = [b"list", &path.to_bytes(), &depth.to_le_bytes()];
        let mut walker = match page::decode(&query, token)? {
            Some(position) => Walker::after(&self.tree, dir.ino, path.clone(), &position),
            None => Walker::new(&self.tree, dir.ino, path.clone()),
        };
        let facts = &mut self.facts();
        let (mut entries, mut last, mut more, mut room) = (Vec::new(), Vec::new(), false, Room::default());
        loop {
            if walker.item().is_some_and(|i| i.depth < depth) {
                walker.enter();
            }
            let Some(item) = walker.next() else { break };
            let entry = entry_of(&self.tree, facts, walker.path(), item.attr)?;
            if entries.len() == size || !room.takes(entry.weight()) {
                more = true;
                break;
            }
            entries.push(entry);
            last = walker.relative().to_vec();
        }
        let next = more.then(|| page::encode(&query, &last));
        Ok(Listing { entries, next, revision: self.revision })
    }

    /// Every entry below `prefix`, in order of paths; a file's own entry if it is one. Ends when `visit` says so.
    pub fn manifest(
        &self,
        prefix: &SessionPath,
        visit: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let top = self.resolve(prefix, true)?;
        let facts = &mut self.facts();
        if !top.is_dir() {
            return visit(entry_of(&self.tree, facts, prefix.clone(), top)?).map(drop);
        }
        let mut walker = Walker::new(&self.tree, top.ino, prefix.clone());
        while let Some(item) = walker.next() {
            if visit(entry_of(&self.tree, facts, walker.path(), item.attr)?)?.is_break() {
                break;
            }
            walker.enter();
        }
        Ok(())
    }
}

impl Files<'_> {
    /// [`View::stat`] now.
    pub fn stat(&self, path: &SessionPath) -> Result<Entry> {
        self.view().stat(path)
    }
    /// [`View::list`] now.
    pub fn list(&self, path: &SessionPath, depth: usize, size: usize, token: &str) -> Result<Listing> {
        self.view().list(path, depth, size, token)
    }
}
