//! What `.gitattributes` make of files that are committed, held against `git add -A` in a clone that gets the same changes.

use crate::client::{Client, Surface};
use crate::harness::{Server, git_session};
use afs_types::{Clock as _, SystemClock, limits};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Git with nobody's configuration.
fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(dir)
        .args(["-c", "user.name=T", "-c", "user.email=t@example.invalid"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A session and a clone that get the same changes.
struct Pair<'a> {
    client: &'a Client,
    id: String,
    native: PathBuf,
    /// Written since the last commit.
    fresh: BTreeSet<String>,
}

impl<'a> Pair<'a> {
    async fn new(server: &Server, client: &'a Client, repo: &Path) -> Self {
        let session = git_session(client, repo).await;
        let id = session["session_id"].as_str().unwrap().to_owned();
        let native = server.dir.path().join(format!("native-{:?}", client.surface));
        git(server.dir.path(), &["clone", "-q", repo.to_str().unwrap(), native.to_str().unwrap()]);
        let tracked = git(&native, &["ls-files"]).lines().map(str::to_owned).collect();
        let pair = Self { client, id, native, fresh: tracked };
        pair.age();
        pair
    }

    /// A file that is as young as the index is looked at again, under the attributes of then: nothing here may depend on the second it is in.
    fn age(&self) {
        let now = Duration::from_nanos(SystemClock.now_ns().unsigned_abs());
        let then = SystemTime::UNIX_EPOCH + now - Duration::from_secs(100);
        for path in &self.fresh {
            let path = self.native.join(path);
            if path.symlink_metadata().is_ok_and(|m| m.is_file()) {
                fs::File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
            }
        }
        git(&self.native, &["update-index", "--refresh"]);
    }

    async fn change(&self, change: Value) {
        self.client.ok("FileSystem.SubmitChanges", json!({"session_id": self.id, "changes": [change]})).await;
    }

    async fn write(&mut self, path: &str, bytes: &[u8]) {
        self.client.write(&self.id, &format!("/{path}"), bytes).await.unwrap();
        let file = self.native.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
        self.fresh.insert(path.to_owned());
    }

    async fn rename(&mut self, from: &str, to: &str) {
        self.change(json!({"move": {"source": format!("/{from}"), "destination": format!("/{to}")}})).await;
        fs::rename(self.native.join(from), self.native.join(to)).unwrap();
    }

    async fn remove(&mut self, path: &str) {
        self.change(json!({"remove": {"path": format!("/{path}")}})).await;
        fs::remove_file(self.native.join(path)).unwrap();
    }

    async fn chmod(&mut self, path: &str, mode: u32) {
        self.change(json!({"chmod": {"path": format!("/{path}"), "mode": mode}})).await;
        fs::set_permissions(self.native.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Commits both, and compares.
    async fn commit(&mut self, message: &str) -> Value {
        git(&self.native, &["add", "-A"]);
        let want = git(&self.native, &["write-tree"]);
        let body = json!({"session_id": self.id, "message": message, "allow_empty": true});
        let made = self.client.ok("Persistence.CreateCommit", body).await;
        if made["git_tree_oid"] != want {
            let theirs = git(&self.native, &["ls-files", "-s"]);
            let ours = self.ours(&made).await;
            let differ: Vec<_> = theirs.lines().filter(|line| !ours.iter().any(|o| o == line)).collect();
            panic!("{message}, {:?}: git has, and we have not:\n{}", self.client.surface, differ.join("\n"));
        }
        self.age();
        self.fresh.clear();
        made
    }

    /// Our tree as `ls-files -s` shows it, fetched through the source.
    async fn ours(&self, made: &Value) -> Vec<String> {
        let branch = format!("seen-{}", made["commit_id"].as_str().unwrap());
        let body = json!({"commit_id": made["commit_id"], "branch": branch});
        self.client.ok("Persistence.Promote", body).await;
        git(&self.native, &["fetch", "-q", "origin", &branch]);
        let list = git(&self.native, &["ls-tree", "-r", "FETCH_HEAD"]);
        list.lines().map(|line| line.replace(" blob ", " ").replacen('\t', " 0\t", 1)).collect()
    }

    /// How many files of the clone are something else in git than in the work tree, but for those in another encoding.
    fn converted(&self) -> usize {
        let staged = git(&self.native, &["ls-files", "-s"]);
        let files = staged.lines().filter_map(|line| line.strip_prefix("100")?.split_once('\t'));
        let files: Vec<_> =
            files.filter(|(_, path)| !path.ends_with(".u16") && !path.ends_with(".latin")).collect();
        let mut args = vec!["hash-object", "--no-filters"];
        args.extend(files.iter().map(|(_, path)| *path));
        let raw = git(&self.native, &args);
        assert_eq!(raw.lines().count(), files.len());
        files
            .iter()
            .zip(raw.lines())
            .filter(|((entry, _), raw)| entry.split(' ').nth(1) != Some(*raw))
            .count()
    }
}

struct Dice(u64);

impl Dice {
    fn next(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.next(of.len())]
    }

    /// Mostly text, with everything that git looks for.
    fn content(&mut self) -> Vec<u8> {
        let rare: [&[u8]; 6] = [b"\r", b"\0", b"\x01", b"\x1a", b"$Id: 7\n$", b"caf\xe9"];
        let usual: [&[u8]; 7] =
            [b"\r\n", b"a\r\n", b"b\r\n", b"c\n", b"$Id$", b"$Id: x $ y", b"some more text, as it is "];
        let ends = self.one(&[&b"\r\n"[..], b"\r\n", b"\n", b""]);
        let mut out: Vec<u8> = (0..self.next(6)).flat_map(|_| self.one(&usual).to_vec()).collect();
        if self.next(6) == 0 {
            out.extend_from_slice(self.one(&rare));
        }
        out.extend_from_slice(ends);
        out
    }

    fn lines(&mut self, is_root: bool) -> String {
        let names = [
            "*", "*", "*", "f*", "f*", "f1", "/f2", "f[0-3]", "d?/f4", "**/f5", "g*", "\"f6\"", "!f7", "f8/",
            "d0/**",
        ];
        let words = [
            "text",
            "text",
            "text",
            "eol=lf",
            "-text",
            "!text",
            "text=auto",
            "text=auto",
            "eol=lf",
            "eol=crlf",
            "crlf",
            "-crlf",
            "ident",
            "-ident",
            "binary",
            "-binary",
            "lines",
            "-lines",
            "filter=none",
            "b!d",
        ];
        let mut out = if is_root {
            self.one(&["[attr]lines text=auto ident\n", "[attr]lines -text\n", ""])
        } else {
            ""
        }
        .to_owned();
        for _ in 0..1 + self.next(4) {
            out += self.one(&names);
            (0..1 + self.next(3)).for_each(|_| out = format!("{out} {}", self.one(&words)));
            out += "\n";
        }
        // Bytes in another encoding have to be what their line says.
        out + "*.u16 working-tree-encoding=UTF-16 text\n*.latin working-tree-encoding=latin-1\n"
    }

    /// Some changes to both, each file at most once.
    async fn changes(&mut self, pair: &mut Pair<'_>, files: &mut BTreeMap<String, bool>, round: usize) {
        if self.next(2) == 0 {
            let text = self.lines(true);
            pair.write(".gitattributes", text.as_bytes()).await;
        }
        let dir = format!("d{}", self.next(6));
        let text = self.lines(false);
        pair.write(&format!("{dir}/.gitattributes"), text.as_bytes()).await;
        for (n, path) in files.keys().cloned().collect::<Vec<_>>().into_iter().enumerate() {
            match self.next(12) {
                0..3 => pair.write(&path, &self.content()).await,
                3 => {
                    let to = format!("{}/g{round}-{n}", path.split('/').next().unwrap());
                    pair.rename(&path, &to).await;
                    let mode = files.remove(&path).unwrap();
                    files.insert(to, mode);
                }
                4 => {
                    let is_executable = !files[&path];
                    pair.chmod(&path, if is_executable { 0o755 } else { 0o644 }).await;
                    files.insert(path, is_executable);
                }
                5 => {
                    pair.remove(&path).await;
                    files.remove(&path);
                }
                _ => {}
            }
        }
        for n in 0..4 {
            let path = format!("d{}/f{}", self.next(6), 10 * (round + 1) + n);
            pair.write(&path, &self.content()).await;
            files.insert(path, false);
        }
        let text = format!("caf\u{e9}{round}\r\n\u{1f600}\r\n");
        let utf16: Vec<u8> =
            [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        pair.write(&format!("{dir}/text.u16"), &utf16).await;
        pair.write(&format!("{dir}/text.latin"), &[0xe9, b'\r', b'\n', b'0' + round as u8]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_attributes_convert_as_git_add_does() {
    let server = Server::start().await;
    let repo = server.repository();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut tracked = BTreeMap::new();
    // Tracked as they are, without any attributes.
    for n in 0..48 {
        let path = format!("d{}/f{}", n % 6, n / 6);
        fs::create_dir_all(repo.join(&path).parent().unwrap()).unwrap();
        fs::write(repo.join(&path), dice.content()).unwrap();
        tracked.insert(path, false);
    }
    git(&repo, &["add", "-A"]);
    git(&repo, &["commit", "-q", "-m", "raw"]);
    for client in server.both().await {
        let (mut pair, mut files) = (Pair::new(&server, &client, &repo).await, tracked.clone());
        let mut converted = 0;
        for round in 0..8 {
            dice.changes(&mut pair, &mut files, round).await;
            if round == 5 {
                pair.rename("d1", "d9").await;
                files = files.into_iter().map(|(path, x)| (path.replacen("d1/", "d9/", 1), x)).collect();
                pair.fresh = pair.fresh.iter().map(|path| path.replacen("d1/", "d9/", 1)).collect();
            }
            pair.commit(&format!("round {round}")).await;
            converted += pair.converted();
        }
        assert!(converted > 20, "next to nothing is converted: {converted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_converts_what_is_new_and_leaves_the_rest() {
    let server = Server::start().await;
    let repo = server.repository();
    for name in ["kept", "moved", "auto", "mode", "sub/x"] {
        fs::create_dir_all(repo.join(name).parent().unwrap()).unwrap();
        fs::write(repo.join(name), "a\r\nb\r\n").unwrap();
    }
    git(&repo, &["add", "-A"]);
    git(&repo, &["commit", "-q", "-m", "raw"]);
    for client in server.both().await {
        let mut pair = Pair::new(&server, &client, &repo).await;
        let shown = async |pair: &Pair<'_>, made: &Value, path: &str| {
            let ours = pair.ours(made).await;
            let line = ours.iter().find(|line| line.ends_with(&format!("\t{path}"))).unwrap();
            let oid = line.split(' ').nth(1).unwrap();
            let blob = Command::new("git")
                .args(["cat-file", "blob", oid])
                .current_dir(&pair.native)
                .output()
                .unwrap();
            String::from_utf8(blob.stdout).unwrap()
        };
        pair.write(".gitattributes", b"* text=auto\nmode text\n*.x filter=evil\n").await;
        pair.write("crlf", b"x\r\ny\r\n").await;
        pair.write("auto", b"a\r\nb\r\nc\r\n").await;
        pair.write("a.x", b"x\r\n").await;
        pair.rename("moved", "here").await;
        pair.chmod("mode", 0o755).await;
        let made = pair.commit("auto").await;
        // What was tracked with them keeps them, but not under another name, nor where a line says that it is text.
        for (path, want) in [
            ("crlf", "x\ny\n"),
            ("auto", "a\r\nb\r\nc\r\n"),
            ("kept", "a\r\nb\r\n"),
            ("here", "a\nb\n"),
            ("mode", "a\nb\n"),
            ("a.x", "x\n"),
        ] {
            assert_eq!(shown(&pair, &made, path).await, want, "{path}");
        }
        // Back under the old name it is new again; what nobody touched is what it was at the last commit, whatever attributes say now.
        pair.rename("here", "moved").await;
        // What is again as it was in the base counts as changed.
        pair.chmod("mode", 0o644).await;
        pair.write(".gitattributes", b"moved eol=crlf\nmode text\n").await;
        pair.write("later", b"z\r\n").await;
        let made = pair.commit("none").await;
        for (path, want) in [("moved", "a\nb\n"), ("mode", "a\nb\n"), ("crlf", "x\ny\n"), ("later", "z\r\n")]
        {
            assert_eq!(shown(&pair, &made, path).await, want, "{path}");
        }
        // Those of a directory count most there.
        pair.write("sub/.gitattributes", b"* text ident\n").await;
        pair.write("sub/x", b"$Id: 1 $\r\n").await;
        pair.write("y", b"$Id: 1 $\r\n").await;
        let made = pair.commit("sub").await;
        assert_eq!(shown(&pair, &made, "sub/x").await, "$Id$\n");
        assert_eq!(shown(&pair, &made, "y").await, "$Id: 1 $\r\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_attributes_end_a_commit_by_name() {
    let server = Server::start().await;
    let repo = server.repository();
    for client in server.both().await {
        let session = git_session(&client, &repo).await;
        let id = session["session_id"].as_str().unwrap();
        let refused = async || {
            client.refused("Persistence.CreateCommit", json!({"session_id": id, "message": "m"})).await
        };
        client.write(id, "/deep/x", b"x\r\n").await.unwrap();
        let bytes = "#\n".repeat(limits::MAX_ATTRIBUTES_FILE_BYTES / 2 + 1);
        let lines = "a b\n".repeat(limits::MAX_ATTRIBUTES_FILE_LINES + 1);
        for (large, limit) in
            [(bytes, limits::MAX_ATTRIBUTES_FILE_BYTES), (lines, limits::MAX_ATTRIBUTES_FILE_LINES)]
        {
            client.write(id, "/deep/.gitattributes", large.as_bytes()).await.unwrap();
            let problem = refused().await;
            assert_eq!(problem.reason, "FILE_TOO_LARGE");
            assert_eq!(problem.metadata["path"], "/deep/.gitattributes", "{problem:?}");
            assert_eq!(problem.metadata["limit"], limit.to_string(), "{problem:?}");
        }
        // All files together are bounded, too.
        let most = "a b\n".repeat(limits::MAX_ATTRIBUTES_FILE_LINES);
        client.write(id, "/deep/.gitattributes", most.as_bytes()).await.unwrap();
        for n in 0..limits::MAX_ATTRIBUTES_LINES / limits::MAX_ATTRIBUTES_FILE_LINES {
            client.write(id, &format!("/many/{n}/.gitattributes"), most.as_bytes()).await.unwrap();
        }
        let problem = refused().await;
        assert_eq!(problem.metadata["limit"], limits::MAX_ATTRIBUTES_LINES.to_string(), "{problem:?}");
        let gone = json!({"session_id": id, "path": "/many", "recursive": true});
        client.ok("FileSystem.RemovePath", gone).await;
        // Encodings that git would refuse for these bytes, and one that is not read here.
        for (line, reason) in [
            ("x working-tree-encoding=UTF-16\n", "NOT_TEXT"),
            ("x working-tree-encoding=UTF-32LE\n", "NOT_TEXT"),
            ("x working-tree-encoding=EBCDIC\n", "UNSUPPORTED"),
            ("x working-tree-encoding\n", "UNSUPPORTED"),
        ] {
            client.write(id, "/deep/.gitattributes", line.as_bytes()).await.unwrap();
            let problem = refused().await;
            assert_eq!(problem.reason, reason, "{line:?} {problem:?}");
            assert_eq!(problem.metadata["path"], "/deep/x", "{problem:?}");
        }
        client.write(id, "/deep/.gitattributes", b"x -text ident\n").await.unwrap();
        let endless = format!("$Id:{}", "x".repeat(limits::MAX_IDENT_BYTES));
        client.write(id, "/deep/x", endless.as_bytes()).await.unwrap();
        let problem = refused().await;
        assert_eq!(problem.reason, "FILE_TOO_LARGE");
        assert_eq!(problem.metadata["limit"], limits::MAX_IDENT_BYTES.to_string(), "{problem:?}");
    }
}

/// Files of any size are converted in pieces.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_larger_than_any_that_is_kept_in_memory_is_converted() {
    let server = Server::start().await;
    let repo = server.repository();
    let clients = server.both().await;
    let client = clients.iter().find(|c| c.surface == Surface::Http).unwrap();
    let mut pair = Pair::new(&server, client, &repo).await;
    let text = "a line that ends as on Windows\r\n".repeat(limits::MAX_TEXT_FILE_BYTES as usize / 32 + 1);
    assert!(text.len() as u64 > limits::MAX_TEXT_FILE_BYTES);
    pair.write(".gitattributes", b"* text=auto\n").await;
    pair.write("large", text.as_bytes()).await;
    pair.commit("large").await;
    assert_eq!(pair.converted(), 1);
}
