//! A commit becomes a branch at the source.
//!
//! Guarantees: the branch moves only forward from what it was, or from exactly what the caller expects; nobody else's
//! commit is lost. No hook, filter or other program of a *local* target's configuration runs, for a target's
//! directory may be anybody's; over a network the other side runs what it wants, but is not waited for beyond
//! [`limits::MAX_PUSH_S`]: a hook that hangs there holds nothing here for ever.
//! What the source refuses is told for what it is: a branch that moved, a name that another branch is in the way of, or the source's own words; git
//! says some of them alike, so the source is asked for its branches again (which hides no refusal: when that fails too, the first one is told).
//! Deliberately absent: merging; a conflict is the caller's to resolve.

use crate::child::{Call, Done};
use crate::mirror::{Source, commits_repository, object_dirs};
use crate::object::{Oid, hex, parse_hex};
use crate::packs::Packs;
use crate::refs::{Refs, branch_to_push};
use crate::{ImportDirs, Progress};
use afs_types::{Error, Reason, Result, limits};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a push did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pushed {
    /// The branch, without `refs/heads/`.
    pub branch: String,
    /// Commit id, hexadecimal, that the branch had before; none if the branch is new.
    pub old: Option<String>,
}

/// A local target is a directory whose configuration is not ours: nothing in it may start a program.
const RECEIVE_PACK: &str = "git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.alternateRefsCommand=true \
                            -c receive.autogc=false -c receive.denyCurrentBranch=refuse receive-pack";

/// A push as it was asked for.
struct Attempt<'a> {
    source: Source<'a>,
    commits: PathBuf,
    oid: &'a str,
    branch: &'a str,
    expect: Option<&'a str>,
}

/// Pushes commit `oid`, which [`crate::write_commit`] wrote to `mirror` or which was imported, to `branch` at `url`. The branch may have
/// `refs/heads/` before its name.
///
/// `expect` none: the branch is new, or moves forward. `expect` a commit id: the branch must be there and is replaced,
/// whatever history says. `expect` the empty text: the branch must not be there.
///
/// `PROMOTE_CONFLICT` if the branch is not as expected, `ALREADY_EXISTS` if another branch leaves no room for its name, `PERMISSION_DENIED` if
/// the source declines, `SOURCE_UNAVAILABLE` if it cannot be reached or fails, `TIMED_OUT` if it has not answered in time; the branch may have moved then.
pub fn push(
    mirror: &Path,
    url: &str,
    oid: &str,
    branch: &str,
    expect: Option<&str>,
    progress: &dyn Progress,
) -> Result<Pushed> {
    let held = |oid: Oid| Ok::<_, Error>(Packs::open(&object_dirs(mirror))?.find(&oid).is_some());
    if !parse_hex(oid.as_bytes()).map_or(Ok(false), held)? {
        return Err(Error::invalid("oid", "the id of a commit that the mirror holds").with("oid", oid));
    }
    let branch = branch_to_push(branch)?;
    if expect.is_some_and(|e| !e.is_empty() && parse_hex(e.as_bytes()).is_none()) {
        return Err(Error::invalid("if_branch_oid", "a commit id of 40 hexadecimal digits, or empty"));
    }
    let commits = commits_repository(mirror)?;
    let mirrors = mirror.parent().unwrap_or(mirror).to_owned();
    let dirs = ImportDirs { temp: mirrors.clone(), mirrors };
    let source = Source::new(url, &dirs, progress)?;
    let mut args: Vec<OsString> = ["push", "--porcelain", "--progress", "--no-verify"].map(Into::into).into();
    args.push("--recurse-submodules=no".into());
    if source.remote.local.is_some() {
        args.push(format!("--receive-pack={RECEIVE_PACK}").into());
    }
    if let Some(expect) = expect {
        args.push(format!("--force-with-lease=refs/heads/{branch}:{expect}").into());
    }
    args.extend(["--".into(), source.remote.target.clone()]);
    args.push(format!("{oid}:refs/heads/{branch}").into());
    let done = send(&source, &commits, &args, Duration::from_secs(limits::MAX_PUSH_S))?;
    Attempt { source, commits, oid, branch, expect }.outcome(&done)
}

