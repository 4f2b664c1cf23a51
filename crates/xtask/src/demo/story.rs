//! What the demo shows, step by step.

use super::FORKS;
use super::programs::Programs;
use crate::out::line;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const BRANCH: &str = "aetherfs-demo";

/// What is there when the story is told.
pub(crate) struct Told {
    pub(crate) session: String,
    pub(crate) mount: PathBuf,
    fork: String,
}

impl Told {
    /// Commands to type.
    pub(crate) fn next(&self, target: &Path) -> Vec<String> {
        let aether = target.join("release/aether");
        let Self { session, fork, .. } = self;
        let commands =
            ["session list", &format!("fs ls {fork}:/"), &format!("diff {session}"), "status", "doctor"];
        let mut next: Vec<String> =
            commands.iter().map(|command| format!("{} {command}", aether.display())).collect();
        next.push(format!("{} mount --session {fork} /mnt", aether.display()));
        next
    }
}

/// Runs a step and prints how long it took.
fn step<T>(title: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let result = run().with_context(|| title.to_owned())?;
    line!("[{:>9.1} ms] {title}", started.elapsed().as_secs_f64() * 1e3);
    Ok(result)
}

/// Prints what a tool printed, a few lines of it.
fn show(text: &str) {
    for shown in text.lines().take(8) {
        line!("               {shown}");
    }
    let more = text.lines().count().saturating_sub(8);
    if more > 0 {
        line!("               ... and {more} lines more");
    }
}

/// The first string with this name, wherever it is in the answer.
fn field(answer: &Value, name: &str) -> Option<String> {
    match answer {
        Value::Object(map) => match map.get(name) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            _ => map.values().find_map(|value| field(value, name)),
        },
        Value::Array(values) => values.iter().find_map(|value| field(value, name)),
        _ => None,
    }
}

fn id(answer: &Value, name: &str) -> Result<String> {
    field(answer, name).with_context(|| format!("the answer has no {name}: {answer}"))
}

/// A command line in the mounted session, run by the shell.
fn tool(at: &Path, script: &str) -> Result<String> {
    let output = Command::new("sh").args(["-euc", script]).current_dir(at).output().context("start sh")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script}: {}\n{errors}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn tell(programs: &mut Programs, repository: &Path, home: &Path) -> Result<Told> {
    let source = step("imported the repository: an immutable base, stored once", || {
        let path = repository.to_string_lossy();
        id(&programs.aether(&["source", "create", "--git", &path])?, "source_id")
    })?;
    let session = step("created a session on it", || {
        id(&programs.aether(&["session", "create", "--source", &source])?, "session_id")
    })?;
    let fork = step(&format!("forked it {FORKS} times in one call"), || {
        let answer = programs.aether(&["session", "fork", &session, "-n", &FORKS.to_string()])?;
        let forks = answer.get("sessions").or(Some(&answer)).and_then(Value::as_array).map_or(0, Vec::len);
        ensure!(forks == FORKS, "{forks} forks instead of {FORKS}: {answer}");
        id(&answer, "session_id")
    })?;
    let mount = step("mounted the session as a directory", || programs.mount(&session))?;
    work(&mount)?;
    checkpoint(programs, &session, &mount)?;
    deliver(programs, &session, &mount, repository, home)?;
    Ok(Told { session, mount, fork })
}

/// Ordinary tools in the mounted session.
fn work(mount: &Path) -> Result<()> {
    step("git status in the fresh session: clean", || {
        let status = tool(mount, "git status --short")?;
        ensure!(status.is_empty(), "a fresh session is not clean:\n{status}");
        Ok(())
    })?;
    step("edited files with sed, a shell and mkdir", || {
        let first = tool(mount, "git ls-files | head -n 1")?;
        ensure!(!first.trim().is_empty(), "the repository tracks no file");
        tool(
            mount,
            "f=$(git ls-files -s | sed -n 's/^100[0-9]* [0-9a-f]* 0\\t//p' | head -n 1); sed -i '1i a line added in a session' \"$f\"",
        )?;
        tool(
            mount,
            "mkdir -p notes && printf 'made in a session\\n' > notes/demo.txt && ln -s demo.txt notes/link",
        )
    })?;
    let status = step("git status", || tool(mount, "git status --short"))?;
    show(&status);
    let diff = step("git diff", || tool(mount, "git --no-pager diff --stat"))?;
    show(&diff);
    ensure!(status.lines().count() >= 2 && !diff.is_empty(), "git does not see the edits");
    Ok(())
}

/// A checkpoint, a disaster, and the way back.
fn checkpoint(programs: &Programs, session: &str, mount: &Path) -> Result<()> {
    let before = tool(mount, "git status --short")?;
    let checkpoint = step("made a checkpoint", || {
        id(&programs.aether(&["checkpoint", "create", session])?, "checkpoint_id")
    })?;
    step("deleted everything that git tracks", || {
        tool(mount, "git ls-files -z | xargs -0 rm -f && rm -r notes")
    })?;
    step("restored the checkpoint; the mount shows it at once", || {
        programs.aether(&["checkpoint", "restore", session, &checkpoint])?;
        let after = tool(mount, "git status --short")?;
        ensure!(before == after, "the restored session is not as it was:\n{before}---\n{after}");
        Ok(())
    })
}

/// A git commit made from the session, pushed to a branch, and what a colleague would see.
fn deliver(programs: &Programs, session: &str, mount: &Path, repository: &Path, home: &Path) -> Result<()> {
    let commit = step("committed the session", || {
        id(&programs.aether(&["commit", "create", session, "-m", "Work done in a session"])?, "commit_id")
    })?;
    step(&format!("promoted the commit to the branch {BRANCH}"), || {
        programs.aether(&["promote", &commit, "--branch", BRANCH])
    })?;
    step("cloned that branch elsewhere: the same files", || {
        let elsewhere = home.join("elsewhere");
        let from = repository.to_string_lossy();
        let target = elsewhere.to_string_lossy();
        tool(home, &format!("git clone --quiet --branch {BRANCH} '{from}' '{target}'"))?;
        tool(mount, &format!("diff -r --no-dereference --exclude=.git . '{target}'"))?;
        std::fs::remove_dir_all(&elsewhere)?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_found_at_any_depth() {
        let answer = json!({"note": "", "sessions": [{"session_id": "sess_a"}, {"session_id": "sess_b"}]});
        assert_eq!(id(&answer, "session_id").unwrap(), "sess_a");
        assert!(id(&answer, "note").is_err(), "an empty string is no id");
    }
}
