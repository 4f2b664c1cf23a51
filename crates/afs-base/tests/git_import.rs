//! Git repositories become bases, and their `.git` works.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use afs_base::{Import, ImportSpec, NoProgress, Progress};
use afs_core::base::NodeKind;
use afs_types::{Reason, SystemRng};
use common::*;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn a_base_holds_exactly_the_commit() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    let imported = world.import_git(&repo, None).unwrap();
    let table = table_of(&imported);
    let raw = try_git(&repo.path, &["ls-tree", "-r", "-t", "-z", "HEAD"]).stdout;
    let found = paths(&table);
    let mut seen = 0;
    for line in raw.split(|b| *b == 0).filter(|l| !l.is_empty()) {
        let tab = line.iter().position(|b| *b == b'\t').unwrap();
        let (head, path) = (std::str::from_utf8(&line[..tab]).unwrap(), &line[tab + 1..]);
        let [mode, kind, oid] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
        let entry = &found[&[b"/", path].concat()];
        let hex: String = entry.git_oid.unwrap().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, oid);
        let want = match mode {
            "040000" => (NodeKind::Dir, 0o040_755),
            "100644" => (NodeKind::File, 0o100_644),
            "100755" => (NodeKind::File, 0o100_755),
            "120000" => (NodeKind::Symlink, 0o120_777),
            "160000" => (NodeKind::Gitlink, 0o040_755),
            _ => panic!("{mode}"),
        };
        assert_eq!((entry.kind, entry.mode), want, "{path:?}");
        assert_eq!((entry.mtime_ns, entry.uid, entry.gid), (COMMIT_TIME * 1_000_000_000, 0, 0));
        if kind == "blob" {
            let bytes = try_git(&repo.path, &["cat-file", "blob", oid]).stdout;
            assert_eq!(world.content(entry), bytes, "{path:?}");
        }
        seen += 1;
    }
    assert_eq!(seen, found.len());
    assert_eq!(imported.upstream, Some(repo.head()));
    let base = imported.git.unwrap();
    assert_eq!((base.head_ref.as_deref(), base.tree_oid), (Some("main"), repo.rev("HEAD^{tree}")));
}

#[test]
fn git_works_in_a_fresh_session_and_reads_no_file() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    repo.write("a/b/second.txt", b"2\n");
    repo.commit_all("second");
    git(&repo.path, &["tag", "-a", "v1", "-m", "one"]);
    git(&repo.path, &["branch", "side/branch", "HEAD~1"]);
    let imported = world.import_git(&repo, None).unwrap();
    let table = table_of(&imported);
    let out = world.path("session");
    world.check_out(&table, &out);
    // A copy on the disk has other inode numbers and times of change than the index; in a mount they are the same (`aether::git`).
    let status = || {
        let same = ["-c", "core.checkStat=minimal", "-c", "core.trustctime=false"];
        git(&out, &[&same[..], &["status", "--porcelain"]].concat())
    };
    assert_eq!(status(), "");
    assert_eq!(git(&out, &["fsck", "--full", "--strict", "--no-dangling"]), "");
    assert_eq!(
        git(&out, &["rev-parse", "HEAD", "origin/main", "origin/HEAD", "v1^{commit}"]),
        vec![repo.head(); 4].join("\n")
    );
    assert_eq!(git(&out, &["rev-parse", "origin/side/branch"]), repo.rev("HEAD~1"));
    assert_eq!(git(&out, &["log", "--format=%s"]), "second\nfirst");
    assert_eq!(git(&out, &["config", "remote.origin.url"]), repo.url());
    assert_eq!(
        git(&out, &["ls-files", "-s"]),
        git(&repo.path, &["ls-tree", "-r", "--format=%(objectmode) %(objectname) 0\t%(path)", "HEAD"])
    );
    assert_eq!(git(&out, &["write-tree"]), repo.rev("HEAD^{tree}"));
    // Same size and time, other bytes: git only stays content if it does not look inside.
    let index = fs::read(out.join(".git/index")).unwrap();
    let mut spoilt = 0;
    for (path, entry) in paths(&table).into_iter().filter(|(_, e)| e.kind == NodeKind::File && e.size > 0) {
        let file = out.join(OsStr::from_bytes(&path[1..]));
        fs::write(&file, vec![b'#'; entry.size as usize]).unwrap();
        set_mtime(&file, entry.mtime_ns);
        spoilt += 1;
    }
    assert!(spoilt > 300);
    assert_eq!(status(), "");
    assert_eq!(
        fs::read(out.join(".git/index")).unwrap(),
        index,
        "git saw no reason to write the index again"
    );
    // The negative control: with another time git looks, and sees.
    set_mtime(&out.join("README.md"), (COMMIT_TIME - 9) * 1_000_000_000);
    assert_eq!(status(), " M README.md");
}