fn send(source: &Source<'_>, commits: &Path, args: &[OsString], limit: Duration) -> Result<Done> {
    let remote = Some(&source.remote);
    let call = Call { git_dir: Some(commits), remote, timeout: Some(limit), ..Call::default() };
    source.git.run(call, args, source.progress)
}

impl Attempt<'_> {
    /// Reads `--porcelain`: `<flag> TAB <from>:<to> TAB <summary>`.
    fn outcome(&self, done: &Done) -> Result<Pushed> {
        let text = String::from_utf8_lossy(&done.stdout);
        let to = format!(":refs/heads/{}", self.branch);
        let line = text.lines().find_map(|line| {
            let mut fields = line.splitn(3, '\t');
            let (flag, refs, summary) = (fields.next()?, fields.next()?, fields.next()?);
            refs.ends_with(&to).then_some((flag, summary))
        });
        let pushed = |old: Option<&str>| Ok(Pushed { branch: self.branch.into(), old: old.map(Into::into) });
        match line {
            Some(("!", summary)) => Err(self.rejected(summary, &done.messages)),
            Some(("*", _)) if done.status.success() => pushed(None),
            Some(("=", _)) if done.status.success() => pushed(Some(self.oid)),
            Some((_, summary)) if done.status.success() => {
                pushed(summary.split("..").next().filter(|old| parse_hex(old.as_bytes()).is_some()))
            }
            _ => {
                let shown = self.source.remote.shown();
                Err(done.error(Reason::SourceUnavailable, &shown).with("url", shown))
            }
        }
    }

    fn error(&self, reason: Reason, text: &str) -> Error {
        let shown = self.source.remote.shown();
        let text = format!("{shown}: {text}");
        Error::new(reason, text).with("field", "branch").with("branch", self.branch).with("url", shown)
    }

    fn moved(&self, why: &str) -> Error {
        self.error(Reason::PromoteConflict, &format!("{} has moved on: {why}", self.branch))
    }

    fn rejected(&self, summary: &str, messages: &str) -> Error {
        let (branch, why) = (self.branch, crate::url::redact(summary));
        let says = |words: &[&str]| words.iter().any(|w| summary.contains(w));
        if says(&["checked out", "refusing to update"])
            || messages.contains("refusing to update checked out branch")
        {
            let text = format!("{branch} is checked out there, git refuses to move it: {why}");
            return self.error(Reason::PromoteConflict, &text).next(
                "promote to another branch and merge it there, or check out another branch in the source first",
            );
        }
        // Here git has compared what the branch is with what it should be.
        if says(&["non-fast-forward", "fetch first", "stale info", "needs force"]) {
            return self.moved(&why);
        }
        // The same words for a branch that moved while the push was under way, for a name that has no room, and for whatever else the source cannot do.
        if says(&["failed to update ref", "cannot lock ref", "incorrect old value", "already exists"])
            || says(&["directory file conflict"])
        {
            return self.not_updated(&why, messages);
        }
        if says(&["unpacker error", "unpack failed"]) {
            return self.error(Reason::SourceUnavailable, &format!("{why}; {messages}"));
        }
        self.error(Reason::PermissionDenied, &format!("the source declined {branch}: {why}; {messages}"))
            .next("promote to a branch that the source lets you change, or ask its owner")
    }

    /// The source could not move the branch: whether that is for another branch's name, for the branch, or for something of its own.
    fn not_updated(&self, why: &str, messages: &str) -> Error {
        let refs = self.branches();
        let in_the_way = refs.as_ref().ok().and_then(|refs| in_the_way(refs, self.branch));
        if let Some(other) = in_the_way.or_else(|| named_in_the_way(messages)) {
            let text = format!(
                "{} cannot be made, for there is a branch {other}: git keeps both as files, and one would be the other's directory",
                self.branch
            );
            return self
                .error(Reason::AlreadyExists, &text)
                .with("branch_in_the_way", other)
                .next("promote to a branch whose name does not begin with another branch's name and a slash, nor another's with its");
        }
        let is_told = ["but expected", "reference already exists", "incorrect old value"];
        let is_told = is_told.iter().any(|words| messages.contains(words) || why.contains(words));
        if is_told || refs.is_ok_and(|refs| self.has_moved(&refs)) {
            return self.moved(why);
        }
        self.error(
            Reason::SourceUnavailable,
            &format!("the source could not change {}: {why}; {messages}", self.branch),
        )
        .next("see in the source why it could not, then promote again")
    }

    /// The branches that say why this one cannot be changed: itself, those that its name begins with, and those that begin with its name.
    fn branches(&self) -> Result<Refs> {
        let parents = self.branch.match_indices('/').map(|(at, _)| &self.branch[..at]);
        let names = parents.chain([self.branch]).map(|name| format!("refs/heads/{name}"));
        self.source.advertised(names.chain([format!("refs/heads/{}/*", self.branch)]))
    }

    /// Whether the branch is another than the caller expects.
    fn has_moved(&self, refs: &Refs) -> bool {
        let now =
            refs.all.get(format!("refs/heads/{}", self.branch).as_bytes()).map(|target| hex(&target.oid));
        match (self.expect, now) {
            (Some(expect), now) => now.unwrap_or_default() != expect,
            (None, None) => false,
            (None, Some(now)) => {
                let call = Call { git_dir: Some(&self.commits), ..Call::default() };
                let args = ["merge-base", "--is-ancestor", now.as_str(), self.oid];
                let done = self.source.git.run(call, args, self.source.progress);
                // One that is not known here is somebody else's, and newer.
                !done.is_ok_and(|done| done.status.success())
            }
        }
    }
}

