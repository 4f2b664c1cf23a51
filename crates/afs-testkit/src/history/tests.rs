//! Histories against the model itself: right, and wrong in every way that a history must notice.

use super::*;
use crate::call::{Attr, RenameHow, SetAttr};
use crate::model::{Body, FileNode};

/// What is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    Nothing,
    ForkShares,
    CheckpointMoves,
    RestoreForgets,
    EvictLosesXattrs,
    RestartLosesLast,
    NumberReused,
    NumberChangesOnRename,
    LinkCount,
    TruncateKeepsBytes,
    WriteEndsShort,
    RenameEmptiesTarget,
    ExchangeReplaces,
    NotEmptyIgnored,
    OtherReason,
    OpenIsIgnored,
    LookupForgetsUnlink,
    CtimeStays,
    SetuidStays,
    OwnerStays,
    PathIgnoresLinks,
    SealForgetsAByte,
}

const BUGS: [Bug; 21] = [
    Bug::ForkShares,
    Bug::CheckpointMoves,
    Bug::RestoreForgets,
    Bug::EvictLosesXattrs,
    Bug::RestartLosesLast,
    Bug::NumberReused,
    Bug::NumberChangesOnRename,
    Bug::LinkCount,
    Bug::TruncateKeepsBytes,
    Bug::WriteEndsShort,
    Bug::RenameEmptiesTarget,
    Bug::ExchangeReplaces,
    Bug::NotEmptyIgnored,
    Bug::OtherReason,
    Bug::OpenIsIgnored,
    Bug::LookupForgetsUnlink,
    Bug::CtimeStays,
    Bug::SetuidStays,
    Bug::OwnerStays,
    Bug::PathIgnoresLinks,
    Bug::SealForgetsAByte,
];

/// The model as a subject; its nodes are its inode numbers.
struct Twin {
    world: World,
    bug: Bug,
    /// Session that sees what another one does.
    shared: Option<(SessionNo, SessionNo)>,
    before_last: Option<(SessionNo, Model)>,
    moved: bool,
}

impl Twin {
    fn new(bug: Bug) -> Self {
        Self { world: World::default(), bug, shared: None, before_last: None, moved: false }
    }

    fn step(&mut self, step: Step) -> Result<()> {
        self.world.apply(&step);
        Ok(())
    }

    /// What the bug makes of an operation before it is carried out.
    fn twisted(&self, session: SessionNo, call: &Call) -> Call {
        let model = &self.world.sessions[&session];
        let mut call = call.clone();
        match (self.bug, &mut call) {
            (Bug::WriteEndsShort, Call::Write { bytes, .. }) if bytes.len() > 5_000 => drop(bytes.pop()),
            (Bug::ExchangeReplaces, Call::Rename { how, .. }) if *how == RenameHow::Exchange => {
                *how = RenameHow::Replace;
            }
            (Bug::OwnerStays, Call::SetAttr { set, .. }) => set.gid = None,
            (Bug::PathIgnoresLinks, Call::Resolve { follow, .. }) => *follow = false,
            (Bug::TruncateKeepsBytes, Call::SetAttr { node, set }) if set.size.is_some() => {
                let old = Call::Read { node: *node, offset: 0, len: usize::MAX };
                if let (Ok(Answer::Bytes(old)), Some(size)) =
                    (model.clone().call(&old, &mut idle(&mut 0)), set.size)
                    && size > old.len() as u64
                {
                    return Call::Append {
                        node: *node,
                        bytes: vec![b'!'; (size - old.len() as u64) as usize],
                    };
                }
            }
            _ => {}
        }
        call
    }

