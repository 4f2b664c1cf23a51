//! One hash of everything that a tree shows: names, types, modes, link counts, sizes, bytes, link targets, attributes.

use afs_core::tree::Tree;
use afs_session::read_content;
use afs_store::BlobStore;
use afs_types::{Error, Ino, ROOT_INO, Reason, Result};
use std::fmt::Write as _;

/// A hash of a tree, with a listing to print when two differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest {
    /// BLAKE3 of the listing.
    pub hash: [u8; 32],
    /// One line for each entry.
    pub listing: String,
}

/// Hashes a tree, reading every file.
///
/// # Errors
/// When a file cannot be read or an entry has no attributes.
pub fn digest(tree: &Tree, blobs: &BlobStore) -> Result<Digest> {
    let mut listing = String::new();
    list(tree, blobs, ROOT_INO, "", &mut listing)?;
    Ok(Digest { hash: *blake3::hash(listing.as_bytes()).as_bytes(), listing })
}

fn list(tree: &Tree, blobs: &BlobStore, dir: Ino, path: &str, listing: &mut String) -> Result<()> {
    let mut entries: Vec<(Vec<u8>, Ino)> = Vec::new();
    tree.readdir(dir, 0, &mut |item| {
        entries.push((item.name.to_vec(), item.ino));
        true
    });
    entries.sort();
    for (name, ino) in entries {
        let path = format!("{path}/{}", name.escape_ascii());
        let attr =
            tree.attr(ino).ok_or_else(|| Error::new(Reason::Corrupt, format!("{path} names no inode")))?;
        let content = match tree.content(ino) {
            Some((content, size)) if !attr.is_dir() => {
                let bytes = read_content(blobs, &content, size, 0, size as usize)?;
                blake3::hash(&bytes).to_hex().to_string()
            }
            _ => String::new(),
        };
        let (mode, nlink, size) = (attr.mode, attr.nlink, attr.size);
        // Writing to a string cannot fail.
        let _ = writeln!(listing, "{path} ino {ino} mode {mode:o} links {nlink} size {size} {content}");
        if attr.is_dir() {
            list(tree, blobs, ino, &path, listing)?;
        }
    }
    Ok(())
}
