//! `cargo xtask demo`: one server, one repository, a hundred sessions, one of them mounted and worked in with ordinary tools.
//!
//! Guarantees: talks to the real programs only through what users have (commands with `--json`, a mounted directory); checks what it shows and fails
//! when it is not so; never writes to the repository it was given (it promotes to a scratch clone); leaves nothing behind unless told to keep; what it
//! says to try next works when it is read.
//! Deliberately absent: anything measured for its own sake; the times printed are whole commands, start of the process included.

mod programs;
mod story;

use crate::out::{line, note};
use crate::workspace;
use anyhow::{Context, Result, ensure};
use programs::Programs;
use std::io::{IsTerminal, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A git repository: a path or an address [default: this project's own]
    repository: Option<String>,
    /// Leave the server and the mount running, and say how to end them
    #[arg(long)]
    keep: bool,
}

/// How many forks one call makes.
const FORKS: usize = 100;

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let home = tempfile::Builder::new()
        .prefix("aetherfs-demo-")
        .tempdir()
        .context("make a directory for the demo")?;
    let repository = scratch_clone(arguments.repository.as_deref(), home.path())?;
    let mut programs = Programs::start(home.path(), arguments.keep)?;
    let told = story::tell(&mut programs, &repository, home.path())?;
    let is_watched = stdin().is_terminal() && stdout().is_terminal();
    if !arguments.keep && !is_watched {
        programs.stop()?;
        let root = workspace::root()?;
        let repository = arguments.repository.clone().unwrap_or_else(|| root.display().to_string());
        line!("");
        after_the_end(&workspace::target_dir()?, &repository).iter().for_each(|said| line!("{said}"));
        return Ok(());
    }
    line!("");
    line!("endpoint   {}", programs.endpoint());
    line!("session    {}", told.session);
    line!("mounted at {}", told.mount.display());
    line!("");
    line!("Try next:");
    line!("  export AFS_AETHER_SERVER_ENDPOINT={}", programs.endpoint());
    for command in told.next(&workspace::target_dir()?) {
        line!("  {command}");
    }
    if arguments.keep {
        let home = home.keep();
        line!("");
        line!("Everything keeps running. To end it:");
        let (aether, mount) = (programs.aether_path().to_owned(), told.mount.display());
        let end = format!("kill {} && rm -r {}", programs.keep(), home.display());
        line!("  {} unmount {mount} && {end}", aether.display());
        return Ok(());
    }
    line!("");
    line!("The server runs until you press Enter.");
    stdin().read_line(&mut String::new())?;
    programs.stop()?;
    note!("demo: done; the server is stopped and its data removed");
    Ok(())
}

/// For somebody who reads this when nothing of the demo is left (no terminal: a log, a pipe): what works then.
fn after_the_end(target: &Path, repository: &str) -> Vec<String> {
    let (server, aether) = (target.join("release/afs-server"), target.join("release/aether"));
    let (server, aether) = (server.display(), aether.display());
    vec![
        "The server is stopped and its data removed. Try it yourself, with data that stays:".to_owned(),
        format!("  {server} dev --data DIR &"),
        format!("  session=$({aether} session create --git '{repository}')"),
        format!("  {aether} mount --session $session WORKDIR"),
        format!("  {aether} diff $session"),
        format!("  {aether} status"),
        "Or keep the demo's own server running: cargo xtask demo --keep".to_owned(),
    ]
}

/// The demo promotes a commit, so it works on a clone that nobody else has.
fn scratch_clone(repository: Option<&str>, home: &Path) -> Result<PathBuf> {
    let root = workspace::root()?;
    let from = repository.map_or_else(|| root.to_string_lossy().into_owned(), str::to_owned);
    let clone = home.join("repository.git");
    note!("demo: cloning {from}, so that it stays as it is");
    let status = Command::new("git")
        .args(["clone", "--bare", "--quiet", "--", &from])
        .arg(&clone)
        .status()
        .context("start git")?;
    ensure!(status.success(), "git clone {from} failed");
    let head = Command::new("git")
        .arg("-C")
        .arg(&clone)
        .args(["rev-parse", "--verify", "--quiet", "HEAD"])
        .output()?;
    ensure!(
        head.status.success(),
        "{from} has no commit: name a repository that has, e.g. `make run REPO=path`"
    );
    Ok(clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_at_the_end_names_no_server_that_is_gone() {
        let said = after_the_end(Path::new("/t"), "/src/my repo").join("\n");
        assert!(said.contains("/t/release/afs-server dev --data DIR"), "{said}");
        assert!(said.contains("session create --git '/src/my repo'"), "{said}");
        assert!(!said.contains("http://") && !said.contains("AFS_AETHER_SERVER_ENDPOINT"), "{said}");
    }
}
