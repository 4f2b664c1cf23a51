//! Real git, which the unit tests of this crate compare with. Nothing of the developer's own settings has a say.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a command printed, and how it ended. One that ends before it has read all of its input is no failure of the test.
pub(crate) fn try_git(dir: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut git = Command::new("git")
        .current_dir(dir)
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = git.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // Beside the reading: with much input and output neither side would go on.
        scope.spawn(move || drop(stdin.write_all(input)));
        git.wait_with_output().unwrap()
    })
}

/// What a command printed that must succeed.
pub(crate) fn git(dir: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    let output = try_git(dir, args, input);
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