    /// What the bug makes of an answer.
    fn bent(&mut self, call: &Call, answer: Result<Answer, Reason>) -> Result<Answer, Reason> {
        match (self.bug, call, answer) {
            (Bug::LinkCount, Call::Link { .. }, Ok(Answer::Node(node, attr))) => {
                Ok(Answer::Node(node, Attr { nlink: attr.nlink - 1, ..attr }))
            }
            (Bug::NotEmptyIgnored, Call::RemoveDir { .. }, Err(Reason::NotEmpty)) => Ok(Answer::Done),
            (Bug::OtherReason, Call::Unlink { .. }, Err(Reason::IsADirectory)) => Err(Reason::NotPermitted),
            (Bug::LookupForgetsUnlink, Call::Lookup { .. }, Err(Reason::NotFound)) => Err(Reason::Stale),
            (Bug::SetuidStays, Call::Write { .. }, Ok(Answer::Node(node, attr)))
                if attr.mode & 0o111 == 0o111 =>
            {
                Ok(Answer::Node(node, Attr { mode: attr.mode | 0o4000, ..attr }))
            }
            (Bug::CtimeStays, Call::SetXattr { .. }, answer) => {
                self.moved = true;
                answer
            }
            (Bug::CtimeStays, Call::GetAttr { .. }, Ok(Answer::Node(node, attr))) if self.moved => {
                Ok(Answer::Node(node, Attr { ctime_ns: attr.ctime_ns - 1, ..attr }))
            }
            (Bug::NumberChangesOnRename, Call::Rename { .. }, answer) => {
                self.moved |= answer.is_ok();
                answer
            }
            (Bug::NumberChangesOnRename, Call::GetAttr { .. }, Ok(Answer::Node(node, attr)))
                if self.moved && node > 1 =>
            {
                Ok(Answer::Node(node + 1_000_000, attr))
            }
            (_, _, answer) => answer,
        }
    }

    fn after(&mut self, session: SessionNo, call: &Call, good: bool) {
        let Some(model) = self.world.sessions.get_mut(&session) else { return };
        match (self.bug, call) {
            (Bug::OpenIsIgnored, Call::Unlink { .. }) => *model = model.without_opens(),
            (Bug::NumberReused, Call::Unlink { .. }) if good => {
                let used = |node| self.world.sessions.values().any(|m| m.nodes().contains_key(&node));
                if !used(self.world.next_node - 1) {
                    self.world.next_node -= 1;
                }
            }
            (Bug::RenameEmptiesTarget, Call::Rename { to_dir, to_name, .. }) if good => {
                let unlink = Call::Unlink { dir: *to_dir, name: to_name.clone() };
                let _ = model.call(&unlink, &mut idle(&mut self.world.next_node));
            }
            _ => {}
        }
    }
}

fn idle(next_node: &mut Node) -> Context<'_> {
    Context { now_ns: 0, next_node }
}

