//! Names in trees that come from outside. The rules are git's own (`fsck`, `verify_path` with HFS and NTFS
//! protection on): what git would refuse to check out, we refuse to import, whatever system looks at it later.
//!
//! Deliberately absent: paths; a caller checks each component.

use afs_types::{Error, Name, Reason, Result, limits};

/// The error for a tree entry that is never imported.
pub(crate) fn hostile(path: &[u8], why: &str) -> Error {
    let shown = Name::lossy(path);
    Error::new(Reason::HostileTree, format!("{shown}: {why}")).with("path", shown)
}

/// Why a name in a git tree is refused, if it is.
pub(crate) fn refuse_git_name(name: &[u8]) -> Option<&'static str> {
    refuse_name(name).or_else(|| is_dot_git(name).then_some("a name that some system takes for .git"))
}

/// Why a name is refused anywhere, if it is.
pub(crate) fn refuse_name(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("an empty name"),
        b"." | b".." => Some("a name that means another directory"),
        _ if name.contains(&b'/') => Some("a name with '/'"),
        _ if name.contains(&0) => Some("a name with NUL"),
        _ if name.len() > limits::MAX_NAME_BYTES => Some("a name of more than 255 bytes"),
        _ => None,
    }
}

/// `.git` on any system: other case, HFS-ignorable code points, NTFS short names, streams, trailing dots and spaces.
pub(crate) fn is_dot_git(name: &[u8]) -> bool {
    // NTFS takes a backslash for '/', so each part counts.
    hfs_equals(name, ".git")
        || name.split(|b| *b == b'\\').any(|part| {
            [&b".git"[..], b"git~1"].iter().any(|base| ntfs_tail(part, base.len()) && starts_with(part, base))
        })
}

/// `.gitmodules` on any system; only a symlink of that name is refused.
pub(crate) fn is_dot_gitmodules(name: &[u8]) -> bool {
    let short = |part: &[u8]| {
        starts_with(part, b"gitmod~")
            && part.len() > 7
            && (b'1'..=b'4').contains(&part[7])
            && ntfs_tail(part, 8)
    };
    hfs_equals(name, ".gitmodules")
        || (starts_with(name, b".gitmodules") && ntfs_tail(name, ".gitmodules".len()))
        || short(name)
        || ntfs_hashed_short_name(name, b"gi7eba")
}

/// NTFS's second form of a short name: up to six characters of a fixed prefix, `~`, a number; eight in all.
fn ntfs_hashed_short_name(name: &[u8], prefix: &[u8; 6]) -> bool {
    let Some(head) = name.get(..8) else { return false };
    let Some(tilde) = head.iter().position(|b| *b == b'~') else { return false };
    let digits = &head[tilde + 1..];
    tilde <= 6
        && head[..tilde].eq_ignore_ascii_case(&prefix[..tilde])
        && digits.first().is_some_and(|d| (b'1'..=b'9').contains(d))
        && digits.iter().all(u8::is_ascii_digit)
        && ntfs_tail(name, 8)
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// NTFS drops trailing dots and spaces, and what follows ':' names a stream of the same file.
fn ntfs_tail(name: &[u8], from: usize) -> bool {
    let tail = name.get(from..).unwrap_or(b"x");
    let end = tail.iter().position(|b| *b == b':').unwrap_or(tail.len());
    tail[..end].iter().all(|b| matches!(b, b' ' | b'.'))
}

/// HFS+ ignores some code points and folds case.
fn hfs_equals(name: &[u8], want: &str) -> bool {
    let Ok(text) = std::str::from_utf8(name) else { return false };
    let ignored =
        |c: &char| matches!(*c as u32, 0x200c..=0x200f | 0x202a..=0x202e | 0x206a..=0x206f | 0xfeff);
    text.chars().filter(|c| !ignored(c)).map(|c| c.to_ascii_lowercase()).eq(want.chars())
}

/// Checks one component of a path that is to be committed.
pub(crate) fn check_commit_name(path: &[Vec<u8>], name: &[u8]) -> Result<()> {
    match refuse_git_name(name) {
        None => Ok(()),
        Some(why) => {
            let shown = Name::lossy(&path.join(&b'/'));
            Err(Error::new(Reason::InvalidName, format!("{shown}: {why} cannot be in a git commit"))
                .with("path", shown)
                .next("remove or rename it in the session, then commit again"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_dot_git_is_found() {
        for bad in [
            ".git",
            ".GIT",
            ".gIt",
            "git~1",
            "GIT~1",
            ".git ",
            ".git.",
            ".git . .",
            ".git::$INDEX_ALLOCATION",
            ".git:x",
            "git~1.",
            "git~1:x",
            ".g\u{200c}it",
            "\u{feff}.git",
            ".gi\u{206f}T\u{202e}",
            "x\\.git",
            "x\\git~1\\y",
        ] {
            assert!(refuse_git_name(bad.as_bytes()).is_some(), "{bad:?}");
        }
        for good in [
            ".gitignore",
            ".gitx",
            "git",
            "git~2",
            "git~10",
            ".git x",
            "x.git",
            "..git",
            ".github",
            "\u{e9}.git",
        ] {
            assert!(refuse_git_name(good.as_bytes()).is_none(), "{good:?}");
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
            assert!(refuse_git_name(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn every_spelling_of_dot_gitmodules_is_found() {
        for bad in [
            ".gitmodules",
            ".GitModules",
            ".gitmodules ",
            ".gitmodules::$DATA",
            "gitmod~1",
            "GITMOD~4 ",
            "gi7eba~1",
            "gi7eb~10",
            "GI7E~123",
            ".git\u{200c}modules",
        ] {
            assert!(is_dot_gitmodules(bad.as_bytes()), "{bad:?}");
        }
        for good in
            ["gitmod~5", "gi7eba~0", "gi7ebb~1", ".gitmodule", ".gitmodulesx", "gitmodules", "gi7eba1~"]
        {
            assert!(!is_dot_gitmodules(good.as_bytes()), "{good:?}");
        }
    }
}
