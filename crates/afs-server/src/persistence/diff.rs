//! Changed paths with line counts and patches in git's form, so that `git apply` takes them.
//!
//! Guarantees: work and memory per path are bounded; what is not text, or too large, is told as binary, and so is a patch beyond
//! [`limits::MAX_DIFF_BYTES`]: nothing is cut. As with git, another type (a link where a file was) is a deletion and a creation, and a move is
//! told as one only from a path that is gone to a path that was free; otherwise each of the two paths is told by what it was and is.
//! Deliberately absent: the files of a directory that moved, which is one change without a patch.

use afs_proto::v1::{self, ChangeKind as Wire};
use afs_session::paths::{View, differing_lines, patch_name, write_hunks};
use afs_session::{ChangeKind, PathChange};
use afs_types::{BlobId, Ino, Result, SessionPath, limits};
use std::fmt::Write as _;
use std::time::Duration;

/// A comparison that takes longer is told with larger hunks.
const MAX_TIME: Duration = Duration::from_secs(2);

/// How changes are told.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) name_only: bool,
    pub(crate) context: usize,
}

/// One change as a message; `old` and `new` are the two states.
pub(crate) fn change(old: &View, new: &View, change: &PathChange, style: Style) -> Result<v1::FileChange> {
    let old_path = match &change.kind {
        ChangeKind::Renamed { from, .. } => from,
        _ => &change.path,
    };
    let kind = match &change.kind {
        ChangeKind::Added => Wire::Added,
        ChangeKind::Deleted => Wire::Deleted,
        ChangeKind::Modified => Wire::Modified,
        ChangeKind::Mode => Wire::Mode,
        ChangeKind::Renamed { .. } => Wire::Renamed,
    };
    let mut told = v1::FileChange {
        path: change.path.to_text(),
        old_path: if kind == Wire::Renamed { old_path.to_text() } else { String::new() },
        kind: kind.into(),
        ..v1::FileChange::default()
    };
    if style.name_only {
        return Ok(told);
    }
    let etag = |view: &View, path, is_there: bool| -> Result<String> {
        if is_there { Ok(view.stat(path)?.etag) } else { Ok(String::new()) }
    };
    told.old_etag = etag(old, old_path, change.old.is_some())?;
    told.new_etag = etag(new, &change.path, change.new.is_some())?;
    let sides = |path: &SessionPath| -> Result<_> { Ok((side(old, path)?, side(new, path)?)) };
    let (before, after) = sides(&change.path)?;
    let is_modified =
        matches!(change.kind, ChangeKind::Modified | ChangeKind::Renamed { modified: true, .. });
    let mut out = Patch { told: &mut told, context: style.context, is_modified };
    if kind == Wire::Renamed {
        let (from, still) = sides(old_path)?;
        match (&before, &still, &after) {
            (None, None, Some(_)) => {
                out.section((old_path, from.as_ref()), (&change.path, after.as_ref()));
                return Ok(told);
            }
            (_, None, _) => out.path(old_path, from.as_ref(), None),
            // What is at the old path now is a change of its own.
            (_, Some(_), _) => {}
        }
    }
    out.path(&change.path, before.as_ref(), after.as_ref());
    Ok(told)
}

/// One side of a change: a file or link.
struct Side {
    /// As git writes it.
    mode: u32,
    ino: Ino,
    /// Of a file that is one blob.
    blob: Option<BlobId>,
    /// None: not text, or too large.
    text: Option<String>,
}

impl Side {
    fn is_symlink(&self) -> bool {
        self.mode == SYMLINK
    }
}

const SYMLINK: u32 = 0o120_000;

/// What a patch tells of a path; nothing of directories.
fn side(view: &View, path: &SessionPath) -> Result<Option<Side>> {
    if !view.is_there(path) {
        return Ok(None);
    }
    let entry = view.stat(path)?;
    let attr = &entry.attr;
    if attr.is_dir() {
        return Ok(None);
    }
    let mode = match () {
        () if attr.is_symlink() => SYMLINK,
        () if attr.mode & 0o100 != 0 => 0o100_755,
        () => 0o100_644,
    };
    let text = match () {
        () if attr.is_symlink() => entry.target.and_then(|t| String::from_utf8(t).ok()),
        () if attr.is_file() && attr.size <= limits::MAX_DIFF_FILE_BYTES => whole(view, path)?,
        () => None,
    };
    Ok(Some(Side { mode, ino: attr.ino, blob: entry.blob, text }))
}

