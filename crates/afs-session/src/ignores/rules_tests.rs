//! Rules against a table, and against git itself.

use super::*;
use crate::test_git::{git, try_git};
use std::cell::Cell;

thread_local! {
    /// Bytes that sets looked at in this thread.
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn count(steps: usize) {
    STEPS.set(STEPS.get() + steps);
}

fn verdict(text: &str, path: &str, is_dir: bool) -> Option<bool> {
    let rules = Rules::parse(text.as_bytes().to_vec()).unwrap();
    rules.verdict(&Subject { path: path.as_bytes(), is_dir })
}

#[test]
fn lines_are_what_git_says_they_are() {
    for (text, path, want) in [
        ("*.o\n", "a/b.o", Some(true)),
        ("*.o\r\n", "a/b.o", Some(true)),
        ("\u{feff}x\n", "x", Some(true)),
        ("# x\n\nx", "x", Some(true)),
        ("#x\n", "#x", None),
        ("\\#x\n", "#x", Some(true)),
        ("x  \n", "x", Some(true)),
        ("x\\ \n", "x ", Some(true)),
        ("*\n!x\n", "x", Some(false)),
        ("\\!x\n", "!x", Some(true)),
        ("x/\n", "x", None),
        ("/x\n", "a/x", None),
        ("a/x\n", "b/a/x", None),
        ("**/x\n", "a/b/x", Some(true)),
        ("**/x\n", "x", Some(true)),
        ("a/**/x\n", "a/x", Some(true)),
        ("a/**/x\n", "a/b/c/x", Some(true)),
        ("a/**\n", "a", None),
        ("a/*x\n", "a/b/x", None),
        // No braces in git, and bytes are bytes.
        ("*.{o,a}\n", "x.o", None),
        ("{x\n", "{x", Some(true)),
        ("[[:digit:]]x\n", "7x", Some(true)),
        ("[!a-c]x\n", "bx", None),
    ] {
        assert_eq!(verdict(text, path, false), want, "{text:?} {path:?}");
    }
    assert_eq!(verdict("x/\n", "x", true), Some(true));
}

#[test]
fn a_line_that_git_cannot_match_harms_no_other() {
    for bad in ["[a", "a\\", "[[:nope:]]", "***[", "[", "[!", "[a-", "/", "!", "\0"] {
        let text = format!("{bad}\n.env\n{bad}\n");
        assert_eq!(verdict(&text, ".env", false), Some(true), "{bad:?}");
        assert_eq!(verdict(&text, "a", false), None, "{bad:?}");
    }
}

#[test]
fn memory_is_bounded_by_the_text() {
    let many = "a\n".repeat(limits::MAX_IGNORE_FILE_PATTERNS);
    let rules = Rules::parse(many.clone().into_bytes()).unwrap();
    assert_eq!(rules.len(), limits::MAX_IGNORE_FILE_PATTERNS);
    assert!(rules.patterns.capacity() * size_of::<Pattern>() <= 16 * rules.len());
    let error = Rules::parse((many + "a\n").into_bytes()).unwrap_err();
    assert_eq!(error.reason, Reason::FileTooLarge);
    assert_eq!(error.metadata(), [("limit", limits::MAX_IGNORE_FILE_PATTERNS.to_string())]);
    // A pattern that would take for ever with backtracking.
    let (stars, text) = ("**/a*".repeat(200), "a/".repeat(500));
    assert_eq!(verdict(&format!("{stars}b\n"), &text, true), None);
}

#[test]
fn a_set_is_looked_at_once() {
    for (opens, ends) in [("[:", "x]"), ("[:", ""), ("[:", ":]"), ("[", "]"), ("[:x-", "]"), ("[[:x", "]]")] {
        let pattern = format!("[{}{ends}", opens.repeat(10_000 / opens.len()));
        STEPS.set(0);
        set(pattern.as_bytes(), 1, b'z');
        let steps = STEPS.get();
        assert!(steps <= 3 * pattern.len(), "{opens:?} {ends:?}: {steps} steps for {}", pattern.len());
        assert!(steps > 0);
    }
    // With a star in front it is looked at once for each place where it could begin.
    let line = format!("*[{}x]z", "[:".repeat(5000));
    let path = "y".repeat(200);
    STEPS.set(0);
    assert_eq!(verdict(&format!("{line}\n"), &path, false), None);
    assert!(STEPS.get() <= 3 * line.len() * (path.len() + 1), "{}", STEPS.get());
}

#[test]
fn a_pattern_that_is_too_long_is_refused() {
    let most = limits::MAX_IGNORE_PATTERN_BYTES;
    let set = |len: usize| format!("[{}b]", "a".repeat(len - 3));
    assert_eq!(verdict(&set(most), "b", false), Some(true));
    // What is no part of the pattern does not count.
    let (comment, spaces) = (format!("#{}", "x".repeat(2 * most)), " ".repeat(2 * most));
    assert_eq!(verdict(&format!("{comment}\n!/{}/{spaces}\nb", set(most)), "b", true), Some(true));
    for line in [set(most + 1), format!("!{}/", set(most + 1)), "x".repeat(most + 1)] {
        let error = Rules::parse(format!("b\n{line}\n").into_bytes()).unwrap_err();
        assert_eq!(error.reason, Reason::FileTooLarge);
        assert_eq!(error.metadata(), [("limit", most.to_string())]);
    }
}

/// Paths below each directory with rules.
const PATHS: [&str; 11] = ["a", "ab", "b", "b/a", "b/ab", "b/c/a", "b/c/ab", "c-a", "c/a/b/a", "[a", "a]"];

/// A random line of the characters that matter.
fn line(seed: &mut u64) -> String {
    let mut next = |most: u64| {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed % most
    };
    let parts = [
        "a",
        "b",
        "c",
        "/",
        "*",
        "**",
        "**/",
        "?",
        "[a",
        "[!b",
        "]",
        "-",
        "\\",
        "!",
        " ",
        "[a-c]",
        ":",
        "[:",
        ":]",
        "[[:",
        "[[:alpha:]",
        "[![:punct:]",
    ];
    (0..1 + next(6)).map(|_| parts[next(parts.len() as u64) as usize]).collect()
}

#[test]
fn git_decides_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (mut seed, mut files, mut asked) = (0x9e37_79b9_7f4a_7c15, Vec::new(), Vec::new());
    for n in 0..200 {
        let rules: String = (0..1 + n % 3).map(|_| line(&mut seed) + "\n").collect();
        let top = dir.path().join(format!("d{n}"));
        for path in PATHS {
            // `a` and `ab` are names of files and of directories.
            let is_dir = PATHS.iter().any(|p| p.starts_with(&format!("{path}/")));
            let full = top.join(path);
            std::fs::create_dir_all(if is_dir { &full } else { full.parent().unwrap() }).unwrap();
            if !is_dir {
                std::fs::write(&full, "").unwrap();
            }
            asked.extend_from_slice(format!("d{n}/{path}\0").as_bytes());
        }
        std::fs::write(top.join(".gitignore"), &rules).unwrap();
        files.push(rules);
    }
    git(dir.path(), &["init", "-q"], b"");
    // It fails when nothing is ignored.
    let out = try_git(dir.path(), &["check-ignore", "--no-index", "-z", "--stdin"], &asked).stdout;
    let git_says: std::collections::HashSet<String> =
        out.split(|b| *b == 0).map(|p| String::from_utf8(p.to_vec()).unwrap()).collect();
    assert!(git_says.len() > 200, "the patterns match next to nothing");
    for (n, text) in files.iter().enumerate() {
        let rules = Rules::parse(text.clone().into_bytes()).unwrap();
        for path in PATHS {
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            let mut parts = ends.map(|end| &path[..end]);
            let is_dir = |part: &str| PATHS.iter().any(|p| p.starts_with(&format!("{part}/")));
            let ours = parts.any(|part| {
                rules.verdict(&Subject { path: part.as_bytes(), is_dir: is_dir(part) }) == Some(true)
            });
            assert_eq!(ours, git_says.contains(&format!("d{n}/{path}")), "{text:?} {path:?}");
        }
    }
}
