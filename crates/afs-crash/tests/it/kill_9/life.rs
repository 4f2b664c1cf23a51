//! The client of sessions rather than files: checkpoints, restores and commits of a session of its own, forks and checkpoints of the session that
//! everybody works in, archive, resume and delete of forks. Each in the middle of everybody's load.

use super::area::{Area, Shown, Step};
use super::chance::Chance;
use super::ledger::{Ending, Fit, Ledger, holes};
use super::observe::{Areas, observe};
use super::worker::{Load, RETRIES, RETRY_AFTER, Worker};
use crate::programs::pause;
use afs_client::{Client, api};
use afs_types::{Error, Reason};
use std::collections::BTreeMap;
use tokio::runtime::Handle;

/// Forks kept; the oldest beyond it are deleted.
const FORKS: usize = 8;
/// Checkpoints of the own session that restores choose from.
const CHOICES: usize = 6;

/// Something other than a change of files.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Want {
    Checkpoint,
    Commit,
    /// So many forks of the shared session, or, with 0, a checkpoint of it.
    Cut(u32),
    Archive(String),
    Resume(String),
    Delete(String),
}

/// A fork or checkpoint of the shared session.
struct Snapshot {
    id: String,
    is_fork: bool,
    began: u64,
    answered: u64,
    /// Made again after a crash, so it may be of the state that the crash left.
    is_retry: bool,
    /// What it showed when it was first checked; it never changes.
    areas: Option<Areas>,
}

pub(super) struct Life {
    pub(super) worker: Worker,
    client: Client,
    runtime: Handle,
    shared: String,
    chance: Chance,
    number: u64,
    pending: Option<(Want, String, u64)>,
    /// Instants of the own session that have names, with what they show.
    kept: Vec<(String, Area)>,
    commits: Vec<(String, Area)>,
    snapshots: Vec<Snapshot>,
    gone: Vec<String>,
    pub(super) counts: BTreeMap<&'static str, u32>,
}