/// A file's text, if it is text.
fn whole(view: &View, path: &SessionPath) -> Result<Option<String>> {
    let reader = view.open_read(path)?;
    let mut bytes = Vec::with_capacity(reader.size() as usize);
    while (bytes.len() as u64) < reader.size() {
        let piece = reader.read_at(bytes.len() as u64, limits::MAX_IO_BYTES)?;
        if piece.is_empty() {
            break;
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')))
}

/// A change's patch while it grows.
struct Patch<'a> {
    told: &'a mut v1::FileChange,
    context: usize,
    /// The bytes of an inode that is on both sides differ.
    is_modified: bool,
}

impl Patch<'_> {
    /// What one path was and is.
    fn path(&mut self, path: &SessionPath, before: Option<&Side>, after: Option<&Side>) {
        match (before, after) {
            (None, None) => {}
            (Some(old), Some(new)) if old.is_symlink() != new.is_symlink() => {
                self.section((path, before), (path, None));
                self.section((path, None), (path, after));
            }
            _ => self.section((path, before), (path, after)),
        }
    }

    /// Whether both sides surely have the same bytes. Not by etags: two forks can have the same one for different bytes.
    fn is_same(&self, old: &Side, new: &Side) -> bool {
        let same_blob = old.blob.is_some() && old.blob == new.blob;
        same_blob || (old.ino == new.ino && !self.is_modified)
    }

    /// One file of the patch: the two paths differ when it is a move.
    fn section(&mut self, (old_path, before): At<'_>, (new_path, after): At<'_>) {
        let (a, b) = (patch_name("a", old_path), patch_name("b", new_path));
        let mut out = format!("diff --git {a} {b}\n");
        // Writing to a String cannot fail.
        let _ = match (before, after) {
            (None, Some(new)) => writeln!(out, "new file mode {:o}", new.mode),
            (Some(old), None) => writeln!(out, "deleted file mode {:o}", old.mode),
            (Some(old), Some(new)) if old.mode != new.mode => {
                writeln!(out, "old mode {:o}\nnew mode {:o}", old.mode, new.mode)
            }
            _ => Ok(()),
        };
        if old_path != new_path {
            let (from, to) = (patch_name("", old_path), patch_name("", new_path));
            let _ = writeln!(out, "rename from {from}\nrename to {to}");
        }
        let head = out.len();
        let is_same = matches!((before, after), (Some(old), Some(new)) if self.is_same(old, new));
        let mut binary = false;
        let text = |side: Option<&Side>| side.map_or(Some(String::new()), |s| s.text.clone());
        if let (Some(old), Some(new)) = (text(before), text(after))
            && differing_lines((&old, &new)) <= limits::MAX_DIFF_LINES
        {
            let from = if before.is_some() { &a } else { "/dev/null" };
            let to = if after.is_some() { &b } else { "/dev/null" };
            let counts = write_hunks(&mut out, (&old, &new), (from, to), self.context, Some(MAX_TIME));
            self.told.lines_added += counts.added;
            self.told.lines_removed += counts.removed;
        } else {
            // What is no text and was only moved, or got other permissions, needs no bytes.
            binary = !is_same;
        }
        if binary || self.told.patch.len() + out.len() > limits::MAX_DIFF_BYTES {
            self.told.binary = true;
            out.truncate(head);
            let _ = writeln!(out, "Binary files {a} and {b} differ");
        }
        // A header without anything below it is no patch to git: an owner, or permissions that git does not keep.
        if out.lines().nth(1).is_some() {
            self.told.patch += &out;
        }
    }
}

/// A path, and what is there.
type At<'a> = (&'a SessionPath, Option<&'a Side>);

