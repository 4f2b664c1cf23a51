//! A commit becomes a branch at the source.
//!
//! Guarantees: the branch moves only forward from what it was, or from exactly what the caller expects; nobody else's
//! commit is lost. No hook, filter or other program of a *local* target's configuration runs, for a target's
//! directory may be anybody's; over a network the other side runs what it wants, but is not waited for beyond
//! [`limits::MAX_PUSH_S`]: a hook that hangs there holds nothing here for ever.
//! Deliberately absent: merging; a conflict is the caller's to resolve.

use crate::child::{Call, Done};
use crate::mirror::{Source, commits_repository, object_dirs};
use crate::object::{Oid, parse_hex};
use crate::packs::Packs;
use crate::refs::is_branch_name;
use crate::{ImportDirs, Progress};
use afs_types::{Error, Reason, Result, limits};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// What a push did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pushed {
    /// Commit id, hexadecimal, that the branch had before; none if the branch is new.
    pub old: Option<String>,
}

/// A local target is a directory whose configuration is not ours: nothing in it may start a program.
const RECEIVE_PACK: &str = "git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.alternateRefsCommand=true \
                            -c receive.autogc=false -c receive.denyCurrentBranch=refuse receive-pack";

/// Pushes commit `oid`, which [`crate::write_commit`] wrote to `mirror` or which was imported, to `branch` at `url`.
///
/// `expect` none: the branch is new, or moves forward. `expect` a commit id: the branch must be there and is replaced,
/// whatever history says. `expect` the empty text: the branch must not be there.
///
/// `PROMOTE_CONFLICT` if the branch is not as expected, `PERMISSION_DENIED` if the source declines,
/// `SOURCE_UNAVAILABLE` if it cannot be reached, `TIMED_OUT` if it has not answered in time; the branch may have moved then.
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
    if !is_branch_name(branch) {
        return Err(Error::invalid("branch", "a branch name as `git check-ref-format --branch` takes it"));
    }
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
    outcome(&done, oid, branch, &source.remote.shown())
}

fn send(source: &Source<'_>, commits: &Path, args: &[OsString], limit: Duration) -> Result<Done> {
    let remote = Some(&source.remote);
    let call = Call { git_dir: Some(commits), remote, timeout: Some(limit), ..Call::default() };
    source.git.run(call, args, source.progress)
}

/// Reads `--porcelain`: `<flag> TAB <from>:<to> TAB <summary>`.
fn outcome(done: &Done, oid: &str, branch: &str, shown: &str) -> Result<Pushed> {
    let text = String::from_utf8_lossy(&done.stdout);
    let to = format!(":refs/heads/{branch}");
    let line = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, '\t');
        let (flag, refs, summary) = (fields.next()?, fields.next()?, fields.next()?);
        refs.ends_with(&to).then_some((flag, summary))
    });
    match line {
        Some(("!", summary)) => Err(rejected(summary, &done.messages, branch, shown)),
        Some(("*", _)) if done.status.success() => Ok(Pushed { old: None }),
        Some(("=", _)) if done.status.success() => Ok(Pushed { old: Some(oid.into()) }),
        Some((_, summary)) if done.status.success() => {
            let old = summary.split("..").next().filter(|old| parse_hex(old.as_bytes()).is_some());
            Ok(Pushed { old: old.map(Into::into) })
        }
        _ => Err(done.error(Reason::SourceUnavailable, shown).with("url", shown)),
    }
}

fn rejected(summary: &str, messages: &str, branch: &str, shown: &str) -> Error {
    let why = crate::url::redact(summary);
    let says = |words: &[&str]| words.iter().any(|w| summary.contains(w));
    let error = |reason, text: String| Error::new(reason, text).with("branch", branch).with("url", shown);
    if says(&["checked out", "refusing to update"])
        || messages.contains("refusing to update checked out branch")
    {
        let text = format!("{shown}: {branch} is checked out there, git refuses to move it: {why}");
        return error(Reason::PromoteConflict, text).next(
            "promote to another branch and merge it there, or check out another branch in the source first",
        );
    }
    if says(&[
        "non-fast-forward",
        "fetch first",
        "stale info",
        "failed to update ref",
        "cannot lock ref",
        "needs force",
    ]) || says(&["incorrect old value", "reference already exists", "already exists"])
    {
        return error(Reason::PromoteConflict, format!("{shown}: {branch} has moved on: {why}"));
    }
    if says(&["unpacker error", "unpack failed"]) {
        return error(Reason::SourceUnavailable, format!("{shown}: {why}; {messages}"));
    }
    error(Reason::PermissionDenied, format!("{shown}: the source declined {branch}: {why}; {messages}"))
        .next("promote to a branch that the source lets you change, or ask its owner")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoProgress;
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
        let error = outcome(&done, "", "b", &url).unwrap_err();
        assert_eq!(error.reason, Reason::TimedOut, "{error:?}");
        assert!(error.metadata().iter().any(|(name, _)| *name == "limit"), "{error:?}");
        assert!(error.next_step().contains("does not answer"), "{error:?}");
    }
}
