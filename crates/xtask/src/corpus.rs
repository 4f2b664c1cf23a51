//! `cargo xtask corpus DIR`: the standard corpus that figures are measured on.
//!
//! Guarantees: the same packages give the same commit id on every machine (exact versions and digests in `corpus/`, fixed author
//! and date, no attribute of a package changes a byte). A second run on a finished corpus does nothing; an interrupted run leaves only
//! `DIR.partial`, which the next one replaces. Nothing of a package is ever run: no install script, no build.
//! Deliberately absent: platform packages (optional ones), so that every machine has the same files.

use crate::out::{line, note};
use crate::workspace;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Part of the stamp: grows when the layout below changes.
const LAYOUT: u32 = 1;
/// Inside `.git`, so that it is no part of the tree.
const STAMP: &str = "aetherfs-corpus";
const DATE: &str = "2025-01-01T00:00:00+0000";
const PINNED: [&str; 4] =
    ["npm/package.json", "npm/package-lock.json", "cargo/Cargo.toml", "cargo/Cargo.lock"];
const README: &str =
    "# corpus\n\nA monorepo of published packages, made by `cargo xtask corpus` for measuring.\n";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where the repository goes; must not exist, or be a corpus already
    dir: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    if make(&arguments.dir)? {
        note!("corpus: made in {:.0} s", started.elapsed().as_secs_f64());
    }
    let counts = count(&arguments.dir)?;
    let commit = capture(git(&arguments.dir).args(["rev-parse", "HEAD"]))?;
    line!(
        "{}: {} files, {} symbolic links, {} directories, {} MB, commit {}",
        arguments.dir.display(),
        counts.files,
        counts.links,
        counts.dirs,
        counts.bytes / 1_000_000,
        commit.trim()
    );
    Ok(())
}

/// Makes the corpus in `dir` unless it is there; says whether it did.
pub(crate) fn make(dir: &Path) -> Result<bool> {
    let pinned = workspace::root()?.join("crates/xtask/corpus");
    let stamp = stamp(&pinned)?;
    if fs::read_to_string(dir.join(".git").join(STAMP)).is_ok_and(|found| found == stamp) {
        return Ok(false);
    }
    ensure!(
        !dir.exists() || is_empty(dir)?,
        "{} is there and is no corpus of this version: name another directory",
        dir.display()
    );
    let name = dir.file_name().context("the directory needs a name")?.to_string_lossy().into_owned();
    let partial = dir.with_file_name(format!("{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    fs::create_dir_all(partial.join("apps/web"))?;
    fs::write(partial.join("README.md"), README)?;
    npm(&pinned, &partial.join("apps/web"))?;
    vendor(&pinned, &partial)?;
    commit(&partial)?;
    fs::write(partial.join(".git").join(STAMP), stamp)?;
    if dir.exists() {
        fs::remove_dir(dir)?;
    }
    fs::rename(&partial, dir).context("move the finished corpus into place")?;
    Ok(true)
}

fn is_empty(dir: &Path) -> Result<bool> {
    Ok(fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?.next().is_none())
}

/// The pinned files themselves: a stamp that is easy to compare and to look at.
fn stamp(pinned: &Path) -> Result<String> {
    let mut text = format!("layout {LAYOUT}\n");
    for path in PINNED {
        text.push_str(&fs::read_to_string(pinned.join(path)).with_context(|| format!("read corpus/{path}"))?);
    }
    Ok(text)
}

fn npm(pinned: &Path, app: &Path) -> Result<()> {
    note!("corpus: installing npm packages");
    for file in ["package.json", "package-lock.json"] {
        fs::copy(pinned.join("npm").join(file), app.join(file))?;
    }
    run_quietly(
        Command::new("npm")
            .args([
                "ci",
                "--ignore-scripts",
                "--omit=optional",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
            ])
            .current_dir(app),
    )?;
    // npm's own note of what it installed differs between npm versions.
    let note = app.join("node_modules/.package-lock.json");
    if note.exists() {
        fs::remove_file(note)?;
    }
    Ok(())
}

fn vendor(pinned: &Path, repository: &Path) -> Result<()> {
    note!("corpus: vendoring cargo packages");
    let workspace = repository.join("services");
    fs::create_dir_all(workspace.join("src"))?;
    fs::write(workspace.join("src/lib.rs"), "")?;
    for file in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(pinned.join("cargo").join(file), workspace.join(file))?;
    }
    run_quietly(
        Command::new("cargo")
            .args(["vendor", "--quiet", "--locked", "--versioned-dirs", "../third_party/rust"])
            .current_dir(&workspace),
    )
}

/// One commit in one pack, whose id depends on nothing but the files.
fn commit(repository: &Path) -> Result<()> {
    note!("corpus: committing");
    run_quietly(git(repository).args(["init", "--quiet", "--initial-branch=main"]))?;
    // Wins over every .gitattributes in the packages: bytes go in as they are.
    fs::create_dir_all(repository.join(".git/info"))?;
    fs::write(repository.join(".git/info/attributes"), "* -text -filter -ident -working-tree-encoding\n")?;
    run_quietly(git(repository).args(["add", "--all", "--force"]))?;
    run_quietly(
        git(repository)
            .args(["commit", "--quiet", "--no-verify", "--no-gpg-sign", "--message=corpus"])
            .env("GIT_AUTHOR_DATE", DATE)
            .env("GIT_COMMITTER_DATE", DATE),
    )?;
    note!("corpus: packing");
    run_quietly(git(repository).args(["repack", "-a", "-d", "-q"]))?;
    run_quietly(git(repository).args(["prune-packed", "-q"]))
}

/// git without the user's or the machine's configuration.
fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .args(["-c", "user.name=AetherFS corpus", "-c", "user.email=corpus@example.com"])
        .args([
            "-c",
            "core.autocrlf=false",
            "-c",
            "core.fsync=none",
            "-c",
            "gc.auto=0",
            "-c",
            "core.excludesFile=",
        ])
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .current_dir(dir);
    command
}

