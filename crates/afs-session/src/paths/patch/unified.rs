//! Unified diffs, of one file or many, plain or as git writes them: from text to [`FilePatch`]es. Pure.
//!
//! Deliberately absent: binary patches and submodules, which are refused, and git's three-way fallback.

use super::hunks::{Hunk, Sign};
use super::{Action, FilePatch, Kind, Moved, Text, malformed, of_file, prefixed};
use afs_types::{Error, Name, Result, SessionPath};
use diffy::patch_set::{FileMode, FileOperation, ParseOptions, PatchKind, PatchSet};
use diffy::{Line, Patch};

type Parsed<'a> = diffy::patch_set::FilePatch<'a, [u8]>;

/// Reads a patch. `strip` leading components are dropped from paths; none: `a/` and `b/` are, when they are there.
pub(crate) fn parse(patch: &[u8], strip: Option<u32>) -> Result<Vec<FilePatch>> {
    let is_git = patch.split(|b| *b == b'\n').any(|line| line.starts_with(b"diff --git "));
    let options = if is_git { ParseOptions::gitdiff() } else { ParseOptions::unidiff() };
    let mut files = Vec::new();
    for (n, file) in PatchSet::parse_bytes(patch, options).enumerate() {
        let place = format!("file {} of the patch", n + 1);
        let parsed = match file {
            Ok(file) => one(&file, strip).map_err(|e| prefixed(e, &place)),
            Err(e) => Err(malformed(format!("{place}: {e}"))),
        };
        files.push(parsed.map_err(of_file(n))?);
    }
    Ok(files)
}

fn one(file: &Parsed<'_>, strip: Option<u32>) -> Result<FilePatch> {
    let named = |path: &[u8], dropped| parse_path(path, dropped);
    let mode = mode(file)?;
    let created = mode.unwrap_or(Kind::File { executable: false });
    let text = match file.patch() {
        PatchKind::Text(patch) => Text::Hunks(hunks(patch)),
        PatchKind::Binary(_) => return Err(binary(file)),
    };
    Ok(match file.operation() {
        FileOperation::Create(path) => FilePatch {
            path: named(path, Dropped::new(strip, path, b"b/"))?,
            or_path: None,
            action: Action::Create { content: text.created(), kind: created },
        },
        FileOperation::Delete(path) => FilePatch {
            path: named(path, Dropped::new(strip, path, b"a/"))?,
            or_path: None,
            action: Action::Delete { text },
        },
        FileOperation::Modify { original, modified } => {
            let old = named(original, Dropped::new(strip, original, b"a/"))?;
            let new = named(modified, Dropped::new(strip, modified, b"b/"))?;
            let or_path = (old != new).then_some(old);
            FilePatch { path: new, or_path, action: Action::Update { text, kind: mode, moved: None } }
        }
        FileOperation::Rename { from, to } => moved(
            named(from, Dropped::bare(strip))?,
            Moved::Renamed(named(to, Dropped::bare(strip))?),
            text,
            mode,
        ),
        FileOperation::Copy { from, to } => moved(
            named(from, Dropped::bare(strip))?,
            Moved::Copied(named(to, Dropped::bare(strip))?),
            text,
            mode,
        ),
    })
}

fn moved(path: SessionPath, to: Moved, text: Text, kind: Option<Kind>) -> FilePatch {
    FilePatch { path, or_path: None, action: Action::Update { text, kind, moved: Some(to) } }
}

fn hunks(patch: &Patch<'_, [u8]>) -> Vec<Hunk> {
    let line = |line: &Line<'_, [u8]>| match line {
        Line::Context(l) => (Sign::Same, l.to_vec()),
        Line::Delete(l) => (Sign::Gone, l.to_vec()),
        Line::Insert(l) => (Sign::New, l.to_vec()),
    };
    let hunk = |h: &diffy::Hunk<'_, [u8]>| Hunk {
        start: h.old_range().start(),
        lines: h.lines().iter().map(line).collect(),
    };
    patch.hunks().iter().map(hunk).collect()
}

/// The kind that the file has after the patch, if the patch says so.
fn mode(file: &Parsed<'_>) -> Result<Option<Kind>> {
    Ok(match file.new_mode() {
        None => None,
        Some(FileMode::Regular) => Some(Kind::File { executable: false }),
        Some(FileMode::Executable) => Some(Kind::File { executable: true }),
        Some(FileMode::Symlink) => Some(Kind::Symlink),
        Some(FileMode::Gitlink) => {
            let message =
                format!("{}: the patch is for a submodule, which cannot be patched", first_path(file));
            return Err(malformed(message).next("leave submodules out of the patch"));
        }
    })
}

fn binary(file: &Parsed<'_>) -> Error {
    let message = format!("{}: the patch is binary, only text can be patched", first_path(file));
    malformed(message).next("write the file's bytes instead")
}

fn first_path(file: &Parsed<'_>) -> String {
    let path = match file.operation() {
        FileOperation::Create(p) | FileOperation::Delete(p) => p,
        FileOperation::Modify { modified: p, .. } => p,
        FileOperation::Rename { to: p, .. } | FileOperation::Copy { to: p, .. } => p,
    };
    Name::lossy(path)
}

/// How much of a path is dropped.
enum Dropped {
    Components(u32),
    Prefix(&'static [u8]),
}

impl Dropped {
    fn new(strip: Option<u32>, path: &[u8], prefix: &'static [u8]) -> Self {
        match strip {
            Some(n) => Self::Components(n),
            None if path.starts_with(prefix) => Self::Prefix(prefix),
            None => Self::Components(0),
        }
    }
    /// For git's `rename from` and the like, which have no `a/` in front.
    fn bare(strip: Option<u32>) -> Self {
        Self::Components(strip.unwrap_or(0).saturating_sub(1))
    }
}

fn parse_path(path: &[u8], dropped: Dropped) -> Result<SessionPath> {
    let rest = match dropped {
        Dropped::Prefix(prefix) => path.strip_prefix(prefix).unwrap_or(path),
        Dropped::Components(n) => strip_components(path, n)?,
    };
    super::patch_path(rest)
}

/// As in `git apply -p` and `patch -p`, a path that has no more than that is no file's: what is left of it would be another file's.
fn strip_components(path: &[u8], n: u32) -> Result<&[u8]> {
    let mut rest = path;
    for _ in 0..n {
        let slash = rest.iter().position(|b| *b == b'/').ok_or_else(|| {
            let path = Name::lossy(path);
            malformed(format!("{path} has not more than {n} components, which strip would drop"))
                .next("give strip the number of leading components that are not part of the session's paths")
        })?;
        rest = &rest[slash + 1..];
    }
    Ok(rest)
}

#[cfg(test)]
#[path = "unified_tests.rs"]
mod tests;
