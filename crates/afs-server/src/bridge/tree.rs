//! Many directories in one answer.
//!
//! Guarantees: a directory is in the answer with all its entries or not at all; what was removed meanwhile is left out.
//! Deliberately absent: one instant for all of them (a client checks each against the changes that it hears of).

use super::wire::attributes;
use afs_proto::v1::{DirectoryEntry, DirectoryListing};
use afs_session::Session;
use afs_types::{Ino, Result};
use std::collections::VecDeque;

/// A directory and those below it, breadth first, until there are more than `most` entries.
pub(crate) fn listings(session: &Session, top: Ino, most: usize) -> Result<Vec<DirectoryListing>> {
    let (mut todo, mut all, mut left) = (VecDeque::from([top]), Vec::new(), most);
    while let Some(inode) = todo.pop_front() {
        let mut entries = Vec::new();
        let listed = session.readdir(inode, 0, &mut |entry| {
            entries.push(DirectoryEntry {
                name: entry.name.to_vec().into(),
                next_cookie: entry.next_cookie,
                attributes: Some(attributes(&entry.attr)),
            });
            entries.len() <= left
        });
        match listed {
            Err(error) if inode == top => return Err(error),
            Err(_) => continue, // gone since its name was listed
            Ok(()) if entries.len() > left => break,
            Ok(()) => {}
        }
        left -= entries.len();
        let directories = entries.iter().filter_map(|e| e.attributes).filter(|a| a.mode & S_IFMT == S_IFDIR);
        todo.extend(directories.map(|a| a.inode));
        let Ok(parent) = session.parent(inode) else { continue };
        all.push(DirectoryListing { inode, parent, entries });
    }
    Ok(all)
}

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
