//! Changes become commits that git would have made, and reach the source.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use afs_base::{
    CommitMeta, CommitWritten, EditContent, EditEntry, NoProgress, Oid, TreeEdit, push, write_commit,
};
use afs_types::{Reason, Result};
use common::*;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

fn meta(message: &str) -> CommitMeta {
    CommitMeta {
        message: message.into(),
        author_name: "An Agent".into(),
        author_email: "agent@example.com".into(),
        time_ns: (COMMIT_TIME + 60) * 1_000_000_000,
    }
}

fn split(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect()
}

fn file(path: &str, content: &[u8], executable: bool) -> TreeEdit {
    let reader = Box::new(Cursor::new(content.to_vec()));
    let content = EditContent::Stream { len: content.len() as u64, reader };
    TreeEdit { path: split(path.as_bytes()), change: Some(EditEntry::File { executable, content }) }
}

fn gone(path: &str) -> TreeEdit {
    TreeEdit { path: split(path.as_bytes()), change: None }
}

struct Setup {
    world: World,
    repo: Repo,
    mirror: PathBuf,
    head: String,
}

impl Setup {
    fn new() -> Self {
        let world = World::new();
        let repo = Repo::rich(world.path("repo"));
        let git = world.import_git(&repo, None).unwrap().git.unwrap();
        Self { world, repo, mirror: git.mirror, head: git.head_oid }
    }

    fn commit(&self, edits: Vec<TreeEdit>) -> Result<CommitWritten> {
        self.commit_on(&self.head, edits)
    }

    fn commit_on(&self, base: &str, edits: Vec<TreeEdit>) -> Result<CommitWritten> {
        write_commit(
            &self.mirror,
            base,
            &[base.to_owned()],
            edits.into_iter().map(Ok),
            meta("from a session"),
        )
    }

    /// The repository that holds sessions' commits.
    fn commits(&self) -> PathBuf {
        self.mirror.join("aether")
    }

    fn push(&self, oid: &str, branch: &str, expect: Option<&str>) -> Result<afs_base::Pushed> {
        push(&self.mirror, &self.repo.url(), oid, branch, expect, &NoProgress)
    }
}

#[test]
fn a_commit_is_what_git_would_have_made() {
    let s = Setup::new();
    let target = b"../\xff".to_vec();
    let gitlink: Oid = [0x42; 20];
    let edits = vec![
        file("README.md", b"new text\n", false),
        file("run.sh", b"#!/bin/sh\n", false),
        file("new/deep/file.txt", b"new\n", true),
        file("a/b/c/deep.txt", &vec![b'x'; 400_000], false),
        file("a0", b"", false),
        gone("a/dangling"),
        gone("src/m3"),
        gone("src/m4/f4.txt"),
        gone("does/not/exist"),
        TreeEdit { path: split(b"link"), change: Some(EditEntry::Symlink(target.clone())) },
        TreeEdit { path: split(b"vendor/other"), change: Some(EditEntry::Gitlink(gitlink)) },
        TreeEdit { path: vec![b"\xff\xfe not utf-8".to_vec()], change: None },
    ];
    let written = s.commit(edits).unwrap();
    // The same with git in a work tree.
    let work = &s.repo.path;
    s.repo.write("README.md", b"new text\n");
    fs::set_permissions(work.join("run.sh"), PermissionsExt::from_mode(0o644)).unwrap();
    s.repo.write("new/deep/file.txt", b"new\n");
    s.repo.executable("new/deep/file.txt");
    s.repo.write("a/b/c/deep.txt", &vec![b'x'; 400_000]);
    s.repo.write("a0", b"");
    fs::remove_file(work.join("a/dangling")).unwrap();
    fs::remove_dir_all(work.join("src/m3")).unwrap();
    fs::remove_file(work.join("src/m4/f4.txt")).unwrap();
    fs::remove_file(work.join("link")).unwrap();
    symlink(OsStr::from_bytes(&target), work.join("link")).unwrap();
    fs::remove_file(work.join(OsStr::from_bytes(b"\xff\xfe not utf-8"))).unwrap();
    fs::create_dir_all(work.join("vendor/sub")).unwrap();
    git(work, &["add", "-A"]);
    git(work, &["update-index", "--add", "--cacheinfo", &format!("160000,{},vendor/other", "42".repeat(20))]);
    git(
        work,
        &["update-index", "--add", "--cacheinfo", &format!("160000,{},vendor/sub", "1234567890".repeat(4))],
    );
    assert_eq!(written.tree_oid, git(work, &["write-tree"]));
    let changed = git(work, &["diff", "--cached", "--name-only", "HEAD"]).lines().count();
    assert_eq!(written.files_changed, changed as u64);
    let log = git(&s.commits(), &["log", "-1", "--format=%T %P %an <%ae> %at %cn %B", &written.oid]);
    let want = format!(
        "{} {} An Agent <agent@example.com> {} An Agent from a session\n",
        written.tree_oid,
        s.head,
        COMMIT_TIME + 60
    );
    assert_eq!(log, want.trim_end());
    assert_eq!(git(&s.commits(), &["fsck", "--full", "--strict", "--no-dangling"]), "");
    assert_eq!(
        git(&s.mirror, &["rev-list", "--all", "--count"]),
        "1",
        "sessions' commits are not in the mirror"
    );
}

