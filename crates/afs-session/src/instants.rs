//! "What changed since the instant called X?": instants are named when somebody asks, and remembered as trees, which costs two
//! pointers and what is changed afterwards.
//!
//! Guarantees: every path whose `stat` or content differs from what the asker could see at that instant is in the answer
//! ([`afs_core::touched`]), whatever happened in between: changes by any surface, restores, forks (a fork knows the instants
//! of its parent). An instant that is not known, because it is old, of another base or from before a restart, is answered
//! with "everything", never with a guess. Bounded by `limits::MAX_INSTANTS`.
//!
//! The base itself is an instant with a name that lasts ([`afs_core::base::BaseTable::mark`]), so a fresh session is answered at
//! once, also after a restart. Deliberately absent: other instants that outlive a restart.

use crate::engine::Engine;
use crate::session::Session;
use afs_core::base::BaseTable;
use afs_core::touched::touched;
use afs_core::tree::Tree;
use afs_types::limits::{MAX_INSTANT_BYTES, MAX_INSTANTS, MAX_SESSION_INSTANTS, MAX_TOUCHED_PATHS};
use afs_types::{Result, Rng, SessionId, SessionPath};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// The name of the present instant, for the next question.
    pub instant: String,
    /// What may have changed; none means everything.
    pub paths: Option<Vec<SessionPath>>,
}

/// Instants by name.
pub(crate) struct Instants {
    /// Tells this start of the server from others.
    start: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Grows with every question, to find what was asked for least recently.
    clock: u64,
    known: HashMap<u64, Instant>,
    by_use: BTreeMap<u64, u64>,
    by_session: HashMap<SessionId, Vec<u64>>,
}

struct Instant {
    tree: Tree,
    session: SessionId,
    used: u64,
}

impl Instants {
    pub(crate) fn new(rng: &dyn Rng) -> Self {
        let mut bytes = [0; 8];
        rng.fill(&mut bytes);
        Self { start: format!("{:016x}", u64::from_le_bytes(bytes)), state: Mutex::default() }
    }

    /// Forgets all of them: to whoever asks then, everything has changed.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock();
        let State { next, clock, .. } = *state;
        let gone = std::mem::replace(&mut *state, State { next, clock, ..State::default() });
        drop(state);
        // Outside of the lock: trees can be large.
        drop(gone);
    }

    /// The tree of an instant; none when it is not known.
    fn tree(&self, base: &Arc<BaseTable>, name: &str) -> Option<Tree> {
        let (kind, rest) = name.split_once('-')?;
        if kind == "base" {
            return (rest == base.mark()).then(|| Tree::new(base.clone()));
        }
        let (start, number) = rest.split_once('-')?;
        if kind != "at" || start != self.start {
            return None;
        }
        let number = number.parse().ok()?;
        let mut state = self.state.lock();
        let tree = state.known.get(&number).map(|i| i.tree.clone())?;
        state.touch(number);
        Arc::ptr_eq(tree.base(), base).then_some(tree)
    }

    /// A name for a tree; the same one as before when nothing changed since.
    fn name(&self, session: &SessionId, tree: &Tree) -> String {
        if tree.overlay_len() == 0 {
            return base_instant(tree.base());
        }
        let mut state = self.state.lock();
        let number = state.number(session, tree);
        format!("at-{}-{number}", self.start)
    }
}

impl State {
    fn number(&mut self, session: &SessionId, tree: &Tree) -> u64 {
        let mine = self.by_session.get(session).into_iter().flatten();
        if let Some(number) = mine.copied().find(|n| self.known.get(n).is_some_and(|i| i.tree.same_as(tree)))
        {
            self.touch(number);
            return number;
        }
        let number = self.next;
        self.next += 1;
        self.clock += 1;
        let instant = Instant { tree: tree.clone(), session: session.clone(), used: self.clock };
        self.by_use.insert(self.clock, number);
        self.known.insert(number, instant);
        self.by_session.entry(session.clone()).or_default().push(number);
        self.make_room(session);
        number
    }

    fn touch(&mut self, number: u64) {
        let Some(instant) = self.known.get_mut(&number) else { return };
        self.clock += 1;
        self.by_use.remove(&instant.used);
        instant.used = self.clock;
        self.by_use.insert(self.clock, number);
    }

    fn make_room(&mut self, session: &SessionId) {
        let mine = self.by_session.get(session).into_iter().flatten();
        let oldest = mine.clone().min_by_key(|n| self.known.get(*n).map_or(0, |i| i.used)).copied();
        if mine.count() > MAX_SESSION_INSTANTS
            && let Some(number) = oldest
        {
            self.forget(number);
        }
        while self.known.len() > MAX_INSTANTS
            && let Some(number) = self.by_use.first_key_value().map(|(_, number)| *number)
        {
            self.forget(number);
        }
    }

    fn forget(&mut self, number: u64) {
        let Some(instant) = self.known.remove(&number) else { return };
        self.by_use.remove(&instant.used);
        if let Some(mine) = self.by_session.get_mut(&instant.session) {
            mine.retain(|n| *n != number);
            if mine.is_empty() {
                self.by_session.remove(&instant.session);
            }
        }
    }
}

/// The name of the base itself as an instant.
fn base_instant(base: &BaseTable) -> String {
    format!("base-{}", base.mark())
}

impl Engine {
    /// What changed in a session since an instant that an earlier answer, or the base's own git index, names.
    pub fn changed_since(&self, session: &Session, instant: &str) -> Result<Since> {
        let now = session.tree();
        // Asked for first, so that giving a name cannot push out the very instant that is asked about.
        let old =
            if instant.len() > MAX_INSTANT_BYTES { None } else { self.instants.tree(now.base(), instant) };
        let name = self.instants.name(session.id(), &now);
        // Outside of every lock: it may have much to compare.
        let paths = old.and_then(|old| touched(&old, &now, MAX_TOUCHED_PATHS));
        Ok(Since { instant: name, paths: paths.map(|found| found.into_iter().collect()) })
    }
}
