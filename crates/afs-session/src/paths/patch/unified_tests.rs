//! Unified diffs and git headers, good and bad.

use super::*;
use afs_types::Reason;

fn parsed(patch: &str, strip: Option<u32>) -> Vec<FilePatch> {
    parse(patch.as_bytes(), strip).unwrap()
}

const MODIFY: &str = "--- a/src/x.rs\n+++ b/src/x.rs\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n";

#[test]
fn prefixes() {
    for (strip, want) in [(None, "/src/x.rs"), (Some(1), "/src/x.rs"), (Some(2), "/x.rs")] {
        let [file] = &parsed(MODIFY, strip)[..] else { panic!() };
        assert_eq!((file.path.to_text().as_str(), &file.or_path), (want, &None), "{strip:?}");
    }
    let [file] = &parsed(MODIFY, Some(0))[..] else { panic!() };
    assert_eq!(file.path.to_text(), "/b/src/x.rs");
    let plain = "--- x.c.orig\t2024-01-01\n+++ x.c\t2024-01-02\n@@ -1 +1 @@\n-a\n+b\n";
    let [file] = &parsed(plain, None)[..] else { panic!() };
    assert_eq!(
        (file.path.to_text(), file.or_path.as_ref().unwrap().to_text()),
        ("/x.c".into(), "/x.c.orig".into())
    );
}

#[test]
fn no_more_is_dropped_than_a_path_has() {
    for strip in [3, 7, u32::MAX] {
        let error = parse(MODIFY.as_bytes(), Some(strip)).unwrap_err();
        assert_eq!(error.reason, Reason::InvalidPatch, "{strip}");
        assert!(
            error.message().contains("src/x.rs") && error.message().contains(&strip.to_string()),
            "{error}"
        );
    }
}

#[test]
fn git_headers() {
    let patch = "From 0123 Mon Sep 17 00:00:00 2001\nSubject: x\n\n---\n 1 file changed\n\n\
        diff --git a/new.sh b/new.sh\nnew file mode 100755\nindex 0000000..1234567\n--- /dev/null\n+++ b/new.sh\n@@ -0,0 +1 @@\n+hi\n\
        diff --git a/old b/old\ndeleted file mode 100644\nindex 1234567..0000000\n--- a/old\n+++ /dev/null\n@@ -1 +0,0 @@\n-bye\n\
        diff --git a/from b/to\nsimilarity index 100%\nrename from from\nrename to to\n\
        diff --git a/tool b/tool\nold mode 100644\nnew mode 100755\n\
        diff --git a/empty b/empty\nnew file mode 100644\nindex 0000000..e69de29\n\
        diff --git a/link b/link\nnew file mode 120000\nindex 0000000..1234567\n--- /dev/null\n+++ b/link\n@@ -0,0 +1 @@\n+target\n\\ No newline at end of file\n\
        -- \n2.39.2\n";
    let files = parsed(patch, None);
    let paths: Vec<String> = files.iter().map(|f| f.path.to_text()).collect();
    assert_eq!(paths, ["/new.sh", "/old", "/from", "/tool", "/empty", "/link"]);
    let Action::Create { content, kind } = &files[0].action else { panic!() };
    assert_eq!((content.as_slice(), *kind), (&b"hi\n"[..], Kind::File { executable: true }));
    assert!(matches!(&files[1].action, Action::Delete { .. }));
    let Action::Update { text, moved: Some(Moved::Renamed(to)), kind: None } = &files[2].action else {
        panic!()
    };
    assert_eq!((to.to_text().as_str(), text), ("/to", &Text::Hunks(vec![])));
    assert!(matches!(&files[3].action, Action::Update { kind: Some(Kind::File { executable: true }), .. }));
    assert!(matches!(&files[4].action, Action::Create { content, .. } if content.is_empty()));
    assert!(
        matches!(&files[5].action, Action::Create { content, kind: Kind::Symlink } if content == b"target")
    );
}

#[test]
fn names_that_git_quotes() {
    let patch = "diff --git \"a/caf\\303\\251\" \"b/caf\\303\\251\"\nold mode 100644\nnew mode 100755\n";
    assert_eq!(parsed(patch, None)[0].path.to_text(), "/café");
}

#[test]
fn what_is_refused() {
    for (patch, want) in [
        ("", "file 1 of the patch"),
        ("hello\n", "file 1 of the patch"),
        ("--- a/x\n+++ b/x\n@@ -1,9 +1 @@\n a\n", "file 1 of the patch"),
        ("--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n", "not a file name"),
        (
            "diff --git a/i.png b/i.png\nindex 1..2 100644\nBinary files a/i.png and b/i.png differ\n",
            "i.png: the patch is binary",
        ),
        (
            "diff --git a/s b/s\nnew file mode 160000\n--- /dev/null\n+++ b/s\n@@ -0,0 +1 @@\n+Subproject commit 1\n",
            "submodule",
        ),
    ] {
        let error = parse(patch.as_bytes(), None).unwrap_err();
        assert_eq!(error.reason, Reason::InvalidPatch, "{patch}");
        assert!(error.message().contains(want), "{patch}: {error}");
        for fact in [("field", "patch"), ("file", "1")] {
            assert!(error.metadata().contains(&(fact.0, fact.1.to_owned())), "{patch}: {error:?}");
        }
    }
    // The second of two files is named as such, also when it is its path that is wrong.
    let two = format!("{MODIFY}--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n");
    let error = parse(two.as_bytes(), None).unwrap_err();
    assert!(error.message().starts_with("file 2 of the patch: "), "{error}");
    assert!(error.metadata().contains(&("file", "2".to_owned())), "{error:?}");
}

/// Patches that were cut, doubled and bent at random are refused or applied, and never bring the server down.
#[test]
fn bent_patches_do_no_harm() {
    let seeds = [
        format!("diff --git a/x b/x\nindex 1..2 100644\n{MODIFY}diff --git \"a/q\\t\" \"b/q\\t\"\nrename from \"q\\t\"\nrename to z\n"),
        "*** Begin Patch\n*** Update File: x\n*** Move to: y\n@@ b\n a\n-b\n+c\n*** End of File\n*** Add File: n\n+é\n*** End Patch".to_owned(),
    ];
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut fitting = 0;
    for round in 0..40_000 {
        let mut text = seeds[round % 2].clone().into_bytes();
        for _ in 0..random(4) {
            let (from, to) = (random(text.len()), random(text.len()));
            match random(4) {
                0 => text[from] = b"\n +-@*/\"\\0\xff9"[random(12)],
                1 => drop(text.drain(from.min(to)..from.max(to).min(from.min(to) + 30))),
                2 => text.insert(from, b"\n +-@*/\"\\0\xff9"[random(12)]),
                _ => text.extend_from_within(from.min(to)..from.max(to)),
            }
            if text.is_empty() {
                break;
            }
        }
        let patch = super::super::Patch { text, ..Default::default() };
        for file in super::super::parse(&patch).into_iter().flatten() {
            if let Action::Update { text, .. } | Action::Delete { text } = &file.action {
                for old in [&b""[..], b"a\nb\n", b"x\r\na\r\nb\r\n", b"a\nb\nb\na\nb"] {
                    fitting += usize::from(text.apply(old).is_ok());
                }
            }
        }
    }
    assert!(fitting > 1000, "the patches are bent too much to test anything: {fitting}");
}