/// The branch that leaves no room for another's name: git keeps a branch as a file, in directories as its name has slashes.
fn in_the_way(refs: &Refs, branch: &str) -> Option<String> {
    let mut others = refs.all.keys().filter_map(|full| full.strip_prefix(b"refs/heads/"));
    let below = |name: &[u8], dir: &[u8]| name.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"));
    let branch = branch.as_bytes();
    let other = others.find(|other| below(branch, other) || below(other, branch))?;
    Some(String::from_utf8_lossy(other).into_owned())
}

/// The same as a source says it that does not show the branch: `'refs/heads/a' exists; cannot create 'refs/heads/a/b'`.
fn named_in_the_way(messages: &str) -> Option<String> {
    let (before, _) = messages.split_once("' exists; cannot create")?;
    let (_, full) = before.rsplit_once('\'')?;
    Some(full.strip_prefix("refs/heads/").unwrap_or(full).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoProgress;
    use crate::child::Git;
    use std::net::TcpListener;

    #[test]
    fn a_source_that_never_answers_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = ImportDirs { mirrors: dir.path().join("mirrors"), temp: dir.path().join("temp") };
        // Takes the connection, like a server that is alive and hangs.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("git://{}/x.git", listener.local_addr().unwrap());
        let source = Source::new(&url, &dirs, &NoProgress).unwrap();
        let commits = dir.path().join("commits.git");
        let init: [OsString; 4] = ["init".into(), "--quiet".into(), "--bare".into(), commits.clone().into()];
        source.git.must(Call::default(), init, &NoProgress).unwrap();
        let args = ["push", "--porcelain", "--", url.as_str(), ":refs/heads/b"].map(OsString::from);
        let done = send(&source, &commits, &args, Duration::from_millis(500)).unwrap();
        let attempt = Attempt { source, commits, oid: "", branch: "b", expect: None };
        let error = attempt.outcome(&done).unwrap_err();
        assert_eq!(error.reason, Reason::TimedOut, "{error:?}");
        assert!(error.metadata().iter().any(|(name, _)| *name == "limit"), "{error:?}");
        assert!(error.next_step().contains("does not answer"), "{error:?}");
    }

    #[test]
    fn the_same_words_are_a_conflict_only_if_the_branch_moved() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = ImportDirs { mirrors: dir.path().join("mirrors"), temp: dir.path().join("temp") };
        let git = Git::new(dir.path()).unwrap();
        let theirs = dir.path().join("r.git");
        let init: [OsString; 4] = ["init".into(), "--quiet".into(), "--bare".into(), theirs.clone().into()];
        git.must(Call::default(), init, &NoProgress).unwrap();
        let run = |args: &[&str]| {
            let call = Call { git_dir: Some(&theirs), ..Call::default() };
            String::from_utf8(git.must(call, args, &NoProgress).unwrap()).unwrap().trim().to_owned()
        };
        let tree = run(&["hash-object", "-t", "tree", "-w", "--stdin"]);
        let who = ["-c", "user.name=T", "-c", "user.email=t@example.com", "commit-tree", &tree];
        let commit = |more: &[&str]| run(&[&who[..], more].concat());
        let one = commit(&["-m", "one"]);
        let (two, other) = (commit(&["-m", "two", "-p", &one]), commit(&["-m", "other"]));
        run(&["update-ref", "refs/heads/b", &one]);
        let reason = |oid: &str, expect: Option<&str>, messages: &str| {
            let source = Source::new(theirs.to_str().unwrap(), &dirs, &NoProgress).unwrap();
            let attempt = Attempt { source, commits: theirs.clone(), oid, branch: "b", expect };
            attempt.rejected("[remote rejected] (failed to update ref)", messages).reason
        };
        let held = "remote: error: cannot lock ref 'refs/heads/b': Unable to create 'b.lock': File exists.";
        assert_eq!(reason(&two, None, held), Reason::SourceUnavailable);
        assert_eq!(reason(&two, Some(&one), held), Reason::SourceUnavailable);
        assert_eq!(reason(&other, None, held), Reason::PromoteConflict);
        assert_eq!(reason(&two, Some(&other), held), Reason::PromoteConflict);
        assert_eq!(reason(&two, Some(""), held), Reason::PromoteConflict);
        let moved = "remote: error: cannot lock ref 'refs/heads/b': is at 1 but expected 2";
        assert_eq!(reason(&two, None, moved), Reason::PromoteConflict);
        run(&["update-ref", "-d", "refs/heads/b"]);
        assert_eq!(reason(&two, None, held), Reason::SourceUnavailable);
        assert_eq!(reason(&two, Some(""), held), Reason::SourceUnavailable);
        assert_eq!(reason(&two, Some(&one), held), Reason::PromoteConflict);
    }

    #[test]
    fn a_name_has_no_room_beside_one_that_it_begins_with() {
        let refs = |names: &[&str]| {
            let lines = names.iter().map(|name| format!("{}\t{name}\n", "1".repeat(40)));
            Refs::from_ls_remote(lines.collect::<String>().as_bytes())
        };
        let found = |names: &[&str], branch| in_the_way(&refs(names), branch);
        assert_eq!(found(&["refs/heads/zz"], "zz/sub/deep").as_deref(), Some("zz"));
        assert_eq!(found(&["refs/heads/zz", "refs/heads/zz/sub"], "zz").as_deref(), Some("zz/sub"));
        let others =
            ["refs/heads/zz", "refs/heads/zzz/a", "refs/heads/z", "refs/tags/zz/sub", "refs/tags/zz"];
        assert_eq!(found(&others, "zz"), None);
        assert_eq!(found(&["refs/heads/zz-sub", "refs/tags/zz"], "zz/sub"), None);
        let said =
            "error: cannot lock ref 'refs/heads/a/b': 'refs/heads/a' exists; cannot create 'refs/heads/a/b'";
        assert_eq!(named_in_the_way(said).as_deref(), Some("a"));
        assert_eq!(
            named_in_the_way("error: cannot lock ref 'refs/heads/a': Unable to create it: File exists."),
            None
        );
    }
}
