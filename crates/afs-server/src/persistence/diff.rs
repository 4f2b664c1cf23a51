//! Changed paths with line counts and patches in git's form, so that `git apply` takes them.
//!
//! Guarantees: work and memory per path are bounded; what is not text, or too large, is told as binary, and so is a patch beyond
//! [`limits::MAX_DIFF_BYTES`]: nothing is cut.

use afs_proto::v1::{self, ChangeKind as Wire};
use afs_session::paths::View;
use afs_session::{Attr, ChangeKind, PathChange};
use afs_types::{Result, SessionPath, limits};
use similar::TextDiff;
use std::fmt::Write as _;

/// Largest file whose lines are compared.
pub(crate) const MAX_TEXT_BYTES: u64 = 4 << 20;
/// Most lines around a change.
pub(crate) const MAX_CONTEXT: u32 = 10_000;

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
    let before = side(old, old_path, change.old.as_ref())?;
    let after = side(new, &change.path, change.new.as_ref())?;
    told.old_etag = before.as_ref().map(|s| s.etag.clone()).unwrap_or_default();
    told.new_etag = after.as_ref().map(|s| s.etag.clone()).unwrap_or_default();
    let is_dir = |attr: &Option<Attr>| attr.as_ref().is_some_and(|a| a.is_dir());
    if !is_dir(&change.old) && !is_dir(&change.new) {
        patch(&mut told, old_path, &change.path, before.as_ref(), after.as_ref(), style.context);
    }
    Ok(told)
}

/// One side of a change.
struct Side {
    /// As git writes it.
    mode: u32,
    etag: String,
    /// None: not text, or too large.
    text: Option<String>,
}

fn side(view: &View, path: &SessionPath, attr: Option<&Attr>) -> Result<Option<Side>> {
    let Some(attr) = attr else { return Ok(None) };
    let entry = view.stat(path)?;
    let mode = match () {
        () if attr.is_symlink() => 0o120_000,
        () if attr.mode & 0o100 != 0 => 0o100_755,
        () => 0o100_644,
    };
    let text = match () {
        () if attr.is_symlink() => entry.target.clone().and_then(|t| String::from_utf8(t).ok()),
        () if attr.is_file() && attr.size <= MAX_TEXT_BYTES => whole(view, path)?,
        () => None,
    };
    Ok(Some(Side { mode, etag: entry.etag, text }))
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

fn patch(
    told: &mut v1::FileChange,
    old_path: &SessionPath,
    new_path: &SessionPath,
    before: Option<&Side>,
    after: Option<&Side>,
    context: usize,
) {
    let (a, b) = (name("a", old_path), name("b", new_path));
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
        let bare = |path: &SessionPath| quoted(path.to_text().trim_start_matches('/'));
        let _ = writeln!(out, "rename from {}\nrename to {}", bare(old_path), bare(new_path));
    }
    let head = out.len();
    let text = |side: Option<&Side>| side.map_or(Some(String::new()), |s| s.text.clone());
    match (text(before), text(after)) {
        (Some(old), Some(new)) if old != new => {
            let from = if before.is_some() { a } else { "/dev/null".into() };
            let to = if after.is_some() { b } else { "/dev/null".into() };
            hunks(told, &mut out, (&old, &new), (&from, &to), context);
        }
        (Some(_), Some(_)) => {}
        _ => {
            told.binary = true;
            let _ = writeln!(out, "Binary files {a} and {b} differ");
        }
    }
    if out.len() > limits::MAX_DIFF_BYTES {
        told.binary = true;
        out.truncate(head);
        let _ = writeln!(out, "Binary files {} and {} differ", name("a", old_path), name("b", new_path));
    }
    told.patch = out;
}

fn hunks(
    told: &mut v1::FileChange,
    out: &mut String,
    texts: (&str, &str),
    names: (&str, &str),
    context: usize,
) {
    let diff = TextDiff::configure().timeout(std::time::Duration::from_secs(2)).diff_lines(texts.0, texts.1);
    for change in diff.iter_all_changes() {
        match change.tag() {
            similar::ChangeTag::Insert => told.lines_added += 1,
            similar::ChangeTag::Delete => told.lines_removed += 1,
            similar::ChangeTag::Equal => {}
        }
    }
    let _ = write!(out, "{}", diff.unified_diff().context_radius(context).header(names.0, names.1));
}

fn name(side: &str, path: &SessionPath) -> String {
    quoted(&format!("{side}{}", path.to_text()))
}

/// As git writes names that hold control characters, quotes or backslashes.
fn quoted(name: &str) -> String {
    if !name.chars().any(|c| c.is_control() || matches!(c, '"' | '\\')) {
        return name.to_owned();
    }
    let mut out = String::from("\"");
    for c in name.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for b in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "\\{b:03o}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(mode: u32, text: Option<&str>) -> Option<Side> {
        Some(Side { mode, etag: String::new(), text: text.map(Into::into) })
    }

    fn told(old: (&str, Option<Side>), new: (&str, Option<Side>)) -> v1::FileChange {
        let path = |p: &str| SessionPath::parse_text(p).unwrap();
        let mut told = v1::FileChange::default();
        patch(&mut told, &path(old.0), &path(new.0), old.1.as_ref(), new.1.as_ref(), 3);
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
    }
}
