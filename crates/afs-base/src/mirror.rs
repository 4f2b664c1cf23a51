//! One bare mirror per source URL, so that a second import only fetches what is new.
//!
//! Layout below `dirs.mirrors`: `<key>.git` (the mirror: branches, tags, packs, no loose objects), `<key>.git/aether`
//! (a second bare repository that borrows the mirror's objects and holds the commits that sessions made, so that one
//! session's commits are never in another's history), `<key>.lock`.
//!
//! Guarantees: a mirror appears whole and on disk, or not at all; `kill -9` at any moment leaves one that the next import uses;
//! objects are never pruned. Deliberately absent: reading objects ([`crate::packs`]).

use crate::child::{Call, Done, Git};
use crate::object::{Oid, hex, parse_hex};
use crate::packs::{self, Packs};
use crate::refs::{Head, Refs};
use crate::temp::{Lock, Scratch, sync_dir, sync_tree};
use crate::url::Remote;
use crate::{ImportDirs, Progress, clone_local};
use afs_types::{Error, Reason, Result, Rng, limits};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A mirror that may be read: shared with other readers, not with writers.
pub(crate) struct Mirror {
    /// Where it is in the end.
    pub(crate) path: PathBuf,
    pub(crate) lock: Lock,
    /// A copy of a local source that is not on disk yet; it gets its place by [`Mirror::settle`]. Until then nobody else has the lock.
    fresh: Option<Fresh>,
}

struct Fresh {
    path: PathBuf,
    _scratch: Scratch,
}

impl Mirror {
    /// Where it is now.
    pub(crate) fn now(&self) -> &Path {
        self.fresh.as_ref().map_or(&self.path, |fresh| &fresh.path)
    }

    /// Whether it is a copy that was just made, and nobody has checked yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh.is_some()
    }

    /// Makes a fresh mirror durable and gives it its place. Called when the import has read it: a copy is quickly made again, so that an
    /// import need not begin with a wait for the disk.
    pub(crate) fn settle(mut self, progress: &dyn Progress) -> Result<PathBuf> {
        if let Some(fresh) = self.fresh.take() {
            place(&fresh.path, &self.path)?;
            self.lock.change(true, progress)?;
        }
        Ok(self.path)
    }
}

/// Syncs a mirror and moves it to its place.
fn place(fresh: &Path, path: &Path) -> Result<()> {
    // Copied packs, and what git writes besides objects (HEAD, settings, references, our own link to the objects) and leaves to the kernel.
    sync_tree(fresh)?;
    std::fs::rename(fresh, path)
        .map_err(|e| Error::io(format_args!("move the mirror to {}", path.display()), e))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// What is needed to reach one source.
pub(crate) struct Source<'a> {
    pub(crate) git: Git,
    pub(crate) remote: Remote,
    pub(crate) dirs: &'a ImportDirs,
    pub(crate) progress: &'a dyn Progress,
}

/// Name of the repository inside a mirror that holds sessions' commits.
const COMMITS: &str = "aether";
/// How long a source may take to say what references it has.
const LOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long git may say nothing while it fetches. It tells how far it is at least once a second while anything comes, so this is for a
/// source that prepares what it sends, and for git that checks what has come.
const FETCH_SILENCE: Duration = Duration::from_secs(limits::MAX_FETCH_SILENCE_S);
/// A mirror with more packs than this is consolidated.
const MAX_PACKS: usize = 24;

/// The mirror's directory for a remote.
pub(crate) fn path_of(dirs: &ImportDirs, remote: &Remote) -> PathBuf {
    path_named(dirs, &remote.key)
}

/// The mirror's directory for a remote's key.
pub(crate) fn path_named(dirs: &ImportDirs, key: &str) -> PathBuf {
    dirs.mirrors.join(format!("{key}.git"))
}

/// The object directories of a mirror: its own, and that of sessions' commits.
pub(crate) fn object_dirs(mirror: &Path) -> Vec<PathBuf> {
    vec![mirror.join("objects"), mirror.join(COMMITS).join("objects")]
}

impl<'a> Source<'a> {
    pub(crate) fn new(url: &str, dirs: &'a ImportDirs, progress: &'a dyn Progress) -> Result<Self> {
        let remote = Remote::parse(url)?;
        Ok(Self { git: Git::new(&dirs.mirrors)?, remote, dirs, progress })
    }

    fn path(&self) -> PathBuf {
        path_of(self.dirs, &self.remote)
    }