fn run_quietly(command: &mut Command) -> Result<()> {
    capture(command).map(drop)
}

fn capture(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[derive(Default)]
struct Counts {
    files: u64,
    links: u64,
    dirs: u64,
    bytes: u64,
}

fn count(dir: &Path) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut pending = vec![dir.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                counts.links += 1;
            } else if kind.is_file() {
                counts.files += 1;
                counts.bytes += entry.metadata()?.len();
            } else if entry.file_name() != ".git" {
                counts.dirs += 1;
                pending.push(entry.path());
            }
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_depends_on_the_files_alone() {
        let ids: Vec<String> = (0..2)
            .map(|_| {
                let dir = tempfile::tempdir().unwrap();
                fs::write(dir.path().join("a.txt"), "one\r\ntwo\r\n").unwrap();
                // A package's own attributes and ignore rules must not change what goes in.
                fs::write(dir.path().join(".gitattributes"), "* text eol=lf\n").unwrap();
                fs::write(dir.path().join(".gitignore"), "*.txt\n").unwrap();
                commit(dir.path()).unwrap();
                let stored = capture(git(dir.path()).args(["cat-file", "blob", "HEAD:a.txt"])).unwrap();
                assert_eq!(stored, "one\r\ntwo\r\n");
                capture(git(dir.path()).args(["rev-parse", "HEAD"])).unwrap()
            })
            .collect();
        assert_eq!(ids[0], ids[1]);
    }

    #[test]
    fn counting_leaves_the_repository_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".git/objects")).unwrap();
        fs::create_dir_all(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join(".git/objects/x"), "12345").unwrap();
        fs::write(dir.path().join("sub/y"), "123").unwrap();
        std::os::unix::fs::symlink("y", dir.path().join("sub/z")).unwrap();
        let counts = count(dir.path()).unwrap();
        assert_eq!((counts.files, counts.links, counts.dirs, counts.bytes), (1, 1, 1, 3));
    }

    #[test]
    fn a_directory_with_something_else_in_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mine"), "").unwrap();
        assert!(make(dir.path()).unwrap_err().to_string().contains("is no corpus"));
        assert!(dir.path().join("mine").exists());
    }
}
