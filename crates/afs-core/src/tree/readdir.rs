//! Listing a directory: the base's children that nothing overrides, then the overlay's.
//!
//! Cookies are stable while others create and remove entries: a base child's is its position, an overlay entry's its hash.
//! An entry that stays is listed exactly once per pass; one that comes or goes during the pass may or may not be.

use super::Tree;
use afs_types::Ino;

/// The cookie that starts a listing. `.` and `..` are the caller's business and use cookies below.
pub const FIRST_COOKIE: u64 = 2;
/// Overlay entries have this bit in their cookie; surfaces may use the two above it.
const OVERLAY: u64 = 1 << 61;
/// Bits of the hash that a cookie has no room for.
const LOST: u32 = 3;

/// One entry of a listing.
#[derive(Clone, Copy, Debug)]
pub struct DirItem<'a> {
    /// Inode number.
    pub ino: Ino,
    /// Name.
    pub name: &'a [u8],
    /// Where to go on after this entry.
    pub next_cookie: u64,
}

impl Tree {
    /// Calls `visit` for each entry after `cookie` until it returns false. A dead directory lists nothing.
    pub fn readdir(&self, dir: Ino, cookie: u64, visit: &mut dyn FnMut(DirItem<'_>) -> bool) {
        if self.attr(dir).is_none_or(|a| a.nlink == 0) {
            return;
        }
        if cookie < OVERLAY && !self.base_part(dir, cookie.max(FIRST_COOKIE), visit) {
            return;
        }
        self.overlay_part(dir, cookie, visit);
    }

    fn base_part(&self, dir: Ino, cookie: u64, visit: &mut dyn FnMut(DirItem<'_>) -> bool) -> bool {
        if dir > self.base.max_ino() {
            return true;
        }
        let overridden: Vec<&[u8]> = {
            let mut names: Vec<&[u8]> = self.slots_of(dir).map(|s| &*s.name).collect();
            names.sort_unstable();
            names
        };
        let Some(first) = self.base.entry(dir).map(|e| e.children.start) else { return true };
        for child in self.base.children_from(dir, first + (cookie - FIRST_COOKIE)) {
            if !overridden.is_empty() && overridden.binary_search(&child.name).is_ok() {
                continue;
            }
            let next_cookie = FIRST_COOKIE + (child.position - first) + 1;
            if !visit(DirItem { ino: child.ino, name: child.name, next_cookie }) {
                return false;
            }
        }
        true
    }

    fn overlay_part(&self, dir: Ino, cookie: u64, visit: &mut dyn FnMut(DirItem<'_>) -> bool) {
        // Names that share all but the lost bits of their hash share a cookie: one in 2^61 pairs.
        let after = match cookie.checked_sub(OVERLAY) {
            Some(last) if last >= u64::MAX >> LOST => return,
            Some(last) => (last + 1) << LOST,
            None => 0,
        };
        for ((_, hash), slot) in self.dentries.range((dir, after)..=(dir, u64::MAX)) {
            for s in slot.chain().filter(|s| s.ino != 0) {
                let next_cookie = OVERLAY | (hash >> LOST);
                if !visit(DirItem { ino: s.ino, name: &s.name, next_cookie }) {
                    return;
                }
            }
        }
    }
}
