//! Names and hunks against git itself, and against our own reader.

use super::super::hunks::Sign;
use super::super::unified::parse;
use super::super::{Action, Text};
use super::*;
use crate::test_git::git;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What a name can hold: what the API escapes, what git quotes, and what looks like a part of a header.
const NAMES: [&[u8]; 12] = [
    b"100%.txt",
    b"%41",
    "\u{e4}/\u{1f600}".as_bytes(),
    b"latin \xe4\xff",
    b"a \"quoted\" \\ name",
    b"line\nbreak\ttab\rreturn",
    b"\x07\x08\x0b\x0c\x1b]0;title\x7f",
    b"spaces at the end ",
    b" b/looks like two",
    b"plain",
    b"\\303\\244",
    "\u{202e}txt.exe".as_bytes(),
];

fn path(name: &[u8]) -> SessionPath {
    SessionPath::parse(name).unwrap()
}

fn file(dir: &Path, name: &[u8], text: &str) {
    let at = dir.join(OsStr::from_bytes(name));
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, text).unwrap();
}

fn modification(name: &[u8], old: &str, new: &str) -> String {
    let (a, b) = (patch_name("a", &path(name)), patch_name("b", &path(name)));
    let mut out = format!("diff --git {a} {b}\n");
    write_hunks(&mut out, (old, new), (&a, &b), 3, None);
    out
}

#[test]
fn names_are_quoted_as_git_quotes_them() {
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q"], b"");
    for name in NAMES {
        file(dir.path(), name, "1\n");
    }
    git(dir.path(), &["add", "-A"], b"");
    let listed = git(dir.path(), &["-c", "core.quotePath=true", "ls-files"], b"");
    let listed = String::from_utf8(listed).unwrap();
    let mut listed: Vec<&str> = listed.lines().collect();
    let mut ours: Vec<String> = NAMES.iter().map(|name| patch_name("", &path(name))).collect();
    listed.sort_unstable();
    ours.sort_unstable();
    assert_eq!(ours, listed);
}

#[test]
fn git_applies_our_patches_whatever_the_name_is() {
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q"], b"");
    let mut patch = String::new();
    for name in NAMES {
        file(dir.path(), name, "1\n2\n");
        patch += &modification(name, "1\n2\n", "1\n3");
    }
    git(dir.path(), &["add", "-A"], b"");
    fs::write(dir.path().join("p"), &patch).unwrap();
    git(dir.path(), &["apply", "--index", "p"], b"");
    for name in NAMES {
        let text = fs::read_to_string(dir.path().join(OsStr::from_bytes(name))).unwrap();
        assert_eq!(text, "1\n3", "{}", String::from_utf8_lossy(name));
    }
    // And so does our own reader.
    let files = parse(patch.as_bytes(), None).unwrap();
    let paths: Vec<SessionPath> = files.iter().map(|f| f.path.clone()).collect();
    assert_eq!(paths, NAMES.map(path));
}

#[test]
fn we_take_what_git_diff_prints() {
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q"], b"");
    for name in NAMES {
        file(dir.path(), name, "1\n2\n");
    }
    git(dir.path(), &["add", "-A"], b"");
    for name in NAMES {
        file(dir.path(), name, "1\n3");
    }
    for quote in ["core.quotePath=true", "core.quotePath=false"] {
        let patch = git(dir.path(), &["-c", quote, "diff", "--no-color", "--no-ext-diff"], b"");
        let files = parse(&patch, None).unwrap();
        let mut paths: Vec<SessionPath> = files.iter().map(|f| f.path.clone()).collect();
        let mut want = NAMES.map(path);
        paths.sort();
        want.sort();
        assert_eq!(paths, want, "{quote}");
        for file in &files {
            let Action::Update { text, .. } = &file.action else { panic!("{file:?}") };
            assert_eq!(text.apply(b"1\n2\n").unwrap().0, b"1\n3", "{file:?}");
        }
    }
}