#[test]
fn commits_build_on_commits_and_write_only_what_is_new() {
    let s = Setup::new();
    let one = s.commit(vec![file("x/y", b"1\n", false)]).unwrap();
    let two = s.commit_on(&one.oid, vec![file("x/y", b"2\n", false), gone("x/z")]).unwrap();
    assert_eq!(git(&s.commits(), &["rev-list", "--count", &two.oid]), "3");
    let none = s.commit_on(&two.oid, vec![file("x/y", b"2\n", false), gone("nope")]).unwrap();
    assert_eq!((none.files_changed, &none.tree_oid), (0, &two.tree_oid));
    let again = s.commit_on(&two.oid, vec![file("x/y", b"2\n", false)]).unwrap();
    assert_eq!(again.oid, none.oid, "same input, same commit");
    // Moved by id: no content is written.
    let blob: Oid = {
        let hex = git(&s.repo.path, &["rev-parse", "HEAD:README.md"]);
        std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
    };
    let content = EditContent::Known(blob);
    let moved = TreeEdit {
        path: split(b"docs/README.md"),
        change: Some(EditEntry::File { executable: false, content }),
    };
    let moved = s.commit(vec![moved, gone("README.md")]).unwrap();
    assert_eq!(
        git(&s.commits(), &["diff", "--name-status", "-M", &s.head, &moved.oid]),
        "R100\tREADME.md\tdocs/README.md"
    );
    let everything: Vec<TreeEdit> = git(&s.repo.path, &["ls-tree", "-z", "--name-only", "HEAD"])
        .split('\0')
        .filter(|n| !n.is_empty())
        .map(gone)
        .collect();
    let mut all = everything;
    all.push(TreeEdit { path: vec![b"\xff\xfe not utf-8".to_vec()], change: None });
    let empty = s.commit(all).unwrap();
    assert_eq!(empty.tree_oid, "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
}

#[test]
fn files_and_directories_replace_each_other() {
    let s = Setup::new();
    let to_dir = s.commit(vec![gone("README.md"), file("README.md/inside", b"x", false)]).unwrap();
    assert_eq!(
        git(&s.commits(), &["ls-tree", "--name-only", "-r", &to_dir.oid, "README.md"]),
        "README.md/inside"
    );
    // Without the removal it means the same: a directory cannot be below a file.
    let same = s.commit(vec![file("README.md/inside", b"x", false)]).unwrap();
    assert_eq!((same.tree_oid, same.files_changed), (to_dir.tree_oid.clone(), to_dir.files_changed));
    let to_file = s.commit(vec![file("src", b"now a file", false)]).unwrap();
    assert_eq!(
        (git(&s.commits(), &["cat-file", "blob", &format!("{}:src", to_file.oid)]), to_file.files_changed),
        ("now a file".into(), 301)
    );
    let renewed = s.commit(vec![file("src/only", b"x", false), gone("src")]).unwrap();
    assert_eq!(git(&s.commits(), &["ls-tree", "--name-only", "-r", &renewed.oid, "src"]), "src/only");
    assert_eq!(renewed.files_changed, 301);
}

#[test]
fn bad_edits_are_refused() {
    let s = Setup::new();
    for path in [
        ".git/config",
        "a/.GIT/x",
        "sub/git~1",
        "x/../y",
        "./x",
        "a//b",
        "nul\0x",
        ".g\u{200c}it",
        &"n".repeat(256),
    ] {
        assert_eq!(
            s.commit(vec![file(path, b"x", false)]).unwrap_err().reason,
            Reason::InvalidName,
            "{path:?}"
        );
    }
    let link =
        |target: &[u8]| TreeEdit { path: split(b"l"), change: Some(EditEntry::Symlink(target.to_vec())) };
    let known = || EditEntry::File { executable: false, content: EditContent::Known([9; 20]) };
    let cases = vec![
        vec![file("x", b"1", false), file("x", b"2", false)],
        vec![file("x", b"1", false), file("x/y", b"2", false)],
        vec![link(b"")],
        vec![link(b"a\0b")],
        vec![link(&[b'x'; 4096])],
        vec![TreeEdit { path: Vec::new(), change: None }],
        vec![TreeEdit { path: vec![b"d".to_vec(); 2000], change: None }],
        vec![TreeEdit { path: split(b"k"), change: Some(known()) }],
    ];
    for edits in cases {
        assert_eq!(s.commit(edits).unwrap_err().reason, Reason::InvalidArgument);
    }
    for base in ["", "nonsense", &"0".repeat(40), &s.repo.rev("HEAD^{tree}")[..39]] {
        assert_eq!(s.commit_on(base, vec![]).unwrap_err().reason, Reason::InvalidArgument);
    }
    let lying = EditContent::Stream { len: 9, reader: Box::new(Cursor::new(b"short".to_vec())) };
    let edit =
        TreeEdit { path: split(b"x"), change: Some(EditEntry::File { executable: false, content: lying }) };
    assert!(s.commit(vec![edit]).is_err());
    let left: Vec<_> = fs::read_dir(s.commits().join("objects/pack")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let text = CommitMeta {
        author_name: "  <\n> ".into(),
        author_email: "a\nb<c>".into(),
        message: String::new(),
        time_ns: -5,
    };
    let odd = write_commit(&s.mirror, &s.head, &[], std::iter::empty(), text).unwrap();
    assert_eq!(git(&s.commits(), &["log", "-1", "--format=%an|%ae|%at", &odd.oid]), "AetherFS|abc|0");
    assert_eq!(git(&s.commits(), &["fsck", "--strict", "--no-dangling"]), "");
}

/// A tree of paths, changed at random, must always be the tree that git writes.
#[test]
fn random_changes_give_gits_trees() {
    let world = World::new();
    let repo = Repo::new(world.path("repo"));
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut files: BTreeMap<String, (String, bool)> = BTreeMap::new();
    let apply = |files: &BTreeMap<String, (String, bool)>| -> String {
        let input: String = files
            .iter()
            .map(|(path, (text, exec))| {
                let oid = git_with(&repo.path, &["hash-object", "-w", "--stdin"], text.as_bytes());
                format!("{} {oid}\t{path}\n", if *exec { "100755" } else { "100644" })
            })
            .collect();
        let _ = fs::remove_file(repo.path.join(".git/index"));
        git_with(&repo.path, &["update-index", "--add", "--index-info"], input.as_bytes());
        git(&repo.path, &["write-tree"])
    };
    for i in 0..40 {
        files.insert(format!("d{}/e{}/f{}", i % 5, i % 3, i), (format!("{i}"), i % 4 == 0));
    }
    let tree = apply(&files);
    let base = git(&repo.path, &["commit-tree", "-m", "base", &tree]);
    git(&repo.path, &["update-ref", "refs/heads/main", &base]);
    let imported = world.import_git(&repo, None).unwrap().git.unwrap();
    let mut head = imported.head_oid;
    for round in 0..25 {
        let mut edits: BTreeMap<String, Option<(String, bool)>> = BTreeMap::new();
        for _ in 0..random(6) + 1 {
            let names = ["a", "a.b", "a-b", "d1", "e0", "f", "z"];
            let depth = random(3) + 1;
            let path: Vec<&str> = (0..depth).map(|_| names[random(7) as usize]).collect();
            let path = path.join("/");
            let clash = |p: &String| p.starts_with(&format!("{path}/")) || path.starts_with(&format!("{p}/"));
            if edits.keys().any(clash) {
                continue;
            }
            let new = (random(4) > 0).then(|| (format!("{round}-{}", random(3)), random(2) == 0));
            edits.insert(path, new);
        }
        for (path, new) in &edits {
            // A removed path takes what is below it along; a new one replaces what it is below, or what was below it.
            files.retain(|p, _| {
                p != path
                    && !p.starts_with(&format!("{path}/"))
                    && !(new.is_some() && path.starts_with(&format!("{p}/")))
            });
            if let Some(new) = new {
                files.insert(path.clone(), new.clone());
            }
        }
        let list = edits.iter().map(|(p, new)| match new {
            Some((text, exec)) => file(p, text.as_bytes(), *exec),
            None => gone(p),
        });
        let written =
            write_commit(&imported.mirror, &head, &[head.clone()], list.map(Ok), meta("r")).unwrap();
        if !files.is_empty() {
            assert_eq!(written.tree_oid, apply(&files), "round {round}: {edits:?}");
        }
        let diff = git(
            &imported.mirror.join("aether"),
            &["diff-tree", "-r", "--no-renames", "--name-only", &head, &written.oid],
        );
        let replaced = diff.lines().count() as u64;
        assert!(written.files_changed <= replaced && replaced <= written.files_changed * 2 + 40, "{diff}");
        head = written.oid;
    }
}

#[test]
fn a_push_goes_forward_or_is_a_conflict() {
    let s = Setup::new();
    let one = s.commit(vec![file("x", b"1", false)]).unwrap();
    assert_eq!(s.push(&one.oid, "agent/one", None).unwrap().old, None);
    assert_eq!(s.repo.rev("agent/one"), one.oid);
    assert_eq!(
        s.push(&one.oid, "agent/one", None).unwrap().old,
        Some(one.oid.clone()),
        "again: nothing to do"
    );
    let two = s.commit_on(&one.oid, vec![file("x", b"2", false)]).unwrap();
    assert_eq!(s.push(&two.oid, "agent/one", None).unwrap().old, Some(one.oid.clone()));
    // Not an ancestor: refused without a lease, and with the wrong one.
    let other = s.commit(vec![file("x", b"other", false)]).unwrap();
    for expect in [None, Some(one.oid.as_str()), Some("")] {
        let error = s.push(&other.oid, "agent/one", expect).unwrap_err();
        assert_eq!(error.reason, Reason::PromoteConflict, "{expect:?} {error:?}");
        assert_eq!(s.repo.rev("agent/one"), two.oid);
    }
    assert_eq!(s.push(&other.oid, "agent/one", Some(&two.oid)).unwrap().old, Some(two.oid.clone()));
    assert_eq!(s.repo.rev("agent/one"), other.oid);
    assert_eq!(s.push(&one.oid, "agent/new", Some("")).unwrap().old, None);
    // Somebody else's commit, which the mirror has never seen.
    git(&s.repo.path, &["checkout", "-q", "agent/new"]);
    s.repo.write("theirs", b"theirs");
    let theirs = s.repo.commit_all("theirs");
    git(&s.repo.path, &["checkout", "-q", "main"]);
    let error = s.push(&two.oid, "agent/new", None).unwrap_err();
    assert_eq!(error.reason, Reason::PromoteConflict, "{error:?}");
    assert_eq!(s.repo.rev("agent/new"), theirs);
    // After a refresh the session can build on it.
    let spec = s.repo.spec(Some("agent/new"));
    let refreshed =
        afs_base::import(&spec, &s.world.dirs, &s.world.blobs, &afs_types::SystemRng, NOW_NS, &NoProgress)
            .unwrap();
    let base = refreshed.upstream.unwrap();
    let merged = s.commit_on(&base, vec![file("x", b"3", false)]).unwrap();
    assert_eq!(s.push(&merged.oid, "agent/new", None).unwrap().old, Some(theirs));
}

#[test]
fn a_checked_out_branch_is_left_alone() {
    let s = Setup::new();
    let one = s.commit(vec![file("x", b"1", false)]).unwrap();
    let error = s.push(&one.oid, "main", None).unwrap_err();
    assert_eq!(error.reason, Reason::PromoteConflict);
    assert!(error.message().contains("checked out"), "{error:?}");
    assert!(error.next_step().contains("another branch"), "{}", error.next_step());
    assert_eq!(s.repo.head(), s.head);
}

#[test]
fn a_source_that_declines_or_is_gone() {
    let s = Setup::new();
    let one = s.commit(vec![file("x", b"1", false)]).unwrap();
    git(&s.repo.path, &["config", "receive.denyDeletes", "true"]);
    git(&s.repo.path, &["config", "transfer.hideRefs", "refs/heads/hidden"]);
    let error = s.push(&one.oid, "hidden", None).unwrap_err();
    assert_eq!(error.reason, Reason::PermissionDenied, "{error:?}");
    let push_to =
        |url: &str, branch: &str| push(&s.mirror, url, &one.oid, branch, None, &NoProgress).unwrap_err();
    for url in ["https://u:sekret@127.0.0.1:1/x.git", "/no/such/dir", s.world.dir.path().to_str().unwrap()] {
        let error = push_to(url, "b");
        assert_eq!(error.reason, Reason::SourceUnavailable, "{error:?}");
        assert!(!format!("{error:?}").contains("sekret"));
    }
    for branch in ["", "-d", "a b", "a..b", "HEAD:x", "refs/../x"] {
        assert_eq!(push_to(&s.repo.url(), branch).reason, Reason::InvalidArgument, "{branch:?}");
    }
    let unknown = push(&s.mirror, &s.repo.url(), &"9".repeat(40), "b", None, &NoProgress).unwrap_err();
    assert_eq!(unknown.reason, Reason::InvalidArgument, "{unknown:?}");
}

#[test]
fn nothing_of_a_hostile_target_is_run() {
    let s = Setup::new();
    let proof = s.world.path("proof");
    let touch = format!("touch {}", proof.display());
    let hooks = s.repo.path.join(".git/hooks");
    fs::create_dir_all(&hooks).unwrap();
    let evil = |dir: &Path| {
        for hook in [
            "pre-receive",
            "update",
            "post-receive",
            "post-update",
            "reference-transaction",
            "push-to-checkout",
            "proc-receive",
        ] {
            let path = dir.join(hook);
            fs::write(&path, format!("#!/bin/sh\n{touch}\n")).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
    };
    evil(&hooks);
    let other = s.world.path("hooks");
    fs::create_dir(&other).unwrap();
    evil(&other);
    for (key, value) in [
        ("core.hooksPath", other.to_str().unwrap()),
        ("core.fsmonitor", &touch),
        ("receive.denyCurrentBranch", "updateInstead"),
    ] {
        git(&s.repo.path, &["config", key, value]);
    }
    let _ = fs::remove_file(&proof);
    let one = s.commit(vec![file("x", b"1", false)]).unwrap();
    s.push(&one.oid, "fresh", None).unwrap();
    assert_eq!(s.push(&one.oid, "main", None).unwrap_err().reason, Reason::PromoteConflict);
    assert!(!proof.exists(), "something of the target was run");
}

#[test]
fn files_are_counted_against_the_commit_that_it_stands_on() {
    let s = Setup::new();
    // As a session does it: edits of its base, on its commit before.
    let on = |parent: &str, edits: Vec<TreeEdit>| {
        let edits = edits.into_iter().map(Ok);
        write_commit(&s.mirror, &s.head, &[parent.to_owned()], edits, meta("m")).unwrap()
    };
    let new = |count: usize| (1..=count).map(|n| file(&format!("new{n}"), b"x", false)).collect::<Vec<_>>();
    let mut parent = s.head.clone();
    for count in 1..=3 {
        let made = on(&parent, new(count));
        assert_eq!(made.files_changed, 1, "{count}");
        parent = made.oid;
    }
    let empty = on(&parent, new(3));
    assert_eq!((empty.files_changed, empty.oid == parent), (0, false));
    let differ = |made: &CommitWritten| {
        let args = ["diff-tree", "-r", "--no-renames", "-z", "--name-only", &parent, &made.oid];
        git(&s.commits(), &args).split('\0').filter(|name| !name.is_empty()).count() as u64
    };
    // What was a file is a directory, a directory is gone, and what was there is otherwise.
    let mut edits =
        vec![file("new1/a", b"x", false), file("new1/b/c", b"y", false), file("new2", b"x", true)];
    edits.extend([file("new3", b"z", false), gone("src/m3"), file("README.md", b"other", false)]);
    let much = on(&parent, edits);
    assert!(much.files_changed > 6 && much.files_changed == differ(&much), "{much:?} {}", differ(&much));
    let back = on(&parent, Vec::new());
    assert_eq!((back.files_changed, differ(&back)), (3, 3), "the base's tree again");
}

fn fact(error: &afs_types::Error, key: &str) -> String {
    error.metadata().iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone()).unwrap_or_default()
}

#[test]
fn a_name_that_another_branch_leaves_no_room_for_is_no_conflict() {
    let s = Setup::new();
    let one = s.commit(vec![file("x", b"1", false)]).unwrap();
    for branch in ["zz", "d/e"] {
        git(&s.repo.path, &["branch", branch]);
    }
    git(&s.repo.path, &["tag", "free"]);
    for (branch, other) in [("zz/sub", "zz"), ("zz/sub/deep", "zz"), ("d", "d/e"), ("d/e/f", "d/e")] {
        for expect in [None, Some("")] {
            let error = s.push(&one.oid, branch, expect).unwrap_err();
            assert_eq!(error.reason, Reason::AlreadyExists, "{branch} {error:?}");
            assert_eq!(
                (fact(&error, "field").as_str(), fact(&error, "branch_in_the_way").as_str()),
                ("branch", other)
            );
            assert!(error.message().contains(other) && error.next_step().contains("name"), "{error:?}");
        }
    }
    assert_eq!((s.repo.rev("zz"), s.repo.rev("d/e")), (s.head.clone(), s.head.clone()));
    // Beside a tag there is room.
    assert_eq!(s.push(&one.oid, "free/x", None).unwrap().old, None);
}

#[test]
fn what_a_source_cannot_do_is_told_in_its_words_and_is_no_conflict() {
    let s = Setup::new();
    let one = s.commit(vec![file("x", b"1", false)]).unwrap();
    // The locks of a git that was killed: one of a new branch, one of a branch that could go forward.
    git(&s.repo.path, &["branch", "behind"]);
    for branch in ["held", "behind"] {
        fs::write(s.repo.path.join(format!(".git/refs/heads/{branch}.lock")), b"").unwrap();
        let error = s.push(&one.oid, branch, None).unwrap_err();
        assert_eq!(error.reason, Reason::SourceUnavailable, "{error:?}");
        assert!(error.message().contains(&format!("{branch}.lock")), "{error:?}");
        assert!(!error.message().contains("moved"), "{error:?}");
    }
}

#[test]
fn a_branch_may_be_named_in_full_and_is_refused_before_anything_is_sent() {
    let s = Setup::new();
    let one = s.commit(vec![file("x", b"1", false)]).unwrap();
    let pushed = s.push(&one.oid, "refs/heads/full/name", None).unwrap();
    assert_eq!((pushed.branch.as_str(), s.repo.rev("refs/heads/full/name")), ("full/name", one.oid.clone()));
    let longest = "x".repeat(250);
    assert_eq!(s.push(&one.oid, &longest, None).unwrap().branch, longest);
    let refs = git(&s.repo.path, &["for-each-ref"]);
    for branch in ["refs/tags/v9", "refs/heads/refs/heads/x", "refs/heads/", "refs/x"] {
        let error = s.push(&one.oid, branch, None).unwrap_err();
        assert_eq!(
            (error.reason, fact(&error, "field").as_str()),
            (Reason::InvalidArgument, "branch"),
            "{error:?}"
        );
    }
    // Nobody is asked: there is nobody.
    let nowhere = "https://127.0.0.1:1/x.git";
    for (branch, limit) in
        [("x".repeat(251), "250"), (format!("a/{}", "x".repeat(300)), "250"), (["ab"; 342].join("/"), "1024")]
    {
        let error = push(&s.mirror, nowhere, &one.oid, &branch, None, &NoProgress).unwrap_err();
        assert_eq!(error.reason, Reason::NameTooLong, "{error:?}");
        assert_eq!((fact(&error, "field").as_str(), fact(&error, "limit").as_str()), ("branch", limit));
    }
    assert_eq!(git(&s.repo.path, &["for-each-ref"]), refs);
}