impl Life {
    pub(super) fn new(worker: Worker, client: Client, runtime: Handle, shared: &str, chance: Chance) -> Self {
        Self {
            worker,
            client,
            runtime,
            shared: shared.to_owned(),
            chance,
            number: 0,
            pending: None,
            kept: Vec::new(),
            commits: Vec::new(),
            snapshots: Vec::new(),
            gone: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    pub(super) fn last_commit(&self) -> Option<&str> {
        self.commits.last().map(|(id, _)| id.as_str())
    }

    pub(super) fn run(&mut self, load: &Load) {
        while !load.is_over() && self.step(load) {}
    }

    fn step(&mut self, load: &Load) -> bool {
        let forks: Vec<String> = self.snapshots.iter().filter(|s| s.is_fork).map(|s| s.id.clone()).collect();
        let want = match self.chance.below(14) {
            0 => Want::Checkpoint,
            1 => Want::Commit,
            2 => Want::Cut(1 + self.chance.below(3) as u32),
            3 => Want::Cut(0),
            4 if !self.kept.is_empty() => return self.restore(load),
            5 if !forks.is_empty() => Want::Archive(forks[self.chance.below(forks.len())].clone()),
            6 if forks.len() > FORKS => Want::Delete(forks[0].clone()),
            _ => return self.worker.step(load),
        };
        match self.carry_out(load, want) {
            Some(Want::Archive(id)) => self.carry_out(load, Want::Resume(id)).is_some(),
            other => other.is_some(),
        }
    }

    fn restore(&mut self, load: &Load) -> bool {
        let recent = &self.kept[self.kept.len().saturating_sub(CHOICES)..];
        let (checkpoint, area) = recent[self.chance.below(recent.len())].clone();
        let done = self.worker.perform(load, Step::Restore { checkpoint, area: Box::new(area) });
        *self.counts.entry("restores").or_default() += u32::from(done);
        done
    }

    fn carry_out(&mut self, load: &Load, want: Want) -> Option<Want> {
        self.number += 1;
        let key = format!("life-{}", self.number);
        let began = load.instants.now();
        self.pending = Some((want.clone(), key.clone(), began));
        let mut outcome = self.perform(&want, &key);
        for _ in 0..RETRIES {
            let is_gone = |error: &Error| matches!(error.reason, Reason::Unavailable | Reason::TimedOut);
            if load.is_killed() || !outcome.as_ref().is_err_and(is_gone) {
                break;
            }
            pause(RETRY_AFTER);
            outcome = self.again(&want, &key);
        }
        match outcome {
            Ok(ids) => {
                self.pending = None;
                load.count_acknowledged();
                // The client library tries again by itself: then the answer may be the next server's, about a state after the crash.
                let is_retry = load.is_killed();
                let answered = if is_retry { u64::MAX } else { load.instants.now() };
                self.settle(&want, ids, (began, answered), is_retry);
                if matches!(want, Want::Cut(_)) && !is_retry {
                    load.cuts.lock().push(began);
                }
                Some(want)
            }
            Err(_) if load.is_killed() => None,
            Err(error) => {
                load.found(format!("{want:?} failed while the server ran: {error}"));
                None
            }
        }
    }

    fn perform(&self, want: &Want, key: &str) -> Result<Vec<String>, Error> {
        let (client, session_id, request_id) = (&self.client, self.worker.session.clone(), key.to_owned());
        let shared = self.shared.clone();
        self.runtime.block_on(async {
            Ok(match want {
                Want::Checkpoint => {
                    let want = api::CreateCheckpointRequest { session_id, request_id, ..Default::default() };
                    vec![client.create_checkpoint(want).await?.checkpoint_id]
                }
                Want::Cut(0) => {
                    let session_id = shared;
                    let want = api::CreateCheckpointRequest { session_id, request_id, ..Default::default() };
                    vec![client.create_checkpoint(want).await?.checkpoint_id]
                }
                Want::Commit => {
                    let message = format!("commit {key}");
                    let allow_empty = true;
                    let want = api::CreateCommitRequest {
                        session_id,
                        message,
                        allow_empty,
                        request_id,
                        ..Default::default()
                    };
                    vec![client.create_commit(want).await?.commit_id]
                }
                Want::Cut(count) => {
                    let labels = [("by".to_owned(), key.to_owned())].into();
                    let want = api::ForkSessionRequest {
                        session_id: shared,
                        count: *count,
                        labels,
                        request_id,
                        ..Default::default()
                    };
                    let forked = client.fork_session(want).await?;
                    forked.sessions.into_iter().map(|session| session.session_id).collect()
                }
                Want::Archive(id) => {
                    client.archive_session(api::ArchiveSessionRequest { session_id: id.clone() }).await?;
                    Vec::new()
                }
                Want::Resume(id) => {
                    client.resume_session(api::ResumeSessionRequest { session_id: id.clone() }).await?;
                    Vec::new()
                }
                Want::Delete(id) => {
                    let want = api::DeleteSessionRequest { session_id: id.clone(), ..Default::default() };
                    client.delete_session(want).await?;
                    Vec::new()
                }
            })
        })
    }

    /// The same once more. What was deleted the first time is not there any more.
    fn again(&self, want: &Want, key: &str) -> Result<Vec<String>, Error> {
        match (self.perform(want, key), want) {
            (Err(error), Want::Delete(_)) if error.reason == Reason::SessionNotFound => Ok(Vec::new()),
            (outcome, _) => outcome,
        }
    }

    /// Writes down what was acknowledged.
    fn settle(&mut self, want: &Want, ids: Vec<String>, (began, answered): (u64, u64), is_retry: bool) {
        let area = self.worker.ledger.area().clone();
        let what = match want {
            Want::Checkpoint => {
                self.kept.extend(ids.into_iter().map(|id| (id, area.clone())));
                "checkpoints"
            }
            Want::Commit => {
                self.commits.extend(ids.into_iter().map(|id| (id, area.clone())));
                "commits"
            }
            Want::Cut(count) => {
                let is_fork = *count > 0;
                let snapshot = |id| Snapshot { id, is_fork, began, answered, is_retry, areas: None };
                self.snapshots.extend(ids.into_iter().map(snapshot));
                if is_fork { "forks" } else { "checkpoints of the shared session" }
            }
            Want::Archive(_) | Want::Resume(_) => "archived or resumed",
            Want::Delete(id) => {
                self.snapshots.retain(|snapshot| snapshot.id != *id);
                self.gone.push(id.clone());
                "deletes"
            }
        };
        *self.counts.entry(what).or_default() += 1;
    }

    /// Does again what was under way when the server died. Nothing may happen twice.
    pub(super) fn retry(&mut self, load: &Load) -> Vec<String> {
        let Some((want, key, began)) = self.pending.take() else { return Vec::new() };
        let ids = match self.again(&want, &key) {
            Ok(ids) => ids,
            Err(error) => return vec![format!("{want:?} fails when it is done again: {error}")],
        };
        load.count_acknowledged();
        let mut findings = Vec::new();
        if let Want::Cut(count @ 1..) = &want {
            let filter = format!("label.by={key}");
            let query = api::ListSessionsRequest { filter, ..Default::default() };
            match self.runtime.block_on(self.client.list_sessions(query)) {
                Ok(page) if page.sessions.len() == *count as usize && ids.len() == *count as usize => {}
                other => findings.push(format!("{want:?} done again gave {ids:?}, and there are {other:?}")),
            }
        }
        self.settle(&want, ids, (began, u64::MAX), true);
        if let Want::Archive(id) = want
            && let Err(error) = self.perform(&Want::Resume(id.clone()), "")
        {
            findings.push(format!("{id} does not come back from the archive: {error}"));
        }
        findings
    }

    /// Everything that is wrong with what was acknowledged. `all`: also what was checked before.
    pub(super) fn check(&mut self, load: &Load, shared: &[&Worker], all: bool) -> Vec<String> {
        let mut findings = Vec::new();
        let (client, runtime) = (self.client.clone(), self.runtime.clone());
        let look = |session: &str, at: &str| runtime.block_on(observe(&client, session, at));
        let newest = if all { usize::MAX } else { 2 };
        for (id, area) in self.kept.iter().rev().take(newest).chain(self.commits.iter().rev().take(newest)) {
            match look(&self.worker.session, id) {
                Ok(areas) if areas.get(&self.worker.area) == Some(&area.shown()) => {}
                Ok(areas) => {
                    let shown = areas.get(&self.worker.area).cloned().unwrap_or_default();
                    findings.push(format!("{id} has changed:{}", shown.differences(&area.shown())));
                }
                Err(error) => findings.push(format!("{id} cannot be read: {error}")),
            }
        }
        for snapshot in self.snapshots.iter_mut().filter(|s| all || s.areas.is_none()) {
            let (session, at) = match snapshot.is_fork {
                true => (snapshot.id.as_str(), ""),
                false => (self.shared.as_str(), snapshot.id.as_str()),
            };
            let areas = match look(session, at) {
                Ok(areas) => areas,
                Err(error) => {
                    findings.push(format!("{} cannot be read: {error}", snapshot.id));
                    continue;
                }
            };
            match &snapshot.areas {
                Some(before) if *before == areas => {}
                Some(before) => findings.push(changed(&snapshot.id, before, &areas)),
                None => findings.extend(wrong_cut(snapshot, shared, &areas)),
            }
            snapshot.areas = Some(areas);
        }
        for id in self.gone.iter().rev().take(newest) {
            let want = api::GetSessionRequest { session_id: id.clone() };
            match runtime.block_on(client.get_session(want)) {
                Err(error) if error.reason == Reason::SessionNotFound => {}
                other => findings.push(format!("{id} was deleted, and is {other:?}")),
            }
        }
        load.count_acknowledged();
        findings
    }
}

fn changed(id: &str, before: &Areas, now: &Areas) -> String {
    let differences: String = before
        .iter()
        .map(|(area, shown)| now.get(area).unwrap_or(&Shown::default()).differences(shown))
        .collect();
    format!("{id} has changed:{differences}")
}

/// What is wrong with a fork or checkpoint as an instant of the session that everybody worked in. One that was asked for again may be of the
/// next server's: then it is of what the crash left, before or after a remote mount has done again what was under way.
fn wrong_cut(snapshot: &Snapshot, shared: &[&Worker], areas: &Areas) -> Vec<String> {
    let in_load = wrong_instant(snapshot, shared, areas, &|ledger, shown| {
        ledger.fit_cut(shown, snapshot.began, snapshot.answered)
    });
    if in_load.is_empty() || !snapshot.is_retry {
        return in_load;
    }
    wrong_instant(snapshot, shared, areas, &|ledger, shown| {
        ledger.fit(shown, Ending::Unknown).map(|(fit, _)| fit)
    })
}

fn wrong_instant(
    snapshot: &Snapshot,
    shared: &[&Worker],
    areas: &Areas,
    fit: &dyn Fn(&Ledger, &Shown) -> Result<Fit, String>,
) -> Vec<String> {
    let (mut findings, mut fits) = (Vec::new(), Vec::new());
    for worker in shared {
        let shown = areas.get(&worker.area).cloned().unwrap_or_default();
        match fit(&worker.ledger, &shown) {
            Ok(fit) => fits.push((worker.area.as_str(), &worker.ledger, fit)),
            Err(wrong) => {
                findings.push(format!("{} is no instant for {}: {wrong}", snapshot.id, worker.area))
            }
        }
    }
    findings.extend(holes(&fits).into_iter().map(|hole| format!("{} has a hole: {hole}", snapshot.id)));
    findings
}