#[test]
fn work_goes_on_in_a_session() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    let table = table_of(&world.import_git(&repo, None).unwrap());
    let out = world.path("session");
    world.check_out(&table, &out);
    fs::write(out.join("new.txt"), "new\n").unwrap();
    fs::write(out.join("src/m0/f0.txt"), "changed\n").unwrap();
    assert_eq!(git(&out, &["diff", "--stat", "--format="]).lines().count(), 2);
    git(&out, &["add", "-A"]);
    git(&out, &["commit", "-qm", "in session"]);
    assert_eq!(git(&out, &["status", "--porcelain", "-b"]), "## main...origin/main [ahead 1]");
    assert_eq!(git(&out, &["diff", "--name-only", "HEAD~1"]), "new.txt\nsrc/m0/f0.txt");
    assert_eq!(git(&out, &["fsck", "--full", "--no-dangling"]), "");
}

#[test]
fn every_kind_of_reference_is_found() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    let first = repo.head();
    git(&repo.path, &["tag", "light"]);
    git(&repo.path, &["tag", "-a", "heavy", "-m", "h"]);
    repo.write("x", b"x");
    let second = repo.commit_all("second");
    git(&repo.path, &["checkout", "-q", "-b", "feature/x"]);
    repo.write("y", b"y");
    let third = repo.commit_all("third");
    git(&repo.path, &["checkout", "-q", "main"]);
    git(&repo.path, &["update-ref", "refs/pull/7/head", &third]);
    let cases = [
        (None, &second, Some("main")),
        (Some("HEAD"), &second, Some("main")),
        (Some("main"), &second, Some("main")),
        (Some("feature/x"), &third, Some("feature/x")),
        (Some("refs/heads/feature/x"), &third, Some("feature/x")),
        (Some("light"), &first, None),
        (Some("heavy"), &first, None),
        (Some("refs/tags/heavy"), &first, None),
        (Some("refs/pull/7/head"), &third, None),
        (Some(first.as_str()), &first, None),
        (Some(&first[..12]), &first, None),
        (Some("main~1"), &first, None),
    ];
    // Once with one mirror that grows, once from nothing each.
    for fresh in [false, true] {
        let mut shared = World::new();
        for (reference, oid, branch) in cases {
            if fresh {
                shared = World::new();
            }
            let imported =
                shared.import_git(&repo, reference).unwrap_or_else(|e| panic!("{reference:?} {e:?}"));
            let base = imported.git.unwrap();
            assert_eq!((&base.head_oid, base.head_ref.as_deref()), (oid, branch), "{reference:?}");
            let identity = afs_base::resolve(&repo.spec(reference), &shared.dirs).unwrap();
            assert!(identity.starts_with(oid.as_str()), "{reference:?} {identity}");
        }
    }
    for bad in [
        "nope",
        "refs/heads/nope",
        "-x",
        "a..b",
        "a b",
        "main:README.md",
        "*",
        "",
        &"0".repeat(40),
        "HEAD^{tree}",
    ] {
        let error = world.import_git(&repo, Some(bad)).expect_err(bad);
        assert_eq!(error.reason, Reason::InvalidArgument, "{bad:?} {error:?}");
    }
}

