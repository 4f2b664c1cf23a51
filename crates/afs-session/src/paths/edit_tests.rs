//! Exact replacements on small texts.

use super::*;

fn one(old: &str, new: &str, replace_all: bool) -> Vec<Replacement> {
    vec![Replacement { old: old.into(), new: new.into(), replace_all }]
}

#[test]
fn replaces_exactly() {
    assert_eq!(apply("a b c", &one("b", "x", false)).unwrap(), ("a x c".into(), 1));
    assert_eq!(apply("b b b", &one("b", "bb", true)).unwrap(), ("bb bb bb".into(), 3));
    let two = [one("a", "b", false), one("b", "c", true)].concat();
    assert_eq!(apply("a", &two).unwrap(), ("c".into(), 2), "each edit sees what the one before left");
    assert_eq!(apply("ä\r\nö", &one("ä\r\nö", "", false)).unwrap().0, "");
}

#[test]
fn what_is_not_unique_names_lines() {
    let error = apply("x\ny\nx\n", &one("x", "z", false)).unwrap_err();
    assert_eq!(error.reason, Reason::EditNotUnique);
    assert!(error.message().contains("2 times, at lines 1, 3"), "{error}");
    let error = apply(&"x\n".repeat(50), &one("x", "z", false)).unwrap_err();
    assert!(error.message().ends_with("9, 10, ..."), "{error}");
}

#[test]
fn what_is_not_found_names_the_closest_line() {
    let text = "fn main() {\n    let answer = 42;\n}\n";
    let error = apply(text, &one("let answer = 43;", "", false)).unwrap_err();
    assert_eq!(error.reason, Reason::EditNotFound);
    assert!(error.message().contains("closest line is 2"), "{error}");
    let error = apply(text, &one("\tlet answer = 42;", "", false)).unwrap_err();
    assert!(
        error.message().contains("closest line is 2") && error.next_step().contains("white space"),
        "{error}"
    );
    let error = apply("a\r\nb\r\n", &one("a\nb", "", false)).unwrap_err();
    assert!(error.message().contains("CR LF"), "{error}");
    let error = apply("zzzz", &one("qqqq", "", false)).unwrap_err();
    assert!(!error.message().contains("closest"), "{error}");
}

#[test]
fn an_edit_cannot_blow_up_a_file() {
    let huge = "x".repeat(1 << 20);
    let error = apply(&"a".repeat(1 << 20), &one("a", &huge, true)).unwrap_err();
    assert_eq!(error.reason, Reason::FileTooLarge);
}

#[test]
fn the_memory_of_an_edit_is_known_before() {
    let text = "a b\n".repeat(1000);
    let (size, most) = (text.len() as u64, limits::MAX_TEXT_FILE_BYTES);
    for edits in [
        one("a", "bbb", true),
        one("a b\n", "", true),
        one("b\n", "x", true),
        [one("a", "bb", true), one("b", "ccc", true), one("c", "", true)].concat(),
    ] {
        let (new, _) = apply(&text, &edits).unwrap();
        let need = need(size, &edits);
        assert!(new.len() + text.len() <= need, "{edits:?}: {need}");
        assert!(new.capacity() == new.len(), "it is no larger than it is said to be");
        assert!(need < 100 * text.len(), "{edits:?}: {need}");
    }
    assert_eq!(need(most, &one("a", "b", false)) as u64, 2 * most);
    let all = need(most, &[one("a", "b", false), one("a", &"b".repeat(1 << 20), true)].concat()) as u64;
    assert_eq!(all, 3 * most);
    assert!(all <= limits::MAX_LARGE_TEXTS_BYTES as u64, "a call that is allowed finds room");
}

#[test]
fn a_change_in_a_large_text_is_shown() {
    let path = SessionPath::parse(b"/a").unwrap();
    let old: String = (0..limits::MAX_DIFF_LINES).map(|n| format!("{n}\n")).collect();
    let new = old.replace("\n7\n", "\nseven\n");
    let diff = unified(&path, &old, &new, 2);
    assert!(diff.ends_with("@@ -5,7 +5,7 @@\n 4\n 5\n 6\n-7\n+seven\n 8\n 9\n 10\n"), "{diff}");
    let all = old.replace('\n', "x\n");
    assert_eq!(unified(&path, &old, &all, 2), "", "too many lines differ");
}

#[test]
fn edits_that_make_no_sense() {
    for bad in [vec![], one("", "x", false), one("x", "x", false)] {
        assert_eq!(check(&bad).unwrap_err().reason, Reason::InvalidArgument);
    }
}

#[test]
fn diffs() {
    let path = SessionPath::parse(b"/src/a.rs").unwrap();
    assert_eq!(
        unified(&path, "a\nb\n", "a\nc\n", 2),
        "--- a/src/a.rs\n+++ b/src/a.rs\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    );
    assert_eq!(unified(&path, "a", "a", 0), "");
    assert_eq!(unified(&path, "a", "b", usize::MAX), "", "too much work");
    assert!(unified(&path, "a", "b", 2).contains("\\ No newline at end of file"));
    // Names are git's, not the API's: `%` is no sign in a patch.
    let path = SessionPath::parse(b"/100% \xe4.txt").unwrap();
    assert!(
        unified(&path, "a\n", "b\n", 2)
            .starts_with("--- \"a/100% \\344.txt\"\t\n+++ \"b/100% \\344.txt\"\t\n@@")
    );
}
