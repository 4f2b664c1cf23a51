//! Checkpoints, differences, commits, promotion.

use crate::client::Client;
use crate::harness::{Server, empty_session, git, git_session};
use afs_types::SessionPath;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_brings_back_what_was() {
    let server = Server::start().await;
    for client in server.both().await {
        let id = empty_session(&client).await;
        client.write(&id, "/a", b"1").await.unwrap();
        let body =
            json!({"session_id": id, "name": "before", "request_id": format!("c-{:?}", client.surface)});
        let point = client.ok("Persistence.CreateCheckpoint", body.clone()).await;
        assert_eq!(client.ok("Persistence.CreateCheckpoint", body).await, point);
        client.write(&id, "/a", b"2").await.unwrap();
        client.write(&id, "/b", b"2").await.unwrap();

        let at = json!({"session_id": id, "path": "/a", "checkpoint_id": point["checkpoint_id"]});
        assert_eq!(client.ok("FileSystem.ReadLines", at).await["content"], "1");
        let fork = json!({"session_id": id, "checkpoint_id": point["checkpoint_id"]});
        let fork = client.ok("Session.ForkSession", fork).await["sessions"][0].clone();
        assert_eq!(fork["parent_checkpoint_id"], point["checkpoint_id"]);
        assert_eq!(client.read(fork["session_id"].as_str().unwrap(), "/a").await.unwrap(), b"1");

        let wrong = json!({"session_id": id, "checkpoint_id": point["checkpoint_id"], "if_revision": "999"});
        assert_eq!(client.refused("Persistence.RestoreCheckpoint", wrong).await.reason, "REVISION_MISMATCH");
        let restore = json!({"session_id": id, "checkpoint_id": point["checkpoint_id"]});
        let restored = client.ok("Persistence.RestoreCheckpoint", restore).await;
        assert_eq!(restored["files_changed"], "2");
        assert_eq!(client.read(&id, "/a").await.unwrap(), b"1");
        assert_eq!(client.read(&id, "/b").await.unwrap_err().reason, "NOT_FOUND");
        let back = json!({"session_id": id, "checkpoint_id": restored["safety_checkpoint_id"]});
        client.ok("Persistence.RestoreCheckpoint", back).await;
        assert_eq!(client.read(&id, "/a").await.unwrap(), b"2");

        let listed = client.ok("Persistence.ListCheckpoints", json!({"session_id": id})).await;
        assert_eq!(listed["checkpoints"].as_array().unwrap().len(), 1, "automatic ones are hidden");
        let all = client
            .ok("Persistence.ListCheckpoints", json!({"session_id": id, "include_automatic": true}))
            .await;
        assert_eq!(all["checkpoints"].as_array().unwrap().len(), 3);
        let one = json!({"session_id": id, "checkpoint_id": point["checkpoint_id"]});
        client.ok("Persistence.DeleteCheckpoint", one.clone()).await;
        assert_eq!(client.refused("Persistence.GetCheckpoint", one).await.reason, "CHECKPOINT_NOT_FOUND");
    }
}

fn paths(changes: &[Value]) -> Vec<(&str, &str)> {
    changes.iter().map(|c| (c["path"].as_str().unwrap(), c["kind"].as_str().unwrap())).collect()
}