#[test]
fn a_detached_head_and_an_empty_repository() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    git(&repo.path, &["checkout", "-q", "--detach"]);
    let table = table_of(&world.import_git(&repo, None).unwrap());
    let head = find(&table, ".git/HEAD").unwrap();
    assert_eq!(world.content(&head), format!("{}\n", repo.head()).as_bytes());
    let out = world.path("out");
    world.check_out(&table, &out);
    assert_eq!(git(&out, &["status", "--porcelain"]), "");
    let empty = Repo::new(world.path("empty"));
    assert_eq!(world.import_git(&empty, None).unwrap_err().reason, Reason::InvalidArgument);
    empty.commit_raw_tree(&[]);
    let table = table_of(&world.import_git(&empty, None).unwrap());
    assert!(paths(&table).is_empty());
    let out = world.path("out2");
    world.check_out(&table, &out);
    assert_eq!(git(&out, &["status", "--porcelain"]), "");
}

#[test]
fn new_commits_are_fetched_and_known_ones_are_not() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    let first = repo.head();
    world.import_git(&repo, None).unwrap();
    repo.write("later", b"later");
    let second = repo.commit_all("later");
    assert_eq!(world.import_git(&repo, None).unwrap().upstream, Some(second.clone()));
    // History that was thrown away at the source stays importable.
    git(&repo.path, &["reset", "-q", "--hard", &first]);
    repo.write("other", b"other");
    let third = repo.commit_all("other");
    assert_eq!(world.import_git(&repo, None).unwrap().upstream, Some(third));
    let gone = world.path("gone");
    fs::rename(&repo.path, &gone).unwrap();
    fs::create_dir(&repo.path).unwrap();
    assert_eq!(world.import_git(&repo, Some(&second)).unwrap().upstream, Some(second));
    assert_eq!(world.import_git(&repo, Some("main")).unwrap_err().reason, Reason::SourceUnavailable);
}

#[test]
fn what_is_imported_twice_is_stored_once() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    let first = world.import_git(&repo, None).unwrap();
    let again = world.import_git(&repo, None).unwrap();
    assert!(first.stored_bytes > 1_000_000);
    // The two tables have other seeds, and the index other inode numbers only if the tree differs.
    assert!(again.stored_bytes < 100_000, "{}", again.stored_bytes);
}

/// The file of the pack in a mirror that holds an object, and the object's offset in it.
fn find_object(mirror: &Path, oid: &str) -> (PathBuf, u64) {
    for entry in fs::read_dir(mirror.join("objects/pack")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "idx") {
            let list = git(mirror, &[OsStr::new("verify-pack"), OsStr::new("-v"), path.as_os_str()]);
            let line = list.lines().find(|l| l.starts_with(oid));
            if let Some(line) = line {
                let offset = line.split_whitespace().nth(4).unwrap().parse().unwrap();
                return (path.with_extension("pack"), offset);
            }
        }
    }
    panic!("{oid} is in no pack");
}

