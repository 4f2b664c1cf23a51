//! The apply_patch format, good and bad.

use super::*;

fn updates(body: &str) -> Vec<Chunk> {
    let patch = format!("*** Begin Patch\n*** Update File: f\n{body}*** End Patch");
    let files = parse(&patch).unwrap();
    let [FilePatch { action: Action::Update { text: Text::Chunks(chunks), .. }, .. }] = &files[..] else {
        panic!()
    };
    chunks.clone()
}

fn check(old: &str, body: &str, want: &str) {
    assert_eq!(apply(old, &updates(body)).unwrap(), want, "{body}");
}

#[test]
fn files() {
    let patch = "*** Begin Patch\n*** Add File: a/new.txt\n+one\n+\n*** Delete File: old.txt\n\
        *** Update File: src/x.py\n*** Move to: src/y.py\n@@ def f():\n-    pass\n+    return 1\n*** End Patch\n";
    let files = parse(patch).unwrap();
    let paths: Vec<String> = files.iter().map(|f| f.path.to_text()).collect();
    assert_eq!(paths, ["/a/new.txt", "/old.txt", "/src/x.py"]);
    assert!(matches!(&files[0].action, Action::Create { content, .. } if content == b"one\n\n"));
    assert!(matches!(&files[1].action, Action::Delete { .. }));
    let Action::Update { moved: Some(Moved::Renamed(to)), text: Text::Chunks(chunks), .. } = &files[2].action
    else {
        panic!()
    };
    assert_eq!(
        (to.to_text().as_str(), chunks[0].after.as_slice()),
        ("/src/y.py", &["def f():".to_owned()][..])
    );
}

#[test]
fn chunks_find_their_place() {
    check("a\nb\nc\n", "@@\n a\n-b\n+x\n c\n", "a\nx\nc\n");
    check("a\nb\n", "-b\n+x\n", "a\nx\n");
    check(
        "class A\n f\n x\nclass B\n f\n x\n",
        "@@ class B\n@@  f\n- x\n+ y\n",
        "class A\n f\n x\nclass B\n f\n y\n",
    );
    check("x\ny\nx\n", "@@\n-x\n+1\n*** End of File\n", "x\ny\n1\n");
    check("a\n", "@@\n+end\n", "a\nend\n");
    check("a", "@@\n+end\n", "a\nend\n");
    check("a\nb\nc\n", "@@ a\n+x\n", "a\nx\nb\nc\n");
    check("a\nb\nc\nd\n", "@@\n-a\n+1\n@@\n-d\n+4\n", "1\nb\nc\n4\n");
}

#[test]
fn white_space_and_typography_are_forgiven() {
    check("  a  \nb\n", "@@\n a\n-b\n+c\n", "  a  \nc\n");
    check(
        "say \u{201c}hi\u{201d} \u{2013} x\nb\n",
        "@@\n say \"hi\" - x\n-b\n",
        "say \u{201c}hi\u{201d} \u{2013} x\n",
    );
    check("a\r\nb\r\n", "@@\n a\n-b\n+c\n", "a\r\nc\r\n");
    check("a\nb\n", "@@\n a\n-b\n+c\n\n", "a\nc\n");
}

#[test]
fn conflicts_say_where() {
    let fails = |old: &str, body: &str| {
        let error = apply(old, &updates(body)).unwrap_err();
        assert_eq!(error.reason, Reason::PatchConflict);
        error.message().to_owned()
    };
    assert!(fails("fn alpha() {}\n", "@@\n-fn alpha() { }\n").contains("the closest line is 1"));
    assert!(fails("a\nb\n", "@@ nope\n-a\n").starts_with("hunk 1 does not fit: \"nope\" is not there"));
    assert!(fails("a\nb\n", "@@\n-b\n+x\n@@\n-a\n").starts_with("hunk 2 "));
    assert!(fails("a\nb\n", "@@\n a\n-c\n").contains("what follows there differs"));
}

#[test]
fn what_does_not_parse() {
    for (patch, want) in [
        ("", "line 1"),
        ("*** Begin Patch\n", "missing"),
        ("*** Begin Patch\n*** End Patch\n", "no files"),
        ("*** Begin Patch\nhello\n*** End Patch", "line 2"),
        ("*** Begin Patch\n*** Add File: x\nhello\n*** End Patch", "line 3"),
        ("*** Begin Patch\n*** Update File: x\n*** End Patch", "changes nothing"),
        ("*** Begin Patch\n*** Update File: x\n@@ a\n*** End Patch", "no lines"),
        ("*** Begin Patch\n*** Update File: x\nhello\n*** End Patch", "line 3"),
        ("*** Begin Patch\n*** Delete File: ../x\n*** End Patch", "not a file name"),
        (
            "*** Begin Patch\n*** Add File: n\n+x\n*** Delete File: ../x\n*** End Patch",
            "line 4 of the patch: ",
        ),
        (
            "*** Begin Patch\n*** Update File: x\n*** Move to: ../x\n@@\n-a\n*** End Patch",
            "line 3 of the patch: ",
        ),
        ("*** Begin Patch\n*** Delete File: x\n*** End Patch\nmore", "nothing may follow"),
    ] {
        let error = parse(patch).unwrap_err();
        assert_eq!(error.reason, Reason::InvalidPatch, "{patch}");
        assert!(error.message().contains(want), "{patch}: {error}");
        assert!(error.metadata().contains(&("field", "patch".to_owned())), "{patch}: {error:?}");
    }
}