/// Edits of every kind.
async fn work(client: &Client, id: &str) {
    client.write(id, "/README.md", b"# Hello\n\nthere\n").await.unwrap();
    client.write(id, "/new/file.txt", b"new\n").await.unwrap();
    client.write(id, "/bin", b"\0\x01").await.unwrap();
    let changes = json!({"session_id": id, "changes": [
        {"move": {"source": "/src/main.rs", "destination": "/src/lib.rs"}},
        {"remove": {"path": "/link"}},
        {"chmod": {"path": "/run.sh", "mode": 0o644}},
    ]});
    client.ok("FileSystem.SubmitChanges", changes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_is_a_patch_that_git_takes() {
    let server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        work(&client, id).await;
        let changes = client.all("Persistence.Diff", json!({"session_id": id})).await.unwrap();
        assert_eq!(
            paths(&changes),
            [
                ("/README.md", "CHANGE_KIND_MODIFIED"),
                ("/bin", "CHANGE_KIND_ADDED"),
                ("/link", "CHANGE_KIND_DELETED"),
                ("/new", "CHANGE_KIND_ADDED"),
                ("/new/file.txt", "CHANGE_KIND_ADDED"),
                ("/run.sh", "CHANGE_KIND_MODE"),
                ("/src/lib.rs", "CHANGE_KIND_RENAMED"),
            ]
        );
        assert_eq!((&changes[0]["lines_added"], &changes[0]["lines_removed"]), (&json!("1"), &json!("1")));
        assert_eq!(changes[1]["binary"], true);
        assert_eq!(changes[6]["old_path"], "/src/main.rs");

        let check = server.dir.path().join(format!("check-{:?}", client.surface));
        git(server.dir.path(), &["clone", "-q", repo.to_str().unwrap(), check.to_str().unwrap()]);
        let patch: String =
            changes.iter().filter(|c| c["binary"] == false).map(|c| c["patch"].as_str().unwrap()).collect();
        std::fs::write(check.join("p"), patch).unwrap();
        git(&check, &["apply", "--index", "p"]);
        for (path, content) in [("README.md", "# Hello\n\nthere\n"), ("new/file.txt", "new\n")] {
            assert_eq!(std::fs::read_to_string(check.join(path)).unwrap(), content);
        }
        assert!(
            check.join("src/lib.rs").exists()
                && !check.join("src/main.rs").exists()
                && !check.join("link").exists()
        );

        let some = json!({"session_id": id, "paths": ["/new"], "name_only": true});
        assert_eq!(paths(&client.all("Persistence.Diff", some).await.unwrap()).len(), 2);
        let none = client.all("Persistence.Diff", json!({"session_id": id, "base": "live"})).await.unwrap();
        assert!(none.is_empty(), "{none:?}");
        let bad =
            client.all("Persistence.Diff", json!({"session_id": id, "base": "what"})).await.unwrap_err();
        assert_eq!(bad.reason, "INVALID_ARGUMENT");
    }
}

/// What `git status`, `git fetch` and a commit in a mount leave in the session's `.git`: none of it is text, or anybody's change.
async fn as_git_does(client: &Client, id: &str) {
    let files: [(&str, &[u8]); 5] = [
        ("index", b"DIRC\0\0\0\x02\xff"),
        ("FETCH_HEAD", b"0000000000000000000000000000000000000000\tbranch 'main'\n"),
        ("logs/refs/remotes/origin/next", b"0 1 T <t@example.invalid> fetch\n"),
        ("refs/remotes/origin/next", b"0000000000000000000000000000000000000001\n"),
        ("objects/ab/cdef0123456789abcdef0123456789abcdef01", b"x\x01\0\xff\0"),
    ];
    for (name, content) in files {
        client.write(id, &format!("/.git/{name}"), content).await.unwrap();
    }
    // A repository of its own below: git keeps nothing of its `.git` either.
    client.write(id, "/sub/.git/HEAD", b"ref: refs/heads/main\n").await.unwrap();
    client.write(id, "/sub/.gitignore", b"x\n").await.unwrap();
}

async fn diff_of(client: &Client, id: &str, more: Value) -> Vec<Value> {
    let mut body = json!({"session_id": id});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.all("Persistence.Diff", body).await.unwrap()
}

/// Applies a diff as it is, with git's own `git apply`.
fn apply_in(clone: &std::path::Path, told: &[Value]) {
    let patch: String = told.iter().map(|c| c["patch"].as_str().unwrap()).collect();
    std::fs::write(clone.join(".git/p"), patch).unwrap();
    git(clone, &["apply", "--index", ".git/p"]);
}

fn is_git(change: &Value) -> bool {
    let below = |key: &str| change[key].as_str().unwrap().split('/').any(|name| name == ".git");
    below("path") || below("old_path")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_is_without_what_git_keeps_for_itself() {
    let server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        client.write(id, "/README.md", b"# Hello\n\nthere\n").await.unwrap();
        as_git_does(&client, id).await;
        let diff = async |more: Value| diff_of(&client, id, more).await;
        let told = diff(json!({})).await;
        let want = [
            ("/README.md", "CHANGE_KIND_MODIFIED"),
            ("/sub", "CHANGE_KIND_ADDED"),
            ("/sub/.gitignore", "CHANGE_KIND_ADDED"),
        ];
        assert_eq!(paths(&told), want);
        assert_eq!(paths(&diff(json!({"name_only": true})).await), want);
        assert_eq!(paths(&diff(json!({"paths": ["/"]})).await), want);

        // Whole, into git itself, as docs/cli.md shows it.
        let check = server.dir.path().join(format!("git-dir-{:?}", client.surface));
        git(server.dir.path(), &["clone", "-q", repo.to_str().unwrap(), check.to_str().unwrap()]);
        apply_in(&check, &told);
        let made = client.ok("Persistence.CreateCommit", json!({"session_id": id, "message": "m"})).await;
        assert_eq!(made["git_tree_oid"], git(&check, &["write-tree"]));

        // Who asks for it gets it.
        let all = diff(json!({"include_git_dir": true})).await;
        for path in ["/.git/FETCH_HEAD", "/.git/index", "/sub/.git/HEAD", "/README.md"] {
            assert!(all.iter().any(|c| c["path"] == path), "{path}: {all:?}");
        }
        let asked = diff(json!({"paths": ["/.git"]})).await;
        assert!(asked.len() >= 5 && asked.iter().all(is_git), "{asked:?}");
        let one = diff(json!({"paths": ["/.git/FETCH_HEAD", "/README.md"]})).await;
        assert_eq!(
            paths(&one),
            [("/.git/FETCH_HEAD", "CHANGE_KIND_ADDED"), ("/README.md", "CHANGE_KIND_MODIFIED")]
        );
        assert!(diff(json!({"paths": ["/.gitignore"]})).await.is_empty());
    }
}

/// Over the border, with what is in a directory, and next to what moves on this side of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_moved_into_or_out_of_git_s_own_is_told_by_this_side() {
    let server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        as_git_does(&client, id).await;
        let check = server.dir.path().join(format!("border-{:?}", client.surface));
        git(server.dir.path(), &["clone", "-q", repo.to_str().unwrap(), check.to_str().unwrap()]);
        let diff = async |more: Value| diff_of(&client, id, more).await;
        let apply = |told: &[Value]| apply_in(&check, told);
        client.write(id, "/.git/out/a", b"a\n").await.unwrap();
        client.write(id, "/away/b", b"b\n").await.unwrap();
        client.write(id, "/away/c", b"c\n").await.unwrap();
        let point = client.ok("Persistence.CreateCheckpoint", json!({"session_id": id})).await;
        apply(&diff(json!({})).await);
        let changes = json!({"session_id": id, "changes": [
            {"move": {"source": "/.git/out", "destination": "/out"}},
            {"move": {"source": "/away/c", "destination": "/c"}},
            {"move": {"source": "/away", "destination": "/.git/away"}},
            {"move": {"source": "/.git/index", "destination": "/.git/index.old"}},
        ]});
        client.ok("FileSystem.SubmitChanges", changes).await;
        let told = diff(json!({"base": point["checkpoint_id"]})).await;
        assert_eq!(
            paths(&told),
            [
                ("/away", "CHANGE_KIND_DELETED"),
                ("/away/b", "CHANGE_KIND_DELETED"),
                ("/c", "CHANGE_KIND_RENAMED"),
                ("/out", "CHANGE_KIND_ADDED"),
                ("/out/a", "CHANGE_KIND_ADDED"),
            ]
        );
        assert!(!told.iter().any(is_git), "{told:?}");
        apply(&told);
        let made = client.ok("Persistence.CreateCommit", json!({"session_id": id, "message": "m"})).await;
        assert_eq!(made["git_tree_oid"], git(&check, &["write-tree"]));
        let raw = diff(json!({"base": point["checkpoint_id"], "include_git_dir": true})).await;
        let moved = raw.iter().find(|c| c["path"] == "/out").unwrap();
        assert_eq!(
            (&moved["kind"], &moved["old_path"]),
            (&json!("CHANGE_KIND_RENAMED"), &json!("/.git/out"))
        );
        // A restore and a fork keep all of it.
        let fork = client.ok("Session.ForkSession", json!({"session_id": id})).await["sessions"][0].clone();
        let fork = fork["session_id"].as_str().unwrap();
        assert_eq!(client.read(fork, "/.git/away/b").await.unwrap(), b"b\n");
        let back = json!({"session_id": id, "checkpoint_id": point["checkpoint_id"]});
        client.ok("Persistence.RestoreCheckpoint", back).await;
        assert_eq!(client.read(id, "/.git/out/a").await.unwrap(), b"a\n");
    }
}

