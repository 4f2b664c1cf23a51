//! From a session to git and back, held against git itself: what a commit's tree is, what it stands on, and that promoting never loses
//! somebody else's commit.

use crate::client::Client;
use crate::harness::{Server, git, git_session};
use afs_types::limits;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// A repository with everything that git can hold, and a rule that ignores what it tracks.
fn odd_repository(server: &Server) -> PathBuf {
    let repo = server.repository();
    if repo.join("sub").exists() {
        return repo;
    }
    fs::create_dir_all(repo.join("deep/er/est")).unwrap();
    fs::create_dir_all(repo.join("build")).unwrap();
    for (name, text) in [
        ("deep/one", "1"),
        ("deep/er/two", "2"),
        ("deep/er/est/three", "3"),
        ("gone", "x"),
        ("file-then-dir", "x"),
        ("mode", "x"),
        ("build/kept.o", "tracked although ignored"),
        ("swap-a", "a"),
        ("swap-b", "b"),
    ] {
        fs::write(repo.join(name), text).unwrap();
    }
    fs::create_dir_all(repo.join("dir-then-file")).unwrap();
    fs::write(repo.join("dir-then-file/x"), "x").unwrap();
    fs::write(repo.join(OsStr::from_bytes(b"caf\xe9%41")), "latin").unwrap();
    fs::write(repo.join(".gitignore"), "build/\n*.tmp\n").unwrap();
    git(&repo, &["add", "-A", "-f"]);
    git(&repo, &["update-index", "--chmod=+x", "run.sh"]);
    let commit = git(&repo, &["rev-parse", "HEAD"]);
    git(&repo, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub")]);
    fs::create_dir(repo.join("sub")).unwrap();
    git(&repo, &["commit", "-q", "-m", "odd"]);
    repo
}

/// One and the same change in a session and in a working tree.
enum Step {
    Write(&'static [u8], &'static str),
    Chmod(&'static str, u32),
    Link(&'static str, &'static str),
    Move(&'static str, &'static str),
    Mkdir(&'static str),
    Remove(&'static str),
}

fn steps() -> Vec<Step> {
    use Step::*;
    vec![
        Write(b"new/dir/file", "new\n"),
        Write(b"README.md", "# Hello\n\nchanged\n"),
        Write(b"new/caf\xe9", "latin\n"),
        Write(b"x.tmp", "ignored"),
        Write(b"build/new.o", "ignored"),
        Write(b"build/kept.o", "changed although ignored"),
        Write(b"sub/inside", "of the submodule"),
        Mkdir("empty"),
        Mkdir("empty/er"),
        Chmod("mode", 0o755),
        Chmod("run.sh", 0o644),
        Link("../README.md", "new/link"),
        Move("deep", "moved"),
        Move("moved/er/two", "two"),
        Write(b"moved/er/four", "4"),
        Move("swap-a", "swap"),
        Move("swap-b", "swap-a"),
        Move("swap", "swap-b"),
        Remove("gone"),
        Remove("file-then-dir"),
        Write(b"file-then-dir/x", "x"),
        Remove("dir-then-file"),
        Write(b"dir-then-file", "x"),
    ]
}

async fn in_session(client: &Client, id: &str, step: &Step) {
    let change = match step {
        Step::Write(path, text) => {
            let path = afs_types::SessionPath::parse(path).unwrap().to_text();
            let body = json!([{"write": {"path": path, "content": base64(text.as_bytes()), "create_parents": true}}]);
            client.ok("FileSystem.SubmitChanges", json!({"session_id": id, "changes": body})).await;
            return;
        }
        Step::Chmod(path, mode) => json!({"chmod": {"path": path, "mode": mode}}),
        Step::Link(target, path) => json!({"symlink": {"path": path, "target": target}}),
        Step::Move(from, to) => json!({"move": {"source": from, "destination": to}}),
        Step::Mkdir(path) => json!({"mkdir": {"path": path}}),
        Step::Remove(path) => json!({"remove": {"path": path, "recursive": true}}),
    };
    client.ok("FileSystem.SubmitChanges", json!({"session_id": id, "changes": [change]})).await;
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain([&0, &0]).take(3).fold(0u32, |w, b| w << 8 | u32::from(*b));
        for n in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * n)) as usize & 63] as char;
            out.push(if n <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

fn in_tree(root: &Path, step: &Step) {
    match step {
        Step::Write(path, text) => {
            let path = root.join(OsStr::from_bytes(path));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Step::Chmod(path, mode) => {
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(*mode)).unwrap();
        }
        Step::Link(target, path) => symlink(target, root.join(path)).unwrap(),
        Step::Move(from, to) => fs::rename(root.join(from), root.join(to)).unwrap(),
        Step::Mkdir(path) => fs::create_dir(root.join(path)).unwrap(),
        Step::Remove(path) if root.join(path).is_dir() => fs::remove_dir_all(root.join(path)).unwrap(),
        Step::Remove(path) => fs::remove_file(root.join(path)).unwrap(),
    }
}

async fn commit(client: &Client, id: &str, message: &str) -> Value {
    client.ok("Persistence.CreateCommit", json!({"session_id": id, "message": message})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_s_tree_is_what_git_would_add() {
    let server = Server::start().await;
    let repo = odd_repository(&server);
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        let native = server.dir.path().join(format!("native-{:?}", client.surface));
        git(
            server.dir.path(),
            &["clone", "-q", "--no-local", repo.to_str().unwrap(), native.to_str().unwrap()],
        );
        let (mut parent, mut last) = (git(&repo, &["rev-parse", "HEAD"]), String::new());
        let all = steps();
        // In three commits: what one has added, the next changes.
        for (n, part) in all.chunks(all.len().div_ceil(3)).enumerate() {
            for step in part {
                in_session(&client, id, step).await;
                in_tree(&native, step);
            }
            git(&native, &["add", "-A"]);
            let want = git(&native, &["write-tree"]);
            let made = commit(&client, id, &format!("part {n}")).await;
            let branch = format!("tree-{:?}-{n}", client.surface).to_lowercase();
            client.ok("Persistence.Promote", json!({"commit_id": made["commit_id"], "branch": branch})).await;
            let shown = |tree: &str| git(&repo, &["ls-tree", "-r", "-t", tree]);
            git(&repo, &["fetch", "-q", native.to_str().unwrap()]);
            git(&native, &["commit", "-q", "-m", "native"]);
            git(&repo, &["fetch", "-q", native.to_str().unwrap()]);
            let oid = made["git_oid"].as_str().unwrap();
            assert_eq!(made["git_tree_oid"], want, "{}\n---\n{}", shown(oid), shown(&want));
            assert_eq!(git(&repo, &["rev-parse", &format!("{oid}^")]), parent);
            assert_eq!(git(&repo, &["rev-list", "--count", "--max-parents=1", &format!("{oid}^!")]), "1");
            (parent, last) = (oid.to_owned(), branch);
        }
        git(&repo, &["fsck", "--strict", "--no-dangling"]);
        let listed = git(&repo, &["ls-tree", "-r", "--name-only", &last]);
        for absent in ["x.tmp", "build/new.o", "sub/inside", "empty"] {
            assert!(!listed.lines().any(|name| name.starts_with(absent)), "{absent}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tracked_stays_tracked_and_what_is_git_s_own_never_is() {
    let server = Server::start().await;
    let repo = odd_repository(&server);
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        client.write(id, "/out/report", b"1").await.unwrap();
        commit(&client, id, "report").await;
        // Git goes on tracking what a later rule would ignore.
        client.write(id, "/.gitignore", b"build/\n*.tmp\nout/\n").await.unwrap();
        client.write(id, "/out/report", b"2").await.unwrap();
        client.write(id, "/out/other", b"new, so ignored").await.unwrap();
        // A repository inside of the session: its files are content, its own are not.
        client.write(id, "/vendor/lib/.git/config", b"[core]\n").await.unwrap();
        client.write(id, "/vendor/lib/code", b"c").await.unwrap();
        let made = commit(&client, id, "rules").await;
        let branch = format!("tracked-{:?}", client.surface).to_lowercase();
        client.ok("Persistence.Promote", json!({"commit_id": made["commit_id"], "branch": branch})).await;
        assert_eq!(git(&repo, &["show", &format!("{branch}:out/report")]), "2");
        let names = git(&repo, &["ls-tree", "-r", "--name-only", &branch]);
        assert!(names.contains("vendor/lib/code") && !names.contains("out/other"), "{names}");
        assert!(!names.contains(".git/"), "{names}");
        let nothing = json!({"session_id": id, "message": "again"});
        assert_eq!(client.refused("Persistence.CreateCommit", nothing).await.reason, "NOTHING_TO_COMMIT");
        // Other spellings of `.git`, which some systems take for it, are refused by name, and nothing is committed.
        client.write(id, "/vendor/.GIT/hooks", b"x").await.unwrap();
        let problem =
            client.refused("Persistence.CreateCommit", json!({"session_id": id, "message": "m"})).await;
        assert_eq!(problem.reason, "INVALID_NAME");
        assert!(problem.metadata["path"].contains(".GIT"), "{problem:?}");
    }
}

/// A rule that cannot be read as a whole is no rule for a part: `.env` must not get into a commit because of what stands around it.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_ignore_files_switch_no_rule_off() {
    let server = Server::start().await;
    let repo = odd_repository(&server);
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        client.write(id, "/deep/.env", b"secret").await.unwrap();
        let bytes = "a\n".repeat(limits::MAX_IGNORE_FILE_BYTES / 2 + 1);
        let lines = "a\n".repeat(limits::MAX_IGNORE_FILE_PATTERNS + 1);
        let line = format!("[{}]\n", "[:".repeat(limits::MAX_IGNORE_PATTERN_BYTES / 2));
        for (large, limit) in [
            (bytes, limits::MAX_IGNORE_FILE_BYTES),
            (lines, limits::MAX_IGNORE_FILE_PATTERNS),
            (line, limits::MAX_IGNORE_PATTERN_BYTES),
        ] {
            client.write(id, "/deep/.gitignore", format!("{large}.env\n").as_bytes()).await.unwrap();
            let want = json!({"session_id": id, "message": "m"});
            let glob = json!({"session_id": id, "pattern": "**", "respect_gitignore": true});
            for problem in [
                client.refused("Persistence.CreateCommit", want).await,
                client.refused("FileSystem.Glob", glob).await,
            ] {
                assert_eq!(problem.reason, "FILE_TOO_LARGE");
                assert_eq!(problem.metadata["path"], "/deep/.gitignore", "{problem:?}");
                assert_eq!(problem.metadata["limit"], limit.to_string(), "{problem:?}");
            }
        }
        // All files together are bounded, too.
        let some = format!("{}.env\n", "a\n".repeat(limits::MAX_IGNORE_FILE_PATTERNS - 1));
        client.write(id, "/deep/.gitignore", some.as_bytes()).await.unwrap();
        let many = limits::MAX_IGNORES_PATTERNS / limits::MAX_IGNORE_FILE_PATTERNS;
        for n in 0..many {
            client.write(id, &format!("/many/{n}/.gitignore"), some.as_bytes()).await.unwrap();
            client.write(id, &format!("/many/{n}/x"), b"x").await.unwrap();
        }
        let want = json!({"session_id": id, "message": "m"});
        let problem = client.refused("Persistence.CreateCommit", want).await;
        assert_eq!(problem.metadata["limit"], limits::MAX_IGNORES_PATTERNS.to_string(), "{problem:?}");
        let gone = json!({"session_id": id, "path": "/many", "recursive": true});
        client.ok("FileSystem.RemovePath", gone).await;
        // Lines that never match, and one that as an expression would be larger than any program takes.
        let long = "?[a-z]".repeat(limits::MAX_IGNORE_PATTERN_BYTES / 6);
        let odd = format!("[\n{long}\n\\\n{{a\n.env\n[a-\n");
        client.write(id, "/deep/.gitignore", odd.as_bytes()).await.unwrap();
        let made = commit(&client, id, "rules").await;
        let branch = format!("hostile-{:?}", client.surface).to_lowercase();
        client.ok("Persistence.Promote", json!({"commit_id": made["commit_id"], "branch": branch})).await;
        let names = git(&repo, &["ls-tree", "-r", "--name-only", &branch]);
        assert!(names.contains("deep/.gitignore") && !names.contains(".env"), "{names}");
    }
}

/// What one commit no longer has, and a rule ignores, stays out of the next ones when it is there again: rebuilt, moved back as it was, and moved
/// back with another mode. When the rule goes, it is new like any other file.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_commit_left_out_comes_back_only_as_new_files_do() {
    use Step::*;
    let server = Server::start().await;
    let repo = server.repository();
    for (name, text) in
        [("dist/x", "x"), ("dist/y", "y"), ("keep/z", "z"), ("bin/tool", "tool"), ("log/kept", "k")]
    {
        fs::create_dir_all(repo.join(name).parent().unwrap()).unwrap();
        fs::write(repo.join(name), text).unwrap();
    }
    git(&repo, &["add", "-A"]);
    git(&repo, &["commit", "-q", "-m", "built"]);
    let parts = [
        vec![
            Remove("dist"),
            Move("keep", "away"),
            Move("bin", "elsewhere"),
            Write(b".gitignore", "dist/\nkeep/\nbin/\nlog/\n"),
        ],
        vec![
            Write(b"dist/x", "rebuilt"),
            Move("away", "keep"),
            Move("elsewhere", "bin"),
            Chmod("bin/tool", 0o755),
            Write(b"log/kept", "tracked all the time"),
            Write(b"README.md", "2"),
        ],
        vec![Write(b"README.md", "3")],
        vec![Write(b".gitignore", "dist/\n")],
    ];
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        let native = server.dir.path().join(format!("back-{:?}", client.surface));
        git(server.dir.path(), &["clone", "-q", repo.to_str().unwrap(), native.to_str().unwrap()]);
        let mut trees = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            for step in part {
                in_session(&client, id, step).await;
                in_tree(&native, step);
            }
            git(&native, &["add", "-A"]);
            git(&native, &["commit", "-q", "-m", "native"]);
            let made = commit(&client, id, &format!("part {n}")).await;
            let want = git(&native, &["rev-parse", "HEAD^{tree}"]);
            let listed = git(&native, &["ls-tree", "-r", "HEAD"]);
            assert_eq!(made["git_tree_oid"], want, "part {n}, git has\n{listed}");
            trees.push(listed);
        }
        // The test is one: git leaves out and takes back what it is about.
        for absent in ["dist/x", "keep/z", "bin/tool"] {
            assert!(trees[..3].iter().all(|t| !t.contains(absent)), "{absent}");
        }
        assert!(
            trees[1].contains("log/kept") && trees[3].contains("keep/z") && trees[3].contains("bin/tool")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_stand_one_on_the_other_also_across_forks_and_at_the_same_time() {
    let server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        let fork = async |from: Value| {
            client.ok("Session.ForkSession", from).await["sessions"][0]["session_id"].clone()
        };
        let early = fork(json!({"session_id": id})).await;
        client.write(id, "/a", b"1").await.unwrap();
        let first = commit(&client, id, "first").await;
        let late = fork(json!({"session_id": id})).await;
        let later = fork(json!({"session_id": late})).await;
        client.write(id, "/a", b"2").await.unwrap();
        commit(&client, id, "second").await;
        let of_commit = fork(json!({"session_id": id, "commit_id": first["commit_id"]})).await;
        for (fork, parent) in
            [(&early, None), (&late, Some(&first)), (&later, Some(&first)), (&of_commit, Some(&first))]
        {
            let fork = fork.as_str().unwrap();
            client.write(fork, "/b", b"fork").await.unwrap();
            let made = commit(&client, fork, "fork").await;
            let want = parent.map_or(json!([]), |c| json!([c["commit_id"]]));
            assert_eq!(made["parent_commit_ids"], want);
        }
        // Many at once: a line, not a bush.
        let many: Vec<_> = (0..8)
            .map(|n| {
                let (client, id) = (client.clone(), id.to_owned());
                tokio::spawn(async move {
                    client.write(&id, &format!("/many/{n}"), b"x").await.unwrap();
                    client
                        .call(
                            "Persistence.CreateCommit",
                            json!({"session_id": id, "message": n.to_string(), "allow_empty": true}),
                        )
                        .await
                        .unwrap()
                })
            })
            .collect();
        let mut parents = Vec::new();
        for task in many {
            parents.push(task.await.unwrap()["parent_commit_ids"][0].as_str().unwrap().to_owned());
        }
        let count = parents.len();
        parents.sort();
        parents.dedup();
        assert_eq!(parents.len(), count, "every commit has a parent of its own");
    }
}

/// Promoting and pushing to one branch at once: whoever was told that it went well is in the branch's history.
#[tokio::test(flavor = "multi_thread")]
async fn a_promote_that_races_with_pushes_loses_nobody_s_commit() {
    let server = Server::start().await;
    let seed = server.repository();
    let bare = server.dir.path().join("bare.git");
    git(server.dir.path(), &["clone", "-q", "--bare", seed.to_str().unwrap(), bare.to_str().unwrap()]);
    for client in server.both().await {
        let branch = format!("race-{:?}", client.surface).to_lowercase();
        let clone = server.dir.path().join(format!("clone-{branch}"));
        git(server.dir.path(), &["clone", "-q", bare.to_str().unwrap(), clone.to_str().unwrap()]);
        let session = git_session(&client, &bare).await;
        let id = session["session_id"].as_str().unwrap();
        let (mut told, mut conflicts) = (Vec::new(), 0);
        for round in 0..6 {
            client.write(id, "/a", format!("{round}").as_bytes()).await.unwrap();
            let made = commit(&client, id, &round.to_string()).await;
            let theirs = push_in_background(&clone, &branch, round);
            match client
                .call("Persistence.Promote", json!({"commit_id": made["commit_id"], "branch": branch}))
                .await
            {
                Ok(done) => told.push(done["git_oid"].as_str().unwrap().to_owned()),
                Err(problem) => {
                    assert_eq!(problem.reason, "PROMOTE_CONFLICT", "{problem:?}");
                    conflicts += 1;
                }
            }
            told.extend(theirs.join().unwrap());
        }
        let history = git(&bare, &["rev-list", &branch]);
        for oid in &told {
            assert!(history.contains(oid.as_str()), "{oid} was told to be in {branch}:\n{history}");
        }
        assert!(!told.is_empty() && told.len() + conflicts >= 6, "{told:?} {conflicts}");
    }
}

/// Their commit, pushed as people do: fetch, commit on top, push. Its id if the push went well.
fn push_in_background(clone: &Path, branch: &str, round: usize) -> std::thread::JoinHandle<Option<String>> {
    let (clone, branch) = (clone.to_owned(), branch.to_owned());
    std::thread::spawn(move || {
        git(&clone, &["fetch", "-q", "origin"]);
        let there = std::process::Command::new("git")
            .args(["rev-parse", "-q", "--verify", &format!("origin/{branch}")])
            .current_dir(&clone)
            .output()
            .unwrap();
        let on = if there.status.success() { format!("origin/{branch}") } else { "origin/main".into() };
        let mine = git(
            &clone,
            &["commit-tree", "-p", &on, "-m", &format!("theirs {round}"), &format!("{on}^{{tree}}")],
        );
        let pushed = std::process::Command::new("git")
            .args(["push", "-q", "origin", &format!("{mine}:refs/heads/{branch}")])
            .current_dir(&clone)
            .output()
            .unwrap();
        pushed.status.success().then_some(mine)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_checked_out_is_left_alone_and_no_hook_of_a_local_source_runs() {
    let server = Server::start().await;
    let repo = server.repository();
    let marker = server.dir.path().join("a hook ran");
    for hook in ["pre-receive", "update", "post-receive", "reference-transaction", "post-update", "pre-push"]
    {
        let file = repo.join(".git/hooks").join(hook);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, format!("#!/bin/sh\ntouch '{}'\n", marker.display())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        client.write(id, "/README.md", b"ours\n").await.unwrap();
        let made = commit(&client, id, "ours").await;
        let (head, before) = (git(&repo, &["rev-parse", "HEAD"]), fs::read(repo.join("README.md")).unwrap());
        let problem = client
            .refused("Persistence.Promote", json!({"commit_id": made["commit_id"], "branch": "main"}))
            .await;
        assert_eq!((problem.reason.as_str(), problem.status), ("PROMOTE_CONFLICT", 409));
        assert!(problem.next_steps[0].contains("another branch"), "{problem:?}");
        assert_eq!(git(&repo, &["rev-parse", "HEAD"]), head);
        assert_eq!(fs::read(repo.join("README.md")).unwrap(), before);
        for bad in ["", "-x", "a..b", "refs/heads/../x", "a b", "HEAD", "x.lock", "@{-1}"] {
            let body = json!({"commit_id": made["commit_id"], "branch": bad, "if_branch_absent": true});
            match client.call("Persistence.Promote", body).await {
                Ok(done) => {
                    assert_eq!((bad, &done["branch"]), ("", &json!(format!("aether/{id}"))), "{done}")
                }
                Err(problem) => assert_eq!(problem.violations[0].field, "branch", "{bad}: {problem:?}"),
            }
        }
    }
    // The clean-up of the test itself does not go through hooks.
    assert!(!marker.exists());
}

/// Promoting needs no luck with time: what is told is there, also when asked twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_promote_that_is_asked_again_says_the_same() {
    let server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        client.write(id, "/a", b"1").await.unwrap();
        let made = commit(&client, id, "one").await;
        let branch = format!("again-{:?}", client.surface).to_lowercase();
        let body = json!({"commit_id": made["commit_id"], "branch": branch});
        client.ok("Persistence.Promote", body.clone()).await;
        let again = client.ok("Persistence.Promote", body).await;
        assert_eq!((&again["git_oid"], &again["previous_git_oid"]), (&made["git_oid"], &made["git_oid"]));
        assert_eq!(git(&repo, &["rev-parse", &branch]), made["git_oid"].as_str().unwrap());
    }
}

/// Makes a file of a session, or makes it longer: a hole takes no bytes.
async fn stretch(client: &Client, id: &str, path: &str, size: u64) {
    client.write(id, path, b"x").await.unwrap();
    let set = json!({"session_id": id, "path": path, "size": size.to_string()});
    client.ok("FileSystem.SetAttributes", set).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_more_bytes_than_one_may_write_is_refused_before_it_reads_them() {
    let server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        stretch(&client, id, "/holes", limits::MAX_COMMIT_BYTES + 1).await;
        let want = json!({"session_id": id, "message": "all"});
        let refused = client.call("Persistence.CreateCommit", want).await.unwrap_err();
        assert_eq!(refused.reason, "FILE_TOO_LARGE", "{refused:?}");
        assert_eq!(refused.metadata["limit"], limits::MAX_COMMIT_BYTES.to_string());
        assert_eq!(refused.metadata["path"], "/holes");
        client.write(id, "/.gitignore", b"/holes\n").await.unwrap();
        commit(&client, id, "all but what is ignored").await;
    }
}

/// The longest commit that is allowed would take minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_still_reading_does_not_hold_up_the_stop() {
    let mut server = Server::start().await;
    let repo = server.repository();
    let [client, _] = server.both().await;
    let session = git_session(&client, &repo).await;
    let id = session["session_id"].as_str().unwrap().to_owned();
    stretch(&client, &id, "/holes", limits::MAX_COMMIT_BYTES / 2).await;
    let want = json!({"session_id": id, "message": "long"});
    let long = tokio::spawn(async move { client.call("Persistence.CreateCommit", want).await });
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(!long.is_finished());
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(60), server.stop()).await;
    assert!(stopped.is_ok(), "the stop waits for a commit");
    assert!(long.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_those_of_the_commit_and_not_of_all_since_the_base() {
    let server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        for n in 0..3 {
            client.write(id, &format!("/new{n}"), b"x").await.unwrap();
            let made = commit(&client, id, "one more").await;
            assert_eq!(made["files_changed"], "1", "{made}");
        }
        let body = json!({"session_id": id, "message": "nothing", "allow_empty": true});
        let empty = client.ok("Persistence.CreateCommit", body).await;
        assert_eq!(empty["files_changed"], "0", "{empty}");
        let fork = client.ok("Session.ForkSession", json!({"session_id": id})).await;
        let fork = fork["sessions"][0]["session_id"].as_str().unwrap();
        client.write(fork, "/new0", b"y").await.unwrap();
        client.write(fork, "/README.md", b"y").await.unwrap();
        let made = commit(&client, fork, "on the commit that it was forked from").await;
        assert_eq!(made["files_changed"], "2", "{made}");
        let listed = client.ok("Persistence.ListCommits", json!({"session_id": id})).await;
        let counts: Vec<_> =
            listed["commits"].as_array().unwrap().iter().map(|c| c["files_changed"].clone()).collect();
        assert_eq!(counts, ["1", "1", "1", "0"], "{listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_cannot_be_made_is_refused_for_its_name() {
    let server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        client.write(id, "/a", b"1").await.unwrap();
        let made = commit(&client, id, "one").await;
        let to = |branch: &str| json!({"commit_id": made["commit_id"], "branch": branch});
        let name = format!("named-{:?}", client.surface).to_lowercase();
        let done = client.ok("Persistence.Promote", to(&format!("refs/heads/{name}"))).await;
        assert_eq!(done["branch"], name);
        assert_eq!(
            git(&repo, &["rev-parse", &format!("refs/heads/{name}")]),
            made["git_oid"].as_str().unwrap()
        );
        let shown = client.ok("Persistence.GetCommit", json!({"commit_id": made["commit_id"]})).await;
        assert_eq!(shown["pushed_ref"], name);
        let refs = git(&repo, &["for-each-ref"]);
        let problem = client.refused("Persistence.Promote", to(&format!("{name}/sub"))).await;
        assert_eq!((problem.reason.as_str(), problem.status), ("ALREADY_EXISTS", 409), "{problem:?}");
        assert!(!problem.next_steps[0].contains("if_branch_oid"), "{problem:?}");
        let long = "x".repeat(limits::MAX_BRANCH_PART_BYTES + 1);
        for (bad, reason) in [("refs/tags/v9", "INVALID_ARGUMENT"), (long.as_str(), "NAME_TOO_LONG")] {
            let problem = client.refused("Persistence.Promote", to(bad)).await;
            assert_eq!((problem.reason.as_str(), problem.status), (reason, 400), "{problem:?}");
            assert_eq!(problem.violations[0].field, "branch", "{problem:?}");
        }
        assert_eq!(git(&repo, &["for-each-ref"]), refs);
    }
}