#[test]
fn what_the_base_before_has_is_not_read_again() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    let first = world.import_git(&repo, None).unwrap();
    repo.write("later", b"later");
    repo.write("src/m0/f0.txt", b"changed");
    repo.commit_all("later");
    let known = table_of(&first);
    let import = |known| {
        let imported = Import {
            dirs: &world.dirs,
            blobs: &world.blobs,
            rng: &SystemRng,
            now_ns: NOW_NS,
            owner: Default::default(),
            known,
            progress: &NoProgress,
        };
        imported.run(&repo.spec(None))
    };
    let second = import(None).unwrap();
    // Damage two files in the mirror, a large one and a small one, neither of which has changed.
    let mirror = first.git.as_ref().unwrap().mirror.clone();
    let places =
        ["big.bin", "README.md"].map(|path| find_object(&mirror, &repo.rev(&format!("HEAD:{path}"))));
    for (pack, offset) in places {
        let mut bytes = fs::read(&pack).unwrap();
        let at = offset as usize + 8;
        bytes[at..at + 4].iter_mut().for_each(|b| *b ^= 0x5a);
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
    // Taken from there, they are what the mirror says, which whoever reads them is told.
    let damaged = table_of(&import(None).unwrap());
    let damaged = paths(&damaged);
    for path in ["/big.bin", "/README.md"] {
        let blob = damaged[path.as_bytes()].blob.unwrap();
        let error = world.blobs.read(&blob, 0, usize::MAX).unwrap_err();
        let name = repo.rev(&format!("HEAD:{}", &path[1..]));
        assert!(error.reason == Reason::Corrupt && error.message().contains(&name), "{error:?}");
    }
    let again = import(Some(&known)).unwrap();
    let (second, again) = (table_of(&second), table_of(&again));
    let (second, again) = (paths(&second), paths(&again));
    assert_eq!(second.len(), again.len());
    for (path, entry) in &again {
        assert_eq!(
            (entry.blob, entry.size, entry.git_oid),
            (second[path].blob, second[path].size, second[path].git_oid)
        );
    }
    assert_eq!(world.content(&again[&b"/later"[..]]), b"later");
    // A base whose blobs are gone is no help and does no harm.
    let other = World::new();
    let elsewhere = Import {
        dirs: &other.dirs,
        blobs: &other.blobs,
        rng: &SystemRng,
        now_ns: NOW_NS,
        owner: Default::default(),
        known: Some(&known),
        progress: &NoProgress,
    };
    let imported = elsewhere.run(&repo.spec(None)).unwrap();
    let table = table_of(&imported);
    assert_eq!(other.content(&find(&table, "README.md").unwrap()), b"hello\n");
}

#[test]
fn a_link_to_what_was_a_file_is_checked() {
    let world = World::new();
    let repo = Repo::new(world.path("repo"));
    let blob = repo.object("blob", b"with\0nul");
    repo.commit_raw_tree(&[("100644", b"file", &blob)]);
    let known = table_of(&world.import_git(&repo, None).unwrap());
    repo.commit_raw_tree(&[("120000", b"link", &blob)]);
    let import = Import {
        dirs: &world.dirs,
        blobs: &world.blobs,
        rng: &SystemRng,
        now_ns: NOW_NS,
        owner: Default::default(),
        known: Some(&known),
        progress: &NoProgress,
    };
    hostile(import.run(&repo.spec(None)), "link");
}

#[test]
fn packed_shallow_bare_and_borrowing_sources() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    repo.write("x", b"x");
    let head = repo.commit_all("second");
    let url = |name: &str| world.path(name).to_str().unwrap().to_owned();
    let file = format!("file://{}", repo.url());
    git(world.dir.path(), &["clone", "-q", "--bare", &file, "bare.git"]);
    git(world.dir.path(), &["clone", "-q", "--depth=1", &file, "shallow"]);
    git(world.dir.path(), &["clone", "-q", "--shared", &repo.url(), "borrowing"]);
    git(&repo.path, &["worktree", "add", "-q", "--detach", "../worktree"]);
    git(&repo.path, &["bundle", "create", "-q", "../all.bundle", "--all", "HEAD"]);
    for (i, source) in
        ["bare.git", "shallow", "borrowing", "worktree", "all.bundle", "file"].iter().enumerate()
    {
        let from = if *source == "file" { file.clone() } else { url(source) };
        let spec = ImportSpec::Git { url: from, reference: None };
        let imported = world.import(&spec).unwrap_or_else(|e| panic!("{source}: {e:?}"));
        assert_eq!(imported.upstream, Some(head.clone()), "{source}");
        let out = world.path(&format!("out{i}"));
        world.check_out(&table_of(&imported), &out);
        assert_eq!(git(&out, &["status", "--porcelain"]), "", "{source}");
        assert_eq!(git(&out, &["fsck", "--full", "--no-dangling"]), "", "{source}");
        // Loose objects that appear at the source later come as a pack too.
        assert_eq!(world.import(&spec).unwrap().upstream, Some(head.clone()));
    }
}