/// Two forks count their revisions from the same one on, so what each wrote has the same etag there. The bytes count.
#[tokio::test(flavor = "multi_thread")]
async fn a_diff_of_forks_goes_by_bytes_and_not_by_etags() {
    let server = Server::start().await;
    for client in server.both().await {
        let id = empty_session(&client).await;
        for path in ["/other", "/same"] {
            client.write(&id, path, b"\0").await.unwrap();
        }
        let forks = client.ok("Session.ForkSession", json!({"session_id": id, "count": 2})).await;
        let [a, b] = [0, 1].map(|n| forks["sessions"][n]["session_id"].as_str().unwrap().to_owned());
        for (fork, other) in [(&a, b"\0a"), (&b, b"\0b")] {
            client.write(fork, "/other", other).await.unwrap();
            // The same bytes in another inode.
            let remove = json!({"session_id": fork, "path": "/same"});
            client.ok("FileSystem.RemovePath", remove).await;
            client.write(fork, "/same", b"\0same").await.unwrap();
        }
        let body = json!({"session_id": a, "base": a, "target": b});
        let told = client.all("Persistence.Diff", body).await.unwrap();
        assert_eq!(paths(&told), [("/other", "CHANGE_KIND_MODIFIED"), ("/same", "CHANGE_KIND_MODIFIED")]);
        assert_eq!(told[0]["old_etag"], told[0]["new_etag"], "or the test shows nothing");
        assert_eq!((&told[0]["binary"], &told[1]["binary"]), (&json!(true), &json!(false)), "{told:?}");
    }
}

