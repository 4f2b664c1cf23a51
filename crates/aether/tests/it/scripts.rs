//! What people and scripts rely on, against the real server: the commands of the README as they stand there, what `--json` prints, ids on
//! stdout, exit codes, and errors that say what to do.

use crate::bed::{Bed, eventually, sh};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, pipe};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Both programs are built together; `scripts/tests.sh` does it before the tests.
fn server_program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_aether")).with_file_name("afs-server");
    assert!(program.exists(), "{} is missing: cargo build --release --workspace --bins", program.display());
    program
}

struct Real {
    child: Child,
    bed: Bed,
}

impl Real {
    fn start() -> Self {
        Self::start_as("error", |_, _| ())
    }

    /// With its own mount of all sessions at `all`, and its log in `log`.
    fn start_mounted() -> Self {
        Self::start_as("warn", |bed, command| {
            command.arg("--mount").arg(bed.path("all")).stderr(File::create(bed.path("log")).unwrap());
        })
    }

    fn start_as(log_level: &str, more: impl FnOnce(&Bed, &mut Command)) -> Self {
        let mut bed = Bed::new("");
        let mut command = Command::new(server_program());
        command.args(["dev", "--listen", "127.0.0.1:0", "--log-level", log_level, "--data"]);
        command.arg(bed.path("data")).stdout(Stdio::piped());
        more(&bed, &mut command);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let endpoint = lines.find_map(|line| {
            line.strip_prefix("endpoint:").map(|rest| rest.split_whitespace().next().unwrap().to_owned())
        });
        bed.endpoint = endpoint.unwrap();
        let repo = "git init -q -b main repo; cd repo; printf 'one\\ntwo\\n' > README.md; mkdir src; echo 'fn main() {}' > src/main.rs
                    git add -A; git commit -q -m first; git checkout -q --detach";
        sh(&bed.path(""), repo);
        Self { child, bed }
    }

    /// An id, which is all that stdout has.
    fn id(&self, args: &[&str]) -> String {
        let out = self.bed.run(args);
        assert_eq!(out.lines().count(), 1, "{args:?}: {out}");
        out.trim().to_owned()
    }