#[test]
fn hostile_trees_are_refused_by_name() {
    let names: &[&[u8]] = &[
        b".git",
        b".GIT",
        b".Git ",
        b"git~1",
        b".git.",
        b".git::$INDEX_ALLOCATION",
        b".g\xe2\x80\x8cit",
        b".",
        b"..",
        b"a/b",
        b"",
        b"x\\.git",
        b"GIT~1 .",
    ];
    let home = World::new();
    let repo = Repo::new(home.path("repo"));
    let blob = repo.object("blob", b"x");
    for name in names {
        let modes: &[&str] = if *name == b".git" { &["100644", "40000", "120000"] } else { &["40000"] };
        for &mode in modes {
            let world = World::new();
            let oid = if mode == "40000" { repo.raw_tree(&[("100644", b"f", &blob)]) } else { blob.clone() };
            let sub = repo.raw_tree(&[(mode, name, &oid)]);
            let commit = repo.commit_raw_tree(&[("40000", b"dir", &sub)]);
            hostile(world.import_git(&repo, Some(&commit)), "dir/");
        }
    }
}

#[test]
fn hostile_structures_are_refused_by_name() {
    let world = World::new();
    let repo = Repo::new(world.path("repo"));
    let blob = repo.object("blob", b"x");
    let empty = repo.object("blob", b"");
    let long = repo.object("blob", &[b'x'; 5000]);
    let nul = repo.object("blob", b"a\0b");
    let tree = repo.raw_tree(&[("100644", b"f", &blob)]);
    type RawEntry<'a> = (&'a str, &'a [u8], &'a str);
    let cases: &[(&[RawEntry<'_>], &str)] = &[
        (&[("100644", b"a", &blob), ("100644", b"a", &blob)], "a"),
        (&[("100644", b"b", &blob), ("100644", b"a", &blob)], "a"),
        (&[("100644", b"a", &blob), ("40000", b"a", &tree)], "a"),
        (&[("120000", b"a", &blob), ("40000", b"a", &tree)], "a"),
        (&[("120000", b".gitmodules", &blob)], ".gitmodules"),
        (&[("120000", b".GITMODULES ", &blob)], ".GITMODULES"),
        (&[("100666", b"odd", &blob)], "odd"),
        (&[("120000", b"link", &empty)], "link"),
        (&[("120000", b"link", &long)], "link"),
        (&[("120000", b"link", &nul)], "link"),
        (&[("100644", b"file", &tree)], &tree),
        (&[("40000", b"dir", &blob)], &blob),
        (&[("160000", b"sub\r", &blob)], "sub"),
        (&[("100644", &[b'n'; 256], &blob)], "nnn"),
    ];
    for (entries, named) in cases {
        let commit = repo.commit_raw_tree(entries);
        let fresh = World::new();
        hostile(fresh.import(&repo.spec(Some(&commit))), named);
    }
}

#[test]
fn endless_trees_are_refused() {
    let world = World::new();
    let repo = Repo::new(world.path("repo"));
    let blob = repo.object("blob", b"x");
    let mut tree = repo.raw_tree(&[("100644", b"f", &blob)]);
    for _ in 0..1100 {
        tree = repo.raw_tree(&[("40000", b"d", &tree)]);
    }
    repo.commit_raw_tree(&[("40000", b"deep", &tree)]);
    hostile(world.import_git(&repo, None), "deep/d/d/d");
    let mut tree = repo.raw_tree(&[("100644", b"f", &blob)]);
    for _ in 0..9 {
        let names: Vec<String> = (0..10).map(|i| format!("d{i}")).collect();
        let entries: Vec<_> = names.iter().map(|n| ("40000", n.as_bytes(), tree.as_str())).collect();
        tree = repo.raw_tree(&entries);
    }
    repo.commit_raw_tree(&[("40000", b"bomb", &tree)]);
    hostile(world.import_git(&repo, None), "bomb");
}

#[test]
fn a_source_that_is_not_there_or_not_git() {
    let world = World::new();
    let plain = world.path("plain");
    fs::create_dir(&plain).unwrap();
    for url in [
        plain.to_str().unwrap(),
        "/no/such/dir",
        "https://127.0.0.1:1/x.git",
        "http://u:sekret@127.0.0.1:1/x.git",
    ] {
        let spec = ImportSpec::Git { url: url.into(), reference: None };
        let error = world.import(&spec).expect_err(url);
        assert_eq!(error.reason, Reason::SourceUnavailable, "{error:?}");
        let all = format!("{error:?} {} {:?} {}", error.message(), error.metadata(), error.next_step());
        assert!(!all.contains("sekret"), "{all}");
        assert!(afs_base::resolve(&spec, &world.dirs).is_err());
    }
    for url in ["ext::sh -c touch% /tmp/owned", "--upload-pack=x", "ssh://-oProxyCommand=x/y"] {
        let spec = ImportSpec::Git { url: url.into(), reference: None };
        assert_eq!(world.import(&spec).unwrap_err().reason, Reason::InvalidArgument);
    }
}

#[test]
fn nothing_of_a_hostile_source_is_run() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    let proof = world.path("proof");
    let touch = format!("touch {}", proof.display());
    for key in [
        "core.fsmonitor",
        "core.sshCommand",
        "uploadpack.packObjectsHook",
        "core.alternateRefsCommand",
        "core.gitProxy",
        "core.askPass",
    ] {
        git(&repo.path, &["config", key, &touch]);
    }
    fs::create_dir_all(repo.path.join(".git/hooks")).unwrap();
    for hook in ["post-checkout", "pre-receive", "update", "reference-transaction", "post-index-change"] {
        let path = repo.path.join(".git/hooks").join(hook);
        fs::write(&path, format!("#!/bin/sh\n{touch}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    repo.write(".gitattributes", b"* filter=evil\n");
    git(&repo.path, &["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "add", "-A"]);
    git(&repo.path, &["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "commit", "-qm", "x"]);
    git(&repo.path, &["config", "filter.evil.smudge", &touch]);
    world.import_git(&repo, None).unwrap();
    let _ = fs::remove_file(&proof);
    afs_base::resolve(&repo.spec(Some("main~1")), &world.dirs).unwrap();
    git(
        &repo.path,
        &[
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "core.fsmonitor=false",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "y",
        ],
    );
    let _ = fs::remove_file(&proof);
    world.import_git(&repo, None).unwrap();
    assert!(!proof.exists(), "something of the source was run");
}

#[test]
fn times_stay_where_git_can_hold_them() {
    for (time, want) in
        [(0i64, 1), (4_000_000_000, NOW_NS / 1_000_000_000 - 2), (99_999_999_999, NOW_NS / 1_000_000_000 - 2)]
    {
        let world = World::new();
        let repo = Repo::new(world.path("repo"));
        let blob = repo.object("blob", b"x");
        let tree = repo.raw_tree(&[("100644", b"f", &blob)]);
        let text = format!("tree {tree}\nauthor T <t> {time} +0000\ncommitter T <t> {time} +0000\n\nm\n");
        let commit = repo.object("commit", text.as_bytes());
        fs::write(repo.path.join(".git/refs/heads/main"), format!("{commit}\n")).unwrap();
        let table = table_of(&world.import_git(&repo, None).unwrap());
        assert_eq!(find(&table, "f").unwrap().mtime_ns, want * 1_000_000_000);
        assert_eq!(find(&table, ".git/index").unwrap().mtime_ns, (want + 1) * 1_000_000_000);
        let out = world.path("out");
        world.check_out(&table, &out);
        assert_eq!(git(&out, &["status", "--porcelain"]), "");
    }
}

/// Cancels after a number of words of progress.
struct Impatient {
    left: AtomicU64,
    phases: Mutex<Vec<String>>,
}

impl Progress for Impatient {
    fn update(&self, phase: &str, _: u64, _: Option<u64>) {
        let _ = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| Some(n.saturating_sub(1)));
        self.phases.lock().unwrap().push(phase.into());
    }
    fn cancelled(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

#[test]
fn cancelling_leaves_nothing_behind_and_a_second_try_succeeds() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    let mut stopped = 0;
    for left in 0..40 {
        let progress = Impatient { left: left.into(), phases: Mutex::default() };
        let result =
            afs_base::import(&repo.spec(None), &world.dirs, &world.blobs, &SystemRng, NOW_NS, &progress);
        if let Err(e) = result {
            assert_eq!(e.reason, Reason::Unavailable, "{e:?}");
            stopped += 1;
        }
        let left: Vec<_> = fs::read_dir(&world.dirs.temp)
            .map_or(Vec::new(), |d| d.map(|e| e.unwrap().file_name()).collect());
        assert!(left.iter().all(|n| n == "lock"), "{left:?}");
    }
    assert!(stopped > 2, "{stopped}");
    let progress = Impatient { left: u64::MAX.into(), phases: Mutex::default() };
    afs_base::import(&repo.spec(None), &world.dirs, &world.blobs, &SystemRng, NOW_NS, &progress).unwrap();
    let phases = progress.phases.into_inner().unwrap();
    for phase in ["reading trees", "storing files", "writing the table"] {
        assert!(phases.iter().any(|p| p == phase), "{phase} not in {phases:?}");
    }
}

#[test]
fn imports_of_one_source_may_run_at_once() {
    let world = World::new();
    let repo = Repo::rich(world.path("repo"));
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    afs_base::import(
                        &repo.spec(None),
                        &world.dirs,
                        &world.blobs,
                        &SystemRng,
                        NOW_NS,
                        &NoProgress,
                    )
                })
            })
            .collect();
        for thread in all {
            assert_eq!(thread.join().unwrap().unwrap().upstream, Some(repo.head()));
        }
    });
}

/// The pack of a repository that has one, and its index.
fn the_pack(repo: &Repo) -> (PathBuf, PathBuf) {
    let dir = repo.path.join(".git/objects/pack");
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let pack = files.filter(|path| path.extension().is_some_and(|e| e == "pack")).collect::<Vec<_>>();
    let [pack] = &pack[..] else { panic!("{pack:?}") };
    (pack.clone(), pack.with_extension("idx"))
}

/// Changes a file that nobody may write to.
fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Puts the checksum of all before at the end, as whoever wants to be believed does; returns it.
fn seal(bytes: &mut [u8]) -> Vec<u8> {
    let at = bytes.len() - 20;
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(&bytes[..at]);
    let sum = hasher.try_finalize().unwrap().as_slice().to_vec();
    bytes[at..].copy_from_slice(&sum);
    sum
}

/// Changes the pack of a repository so that all checksums fit.
fn forge(repo: &Repo, change: impl FnOnce(&mut Vec<u8>)) {
    let (pack, idx) = the_pack(repo);
    let mut sum = Vec::new();
    rewrite(&pack, |bytes| {
        change(bytes);
        sum = seal(bytes);
    });
    rewrite(&idx, |bytes| {
        let at = bytes.len() - 40;
        bytes[at..at + 20].copy_from_slice(&sum);
        seal(bytes);
    });
}

fn small(world: &World) -> Repo {
    let repo = Repo::new(world.path("small"));
    repo.write("eight", b"8 bytes.");
    repo.write("nine", b"9 bytes..");
    repo.write("large", &noise(300_000));
    repo.commit_all("small");
    git(&repo.path, &["repack", "-adfq"]);
    repo
}

fn noise(len: usize) -> Vec<u8> {
    let mut chance = 1u32;
    let mut next = || {
        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (chance >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn an_accident_to_a_pack_is_found_before_anything_is_made_of_it() {
    let world = World::new();
    let repo = small(&world);
    let (pack, idx) = the_pack(&repo);
    for path in [&pack, &idx] {
        let flip = |bytes: &mut Vec<u8>| {
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
        };
        rewrite(path, flip);
        let error = world.import_git(&repo, None).unwrap_err();
        assert_eq!(error.reason, Reason::Corrupt, "{error:?}");
        // Repaired, it is imported: nothing of the damaged copy is left.
        rewrite(path, flip);
        world.import_git(&repo, None).unwrap();
        fs::remove_dir_all(&world.dirs.mirrors).unwrap();
    }
}

#[test]
fn a_head_that_says_nothing_is_there_is_no_empty_file() {
    let world = World::new();
    let repo = small(&world);
    let (_, offset) = find_object(&repo.path.join(".git"), &repo.rev("HEAD:eight"));
    forge(&repo, |bytes| {
        assert_eq!(bytes[offset as usize], 0x38);
        bytes[offset as usize] = 0x30;
    });
    let error = world.import_git(&repo, None).unwrap_err();
    assert!(
        error.reason == Reason::Corrupt && error.message().contains(&repo.rev("HEAD:eight")),
        "{error:?}"
    );
}

#[test]
fn an_index_that_leads_to_another_object_deceives_nobody() {
    let world = World::new();
    let repo = small(&world);
    symlink("nine", repo.path.join("link")).unwrap();
    repo.commit_all("link");
    git(&repo.path, &["repack", "-adfq"]);
    let place =
        |path: &str| find_object(&repo.path.join(".git"), &repo.rev(&format!("HEAD:{path}"))).1 as u32;
    let [eight, nine, link] = ["eight", "nine", "link"].map(place);
    let swap = |one: u32, other: u32| {
        let (_, idx) = the_pack(&repo);
        rewrite(&idx, |bytes| {
            let find = |bytes: &[u8], offset: u32| {
                let at = (0..=bytes.len() - 44).rev().find(|at| bytes[*at..*at + 4] == offset.to_be_bytes());
                at.unwrap()
            };
            let (a, b) = (find(bytes, one), find(bytes, other));
            (0..4).for_each(|i| bytes.swap(a + i, b + i));
            seal(bytes);
        });
    };
    // A file that leads to another one's bytes is imported, and refused to its readers; the others are as they were.
    swap(eight, nine);
    let table = table_of(&world.import_git(&repo, None).unwrap());
    let all = paths(&table);
    for path in ["/eight", "/nine"] {
        let error = world.blobs.read(&all[path.as_bytes()].blob.unwrap(), 0, 100).unwrap_err();
        assert!(error.reason == Reason::Corrupt, "{path}: {error:?}");
    }
    assert_eq!(world.content(&all[&b"/large"[..]]), noise(300_000));
    // With the right index of the same pack, also of another source, all is right.
    swap(eight, nine);
    let good = Repo { path: world.path("copy") };
    git(
        &world.path(""),
        &["clone", "-q", "--local", repo.path.to_str().unwrap(), good.path.to_str().unwrap()],
    );
    let table = table_of(&world.import_git(&good, None).unwrap());
    let all = paths(&table);
    assert_eq!(world.content(&all[&b"/eight"[..]]), b"8 bytes.");
    assert_eq!(world.content(&all[&b"/nine"[..]]), b"9 bytes..");
    // The target of a link is read at once, and so is this refused at once.
    fs::remove_dir_all(&world.dirs.mirrors).unwrap();
    swap(link, nine);
    let error = world.import_git(&repo, None).unwrap_err();
    assert!(error.reason == Reason::Corrupt && error.message().contains(&repo.rev("HEAD:link")), "{error:?}");
}