#[cfg(test)]
mod tests {
    use super::*;

    fn side(mode: u32, text: Option<&str>) -> Option<Side> {
        Some(Side { mode, ino: 7, blob: None, text: text.map(Into::into) })
    }

    fn told(old: (&str, Option<Side>), new: (&str, Option<Side>)) -> v1::FileChange {
        let path = |p: &str| SessionPath::parse_text(p).unwrap();
        let mut told = v1::FileChange::default();
        let text = |side: &Option<Side>| side.as_ref().map(|s| s.text.clone());
        let is_modified = text(&old.1) != text(&new.1);
        let mut out = Patch { told: &mut told, context: 3, is_modified };
        match old.0 == new.0 {
            true => out.path(&path(old.0), old.1.as_ref(), new.1.as_ref()),
            false => out.section((&path(old.0), old.1.as_ref()), (&path(new.0), new.1.as_ref())),
        }
        told
    }

    #[test]
    fn patches_have_the_form_of_git() {
        let change =
            told(("/a.txt", side(0o100_644, Some("1\n2\n"))), ("/a.txt", side(0o100_755, Some("1\n3"))));
        assert_eq!((change.lines_added, change.lines_removed), (1, 1));
        assert_eq!(
            change.patch,
            "diff --git a/a.txt b/a.txt\nold mode 100644\nnew mode 100755\n--- a/a.txt\n+++ b/a.txt\n@@ -1,2 +1,2 @@\n 1\n-2\n+3\n\\ No newline at end of file\n"
        );
        let made = told(("/x", None), ("/x", side(0o100_644, Some("n\n"))));
        assert!(made.patch.contains("new file mode 100644\n--- /dev/null\n+++ b/x\n"), "{}", made.patch);
        let moved = told(("/x", side(0o100_644, Some("n"))), ("/y \"z\"", side(0o100_644, Some("n"))));
        assert!(moved.patch.ends_with("rename from x\nrename to \"y \\\"z\\\"\"\n"), "{}", moved.patch);
        let large = "\n".repeat(limits::MAX_DIFF_BYTES / 2 + 1);
        let large = told(("/x", None), ("/x", side(0o100_644, Some(&large))));
        assert!(large.binary && large.patch.ends_with("100644\nBinary files a/x and b/x differ\n"));
        let binary = told(("/x", side(0o100_644, None)), ("/x", side(0o100_644, Some(""))));
        assert!(binary.binary && binary.patch.contains("Binary files"));
        // What is no text can be moved and made executable: git needs no bytes for that.
        let moved = told(("/x", side(0o100_644, None)), ("/y", side(0o100_755, None)));
        assert!(!moved.binary, "{}", moved.patch);
        assert!(
            moved.patch.ends_with("old mode 100644\nnew mode 100755\nrename from x\nrename to y\n"),
            "{}",
            moved.patch
        );
        let owner = told(("/x", side(0o100_644, None)), ("/x", side(0o100_644, None)));
        assert_eq!((owner.patch.as_str(), owner.binary), ("", false));
    }

    #[test]
    fn names_are_git_s_and_types_change_as_git_tells_it() {
        let odd = told(("/100%25 %E4", None), ("/100%25 %E4", side(0o100_644, Some("n\n"))));
        let name = "\"b/100% \\344\"";
        assert!(
            odd.patch.starts_with(&format!("diff --git \"a/100% \\344\" {name}\nnew file")),
            "{}",
            odd.patch
        );
        assert!(odd.patch.contains(&format!("+++ {name}\t\n")), "{}", odd.patch);
        let link = told(("/x", side(SYMLINK, Some("to"))), ("/x", side(0o100_755, Some("text\n"))));
        assert_eq!(
            link.patch,
            "diff --git a/x b/x\ndeleted file mode 120000\n--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-to\n\\ No newline at end of file\n\
             diff --git a/x b/x\nnew file mode 100755\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+text\n"
        );
        assert_eq!((link.lines_added, link.lines_removed, link.binary), (1, 1, false));
    }
}
