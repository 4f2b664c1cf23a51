//! What git did inside of a session counts for commits: its index, submodules, repositories in the tree. Held against `git add -A` in a clone
//! that gets the same changes.
//!
//! A second clone stands for the mount: there the user's own commands run and no `git add -A`, and its files are what the session gets.

use crate::client::Client;
use crate::harness::{Server, git_session};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Git with nobody's configuration.
fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(dir)
        .args(["-c", "user.name=T", "-c", "user.email=t@example.invalid", "-c", "protocol.file.allow=always"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with three commits.
fn library(server: &Server) -> PathBuf {
    let lib = server.dir.path().join("lib");
    fs::create_dir(&lib).unwrap();
    git(&lib, &["init", "-q", "-b", "main"]);
    for text in ["one", "two", "three"] {
        fs::write(lib.join("code"), text).unwrap();
        git(&lib, &["add", "-A"]);
        git(&lib, &["commit", "-q", "-m", text]);
    }
    lib
}

struct Trio<'a> {
    client: &'a Client,
    id: String,
    mount: PathBuf,
    native: PathBuf,
}

impl<'a> Trio<'a> {
    async fn new(server: &Server, client: &'a Client, repo: &Path) -> Self {
        let session = git_session(client, repo).await;
        let id = session["session_id"].as_str().unwrap().to_owned();
        let [mount, native] = ["mount", "native"].map(|name| {
            let clone = server.dir.path().join(format!("{name}-{:?}", client.surface));
            git(server.dir.path(), &["clone", "-q", repo.to_str().unwrap(), clone.to_str().unwrap()]);
            clone
        });
        Self { client, id, mount, native }
    }

    async fn write(&self, path: &str, bytes: &[u8]) {
        self.client.write(&self.id, &format!("/{path}"), bytes).await.unwrap();
        for clone in [&self.mount, &self.native] {
            let file = clone.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
    }

    async fn remove(&self, path: &str) {
        self.remove_here(path).await;
        for clone in [&self.mount, &self.native] {
            let path = clone.join(path);
            let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            removed.unwrap();
        }
    }

    /// In the session alone.
    async fn remove_here(&self, path: &str) {
        let change = json!([{"remove": {"path": format!("/{path}"), "recursive": true}}]);
        self.client.ok("FileSystem.SubmitChanges", json!({"session_id": self.id, "changes": change})).await;
    }

    /// The same command in both clones; then the session's index is what it left.
    async fn git(&self, args: &[&str]) {
        git(&self.mount, args);
        git(&self.native, args);
        self.copy(".git/index").await;
    }

    /// Copies a file of the mount, or a directory with all that is in it, into the session.
    async fn copy(&self, path: &str) {
        let mut todo = vec![path.to_owned()];
        while let Some(path) = todo.pop() {
            let here = self.mount.join(&path);
            if !here.is_dir() {
                self.client.write(&self.id, &format!("/{path}"), &fs::read(here).unwrap()).await.unwrap();
                continue;
            }
            for item in fs::read_dir(&here).unwrap() {
                let name = item.unwrap().file_name().into_string().unwrap();
                todo.push(format!("{path}/{name}"));
            }
            let change = json!([{"mkdir": {"path": format!("/{path}"), "parents": true}}]);
            let body = json!({"session_id": self.id, "changes": change});
            self.client.ok("FileSystem.SubmitChanges", body).await;
        }
    }

    /// Copies a directory that is in neither into both clones and the session.
    async fn plant(&self, from: &Path, path: &str) {
        for clone in [&self.mount, &self.native] {
            let to = clone.join(path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let copied = Command::new("cp").arg("-r").arg(from).arg(&to).status().unwrap();
            assert!(copied.success());
            let _ = fs::remove_dir_all(to.join(".git/hooks"));
            let _ = fs::remove_dir_all(to.join("hooks"));
        }
        self.copy(path).await;
    }

    /// Commits the session, compares with git, and gives what git has: one line per entry.
    async fn commit(&self, message: &str) -> String {
        git(&self.native, &["add", "-A"]);
        let want = git(&self.native, &["write-tree"]);
        let body = json!({"session_id": self.id, "message": message, "allow_empty": true});
        let made = self.client.ok("Persistence.CreateCommit", body).await;
        let theirs = git(&self.native, &["ls-files", "-s"]);
        if made["git_tree_oid"] != want {
            let ours = self.ours(&made).await;
            panic!("{message}, {:?}: git has\n{theirs}\nand we have\n{ours}", self.client.surface);
        }
        theirs
    }

    /// Our tree, fetched through the source.
    async fn ours(&self, made: &Value) -> String {
        let branch = format!("seen-{}", made["commit_id"].as_str().unwrap());
        let body = json!({"commit_id": made["commit_id"], "branch": branch});
        self.client.ok("Persistence.Promote", body).await;
        git(&self.native, &["fetch", "-q", "--no-recurse-submodules", "origin", &branch]);
        git(&self.native, &["ls-tree", "-r", "FETCH_HEAD"])
    }
}

fn has(list: &str, path: &str) -> bool {
    list.lines().any(|line| line.split_once('\t').is_some_and(|(_, name)| name == path))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_git_staged_or_took_out_in_a_session_counts() {
    let server = Server::start().await;
    let repo = server.repository();
    for (path, text) in [(".gitignore", "*.log\n"), ("kept.log", "1"), ("gone.log", "1")] {
        fs::write(repo.join(path), text).unwrap();
    }
    git(&repo, &["add", "-A", "-f"]);
    git(&repo, &["commit", "-q", "-m", "logs"]);
    for client in server.both().await {
        let t = Trio::new(&server, &client, &repo).await;
        // An ignored file that was staged, as the only change; committed in the mount, too; then changed.
        t.write("b.log", b"1").await;
        assert!(!has(&t.commit("ignored").await, "b.log"));
        t.git(&["add", "-f", "b.log"]).await;
        assert!(has(&t.commit("staged").await, "b.log"));
        t.git(&["commit", "-q", "-m", "in the mount"]).await;
        t.write("b.log", b"2").await;
        assert!(has(&t.commit("changed").await, "b.log"));

        // Taken out, one that the base has and one that it has not; changed, they stay out.
        t.git(&["rm", "-q", "-f", "--cached", "kept.log"]).await;
        let list = t.commit("taken out").await;
        assert!(!has(&list, "kept.log") && has(&list, "b.log"));
        t.git(&["rm", "-q", "-f", "--cached", "b.log"]).await;
        assert!(!has(&t.commit("taken out, too").await, "b.log"));
        t.write("kept.log", b"2").await;
        t.write("b.log", b"3").await;
        t.write("README.md", b"changed").await;
        let list = t.commit("something else").await;
        assert!(!has(&list, "kept.log") && !has(&list, "b.log"));
        t.git(&["add", "-f", "kept.log"]).await;
        assert!(has(&t.commit("staged again").await, "kept.log"));
        // What no rule ignores is in the next commit anyway.
        t.git(&["rm", "-q", "-f", "--cached", "run.sh"]).await;
        assert!(has(&t.commit("not ignored").await, "run.sh"));

        // Only meant to be added.
        t.write("c.log", b"1").await;
        t.git(&["add", "-f", "-N", "c.log"]).await;
        assert!(has(&t.commit("meant").await, "c.log"));

        // What a commit here tracks, and the session's index does not know, stays tracked; what one no longer has, and that index still
        // holds, is new.
        t.write("later.txt", b"1").await;
        t.remove("gone.log").await;
        t.commit("not by git").await;
        t.write(".gitignore", b"*.log\nlater.txt\n").await;
        t.write("later.txt", b"2").await;
        t.write("gone.log", b"rebuilt").await;
        t.write("d.log", b"1").await;
        t.git(&["add", "-f", "d.log"]).await;
        assert!(git(&t.mount, &["ls-files"]).contains("gone.log"), "the test is of an index that holds it");
        let list = t.commit("by git").await;
        assert!(has(&list, "later.txt") && has(&list, "d.log") && !has(&list, "gone.log"));
    }
}

/// An index that cannot be gone by is no reason to refuse a commit: rules decide.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_cannot_be_read_leaves_it_to_the_rules() {
    let server = Server::start().await;
    let repo = server.repository();
    fs::write(repo.join(".gitignore"), "*.log\n").unwrap();
    fs::write(repo.join("kept.log"), "1").unwrap();
    git(&repo, &["add", "-A", "-f"]);
    git(&repo, &["commit", "-q", "-m", "logs"]);
    for client in server.both().await {
        let t = Trio::new(&server, &client, &repo).await;
        for index in [&b"DIRC"[..], b"", b"DIRC\0\0\0\x02\xff\xff\xff\xff and so on, and so on, and so on"] {
            t.client.write(&t.id, "/.git/index", index).await.unwrap();
            t.write("b.log", index).await;
            t.write("README.md", index).await;
            t.write("kept.log", index).await;
            let list = t.commit("damaged").await;
            assert!(has(&list, "kept.log") && !has(&list, "b.log"));
        }
        t.remove_here(".git/index").await;
        t.write("README.md", b"none").await;
        assert!(has(&t.commit("none").await, "kept.log"));
        // Good again, it counts again.
        t.git(&["add", "-f", "b.log"]).await;
        assert!(has(&t.commit("good").await, "b.log"));
        t.git(&["update-index", "--split-index"]).await;
        t.git(&["rm", "-q", "-f", "--cached", "b.log"]).await;
        let body = json!({"session_id": t.id, "message": "split", "allow_empty": true});
        let made = t.client.ok("Persistence.CreateCommit", body).await;
        assert!(t.ours(&made).await.contains("b.log"), "a split index decides nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submodule_is_what_is_checked_out_in_it() {
    let server = Server::start().await;
    let (repo, lib) = (server.repository(), library(&server));
    git(&repo, &["submodule", "--quiet", "add", lib.to_str().unwrap(), "sm"]);
    git(&repo, &["commit", "-q", "-m", "submodule"]);
    let [first, second, third] = ["HEAD~2", "HEAD~1", "HEAD"].map(|name| git(&lib, &["rev-parse", name]));
    let at = |list: &str, oid: &str| list.contains(&format!("160000 {oid} 0\tsm\n"));
    for client in server.both().await {
        let t = Trio::new(&server, &client, &repo).await;
        t.git(&["submodule", "--quiet", "update", "--init"]).await;
        let module = t.mount.join(".git/modules/sm");
        fs::remove_dir_all(module.join("hooks")).unwrap();
        t.copy(".git/modules").await;
        t.copy("sm").await;
        assert!(at(&t.commit("checked out").await, &third));

        // No name in the work tree changes but of what is the submodule's own.
        t.git(&["-C", "sm", "checkout", "-q", &first]).await;
        t.copy(".git/modules/sm/HEAD").await;
        assert!(at(&t.commit("another commit").await, &first));
        t.copy("sm").await;
        t.write("sm/inside", b"of the submodule").await;
        assert!(at(&t.commit("content").await, &first));

        // On a branch, in a file of its own and packed.
        t.git(&["-C", "sm", "checkout", "-q", "-f", "-B", "work", &second]).await;
        t.copy(".git/modules/sm").await;
        assert!(at(&t.commit("a branch").await, &second));
        t.git(&["-C", "sm", "branch", "-q", "-f", "other", &first]).await;
        t.git(&["-C", "sm", "checkout", "-q", "-f", "other"]).await;
        t.git(&["-C", "sm", "pack-refs", "--all"]).await;
        assert!(!module.join("refs/heads/other").exists(), "the test is of packed references");
        t.copy(".git/modules/sm").await;
        assert!(at(&t.commit("a packed branch").await, &first));

        // What is not checked out is what it was last; further down, also when the directory is another.
        for clone in [&t.mount, &t.native] {
            git(clone, &["submodule", "--quiet", "deinit", "-f", "sm"]);
        }
        for path in ["sm/.git", "sm/code", "sm/inside"] {
            t.remove_here(path).await;
        }
        assert!(at(&t.commit("emptied").await, &first));
        // Taken out of the index, nothing is left of it; also later, though the base has it and the directory is still there.
        t.git(&["rm", "-q", "-f", "--cached", "sm"]).await;
        assert!(!has(&t.commit("taken out").await, "sm"));
        t.write("README.md", b"changed").await;
        assert!(!has(&t.commit("something else").await, "sm"));
        // Staged by hand, as a merge or a pull leaves it where nothing is checked out.
        t.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{second},sm")]).await;
        assert!(at(&t.commit("staged").await, &second));
        // Moved without git, there and back: an empty directory is nothing to it.
        for (from, to) in [("sm", "elsewhere"), ("elsewhere", "sm")] {
            let change = json!([{"move": {"source": format!("/{from}"), "destination": format!("/{to}")}}]);
            t.client.ok("FileSystem.SubmitChanges", json!({"session_id": t.id, "changes": change})).await;
            fs::rename(t.native.join(from), t.native.join(to)).unwrap();
            let list = t.commit("moved").await;
            assert!(!has(&list, "sm") && !has(&list, "elsewhere"));
        }
        t.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{third},sm")]).await;
        assert!(at(&t.commit("staged again").await, &third));
        t.remove_here("sm").await;
        let mkdir = json!([{"mkdir": {"path": "/sm"}}]);
        t.client.ok("FileSystem.SubmitChanges", json!({"session_id": t.id, "changes": mkdir})).await;
        assert!(at(&t.commit("another directory").await, &third));
    }
}

/// The base has it as a submodule for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_submodule_that_becomes_a_directory_is_one_from_then_on() {
    let server = Server::start().await;
    let (repo, lib) = (server.repository(), library(&server));
    git(&repo, &["submodule", "--quiet", "add", lib.to_str().unwrap(), "sm"]);
    git(&repo, &["commit", "-q", "-m", "submodule"]);
    for client in server.both().await {
        let t = Trio::new(&server, &client, &repo).await;
        t.write("sm/file", b"of our own").await;
        t.git(&["rm", "-q", "-f", "--cached", "sm"]).await;
        t.git(&["add", "sm"]).await;
        let list = t.commit("files now").await;
        assert!(has(&list, "sm/file") && !list.contains("160000"), "{list}");
        // The index that the next commit compares with says nothing of it any more.
        t.write("sm/other", b"more").await;
        let list = t.commit("another").await;
        assert!(has(&list, "sm/file") && has(&list, "sm/other"), "{list}");
        t.remove("sm/file").await;
        let list = t.commit("one less").await;
        assert!(!has(&list, "sm/file") && has(&list, "sm/other"), "{list}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_in_the_tree_is_a_submodule_as_git_takes_it_for_one() {
    let server = Server::start().await;
    let (repo, lib) = (server.repository(), library(&server));
    let [first, second] = ["HEAD^", "HEAD"].map(|name| git(&lib, &["rev-parse", name]));
    for client in server.both().await {
        let t = Trio::new(&server, &client, &repo).await;
        let at = |list: &str, oid: &str| list.contains(&format!("160000 {oid} 0\tvendor/lib"));
        t.plant(&lib, "vendor/lib").await;
        let list = t.commit("new").await;
        assert!(at(&list, &second) && !has(&list, "vendor/lib/code"));
        t.write("vendor/lib/more", b"of that repository").await;
        assert!(at(&t.commit("content").await, &second));
        for clone in [&t.mount, &t.native] {
            git(&clone.join("vendor/lib"), &["checkout", "-q", &first]);
        }
        t.copy("vendor/lib/.git/HEAD").await;
        assert!(at(&t.commit("another commit").await, &first));
        // Git goes on to take it for one when it is none any more.
        t.remove("vendor/lib/.git").await;
        assert!(at(&t.commit("none any more").await, &first));

        // Ignored, and one in another.
        t.write(".gitignore", b"/skipped/\n").await;
        t.plant(&lib, "skipped/lib").await;
        t.plant(&lib, "outer").await;
        t.plant(&lib, "outer/inner").await;
        let list = t.commit("ignored").await;
        assert!(has(&list, "outer") && !list.contains("skipped") && !list.contains("inner"));

        // What is tracked in a directory stays, and takes new files with it.
        t.plant(&lib.join(".git"), "src/.git").await;
        t.write("src/new.rs", b"1").await;
        let list = t.commit("tracked below").await;
        assert!(has(&list, "src/main.rs") && has(&list, "src/new.rs"));
    }
}

/// Nothing outside of the session is ever asked what is checked out: such a directory is one as any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_looked_for_in_the_session_alone() {
    let server = Server::start().await;
    let (repo, lib) = (server.repository(), library(&server));
    let outside = lib.join(".git");
    let outside = outside.to_str().unwrap();
    for client in server.both().await {
        let t = Trio::new(&server, &client, &repo).await;
        let up = format!("{}{outside}", "../".repeat(20));
        for (n, target) in [outside, &up, "", "\0", "../.git/nothing"].iter().enumerate() {
            let write = async |name: &str, text: &str| {
                t.client.write(&t.id, &format!("/odd/{n}/{name}"), text.as_bytes()).await.unwrap();
            };
            write(".git", &format!("gitdir: {target}\n")).await;
            write("file", "1").await;
        }
        // A head that leads out, one that leads to itself, and one that is nothing.
        for (n, head) in
            ["ref: refs/../../../lib/.git/HEAD", "ref: refs/heads/loop", "gibberish"].iter().enumerate()
        {
            let write = async |name: &str, text: &str| {
                t.client.write(&t.id, &format!("/head/{n}/{name}"), text.as_bytes()).await.unwrap();
            };
            write(".git/HEAD", head).await;
            write(".git/objects/x", "").await;
            write(".git/refs/heads/loop", "ref: refs/heads/loop").await;
            write("file", "1").await;
        }
        let body = json!({"session_id": t.id, "message": "odd"});
        let made = t.client.ok("Persistence.CreateCommit", body).await;
        let list = t.ours(&made).await;
        assert_eq!(list.matches("/file").count(), 8, "{list}");
        assert!(!list.contains("160000"), "{list}");
    }
}
