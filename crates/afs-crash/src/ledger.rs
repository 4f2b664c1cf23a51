//! What was acknowledged, and every instant that a session has been at.

use crate::digest::{Digest, digest};
use crate::node::Node;
use afs_session::{ListSessions, NewFile};
use afs_types::{CheckpointId, CommitId, ROOT_INO, Reason, Result, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// An acknowledgement that a crash must not undo.
#[derive(Clone, Debug)]
pub enum Ack {
    /// The session exists.
    Session(SessionId),
    /// Everything of the session up to this sequence number is durable.
    Durable(SessionId, u64),
    /// The checkpoint exists, of the session at this sequence number.
    Checkpoint(SessionId, CheckpointId, u64),
    /// The commit exists, of the session at this sequence number, and so does the git commit of this name with all of its tree.
    Commit(SessionId, CommitId, u64, String),
}

/// What a workload did, for checking after a crash.
#[derive(Clone, Default)]
pub struct Ledger {
    /// Every instant that a session has been at, by its sequence number.
    instants: BTreeMap<SessionId, BTreeMap<u64, Digest>>,
    /// In the order in which they came; the number of one is its place, from 1.
    acks: Vec<Ack>,
}

impl Ledger {
    /// A session is now at `seq`.
    pub fn at(&mut self, session: &SessionId, seq: u64, digest: Digest) {
        self.instants.entry(session.clone()).or_default().insert(seq, digest);
    }

    /// Something was acknowledged as durable; returns its number.
    pub fn acknowledged(&mut self, ack: Ack) -> u64 {
        self.acks.push(ack);
        self.acks.len() as u64
    }

    /// What a checkpoint of the session at `seq` must show.
    fn instant(&self, session: &SessionId, seq: u64) -> Option<&Digest> {
        self.instants.get(session)?.get(&seq)
    }

    /// Everything that is wrong with a node on which the acknowledgements in `numbers` had been seen before the crash.
    ///
    /// # Errors
    /// When the node cannot be asked at all; whatever a question about one session fails with is a finding.
    pub fn check(&self, node: &Node, numbers: &[u64]) -> Result<Vec<String>> {
        let mut findings = Vec::new();
        let mut must_reach: BTreeMap<&SessionId, u64> = BTreeMap::new();
        let mut oids = Vec::new();
        for ack in numbers.iter().filter_map(|number| self.acks.get(*number as usize - 1)) {
            match ack {
                Ack::Session(id) => drop(must_reach.entry(id).or_default()),
                Ack::Durable(id, seq) => {
                    let reach = must_reach.entry(id).or_default();
                    *reach = (*reach).max(*seq);
                }
                Ack::Checkpoint(id, checkpoint, seq) => {
                    must_reach.entry(id).or_default();
                    self.check_named(node, id, checkpoint.as_str(), *seq, &mut findings);
                }
                Ack::Commit(id, commit, seq, oid) => {
                    must_reach.entry(id).or_default();
                    self.check_named(node, id, commit.as_str(), *seq, &mut findings);
                    oids.push(oid.as_str());
                }
            }
        }
        findings.extend(node.missing_git_objects(&oids)?);
        for (id, seq) in &must_reach {
            self.check_session(node, id, *seq, &mut findings);
        }
        // Sessions whose acknowledgement never arrived may be there; then they are whole as well.
        let known: BTreeSet<&SessionId> = must_reach.keys().copied().collect();
        let query = ListSessions { page_size: 1_000, ..ListSessions::default() };
        for session in node.engine.list_sessions(&query)?.items {
            if !known.contains(&session.id) && self.instants.contains_key(&session.id) {
                self.check_session(node, &session.id, 0, &mut findings);
            }
        }
        Ok(findings)
    }

    fn check_session(&self, node: &Node, id: &SessionId, must_reach: u64, findings: &mut Vec<String>) {
        let resumed = match node.engine.session(id) {
            // The crash came between archiving and resuming it.
            Err(error) if error.reason == Reason::SessionArchived => node.engine.resume_session(id).map(drop),
            _ => Ok(()),
        };
        let shown = resumed.and_then(|()| node.engine.session(id)).and_then(|session| {
            let (tree, stamp) = session.snapshot();
            Ok((session, stamp.seq, digest(&tree, &node.blobs)?))
        });
        let (session, seq, digest) = match shown {
            Ok(shown) => shown,
            Err(error) => return findings.push(format!("{id}: {error}")),
        };
        if seq < must_reach {
            findings.push(format!("{id}: is at {seq}, but {must_reach} was acknowledged as durable"));
        }
        match self.instant(id, seq) {
            None => findings.push(format!("{id}: is at {seq}, where it has never been")),
            Some(was) if *was != digest => {
                findings.push(format!("{id}: differs at {seq}\nwas\n{}is\n{}", was.listing, digest.listing));
            }
            Some(_) => {}
        }
        let new = NewFile { mode: 0o644, uid: 0, gid: 0, rdev: 0 };
        let goes_on = session.create(ROOT_INO, b"after the crash", new, 0, 0).and_then(|_| session.fsync());
        if let Err(error) = goes_on {
            findings.push(format!("{id}: takes no writes after the crash: {error}"));
        }
    }

    /// What a checkpoint or commit shows.
    fn check_named(
        &self,
        node: &Node,
        session: &SessionId,
        name: &str,
        seq: u64,
        findings: &mut Vec<String>,
    ) {
        let tree = node.engine.tree_named(session, "base", name);
        match tree.and_then(|(_, tree)| digest(&tree, &node.blobs)) {
            Err(error) => findings.push(format!("{name} of {session}: {error}")),
            Ok(digest) => match self.instant(session, seq) {
                Some(was) if *was == digest => {}
                was => {
                    let was = was.map_or("nothing", |was| &was.listing);
                    findings.push(format!(
                        "{name} of {session} at {seq} differs\nwas\n{was}is\n{}",
                        digest.listing
                    ));
                }
            },
        }
    }
}