/// A commit that is looked at is all that was committed from; the git commit is what is tracked of it. Said in docs/semantics.md.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_looked_at_is_the_whole_state() {
    let server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        client.write(id, "/.gitignore", b"*.key\n").await.unwrap();
        client.write(id, "/prod.key", b"secret\n").await.unwrap();
        let made = client.ok("Persistence.CreateCommit", json!({"session_id": id, "message": "m"})).await;
        let (commit, branch) = (&made["commit_id"], format!("whole-{:?}", client.surface).to_lowercase());
        client.ok("Persistence.Promote", json!({"commit_id": commit, "branch": branch})).await;
        let names = git(&repo, &["ls-tree", "-r", "--name-only", &branch]);
        assert!(names.contains(".gitignore") && !names.contains("prod.key"), "{names}");
        let body = json!({"session_id": id, "target": commit, "name_only": true});
        let told = client.all("Persistence.Diff", body).await.unwrap();
        assert_eq!(paths(&told), [("/.gitignore", "CHANGE_KIND_ADDED"), ("/prod.key", "CHANGE_KIND_ADDED")]);
        let fork = json!({"session_id": id, "commit_id": commit});
        let fork = client.ok("Session.ForkSession", fork).await["sessions"][0]["session_id"].clone();
        assert_eq!(client.read(fork.as_str().unwrap(), "/prod.key").await.unwrap(), b"secret\n");
    }
}