impl Subject for Twin {
    fn features(&self) -> Features {
        Features { clock: true, paths: true, ranges: true, gitlinks: true }
    }
    fn begin(&mut self, base: &BaseSpec) -> Result<BaseSpec> {
        self.world.next_node = crate::model::ROOT + 1;
        let model = Model::new(base, &mut self.world.next_node);
        self.world.sessions.insert(0, model);
        Ok(base.clone())
    }
    fn set_clock(&mut self, now_ns: i64) {
        self.world.now_ns = now_ns;
    }
    fn call(&mut self, session: SessionNo, call: &Call) -> Result<Answer> {
        if self.bug == Bug::RestartLosesLast {
            self.before_last = Some((session, self.world.sessions[&session].clone()));
        }
        let twisted = self.twisted(session, call);
        let answer = self.world.call(session, &twisted);
        if let Some((from, to)) = self.shared.filter(|(from, _)| *from == session)
            && matches!(call, Call::Write { .. })
        {
            debug_assert_ne!(from, to);
            let _ = self.world.call(to, &twisted);
        }
        self.after(session, call, answer.is_ok());
        self.bent(call, answer).map_err(Error::bare)
    }
    fn fork(&mut self, from: Origin, new: SessionNo) -> Result<()> {
        if let (Bug::ForkShares, Origin::Session(from)) = (self.bug, from) {
            self.shared = Some((from, new));
        }
        self.step(Step::Fork { from, new })
    }
    fn checkpoint(&mut self, session: SessionNo, new: CheckpointNo) -> Result<()> {
        self.step(Step::Checkpoint { session, new })
    }
    fn restore(&mut self, session: SessionNo, checkpoint: CheckpointNo) -> Result<()> {
        match self.bug {
            Bug::RestoreForgets => return Ok(()),
            Bug::CheckpointMoves => {
                self.world.checkpoints.insert(checkpoint, (session, self.world.sessions[&session].clone()));
            }
            _ => {}
        }
        self.step(Step::Restore { session, checkpoint })
    }
    fn delete(&mut self, session: SessionNo) -> Result<()> {
        self.step(Step::Delete { session })
    }
    fn evict(&mut self, session: SessionNo) -> Result<()> {
        if self.bug == Bug::EvictLosesXattrs {
            let model = self.world.sessions.get_mut(&session).unwrap();
            let all: Vec<_> = model.nodes().iter().map(|(node, it)| (*node, it.xattrs.clone())).collect();
            for (node, xattrs) in all {
                for name in xattrs.into_keys() {
                    let _ = model.call(&Call::RemoveXattr { node, name }, &mut idle(&mut 0));
                }
            }
        }
        self.step(Step::Evict { session })
    }
    fn seal(&mut self, session: SessionNo) -> Result<()> {
        if self.bug == Bug::SealForgetsAByte {
            let model = self.world.sessions.get_mut(&session).unwrap();
            let bytes = |it: &FileNode| match &it.body {
                Body::File(bytes) => bytes.len() as u64,
                _ => 0,
            };
            let found = model.nodes().iter().map(|(node, it)| (*node, bytes(it))).find(|(_, size)| *size > 0);
            if let Some((node, size)) = found {
                let set = SetAttr { size: Some(size - 1), ..SetAttr::default() };
                let _ = model.call(&Call::SetAttr { node, set }, &mut idle(&mut 0));
            }
        }
        self.step(Step::Seal { session })
    }
    fn restart(&mut self, crash: bool) -> Result<()> {
        if let Some((session, model)) = self.before_last.take() {
            self.world.sessions.insert(session, model);
        }
        self.step(Step::Restart { crash })
    }
}

#[test]
fn the_model_agrees_with_itself() {
    let mut stats = Stats::default();
    for seed in 0..12 {
        stats.add(&run(seed, 1_500, &mut Twin::new(Bug::Nothing)).unwrap());
    }
    // Everything was tried, with success and without.
    let never_fails = ["Checkpoint", "Delete", "Evict", "Fork", "Release", "Restart", "Restore", "Seal"];
    for (kind, (good, bad)) in &stats.calls {
        assert!(*good > 5, "{kind} succeeded {good} times");
        assert!(*bad > 0 || never_fails.contains(&&kind[..]), "{kind} failed {bad} times");
    }
    assert_eq!(stats.calls.len(), 27 + never_fails.len());
    let reasons = [
        "ALREADY_EXISTS",
        "FILE_TOO_LARGE",
        "INVALID_NAME",
        "IS_A_DIRECTORY",
        "MESSAGE_TOO_LARGE",
        "MOVE_INTO_SELF",
        "NAME_TOO_LONG",
        "NOT_A_DIRECTORY",
        "NOT_EMPTY",
        "NOT_FOUND",
        "NOT_PERMITTED",
        "NO_ATTRIBUTE",
        "NO_SPACE",
        "STALE",
        "TOO_MANY_SYMLINKS",
        "WRONG_TYPE",
    ];
    assert_eq!(stats.reasons.keys().copied().collect::<Vec<_>>(), reasons);
}

#[test]
fn the_same_seed_is_the_same_history() {
    let twice = [0, 1].map(|_| run(77, 800, &mut Twin::new(Bug::Nothing)).unwrap());
    assert_eq!(twice[0], twice[1]);
}

#[test]
fn every_bug_is_found() {
    for bug in BUGS {
        let found = (0..20).find_map(|seed| run(seed, 1_500, &mut Twin::new(bug)).err());
        let found = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
        let again = run(found.seed, found.step + 1, &mut Twin::new(bug)).unwrap_err();
        assert_eq!(found.what, again.what, "{bug:?}");
    }
}