    /// A failure: its exit code, and its problem, whose next step is not empty.
    fn fails(&self, args: &[&str], code: i32, reason: &str) -> Value {
        let (got, out, err) = self.bed.try_run(&[args, &["--json"]].concat());
        assert_eq!((got, out.as_str()), (code, ""), "{args:?}: {err}");
        let problem: Value = serde_json::from_str(&err).unwrap_or_else(|e| panic!("{e}: {err}"));
        assert_eq!(problem["reason"], reason, "{args:?}: {err}");
        assert!(!problem["next_steps"][0].as_str().unwrap().is_empty(), "{err}");
        let (_, _, text) = self.bed.try_run(args);
        assert!(text.starts_with("error: ") && text.contains("\nnext: "), "{args:?}: {text}");
        problem
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The second block of "Using it": everything after the server has been started.
fn readme_commands() -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let section = readme.split("## Using it").nth(1).unwrap();
    let block = section.split("```sh\n").nth(2).unwrap().split("```").next().unwrap();
    assert!(block.contains("aether mount") && block.contains("aether promote"), "{block}");
    block.to_owned()
}

#[test]
fn the_commands_of_the_readme_work_as_they_stand_there() {
    let real = Real::start();
    let programs = server_program().parent().unwrap().display().to_string();
    let script = readme_commands()
        .replace("http://127.0.0.1:7440", &real.bed.endpoint)
        .replace("PATH-OR-URL@REF", "repo@main")
        .replace("--branch NAME", "--branch feature")
        // Something to commit, made by an ordinary tool in the mount.
        .replace("point=$(", "echo three >> workdir/README.md\npoint=$(")
        .replace("aether diff", "echo four >> workdir/README.md\naether diff");
    let home = real.bed.path("..").display().to_string();
    let env = format!(
        "export PATH={programs}:$PATH HOME={home} XDG_RUNTIME_DIR={home} XDG_STATE_HOME={home}/state\n"
    );
    let out = sh(&real.bed.path(""), &(env + &script));
    assert!(out.contains("+four") && out.contains("no mounts"), "{out}");
    let log = sh(&real.bed.path("repo"), "git log --format=%s -2 feature; git show feature:README.md");
    assert_eq!(log, "message\nfirst\none\ntwo\nthree\nfour\n");
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect()
}

const SESSION: &[&str] = &[
    "create_time",
    "display_name",
    "etag",
    "labels",
    "parent_checkpoint_id",
    "parent_session_id",
    "revision",
    "session_id",
    "source_id",
    "source_version_id",
    "state",
    "update_time",
    "usage",
];
const ENTRY: &[&str] = &[
    "etag",
    "gid",
    "inode",
    "layer",
    "link_count",
    "mode",
    "modify_time",
    "path",
    "size",
    "symlink_target",
    "type",
    "uid",
];
const CHANGE: &[&str] =
    &["binary", "kind", "lines_added", "lines_removed", "new_etag", "old_etag", "old_path", "patch", "path"];

#[test]
fn json_has_the_fields_that_are_documented() {
    let real = Real::start();
    let bed = &real.bed;
    let id = real.id(&["session", "create", "--git", "repo@main", "--label", "team=a"]);
    let check = |args: &[&str], want: &[&str]| {
        let value = bed.json(args);
        let one = if value.is_array() { value[0].clone() } else { value };
        assert_eq!(keys(&one), want, "{args:?}");
        one
    };
    let session = check(&["session", "show", &id], SESSION);
    assert_eq!((&session["revision"], &session["state"]), (&"0".into(), &"SESSION_STATE_ACTIVE".into()));
    check(&["session", "list", "--label", "team=a"], SESSION);
    check(&["session", "fork", &id, "-n", "2"], SESSION);
    let source = session["source_id"].as_str().unwrap();
    check(
        &["source", "show", source],
        &[
            "create_time",
            "display_name",
            "head_version_id",
            "import_number",
            "labels",
            "source_id",
            "spec",
            "state",
            "update_time",
        ],
    );
    check(
        &["source", "versions", source],
        &[
            "create_time",
            "file_count",
            "logical_bytes",
            "source_id",
            "stored_bytes",
            "upstream_revision",
            "version_id",
        ],
    );
    let file = format!("{id}:/a%b");
    check(&["fs", "write", &file, "--content", "x\n"], &["durability", "entry", "revision"]);
    let entry = check(&["fs", "stat", &file], ENTRY);
    assert_eq!(entry["path"], "/a%25b", "a path is told in the API's form");
    check(&["fs", "ls", &id], ENTRY);
    check(&["fs", "glob", &id, "*"], ENTRY);
    check(
        &["fs", "edit", &file, "--old", "x", "--new", "y"],
        &["diff", "durability", "entry", "replacements", "revision"],
    );
    check(
        &["fs", "grep", "^y$", &id],
        &["context_after", "context_before", "line", "path", "spans", "text", "truncated"],
    );
    check(&["diff", &id], CHANGE);
    let point = check(
        &["checkpoint", "create", &id, "--name", "p"],
        &["automatic", "checkpoint_id", "create_time", "message", "name", "revision", "session_id"],
    );
    check(
        &["checkpoint", "restore", &id, point["checkpoint_id"].as_str().unwrap()],
        &["files_changed", "revision", "safety_checkpoint_id"],
    );
    let commit = check(
        &["commit", "create", &id, "-m", "m"],
        &[
            "commit_id",
            "create_time",
            "files_changed",
            "git_oid",
            "git_tree_oid",
            "message",
            "parent_commit_ids",
            "pushed_ref",
            "revision",
            "session_id",
            "source_id",
            "source_version_id",
        ],
    );
    check(
        &["promote", commit["commit_id"].as_str().unwrap(), "--branch", "b"],
        &["branch", "git_oid", "previous_git_oid", "remote_url"],
    );
    check(&["status"], &["endpoint", "error", "mounts", "server"]);
    check(&["version"], &["api", "client", "server"]);
    check(&["session", "delete", &id], &["deleted"]);
    let (_, checks, _) = bed.try_run(&["doctor", "--json"]);
    let checks: Value = serde_json::from_str(&checks).unwrap();
    assert!(checks.as_array().unwrap().iter().any(|check| check["status"] == "ok"), "{checks}");
    for check in checks.as_array().unwrap() {
        assert_eq!(keys(check), ["message", "name", "next_step", "status"]);
        assert_eq!(check["next_step"] == "", check["status"] == "ok", "{check}");
    }
}

#[test]
fn exit_codes_and_next_steps() {
    let real = Real::start();
    let bed = &real.bed;
    let id = real.id(&["session", "create", "--git", "repo@main"]);
    real.fails(&["session", "show", "sess_nobody"], 3, "SESSION_NOT_FOUND");
    real.fails(&["fs", "cat", &format!("{id}:/nothing")], 3, "NOT_FOUND");
    real.fails(&["fs", "mkdir", &format!("{id}:/src")], 4, "ALREADY_EXISTS");
    real.fails(
        &["fs", "write", &format!("{id}:/README.md"), "--content", "x", "--if-absent"],
        4,
        "ETAG_MISMATCH",
    );
    real.fails(&["commit", "create", &id, "-m", "m"], 4, "NOTHING_TO_COMMIT");
    let failed = real.fails(&["source", "create", "--git", "/nowhere/at/all"], 6, "SOURCE_UNAVAILABLE");
    let source = failed["metadata"]["source_id"].as_str().unwrap();
    let problem = real.fails(&["session", "create", "--source", source], 4, "WRONG_STATE");
    assert!(problem["next_steps"][0].as_str().unwrap().contains("aether source refresh"), "{problem}");
    bed.run(&["session", "archive", &id]);
    let problem = real.fails(&["fs", "ls", &id], 4, "SESSION_ARCHIVED");
    assert!(
        problem["next_steps"][0].as_str().unwrap().contains(&format!("aether session resume {id}")),
        "{problem}"
    );
    bed.run(&["session", "resume", &id]);

    bed.run(&["fs", "write", &format!("{id}:/README.md"), "--content", "ours\n"]);
    let commit = real.id(&["commit", "create", &id, "-m", "ours"]);
    sh(
        &bed.path("repo"),
        "git checkout -q -b theirs; echo x > x; git add x; git commit -q -m theirs; git checkout -q --detach",
    );
    let problem = real.fails(&["promote", &commit, "--branch", "theirs"], 4, "PROMOTE_CONFLICT");
    assert!(problem["next_steps"][0].as_str().unwrap().contains("another branch"), "{problem}");
    // A script whose variable is empty: nothing is pushed anywhere.
    let (code, _, stderr) = bed.try_run(&["promote", &commit, "--branch", ""]);
    assert!(code == 2 && stderr.contains("--branch"), "{code} {stderr}");
    sh(&bed.path("repo"), "test -z \"$(git for-each-ref refs/heads/aether)\"");
    // A session where a commit is wanted: the argument is named, and what it should look like.
    let (code, _, stderr) = bed.try_run(&["promote", &id]);
    assert!(code == 2 && stderr.contains("COMMIT") && stderr.contains("cmt_"), "{stderr}");
}

#[test]
fn what_this_version_does_not_support_is_wrong_usage_and_says_what_there_is_instead() {
    let real = Real::start();
    sh(
        &real.bed.path(""),
        "git init -q --object-format=sha256 sha; cd sha; git commit -q --allow-empty -m x",
    );
    let problem = real.fails(&["session", "create", "--git", "sha"], 2, "UNSUPPORTED");
    let next = problem["next_steps"][0].as_str().unwrap();
    assert!(next.contains("SHA-1") && next.contains("--local"), "{problem}");
}

/// The first that failed kept the others, and nothing said which had been done.
#[test]
fn every_target_is_tried_and_stdout_says_what_was_done() {
    let real = Real::start();
    let bed = &real.bed;
    let (a, b) = (real.id(&["session", "create", "--empty"]), real.id(&["session", "create", "--empty"]));
    let files = ["1", "nope", "2"].map(|name| format!("{a}:/{name}"));
    let [one, nope, two] = files.each_ref().map(String::as_str);
    bed.run(&["fs", "write", one, "--content", "one\n"]);
    bed.run(&["fs", "write", two, "--content", "two\n"]);
    bed.run(&["fs", "write", "-p", &format!("{a}:/full/x"), "--content", "x"]);
    let fails = |args: &[&str], want: &str, failures: &[(&str, &str, &str)]| {
        let (code, out, err) = bed.try_run(&[args, &["--json"]].concat());
        assert_eq!((code, out.as_str()), (3, want), "{args:?}: {err}");
        assert_eq!(err.lines().count(), failures.len(), "{args:?}: {err}");
        for (line, (reason, key, target)) in err.lines().zip(failures) {
            let problem: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert_eq!(
                (&problem["reason"], &problem["metadata"][key]),
                (&(*reason).into(), &(*target).into())
            );
        }
    };
    fails(&["fs", "cat", one, nope, two], "one\ntwo\n", &[("NOT_FOUND", "target", nope)]);
    let removed = format!("{{\"removed\":[\"{one}\",\"{two}\"]}}\n");
    fails(&["fs", "rm", one, nope, two], &removed, &[("NOT_FOUND", "target", nope)]);
    // The exit code is that of the first.
    let full = format!("{a}:/full");
    let (code, _, err) = bed.try_run(&["fs", "rm", nope, &full, "--json"]);
    assert_eq!((code, err.lines().count()), (3, 2), "{err}");
    let (code, _, err) = bed.try_run(&["fs", "rm", &full, nope, "--json"]);
    assert_eq!((code, err.lines().count()), (4, 2), "{err}");
    fails(
        &["session", "delete", &a, "sess_nobody", &b],
        &format!("{{\"deleted\":[\"{a}\",\"{b}\"]}}\n"),
        &[("SESSION_NOT_FOUND", "session_id", "sess_nobody")],
    );
    assert_eq!(bed.json(&["session", "list"]), Value::Array(Vec::new()));
}

/// The server says it in fields of its API; who types commands has flags.
#[test]
fn next_steps_are_said_in_flags() {
    let real = Real::start();
    let bed = &real.bed;
    let id = real.id(&["session", "create", "--git", "repo@main"]);
    sh(&bed.path(""), "mkdir q; echo x > q/f; ln -s f q/l");
    let at = |path: &str| format!("{id}:{path}");
    bed.run(&["fs", "put", "-r", "q", &at("/q")]);
    bed.run(&["fs", "write", &at("/twice"), "--content", "a\na\n"]);
    bed.run(&["checkpoint", "create", &id]);
    let same = real.id(&["session", "create", "--git", "repo@main"]);
    for (args, want) in [
        (&["fs", "put", "q/f", &at("/no/such/f")][..], "-p"),
        (&["fs", "cp", &at("/q/f"), &at("/no/such/f")], "`aether fs mkdir -p`"),
        (&["fs", "cp", &at("/q"), &at("/r")], "-r"),
        (&["fs", "rm", &at("/q")], "-r"),
        (&["fs", "put", "-r", "q", &at("/q")], "`aether fs rm`"),
        (&["fs", "mv", &at("/twice"), &at("/q/f")], "--overwrite"),
        (&["fs", "edit", &at("/twice"), "--old", "a", "--new", "b"], "--all"),
        (&["fs", "grep", "(", &at("/")], "-F"),
        (&["commit", "create", &same, "-m", "m"], "--allow-empty"),
    ] {
        let (code, _, text) = bed.try_run(args);
        let next = text.lines().find_map(|line| line.strip_prefix("next: ")).unwrap_or_default();
        assert!(code != 0 && next.contains(want), "{args:?}: {text}");
        for field in ["create_parents", "set recursive", "allow overwriting", "replace_all", "fixed_string"] {
            assert!(!next.contains(field), "{args:?}: {text}");
        }
        let (_, _, problem) = bed.try_run(&[args, &["--json"]].concat());
        let problem: Value = serde_json::from_str(&problem).unwrap_or_else(|e| panic!("{e}: {problem}"));
        assert_eq!(problem["next_steps"][0], next, "{args:?}");
    }
}

/// `aether ... | head` has seen enough: that is no failure of the command, whichever it is. A full disk is one.
#[test]
fn a_closed_stdout_ends_every_command_quietly() {
    let real = Real::start();
    let bed = &real.bed;
    let id = real.id(&["session", "create", "--git", "repo@main"]);
    let (big, root) = (format!("{id}:/big"), format!("{id}:/"));
    let line = format!("hit{}\n", "-".repeat(60));
    fs::write(bed.path("big"), line.repeat(1 << 15)).unwrap();
    bed.run(&["fs", "put", "big", &big]);
    bed.run(&["fs", "write", &format!("{id}:/README.md"), "--content", "changed\n"]);
    let run = |args: &[&str], stdout: Stdio| {
        let output = bed.command(args).stdout(stdout).stderr(Stdio::piped()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for args in [
        &["fs", "cat", &big][..],
        &["fs", "cat", &big, &big],
        &["fs", "get", &big, "-"],
        &["fs", "ls", &root],
        &["fs", "ls", "-0", &root],
        &["fs", "tree", &root],
        &["fs", "stat", &big],
        &["fs", "glob", &root, "**"],
        &["fs", "grep", "hit", &root],
        &["fs", "manifest", &root],
        &["diff", &id, "/README.md"],
        &["diff", &id, "--json", "/README.md"],
        &["session", "list"],
        &["session", "list", "--json"],
        &["session", "show", &id],
        &["source", "list"],
        &["status"],
        &["version"],
        &["config", "show"],
        &["completion", "bash"],
        &["--help"],
    ] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        assert_eq!(run(args, writer.into()), (Some(0), String::new()), "{args:?}");
    }
    // One that reads a little first.
    let mut child =
        bed.command(&["fs", "cat", &big]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice(), first.as_str()),
        (Some(0), &b""[..], line.as_str())
    );
    for args in [&["fs", "cat", &big][..], &["session", "list"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (code, said) = run(args, full.into());
        assert!(code == Some(8) && said.contains("write to stdout"), "{args:?}: {code:?} {said}");
    }
}

#[test]
fn put_and_get_of_a_directory_count_the_same() {
    let real = Real::start();
    let id = real.id(&["session", "create", "--empty"]);
    let to = format!("{id}:/q");
    sh(&real.bed.path(""), "mkdir -p q/d/e; echo a > q/a; echo b > q/d/b; ln -s a q/l");
    // d, d/e, a, d/b, l: what is below, not the directory itself.
    let counted = serde_json::json!({ "entries": 5 });
    assert_eq!(real.bed.json(&["fs", "put", "-r", "q", &to]), counted);
    assert_eq!(real.bed.json(&["fs", "get", "-r", &to, "back"]), counted);
    sh(&real.bed.path(""), "diff -r --no-dereference q back");
}

#[test]
fn a_sparse_file_comes_back_sparse() {
    let real = Real::start();
    let bed = &real.bed;
    let id = real.id(&["session", "create", "--empty"]);
    sh(
        &bed.path(""),
        "mkdir q; truncate -s 16M q/f; printf x | dd of=q/f bs=1 seek=8388609 conv=notrunc status=none",
    );
    let taken = |name: &str| fs::metadata(bed.path(name)).unwrap().blocks() * 512;
    assert!(taken("q/f") < 1 << 20, "no holes on this file system: {}", taken("q/f"));
    bed.run(&["fs", "put", "-r", "q", &format!("{id}:/q")]);
    bed.run(&["fs", "get", "-r", &format!("{id}:/q"), "back"]);
    bed.run(&["fs", "get", &format!("{id}:/q/f"), "one"]);
    sh(&bed.path(""), "cmp q/f back/f; cmp q/f one");
    assert!(taken("back/f") < 1 << 20 && taken("one") < 1 << 20, "{} {}", taken("back/f"), taken("one"));
}

/// It was taken from under the server, which went on without it; what a server that was killed has left must go all the same.
#[test]
fn unmount_leaves_the_mount_of_a_server_to_it_while_it_runs() {
    let mut real = Real::start_mounted();
    let (all, pid) = (real.bed.path("all"), real.child.id().to_string());
    let dir = all.to_str().unwrap();
    for force in [&[][..], &["--force"]] {
        let (code, out, err) = real.bed.try_run(&[&["unmount", dir, "--json"], force].concat());
        assert_eq!((code, out.as_str()), (4, "{\"unmounted\":[]}\n"), "{err}");
        let problem: Value = serde_json::from_str(&err).unwrap_or_else(|e| panic!("{e}: {err}"));
        assert_eq!((&problem["reason"], &problem["metadata"]["dir"]), (&"IN_USE".into(), &dir.into()));
        let next = problem["next_steps"][0].as_str().unwrap();
        assert!(next.contains("stop the server") && next.contains(&pid), "{next}");
    }
    let listed = real.bed.run(&["status"]);
    assert!(listed.lines().any(|line| line.contains(dir) && line.contains(&pid)), "{listed}");
    real.child.kill().unwrap();
    real.child.wait().unwrap();
    let (code, out, err) = real.bed.try_run(&["unmount", dir, "--json"]);
    assert_eq!((code, out), (6, format!("{{\"unmounted\":[\"{dir}\"]}}\n")), "{err}");
    assert!(afs_fuse::mounts().unwrap().iter().all(|mount| mount.dir != all));
}

#[test]
fn a_server_whose_mount_is_taken_away_says_so() {
    let real = Real::start_mounted();
    let check = || {
        let (_, out, err) = real.bed.try_run(&["doctor", "--json"]);
        let checks: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        let found = checks.as_array().unwrap().iter().find(|check| check["name"] == "server mount").cloned();
        found.unwrap_or_else(|| panic!("{checks}"))
    };
    let log = || fs::read_to_string(real.bed.path("log")).unwrap();
    assert_eq!(check()["status"], "ok");
    afs_fuse::unmount_path(&real.bed.path("all"), false).unwrap();
    let found = check();
    assert_eq!(found["status"], "warning", "{found}");
    assert!(found["next_step"].as_str().unwrap().contains("restart the server"), "{found}");
    eventually("the log says it", || log().contains("taken away") && log().contains("restart the server"));
}

/// Names that are not text, and targets with `%`, go in and come out as they are.
#[test]
fn names_and_targets_of_any_bytes_survive_put_and_get() {
    let real = Real::start();
    let bed = &real.bed;
    let id = real.id(&["session", "create", "--empty"]);
    sh(&bed.path(""), "mkdir in; ln -s '100%41' in/link; printf x > \"in/$(printf 'a\\377%%42')\"");
    bed.run(&["fs", "put", "-r", "in", &format!("{id}:/in")]);
    bed.run(&["fs", "ln", "-s", "50%", &format!("{id}:/in/half")]);
    bed.run(&["fs", "get", "-r", &format!("{id}:/in"), "out"]);
    sh(
        &bed.path(""),
        "ln -s '50%' in/half; diff -r --no-dereference in out; test \"$(readlink out/link)\" = '100%41'",
    );
}

/// No line of its own, no control character, nothing that turns text around.
fn forges_nothing(what: &[&str], text: &str) {
    let is_hidden = |c: char| {
        (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.chars().any(is_hidden), "{what:?}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("forged")), "{what:?}: {text:?}");
}

/// The pipe of docs/cli.md, also after git has worked in the session.
#[test]
fn a_diff_goes_into_git_apply_whatever_git_wrote_in_the_session() {
    let real = Real::start();
    let bed = &real.bed;
    let id = real.id(&["session", "create", "--git", "repo@main"]);
    bed.run(&["fs", "write", &format!("{id}:/README.md"), "--content", "one\nthree\n"]);
    fs::write(bed.path("blob"), b"DIRC\0\xff").unwrap();
    for name in ["index", "FETCH_HEAD", "objects/ab/cdef"] {
        bed.run(&["fs", "put", "-p", "blob", &format!("{id}:/.git/{name}")]);
    }
    assert_eq!(bed.run(&["diff", &id, "--name-only"]), "M /README.md\n");
    assert_eq!(bed.run(&["diff", &id, "--stat"]), "M /README.md +1 -1\n");
    assert_eq!(bed.json(&["diff", &id])["path"], "/README.md");
    fs::write(bed.path("p"), bed.run(&["diff", &id])).unwrap();
    sh(&bed.path("repo"), "git checkout -q main; git apply --index ../p");
    assert_eq!(fs::read_to_string(bed.path("repo/README.md")).unwrap(), "one\nthree\n");
    for more in ["--include-git-dir", "/.git"] {
        let names = bed.run(&["diff", &id, "--name-only", more]);
        assert!(names.contains(" /.git/FETCH_HEAD\n") && names.contains(" /.git/index\n"), "{more}: {names}");
        assert_eq!(names.contains("README"), more == "--include-git-dir", "{names}");
    }
}

/// What agents call their files and sessions is not what a terminal obeys, nor what a script takes for a line of ours. JSON, `--null` and patches in a
/// pipe are exact all the same.
#[test]
fn names_and_messages_forge_nothing_and_are_exact_for_scripts() {
    const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\nforged \u{202e}gpj\u{9b}2J\u{2066}\r%";
    let real = Real::start();
    let bed = &real.bed;
    let label = format!("team={EVIL}");
    let id = real.id(&["session", "create", "--git", "repo@main", "--name", EVIL, "--label", &label]);
    let name = format!("x{EVIL}");
    let file = format!("{id}:/{name}");
    bed.run(&["fs", "write", &file, "--content", "hit \u{1b}[2J\n"]);
    bed.run(&["fs", "ln", "-s", EVIL, &format!("{id}:/pointer")]);
    bed.run(&["fs", "mv", &format!("{id}:/src/main.rs"), &format!("{id}:/src/{name}")]);
    let point = real.id(&["checkpoint", "create", &id, "--name", EVIL, "--message", EVIL]);
    let commit = real.id(&["commit", "create", &id, "-m", EVIL]);
    let (root, all) = (format!("{id}:/"), format!("{id}:/**"));
    for args in [
        &["fs", "ls", &root][..],
        &["fs", "ls", "-l", &root],
        &["fs", "tree", &root],
        &["fs", "stat", &file],
        &["fs", "stat", &format!("{id}:/pointer")],
        &["fs", "glob", &root, "**"],
        &["fs", "grep", "-l", "hit", &root],
        &["fs", "manifest", &root],
        &["diff", &id, "--name-only"],
        &["diff", &id, "--stat"],
        &["session", "show", &id],
        &["session", "list"],
        &["checkpoint", "list", &id],
        &["checkpoint", "show", &id, &point],
        &["commit", "list", &id],
        &["commit", "show", &commit],
    ] {
        forges_nothing(args, &bed.run(args));
        // The same in JSON, which is the exact text to who parses it.
        forges_nothing(args, &bed.run(&[args, &["--json"]].concat()));
    }
    let entries = bed.json(&["fs", "ls", &root]).as_array().unwrap().len();
    assert_eq!(bed.run(&["fs", "ls", &root]).lines().count(), entries, "one line for each entry");
    for args in
        [&["fs", "cat", &format!("{all}{EVIL}")][..], &["fs", "mkdir", &file], &["fs", "put", EVIL, &file]]
    {
        let (code, _, stderr) = bed.try_run(args);
        assert_ne!(code, 0, "{args:?}");
        forges_nothing(args, &stderr);
        forges_nothing(args, &bed.try_run(&[args, &["--json"]].concat()).2);
    }

    let listed = bed.json(&["fs", "ls", &root]);
    let path = format!("/{}", name.replace('%', "%25"));
    assert!(listed.as_array().unwrap().iter().any(|e| e["path"] == path.as_str()), "{listed}");
    let exact = |args: &[&str]| {
        let out = bed.command(args).output().unwrap().stdout;
        let out = out.strip_suffix(b"\0").unwrap_or_else(|| panic!("{args:?}: {out:?}"));
        out.split(|b| *b == 0).map(|n| String::from_utf8(n.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    let (path, moved) = (format!("/{name}"), format!("/src/{name}"));
    assert!(exact(&["fs", "ls", "-0", &root]).contains(&name));
    assert!(exact(&["fs", "glob", "--null", &root, "**"]).contains(&moved));
    assert_eq!(exact(&["fs", "grep", "-l", "-0", "hit", &root]), [path.as_str()]);
    assert_eq!(
        exact(&["diff", &id, "--name-only", "-0"]),
        ["A", "/pointer", "R", "/src/main.rs", moved.as_str(), "A", path.as_str()]
    );
    // In a pipe, content is what it is.
    assert!(bed.run(&["fs", "grep", "hit", &root]).ends_with(":1:hit \u{1b}[2J\n"));
    fs::write(bed.path("p"), bed.run(&["diff", &id])).unwrap();
    sh(&bed.path("repo"), "git checkout -q main; git apply --index ../p");
    assert_eq!(fs::read_to_string(bed.path("repo").join(&name)).unwrap(), "hit \u{1b}[2J\n");
}