/// Only what is between the first and the last change is compared: the numbers are the whole text's all the same.
#[test]
fn hunks_are_where_they_are_in_the_whole_text() {
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q"], b"");
    let mut seed = 11_u64;
    let mut next = move |most: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % most
    };
    let (mut patch, mut texts) = (String::new(), Vec::new());
    for n in 0..200 {
        let old: Vec<String> = (0..next(40)).map(|_| format!("{}\n", next(4))).collect();
        let mut new = old.clone();
        for _ in 0..1 + next(3) {
            let at = next(new.len() as u64 + 1) as usize;
            match next(2) {
                0 if at < new.len() => drop(new.remove(at)),
                _ => new.insert(at, format!("{}\n", next(5))),
            }
        }
        let (mut old, mut new) = (old.concat(), new.concat());
        if next(3) == 0 {
            old += "end";
            new += if next(2) == 0 { "end" } else { "other end" };
        }
        if old.is_empty() || old == new {
            continue;
        }
        let name = n.to_string();
        file(dir.path(), name.as_bytes(), &old);
        patch += &modification(name.as_bytes(), &old, &new);
        texts.push((name, old, new));
    }
    assert!(texts.len() > 100);
    git(dir.path(), &["add", "-A"], b"");
    fs::write(dir.path().join("p"), &patch).unwrap();
    git(dir.path(), &["apply", "--index", "p"], b"");
    let files = parse(patch.as_bytes(), None).unwrap();
    for (file, (name, old, new)) in files.iter().zip(&texts) {
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), *new, "{old:?}");
        let Action::Update { text: Text::Hunks(hunks), .. } = &file.action else { panic!("{file:?}") };
        // Exactly there: every hunk finds its lines at its own number.
        let lines: Vec<&str> = old.split_inclusive('\n').collect();
        for hunk in hunks {
            let want: Vec<&[u8]> =
                hunk.lines.iter().filter(|(s, _)| *s != Sign::New).map(|(_, l)| l.as_slice()).collect();
            let at = hunk.start.saturating_sub(usize::from(!want.is_empty()));
            let there: Vec<&[u8]> = lines[at..at + want.len()].iter().map(|l| l.as_bytes()).collect();
            assert_eq!(there, want, "{old:?} {new:?}");
        }
    }
}

#[test]
fn what_is_compared_and_written_is_bounded() {
    let old: String = (0..100_000).map(|n| format!("{n}\n")).collect();
    let new = old.replace("\n50000\n", "\nx\n");
    assert_eq!(differing_lines((&old, &new)), 4, "the line, and what follows its end, of each");
    assert_eq!(differing_lines((&old, &old)), 2);
    let mut out = String::new();
    let counts = write_hunks(&mut out, (&old, &new), ("a", "b"), 1, None);
    assert_eq!(out, "--- a\n+++ b\n@@ -50000,3 +50000,3 @@\n 49999\n-50000\n+x\n 50001\n");
    assert_eq!(counts, HunkCounts { added: 1, removed: 1 });
    let long = ["x", "y"].map(|c| c.repeat(3 * limits::MAX_DIFF_BYTES));
    let mut out = String::new();
    write_hunks(&mut out, (&long[0], &long[1]), ("a", "b"), 3, None);
    let range = limits::MAX_DIFF_BYTES + 1..limits::MAX_DIFF_BYTES + 1000;
    assert!(range.contains(&out.len()), "{}", out.len());
    assert!(out.capacity() <= 2 * range.end);
}

/// A CR that ends no line is a part of it: git knows no other line end than LF.
#[test]
fn a_bare_cr_ends_no_line() {
    let (old, new) = ("10 %\r50 %\rdone\nnext\r", "10 %\r60 %\rdone\nnext\r\n");
    let dir = tempfile::tempdir().unwrap();
    git(dir.path(), &["init", "-q"], b"");
    file(dir.path(), b"log", old);
    git(dir.path(), &["add", "-A"], b"");
    let patch = modification(b"log", old, new);
    fs::write(dir.path().join("p"), &patch).unwrap();
    git(dir.path(), &["apply", "--index", "p"], b"");
    assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), new, "{patch}");
    let files = parse(patch.as_bytes(), None).unwrap();
    let Action::Update { text: text @ Text::Hunks(_), .. } = &files[0].action else { panic!("{files:?}") };
    assert_eq!(text.apply(old.as_bytes()).unwrap().0, new.as_bytes());
}