/// Names of the API's own signs, of git's, and of no text; and files that became another type, or changed places.
#[tokio::test(flavor = "multi_thread")]
async fn a_diff_of_odd_names_and_types_is_a_patch_that_git_and_we_take() {
    let server = Server::start().await;
    let repo = server.repository();
    let names: [&[u8]; 4] = [b"100%.txt", b"%41 b/x", b"latin \xe4", b"tab\t\"quote\" \x1b[2J"];
    let file = |dir: &std::path::Path, name: &[u8]| dir.join(OsStr::from_bytes(name));
    for name in names {
        let at = file(&repo, name);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, "1\n2\n").unwrap();
    }
    for (name, text) in
        [("a", "one\n"), ("b", "two\n"), ("over", "under\n"), ("was-dir/x", "x\n"), ("was-file", "f\n")]
    {
        let at = repo.join(name);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, text).unwrap();
    }
    git(&repo, &["add", "-A"]);
    git(&repo, &["commit", "-q", "-m", "odd"]);
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        let body = json!({"session_id": id});
        let other = client.ok("Session.ForkSession", body.clone()).await["sessions"][0]["session_id"].clone();
        for name in names {
            let path = SessionPath::parse(name).unwrap().to_text();
            let edits = json!([{"old_text": "2\n", "new_text": "3"}]);
            client.ok("FileSystem.EditFile", json!({"session_id": id, "path": path, "edits": edits})).await;
        }
        let changes = json!({"session_id": id, "changes": [
            {"remove": {"path": "/link"}},
            {"write": {"path": "/link", "content": "ZmlsZQo="}},
            {"remove": {"path": "/run.sh"}},
            {"symlink": {"path": "/run.sh", "target": "100%25"}},
            {"remove": {"path": "/was-file"}},
            {"write": {"path": "/was-file/y", "content": "eQo=", "create_parents": true}},
            {"remove": {"path": "/was-dir", "recursive": true}},
            {"write": {"path": "/was-dir", "content": "ZAo="}},
            {"move": {"source": "/a", "destination": "/c"}},
            {"move": {"source": "/b", "destination": "/a"}},
            {"move": {"source": "/c", "destination": "/b"}},
            {"move": {"source": "/README.md", "destination": "/over", "overwrite": true}},
        ]});
        client.ok("FileSystem.SubmitChanges", changes).await;
        let told = client.all("Persistence.Diff", body).await.unwrap();
        let patch: String = told.iter().map(|c| c["patch"].as_str().unwrap()).collect();
        assert!(told.iter().all(|c| c["binary"] == false), "{patch}");
        assert!(patch.is_ascii() && !patch.contains('\x1b'), "{patch}");

        let check = server.dir.path().join(format!("odd-{:?}", client.surface));
        git(server.dir.path(), &["clone", "-q", repo.to_str().unwrap(), check.to_str().unwrap()]);
        std::fs::write(check.join(".git/p"), &patch).unwrap();
        git(&check, &["apply", "--index", ".git/p"]);
        // Git holds what the session holds: the commit's tree is the one that the patch makes.
        let made = client.ok("Persistence.CreateCommit", json!({"session_id": id, "message": "odd"})).await;
        assert_eq!(made["git_tree_oid"], git(&check, &["write-tree"]), "{patch}");

        // Our own reader takes what has no directory in the way of a file, from us and from git.
        let skip = |text: &str| -> String {
            let parts = text.split("diff --git ").filter(|p| !p.is_empty());
            let kept = parts.filter(|p| !p.contains("was-dir") && !p.contains("was-file"));
            kept.map(|p| format!("diff --git {p}")).collect()
        };
        let gits = git(&check, &["diff", "--cached", "--no-renames"]) + "\n";
        for (n, text) in [skip(&patch), skip(&gits)].into_iter().enumerate() {
            let fork = json!({"session_id": other});
            let to = client.ok("Session.ForkSession", fork).await["sessions"][0]["session_id"].clone();
            client.ok("FileSystem.ApplyPatch", json!({"session_id": to, "patch": text})).await;
            let to = to.as_str().unwrap();
            for name in names {
                let path = SessionPath::parse(name).unwrap().to_text();
                let at = json!({"session_id": to, "path": path});
                assert_eq!(client.ok("FileSystem.ReadLines", at).await["content"], "1\n3", "{n} {path}");
            }
            for (path, content) in
                [("/a", "two\n"), ("/b", "one\n"), ("/link", "file\n"), ("/over", "# Hello\n\nworld\n")]
            {
                assert_eq!(client.read(to, path).await.unwrap(), content.as_bytes(), "{n} {path}");
            }
            let link = client.ok("FileSystem.Stat", json!({"session_id": to, "path": "/run.sh"})).await;
            assert_eq!(link["symlink_target"], "100%25", "{n}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_reaches_the_repository() {
    let server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        let nothing = json!({"session_id": id, "message": "none"});
        assert_eq!(client.refused("Persistence.CreateCommit", nothing).await.reason, "NOTHING_TO_COMMIT");
        work(&client, id).await;
        let body = json!({"session_id": id, "message": "work\n\nmore", "git": {"author_name": "Ann", "author_email": "ann@example.invalid"}, "request_id": format!("k-{:?}", client.surface)});
        let commit = client.ok("Persistence.CreateCommit", body.clone()).await;
        assert_eq!(client.ok("Persistence.CreateCommit", body).await["commit_id"], commit["commit_id"]);
        assert!(commit["files_changed"].as_str().unwrap().parse::<u32>().unwrap() >= 5, "{commit}");

        let branch = format!("feature-{:?}", client.surface).to_lowercase();
        let promoted = client
            .ok("Persistence.Promote", json!({"commit_id": commit["commit_id"], "branch": branch}))
            .await;
        assert_eq!((&promoted["git_oid"], &promoted["previous_git_oid"]), (&commit["git_oid"], &json!("")));
        assert_eq!(git(&repo, &["rev-parse", &branch]), commit["git_oid"].as_str().unwrap());
        assert_eq!(
            git(&repo, &["rev-parse", &format!("{branch}^{{tree}}")]),
            commit["git_tree_oid"].as_str().unwrap()
        );
        assert_eq!(
            git(&repo, &["log", "-1", "--format=%an <%ae> %s", &branch]),
            "Ann <ann@example.invalid> work"
        );
        assert_eq!(git(&repo, &["show", &format!("{branch}:README.md")]), "# Hello\n\nthere");
        let tree = git(&repo, &["ls-tree", "-r", "--format=%(objectmode) %(path)", &branch]);
        assert_eq!(
            tree,
            "100644 README.md\n100644 bin\n100644 new/file.txt\n100644 run.sh\n100644 src/lib.rs"
        );

        client.write(id, "/later", b"more\n").await.unwrap();
        let later =
            client.ok("Persistence.CreateCommit", json!({"session_id": id, "message": "later"})).await;
        let later = &later["commit_id"];
        let absent = json!({"commit_id": later, "branch": branch, "if_branch_absent": true});
        assert_eq!(client.refused("Persistence.Promote", absent).await.reason, "PROMOTE_CONFLICT");
        let stale = json!({"commit_id": later, "branch": branch, "if_branch_oid": "0".repeat(39) + "1"});
        assert_eq!(client.refused("Persistence.Promote", stale).await.reason, "PROMOTE_CONFLICT");
        let theirs =
            git(&repo, &["commit-tree", "-p", &branch, "-m", "theirs", &format!("{branch}^{{tree}}")]);
        git(&repo, &["update-ref", &format!("refs/heads/{branch}"), &theirs]);
        let over = json!({"commit_id": later, "branch": branch});
        assert_eq!(client.refused("Persistence.Promote", over).await.reason, "PROMOTE_CONFLICT");
        assert_eq!(git(&repo, &["rev-parse", &branch]), theirs, "nobody's commit is lost");
        let lease = json!({"commit_id": later, "branch": branch, "if_branch_oid": theirs});
        assert_eq!(client.ok("Persistence.Promote", lease).await["previous_git_oid"], theirs);
        let listed = client.ok("Persistence.ListCommits", json!({"session_id": id})).await;
        assert_eq!(listed["commits"][0]["pushed_ref"], branch);
        let one = client.ok("Persistence.GetCommit", json!({"commit_id": commit["commit_id"]})).await;
        assert_eq!(one["session_id"], id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_git_sessions_commit() {
    let server = Server::start().await;
    for client in server.both().await {
        let id = empty_session(&client).await;
        client.write(&id, "/a", b"1").await.unwrap();
        let problem =
            client.refused("Persistence.CreateCommit", json!({"session_id": id, "message": "m"})).await;
        assert_eq!(problem.reason, "NOT_GIT");
        let problem =
            client.refused("Persistence.CreateCommit", json!({"session_id": id, "message": " "})).await;
        assert_eq!(problem.violations[0].field, "message");
    }
}