    fn call<'c>(&'c self, git_dir: Option<&'c Path>, lock: Option<&'c Lock>) -> Call<'c> {
        Call { git_dir, remote: Some(&self.remote), input: lock.map(Lock::file), ..Call::default() }
    }

    /// The error for a run that talked to the source.
    fn failed(&self, done: &Done) -> Error {
        let shown = self.remote.shown();
        done.error(Reason::SourceUnavailable, &shown).with("url", shown)
    }

    /// What `reference` is at the source now. No objects are fetched.
    pub(crate) fn look(&self, reference: Option<&str>) -> Result<Head> {
        let name = reference.unwrap_or("HEAD");
        check_reference(name)?;
        self.find(name)?.ok_or_else(|| self.no_such_ref(name))
    }

    fn find(&self, name: &str) -> Result<Option<Head>> {
        if let Some(oid) = parse_hex(name.as_bytes()) {
            return Ok(Some(Head { oid, branch: None }));
        }
        match self.advertised(Refs::patterns(name))?.resolve(name) {
            Some(head) => Ok(Some(head)),
            None => self.rev_parse(name),
        }
    }

    /// What the source has now of the references that these patterns of `ls-remote` find.
    pub(crate) fn advertised(&self, patterns: impl Iterator<Item = String>) -> Result<Refs> {
        let mut args: Vec<OsString> = ["ls-remote", "--symref", "--"].map(Into::into).into();
        args.push(self.remote.target.clone());
        args.extend(patterns.map(Into::into));
        let call = Call { timeout: Some(LOOK_TIMEOUT), ..self.call(None, None) };
        let done = self.git.run(call, &args, self.progress)?;
        if !done.status.success() {
            return Err(self.failed(&done));
        }
        let refs = Refs::from_ls_remote(&done.stdout);
        match refs.sha256 {
            false => Ok(refs),
            true => {
                let text = format!(
                    "{}: a repository with SHA-256 object names, which are not supported yet",
                    self.remote.shown()
                );
                Err(Error::new(Reason::Unsupported, text).next(
                    "convert it to SHA-1 object names, or import its work tree as a directory (--local DIR)",
                ))
            }
        }
    }

    /// Short commit names and expressions such as `main~3`: asked of a local source itself, else of the mirror.
    fn rev_parse(&self, name: &str) -> Result<Option<Head>> {
        match &self.remote.local {
            Some(path) if path.is_dir() => self.rev_parse_at(path, name),
            _ if self.path().exists() => self.rev_parse_at(&self.path(), name),
            _ => Ok(None),
        }
    }

    fn rev_parse_at(&self, dir: &Path, name: &str) -> Result<Option<Head>> {
        let spec = format!("{name}^{{commit}}");
        let args: [&OsStr; 7] = [
            "-C".as_ref(),
            dir.as_os_str(),
            "rev-parse".as_ref(),
            "--verify".as_ref(),
            "--quiet".as_ref(),
            "--end-of-options".as_ref(),
            spec.as_ref(),
        ];
        let done = self.git.run(self.call(None, None), args, self.progress)?;
        let oid = parse_hex(done.stdout.trim_ascii());
        Ok(oid.filter(|_| done.status.success()).map(|oid| Head { oid, branch: None }))
    }

    /// An error about an object that the source lacks says more where the source has never had it: a partial clone is whole for its owner, whose git
    /// fetches what it needs when it needs it, which a git that reads somebody else's repository must not do. All other errors stay as they are.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let object = error.metadata().iter().find(|(key, _)| *key == packs::MISSING);
        let object = object.map(|(_, oid)| format!(" ({oid} is one)")).unwrap_or_default();
        // The words of a git that served us and was not allowed to fetch.
        let is_said = error.message().contains("promisor remote");
        let local = self.remote.local.as_deref().filter(|path| path.is_dir());
        if !is_said && (object.is_empty() || !local.is_some_and(|path| self.is_partial(path))) {
            return error;
        }
        let shown = self.remote.shown();
        let text = format!(
            "{shown} is a partial clone: objects that are needed{object} are only at the repository that it was cloned from"
        );
        let step = match local {
            Some(path) => format!("`git -C {} fetch --refetch --no-filter`", path.display()),
            None => "`git fetch --refetch --no-filter` there".to_owned(),
        };
        Error::new(Reason::WrongState, text)
            .with("url", shown)
            .next(format!("fetch all objects with {step}, or import the repository that it was cloned from"))
            .caused_by(error)
    }

    /// Whether a repository on this machine counts on another one for objects that it lacks: its settings say so, or marks that git leaves
    /// beside packs which came from such a one.
    fn is_partial(&self, dir: &Path) -> bool {
        let ask = |args: &[&str]| {
            let args = ["-C".as_ref(), dir.as_os_str()].into_iter().chain(args.iter().map(OsStr::new));
            let done = self.git.run(self.call(None, None), args, self.progress).ok()?;
            done.status.success().then_some(done.stdout)
        };
        let settings = ask(&["config", "--get-regexp", r"^(extensions\.partialclone|remote\..*\.promisor)$"]);
        if settings.is_some_and(|lines| {
            lines.split(|b| *b == b'\n').any(|l| !l.is_empty() && !l.ends_with(b" false"))
        }) {
            return true;
        }
        let packs = ask(&["rev-parse", "--path-format=absolute", "--git-path", "objects/pack"]);
        let entries = packs.and_then(|path| std::fs::read_dir(OsStr::from_bytes(path.trim_ascii_end())).ok());
        entries.is_some_and(|entries| {
            entries.flatten().any(|entry| entry.path().extension().is_some_and(|e| e == "promisor"))
        })
    }

    fn no_such_ref(&self, name: &str) -> Error {
        let shown = self.remote.shown();
        if name == "HEAD" {
            return Error::invalid(
                "reference",
                format_args!(
                    "one that exists: {shown} has no commit that HEAD points to; commit something first, name a branch, or start without files (--empty)"
                ),
            );
        }
        let is_expression = name.contains(['~', '^']) || name.contains("@{");
        if is_expression && self.remote.local.is_none() {
            return Error::invalid(
                "reference",
                format_args!("a branch, tag or commit id of {shown}, not {name:?}: expressions are understood in repositories on the server's machine only; `git rev-parse` in a clone prints the commit id"),
            )
            .with("reference", name);
        }
        Error::invalid("reference", format_args!("a branch, tag or commit of {shown}; {name:?} is none"))
            .with("reference", name)
            .next(format!("list them with `git ls-remote {shown}`"))
    }

    /// A mirror that holds what `reference` names, and what that is. Fetches only if it must.
    pub(crate) fn prepare(&self, reference: Option<&str>, rng: &dyn Rng) -> Result<(Mirror, Head)> {
        let name = reference.unwrap_or("HEAD");
        check_reference(name)?;
        if let (Some(oid), true) = (parse_hex(name.as_bytes()), self.path().exists()) {
            let mirror = self.open(true)?;
            if holds(&mirror.path, &oid)? {
                return Ok((mirror, Head { oid, branch: None }));
            }
        }
        let mut mirror = self.open(false)?;
        let head = match self.path().exists() {
            false => self.first_clone(&mut mirror, name, rng)?,
            true => {
                let head = self.look(reference)?;
                if !holds(&mirror.path, &head.oid)? {
                    self.clean_after_kill(&mirror)?;
                    self.fetch(&mirror.path, &mirror.lock, name, &head)?;
                }
                head
            }
        };
        if !holds(mirror.now(), &head.oid)? {
            return Err(self.no_such_ref(name));
        }
        if mirror.fresh.is_none() {
            mirror.lock.change(true, self.progress)?;
        }
        Ok((mirror, head))
    }

    fn open(&self, shared: bool) -> Result<Mirror> {
        let lock = self.dirs.mirrors.join(format!("{}.lock", self.remote.key));
        Ok(Mirror { path: self.path(), lock: Lock::take(&lock, shared, self.progress)?, fresh: None })
    }

    fn first_clone(&self, mirror: &mut Mirror, name: &str, rng: &dyn Rng) -> Result<Head> {
        // Asked first: the clone's own HEAD is a guess when the source's is detached.
        let head = self.find(name)?;
        let scratch = Scratch::new(&self.dirs.temp, rng)?;
        let fresh = scratch.path().join("mirror.git");
        let mut args: Vec<OsString> = vec!["clone".into(), "--bare".into(), "--template=".into()];
        let local = self.remote.local.as_deref().filter(|p| p.is_dir());
        args.push(if local.is_some() { "--shared" } else { "--progress" }.into());
        args.extend(["--no-recurse-submodules".into(), "--".into(), self.remote.target.clone()]);
        args.push(fresh.clone().into_os_string());
        let call = Call { silence: Some(FETCH_SILENCE), ..self.call(None, Some(&mirror.lock)) };
        let done = self.git.run(call, &args, self.progress)?;
        if !done.status.success() {
            return Err(self.failed(&done));
        }
        if local.is_some() {
            clone_local::take_objects(&self.git, &fresh, mirror.lock.file(), scratch.path(), self.progress)?;
        }
        self.make_commits_repository(&fresh)?;
        let head = match head {
            Some(head) => head,
            None => self.rev_parse_at(&fresh, name)?.ok_or_else(|| self.no_such_ref(name))?,
        };
        if !holds(&fresh, &head.oid)? {
            self.fetch(&fresh, &mirror.lock, name, &head)?;
        }
        if local.is_some() {
            mirror.fresh = Some(Fresh { path: fresh, _scratch: scratch });
        } else {
            // What came over a network is kept, whatever becomes of the import.
            place(&fresh, &mirror.path)?;
        }
        Ok(head)
    }

    /// All branches and tags, and what was asked for if it is neither.
    fn fetch(&self, mirror: &Path, lock: &Lock, name: &str, head: &Head) -> Result<()> {
        let base = ["fetch", "--progress", "--force", "--no-auto-maintenance", "--no-write-fetch-head"];
        let run = |prune: bool, specs: &[String]| {
            let mut args: Vec<OsString> = base.map(Into::into).into();
            args.extend(prune.then(|| "--prune".into()));
            args.extend(["--no-tags", "--no-recurse-submodules", "--"].map(OsString::from));
            args.push(self.remote.target.clone());
            args.extend(specs.iter().map(OsString::from));
            let call = Call { silence: Some(FETCH_SILENCE), ..self.call(Some(mirror), Some(lock)) };
            self.git.run(call, &args, self.progress)
        };
        let all = ["+refs/heads/*:refs/heads/*".to_owned(), "+refs/tags/*:refs/tags/*".to_owned()];
        let done = run(true, &all)?;
        if !done.status.success() {
            return Err(self.failed(&done));
        }
        if !holds(mirror, &head.oid)? {
            let oid = hex(&head.oid);
            let from = if name.starts_with("refs/") { name } else { &oid };
            let done = run(false, &[format!("+{from}:refs/aether/import/{oid}")])?;
            if !done.status.success() {
                return Err(self.no_such_ref(name).caused_by(self.failed(&done)));
            }
        }
        if packs::list(&mirror.join("objects"))?.len() > MAX_PACKS {
            let call = self.call(Some(mirror), Some(lock));
            self.git.must(call, ["repack", "--geometric=2", "-d", "-q"], self.progress)?;
        }
        // As after the first clone: references, and the names of packs.
        sync_tree(mirror)
    }

    /// Sessions' commits live beside the mirror's objects and borrow them.
    fn make_commits_repository(&self, fresh: &Path) -> Result<()> {
        let commits = fresh.join(COMMITS);
        let args = [
            "init".into(),
            "--quiet".into(),
            "--bare".into(),
            "--template=".into(),
            commits.clone().into_os_string(),
        ];
        self.git.must(Call::default(), args, self.progress)?;
        let info = commits.join("objects/info");
        let write = std::fs::create_dir_all(&info)
            .and_then(|()| std::fs::create_dir_all(commits.join("objects/pack")))
            .and_then(|()| std::fs::write(info.join("alternates"), "../../objects\n"));
        write.map_err(|e| Error::io(format_args!("prepare {}", commits.display()), e))
    }

    /// Locks and half-written packs of a git that was killed; nobody else works here, for we hold the lock.
    fn clean_after_kill(&self, mirror: &Mirror) -> Result<()> {
        let step = |e| Error::io(format_args!("clean {}", mirror.path.display()), e);
        let stale =
            |name: &str| name.ends_with(".lock") || name.starts_with("tmp_") || name.starts_with(".tmp-");
        let mut dirs = vec![mirror.path.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).map_err(step)? {
                let entry = entry.map_err(step)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type().map_err(step)?.is_dir() {
                    // Two-digit directories of loose objects hold nothing of interest.
                    if name.len() != 2 && name != COMMITS {
                        dirs.push(entry.path());
                    }
                } else if stale(&name) {
                    std::fs::remove_file(entry.path()).map_err(step)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether an object is in a mirror's packs.
fn holds(mirror: &Path, oid: &Oid) -> Result<bool> {
    Ok(Packs::open(&[mirror.join("objects")])?.find(oid).is_some())
}

/// The repository inside a mirror that holds sessions' commits.
pub(crate) fn commits_repository(mirror: &Path) -> Result<PathBuf> {
    let path = mirror.join(COMMITS);
    match path.join("HEAD").exists() {
        true => Ok(path),
        false => Err(Error::new(Reason::Corrupt, format!("{} is not a mirror", mirror.display()))
            .next("import the source again")),
    }
}

/// Whether this may be a reference. It goes to git as an argument: nothing that is an option, a pattern or a range.
pub fn is_reference(name: &str) -> bool {
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '*' | '?' | '[' | '\\' | ':');
    (1..=1024).contains(&name.len())
        && !name.starts_with('-')
        && !name.contains("..")
        && !name.chars().any(is_odd)
}

fn check_reference(name: &str) -> Result<()> {
    match is_reference(name) {
        true => Ok(()),
        false => Err(Error::invalid("reference", "a branch, tag, HEAD or commit name")),
    }
}
